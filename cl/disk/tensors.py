"""Weights and whatever else is tensors, as safetensors: written whole or not at all, and read with a word on what is wrong."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import Tensor

from cl.disk.durable import beside, shared
from cl.disk.seal import sha256
from cl.errors import StoreError


def save_tensors(tensors: Mapping[str, Tensor], path: Path, metadata: dict[str, str] | None = None) -> None:
    """Write safetensors where those may read them who may read the folder.

    Raises:
        OSError: the disk does not take them, which safetensors calls by a name of its own.
    """
    try:
        save_file(dict(tensors), path, metadata=metadata)
    except SafetensorError as error:
        raise _as_the_system_says(error, tensors, path) from error
    shared(path)


def _as_the_system_says(error: SafetensorError, tensors: Mapping[str, Tensor], path: Path) -> OSError:
    room = shutil.disk_usage(path.parent).free + (path.stat().st_size if path.exists() else 0)
    full = room < sum(tensor.nbytes for tensor in tensors.values())
    return OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(path)) if full else OSError(errno.EIO, str(error), str(path))


def write_tensors(tensors: Mapping[str, Tensor], path: Path) -> str:
    """Write safetensors whole or not at all; returns the SHA-256 of the file.

    Raises:
        OSError: the place cannot be written.
    """
    with beside(path) as part:
        save_tensors(tensors, part)
        return sha256(part)


def read_tensors(path: Path) -> dict[str, Tensor]:
    """Read safetensors.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        return dict(load_file(path))
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path}: not there or not a safetensors file ({error})") from error


def tensor_names(path: Path) -> frozenset[str]:
    """The names in a safetensors file, without reading a tensor.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        with safe_open(path, "pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError) as error:
        raise StoreError(f"{path}: not there or not a safetensors file ({error})") from error
