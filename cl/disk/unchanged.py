"""Whether files are as they were, by what the system notes of them: size, inode, and when bytes or notes last changed. None is opened."""

import hashlib
import os
import stat
import time
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.errors import StoreError

_YOUNG = 2_000_000_000  # nanoseconds: one that was written so lately may change again within the same tick of the clock


class Stamp(NamedTuple):
    """What is noted of files: a digest, and whether every change since would make it another one."""

    digest: str
    lasting: bool


def noted(seen: os.stat_result) -> list[int]:
    """What the system notes of a file: another list is another file. The time of change cannot be set back, as that of writing can."""
    return [seen.st_size, seen.st_ino, seen.st_mtime_ns, seen.st_ctime_ns]


def lasting(seen: os.stat_result) -> bool:
    """Whether a change of a file from now on would show in `noted`."""
    return time.time_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns) > _YOUNG


def stamp(paths: Iterable[Path]) -> Stamp:
    """Of all files at and below some paths, links followed.

    Raises:
        OSError: one is not there or cannot be looked at.
    """
    state, last = hashlib.sha256(), True
    for path in paths:
        for file, seen in _files(path, frozenset()):
            state.update(f"{file}\0{noted(seen)}\0".encode("utf-8", "surrogateescape"))
            last = last and lasting(seen)
    return Stamp(state.hexdigest()[:32], last)


def _files(path: Path, above: frozenset[tuple[int, int]]) -> Iterator[tuple[Path, os.stat_result]]:
    status = path.stat()
    me = (status.st_dev, status.st_ino)
    if not stat.S_ISDIR(status.st_mode):
        yield path, status
    elif me not in above:  # a link may lead to a folder that holds it
        for each in sorted(os.listdir(path)):
            with suppress(FileNotFoundError):  # a link to nothing, or gone since
                yield from _files(path / each, above | {me})


def hashed(file: Path, note: Path) -> str:
    """The hex SHA-256 of a file, which is not read where a note of it says that it has not changed since.

    Raises:
        OSError: it cannot be read.
    """
    seen = file.stat()
    keep = lasting(seen)
    with suppress(StoreError, KeyError):
        known = unsealed(read_json(note), str(note), ())
        if known["stamp"] == noted(seen):
            return str(known["sha256"])
    digest = sha256(file)
    if keep:
        _note(seen, digest, note)
    return digest


def remember(file: Path, digest: str, note: Path) -> None:
    """Note the hash of a file that nobody else writes to, for `hashed`."""
    with suppress(OSError):
        _note(file.stat(), digest, note)


def _note(seen: os.stat_result, digest: str, note: Path) -> None:
    with suppress(OSError):  # what is not noted is read again
        write_json(sealed({"stamp": noted(seen), "sha256": digest}), note)
