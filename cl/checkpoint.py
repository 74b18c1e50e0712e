"""A method's whole memory on disk: safetensors and JSON, written beside and renamed, checked on the way back in."""

import functools
import hashlib
import json
import shutil
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from cl.durable import beside, land
from cl.errors import StoreError
from cl.methods.base import Method
from cl.seal import sha256
from cl.tensors import save_tensors
from cl.told import some

CLIP = "clip."  # what the names of a method's tensors begin with where they are the model's own


def left_out(method: Method) -> frozenset[str]:
    """Names of the clip's weights that the method never trains: they are what they were before it."""
    trained = {id(parameter) for parameter in method.trainable()}
    return frozenset(name for name, parameter in method.named_parameters() if name.startswith(CLIP) and id(parameter) not in trained)


def memory(method: Method) -> dict[str, Tensor]:
    """What outlives a session: all of `state_dict()` but the clip's weights that the method never trains."""
    frozen = left_out(method)
    return {name: tensor.detach().cpu().contiguous() for name, tensor in method.state_dict().items() if name not in frozen}


def put(method: Method, weights: Mapping[str, Tensor], source: str) -> None:
    """Put weights of the clip into a freshly built method, whether it trains them or not.

    Raises:
        StoreError: the weights belong to another model.
    """
    odd = sorted(set(weights) - {f"{CLIP}{name}" for name in method.clip.state_dict()})
    if odd:
        raise StoreError(f"{source}: {len(odd)} weights are none of this model's ({some(odd)}); they were learned with another model")
    _load(method, weights, source)


def restore(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    """Put a memory back into a freshly built method.

    Raises:
        StoreError: the tensors belong to another method or model.
    """
    expected = memory(method)
    odd = sorted(set(expected) ^ set(tensors))
    if odd:
        raise StoreError(f"{source}: {len(odd)} tensors do not fit the method ({some(odd)}); it was written by another method or model")
    _load(method, tensors, source)


def _load(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    try:
        method.load_state_dict(dict(tensors), strict=False)
    except RuntimeError as error:
        raise StoreError(f"{source}: shapes do not fit the model ({str(error).splitlines()[-1].strip()})") from error


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


def write_json(value: Any, path: Path, indent: int | None = 1) -> None:
    """Write JSON whole or not at all.

    Raises:
        OSError: the place cannot be written.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=True)
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


@functools.cache
def code_version() -> str:
    """16 hex digits over the sources of `cl`: other code is another result, whether committed or not."""
    state = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()[:16]


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not there or not JSON ({error})") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when the block ends well and vanishes when it does not.

    Raises:
        StoreError: the place cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():  # damaged, or finished meanwhile by another process: what is written now is whole
            shutil.rmtree(folder)
        land(part, folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror or error}); free space or make it writable") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
