"""Whether files are as they were, by what the system notes of them: size, inode, and when bytes or notes last changed. None is opened."""

import hashlib
import os
import stat
import time
from collections.abc import Callable, Iterable, Iterator
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


class Glance(NamedTuple):
    """A file as it was at some moment, before anybody read it: what the system notes, and whether every change since would show there."""

    noted: list[int]
    lasting: bool


def glance(file: Path) -> Glance:
    """A file as it is.

    Raises:
        OSError: it cannot be looked at.
    """
    seen = file.stat()
    return Glance(noted(seen), lasting(seen))


def hashed(file: Path, note: Path) -> str:
    """The hex SHA-256 of a file, which is not read where a note of it says that it has not changed since.

    Raises:
        OSError: it cannot be read.
    """
    return recalled(glance(file), note, lambda: sha256(file))


def recalled(seen: Glance, note: Path, make: Callable[[], str]) -> str:
    """A digest that `make` computes of a file as it was at a glance; it is not asked where a note says it of the very same file."""
    with suppress(StoreError, KeyError):
        known = unsealed(read_json(note), str(note), ())
        if known["stamp"] == seen.noted:
            return str(known["sha256"])
    digest = make()
    if seen.lasting:
        _note(seen.noted, digest, note)
    return digest


def remember(file: Path, digest: str, note: Path) -> None:
    """Note the hash of a file that nobody else writes to, for `hashed`."""
    with suppress(OSError):
        _note(noted(file.stat()), digest, note)


def _note(stamp: list[int], digest: str, note: Path) -> None:
    with suppress(OSError):  # what is not noted is read again
        write_json(sealed({"stamp": stamp, "sha256": digest}), note)
