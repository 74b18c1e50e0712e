"""A name for the files of a folder that no DVC watches over."""

import hashlib
from pathlib import Path

from cl.errors import DataError


def digest(folder: Path) -> str:
    """32 hex digits of every file's relative path and bytes, hidden and unfinished files left out.

    Raises:
        DataError: a file cannot be read.
    """
    state = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    for path in files:
        state.update(f"{path.relative_to(folder).as_posix()}\0".encode())
        try:
            with path.open("rb") as file:
                state.update(hashlib.file_digest(file, "sha256").digest())
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    return state.hexdigest()[:32]


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".part"
