"""What lies in a folder that others may write to: opened once, by the folder's descriptor, and never through a link.

A name that was looked at may be a link by the time it is opened; a descriptor stays what it is.
"""

import errno
import os
import shutil
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from cl.errors import DataError, StoreError

_DEPTH = 50  # folders within folders
_CHUNK = 1 << 20  # bytes


@contextmanager
def folder(name: str | Path, parent: int | None = None, make: bool = False) -> Iterator[int]:
    """The descriptor of a folder, below another where one is given: then no link is followed.

    Raises:
        OSError: there is none, or (ELOOP, ENOTDIR) a link or a file of that name.
    """
    if make:
        with suppress(FileExistsError):
            os.mkdir(name, dir_fd=parent)
    handle = os.open(name, os.O_RDONLY | os.O_DIRECTORY | (0 if parent is None else os.O_NOFOLLOW), dir_fd=parent)
    try:
        yield handle
    finally:
        os.close(handle)


def lock(path: Path) -> BinaryIO:
    """A lock's file, which is made where there is none and stays as it is where there is one.

    Raises:
        StoreError: a link or no plain file is there.
        OSError: the place cannot be written.
    """
    return plain(path, os.O_RDWR | os.O_CREAT, "a lock of ours; remove it")


def plain(path: Path, flags: int, expected: str) -> BinaryIO:
    """A plain file of ours, opened with `flags` of `os.open`; what was `expected` there, and what to do, is told with what is not one.

    Raises:
        StoreError: a link or no plain file is there.
        OSError: there is none, or the place cannot be written.
    """
    wrong = StoreError(f"{path}: a link or no plain file, and expected {expected}")
    try:
        handle = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, 0o666)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
            raise wrong from error
        raise
    if not stat.S_ISREG(os.fstat(handle).st_mode):
        os.close(handle)
        raise wrong
    return os.fdopen(handle, "r+b" if flags & os.O_RDWR else "rb")


def copy(source: Path, target: Path) -> None:
    """Copy a file, or a folder with all that is in it, so that nobody changes it any more.

    Links within it stay links and are not followed. Pipes and devices become empty pipes, files that may not be read empty files
    that may not be read: whoever reads the copy finds the same faults.

    Raises:
        DataError: it is a link itself, is larger than what is free, nested too deeply, or changes meanwhile.
    """
    room = 0.9 * shutil.disk_usage(target.parent).free
    try:
        with folder(source.parent) as parent:
            if stat.S_ISLNK(os.stat(source.name, dir_fd=parent, follow_symlinks=False).st_mode):
                raise DataError(f"{source}: a link; put the data itself there")
            _copy(parent, source.name, target, room, 0)
    except OSError as error:
        raise DataError(f"{source}: cannot be copied ({error.strerror}); drop it again once nobody writes to it") from error


def _copy(parent: int, name: str, target: Path, room: float, depth: int) -> float:
    """What is still free afterwards."""
    kind = stat.S_IFMT(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    if depth > _DEPTH:
        raise DataError(f"{name!r:.100}: over {_DEPTH} folders within each other; put the data into fewer")
    if kind == stat.S_IFLNK:
        os.symlink(os.readlink(name, dir_fd=parent), target)
    elif kind == stat.S_IFDIR:
        target.mkdir()
        with folder(name, parent) as handle:
            for each in os.listdir(handle):
                room = _copy(handle, each, target / each, room, depth + 1)
    elif kind == stat.S_IFREG:
        room = _file(parent, name, target, room)
    else:
        os.mkfifo(target)
    return room


def _file(parent: int, name: str, target: Path, room: float) -> float:
    try:
        handle = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK, dir_fd=parent)
    except PermissionError:
        target.touch(0)
        return room
    with open(handle, "rb") as source, target.open("xb") as sink:
        if not stat.S_ISREG(os.fstat(handle).st_mode):
            raise DataError(f"{name!r:.100}: was a file and is none any more; drop it again once nobody writes to it")
        while data := source.read(_CHUNK):
            room -= len(data)
            if room < 0:
                raise DataError(f"{name!r:.100}: there is no room for a copy beside {target.parent}; free space")
            sink.write(data)
    return room
