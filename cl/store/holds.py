"""Which files hold an image, byte for byte: tables, archives, and what a learned state keeps of images to rehearse with."""

import hashlib
import stat
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from torch import Tensor

from cl.data.table import fingerprint
from cl.disk.files import write_json
from cl.disk.seal import sealed, sha256
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.methods.buffer import Exemplars, packed, unpacked
from cl.methods.closed_form.keys import without
from cl.store.store import NOTE, WEIGHTS, State, read_state

Wanted = Callable[[bytes], bool]  # of an image's fingerprint
_CHUNK = 1 << 20  # bytes


def holds(path: Path, wanted: Wanted) -> bool:
    """Whether a plain file is such an image, or a Parquet file, safetensors, zip or tar with one in it; a link is none.

    What cannot be read holds nothing that anybody can read out of it.
    """
    try:
        if not stat.S_ISREG(path.lstat().st_mode):
            return False
        with path.open("rb") as file:
            head = file.read(8)
        if head[:4] == b"PAR1":
            return any(map(wanted, _in_parquet(path)))
        if path.suffix == ".safetensors":
            return any(map(wanted, _in_tensors(read_tensors(path))))
        if wanted(_digest(path.open("rb"))):
            return True
        return any(map(wanted, _in_archive(path)))
    except (OSError, StoreError, pa.ArrowException, tarfile.TarError, zipfile.BadZipFile, RuntimeError, EOFError):
        return False


def forget(folder: Path, wanted: Wanted) -> int:
    """Take such images out of the memory of a learned state, and vectors made of them; its weights stay. Returns how many rows went.

    The note first says what the weights' hash is going to be, so that a state is whole at every moment: killed meanwhile, the same
    again ends it. Which rows a reservoir takes from now on is what it would be with those places free.

    Raises:
        StoreError: the state is not there, or cannot be written.
    """
    noted, file = read_state(folder), folder / WEIGHTS
    if noted.pruned and not file.exists():
        return 0
    tensors = read_tensors(file)
    fresh, gone = _without(tensors, wanted)
    if gone:
        part = folder / f".{WEIGHTS}.part"
        try:
            becomes = write_tensors(fresh, part)
            _note(folder, replace(noted, becomes=becomes))
            part.replace(file)
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written ({error.strerror}); free space or make it writable") from error
        noted = replace(noted, becomes=becomes, withdrawn=noted.withdrawn + gone)
    if noted.becomes:  # now, or by who was killed then
        whole = sha256(file)
        _note(folder, replace(noted, sha256=whole if whole == noted.becomes else noted.sha256, becomes=""))
    return gone


def _note(folder: Path, state: State) -> None:
    write_json(sealed(asdict(state)), folder / NOTE)


def _without(tensors: dict[str, Tensor], wanted: Wanted) -> tuple[dict[str, Tensor], int]:
    fresh, gone = without(tensors, wanted)
    for name, tensor in tensors.items():
        if name.endswith(".marks") and tensor.dtype == torch.uint8 and tensor.shape[1:] == (32,):
            rows = torch.tensor([row for row, mark in enumerate(tensor) if wanted(bytes(mark.tolist()))], dtype=torch.int64)
            # what a part keeps of images lies in tensors beside their fingerprints, a row for each
            beside = [other for other, each in fresh.items() if _home(other) == _home(name) and each.shape[:1] == tensor.shape[:1]]
            fresh |= {other: fresh[other].index_fill(0, rows, 0) for other in beside}
            gone += len(rows)
        kept = _exemplars(tensor)
        if kept is None:
            continue
        stay = [row for row, each in enumerate(kept.rows.prints) if not wanted(each)]
        if len(stay) < len(kept.rows):
            gone += len(kept.rows) - len(stay)
            fresh[name] = packed(kept.take(stay))
    return fresh, gone


def _home(name: str) -> str:
    return name.rpartition(".")[0]


def _exemplars(tensor: Tensor) -> Exemplars | None:
    """The exemplars that a tensor is, if it is some."""
    if tensor.dtype != torch.uint8 or tensor.dim() != 1:
        return None
    try:
        return unpacked(tensor)
    except (pa.ArrowException, KeyError, ValueError, OSError):
        return None


def _in_tensors(tensors: dict[str, Tensor]) -> Iterator[bytes]:
    for tensor in tensors.values():
        kept = _exemplars(tensor)
        yield from kept.rows.prints if kept else ()


def _in_parquet(path: Path) -> Iterator[bytes]:
    file = pq.ParquetFile(path)
    for column in (field.name for field in file.schema_arrow if pa.types.is_binary(field.type) or pa.types.is_large_binary(field.type)):
        for batch in file.iter_batches(256, columns=[column]):
            yield from (fingerprint(cell.as_py()) for cell in batch.column(0) if cell.is_valid)


def _in_archive(path: Path) -> Iterator[bytes]:
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            for each in archive.infolist():
                if not each.is_dir():
                    yield _digest(archive.open(each))
    elif tarfile.is_tarfile(path):
        with tarfile.open(path) as tar:
            for member in tar:
                if member.isfile() and (inside := tar.extractfile(member)):
                    yield _digest(inside)


def _digest(file: IO[bytes]) -> bytes:
    """The fingerprint of all that a file holds; it is closed."""
    with file:
        state = hashlib.sha256()
        while data := file.read(_CHUNK):
            state.update(data)
    return state.digest()


def images_in(path: Path) -> list[bytes]:
    """The fingerprints of all images in a Parquet file or in safetensors.

    Raises:
        StoreError: it cannot be read.
    """
    try:
        return list(_in_tensors(read_tensors(path)) if path.suffix == ".safetensors" else _in_parquet(path))
    except (pa.ArrowException, OSError) as error:
        raise StoreError(f"{path}: cannot be read ({error})") from error
