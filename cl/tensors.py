"""Weights and whatever else is tensors, written as safetensors."""

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import Tensor

from cl.durable import shared


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
