"""A name for the files of a folder that no DVC watches over; a file that has not changed since is not read again."""

import hashlib
import os
from contextlib import suppress
from pathlib import Path

from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.disk.unchanged import lasting, noted
from cl.errors import DataError, StoreError


def digest(folder: Path, kept: Path | None = None) -> str:
    """32 hex digits of every file's relative path and bytes, hidden and unfinished files left out.

    `kept`: a file that remembers the hash of each file by its size, inode and the time of its last change.

    Raises:
        DataError: a file cannot be read.
    """
    known, now = _known(kept), dict[str, list[object]]()
    state = hashlib.sha256()
    files = sorted(path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder)))
    for path in files:
        name = path.relative_to(folder).as_posix()
        try:
            seen = path.stat()
            noted_before = known.get(name, [None])
            hashed = str(noted_before[-1]) if noted_before[:-1] == noted(seen) else sha256(path)
        except OSError as error:
            raise DataError(f"{path}: cannot be read ({error.strerror})") from error
        state.update(f"{name}\0".encode())
        state.update(bytes.fromhex(hashed))
        if lasting(seen):
            now[name] = [*noted(seen), hashed]
    if kept and now != known:
        with suppress(OSError):  # what is not remembered is read again
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_json(sealed({"files": now}), kept, indent=None)
    return state.hexdigest()[:32]


def place_of(folder: Path, runs: Path) -> Path | None:
    """Where the hashes of a folder's files are remembered; None where nothing is kept at all."""
    if not runs.is_dir():
        return None
    return runs / "digests" / f"{hashlib.sha256(os.path.abspath(folder).encode()).hexdigest()[:16]}.json"


def _known(kept: Path | None) -> dict[str, list[object]]:
    try:
        return dict(unsealed(read_json(kept), str(kept), ())["files"]) if kept and kept.exists() else {}
    except (StoreError, KeyError, TypeError, ValueError):
        return {}


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts) or path.suffix == ".part"
