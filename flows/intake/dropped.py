"""A folder that people drop data into: each entry becomes a session once nobody writes to it any more."""

import os
import re
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from cl.disk import beneath
from cl.errors import DataError, EvergreenError

DONE, REFUSED = ".done", ".refused"
_UNFINISHED = (".part", ".partial", ".crdownload", ".tmp", ".filepart", "~")
_WHY = ".reason.txt"
_LONGEST = 255 - len(_WHY) - len(".9999")  # bytes of a name
Look = dict[Path, tuple[object, ...]]


def attend(folder: Path, take: Callable[[Path, str], str], tell: Callable[[str], None], every: float, once: bool = False) -> int:
    """Take every entry whose sizes and times are the same at two looks, `every` seconds apart, in order of name; for ever, or `once`.

    Afterwards it lies in `.done`, or where it was refused in `.refused`, beside a file that says why. No entry ends the watch,
    whatever it is: one that cannot even be put away is told once and left, until it changes.

    Args:
        folder: where entries are dropped; names that start with a dot or end as unfinished downloads do are left alone.
        take: takes an entry in as a session of that name, and says in a line what came of it.
        tell: hears that line, or why it was refused.
        every: seconds between two looks.
        once: two looks, and no more.

    Returns:
        How many entries were refused.

    Raises:
        DataError: there is no such folder, it cannot be written, or a link lies where `.done` or `.refused` would.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make it, or give the one that data is dropped into")
    for place in (DONE, REFUSED):
        try:
            with beneath.folder(folder) as here, beneath.folder(place, here, make=True):
                pass
        except OSError as error:
            raise DataError(f"{folder / place}: cannot be used ({_told(error)}); make the folder writable, or remove it") from error
    before, refused, stuck = look(folder), 0, Look()
    while True:
        time.sleep(every)
        now = look(folder)
        stuck = {entry: stamps for entry, stamps in stuck.items() if now.get(entry) == stamps}
        for entry in [entry for entry in sorted(now) if before.get(entry) == now[entry] and entry not in stuck]:
            try:
                refused += not _settle(entry, take, tell)
                del now[entry]
            except OSError as error:
                tell(_printable(f"{entry.name} stays where it is and is not tried again: it cannot be put away ({_told(error)})"))
                stuck[entry], refused = now[entry], refused + 1
        if once:
            return refused
        before = now


def look(folder: Path) -> Look:
    """Every entry, with what changes while somebody writes to it.

    Raises:
        DataError: the folder is gone.
    """
    try:
        names = os.listdir(folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be looked at any more ({error.strerror}); make it, or give another") from error
    entries = (folder / name for name in names if not name.startswith(".") and not name.endswith(_UNFINISHED))
    return {entry: tuple(sorted(_stamps(entry))) for entry in entries}


@contextmanager
def apart(entry: Path, folder: Path) -> Iterator[Path]:
    """A copy of an entry in a folder of ours, where nobody swaps a file for a link while it is read; gone afterwards.

    Errors from inside speak of the entry.

    Raises:
        DataError: it is a link, or cannot be copied.
    """
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    for left in folder.iterdir():
        if (number := left.name.partition("-")[0]).isdecimal() and not psutil.pid_exists(int(number)):  # by who was killed
            shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=f"{os.getpid()}-", dir=folder, ignore_cleanup_errors=True) as scratch:
        own = Path(scratch, entry.name)
        beneath.copy(entry, own)
        try:
            yield own
        except EvergreenError as error:
            raise DataError(str(error).replace(str(own), str(entry))) from error


def session_of(entry: Path) -> str:
    """The name of the session that an entry becomes.

    >>> session_of(Path("drop/May, first half.tar"))
    'May-first-half'
    """
    name = entry.stem if entry.is_file() or entry.suffix.lower() in (".zip", ".tar", ".csv", ".tsv", ".jsonl", ".parquet") else entry.name
    return re.sub(r"[^\w.-]+", "-", name).strip(".-")[:100]


def _stamps(entry: Path) -> list[tuple[str, int, int]]:
    paths = [str(entry)]
    if entry.is_dir() and not entry.is_symlink():
        paths += [os.path.join(parent, name) for parent, folders, files in os.walk(entry) for name in folders + files]
    stamps = []
    for path in paths:
        try:
            status = os.lstat(path)
        except OSError:  # it went between two calls, or may not be looked at: reading it will say so
            continue
        stamps.append((path, status.st_size, status.st_mtime_ns))
    return stamps


def _settle(entry: Path, take: Callable[[Path, str], str], tell: Callable[[str], None]) -> bool:
    more = ""
    try:
        if entry.is_symlink():
            raise DataError(f"{entry}: a link; put the data itself there")
        said, place = take(entry, session_of(entry)), DONE
    except EvergreenError as error:
        said, place = f"{entry.name} is refused: {' '.join(str(error).split())}", REFUSED
    except Exception as error:  # nobody has thought of such an entry: the next ones are taken all the same
        said, place = f"{entry.name} is refused: {type(error).__name__}, a mistake of ours ({' '.join(str(error).split())[:200]})", REFUSED
        more = traceback.format_exc()
    said = _printable(said)
    with beneath.folder(entry.parent) as here, beneath.folder(place, here, make=True) as shelf:
        name = _free(shelf, entry.name)
        if place == REFUSED:
            handle = os.open(f"{name}{_WHY}", os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o666, dir_fd=shelf)
            with open(handle, "w", encoding="utf-8", errors="backslashreplace") as file:
                file.write(f"{said}\n{more}")
        try:
            os.rename(entry.name, name, src_dir_fd=here, dst_dir_fd=shelf)
        except OSError:
            if place == REFUSED:
                os.unlink(f"{name}{_WHY}", dir_fd=shelf)
            tell(said)
            raise
    tell(said)
    return place == DONE


def _free(shelf: int, name: str) -> str:
    """A name that nothing on a shelf has, short enough for what is said beside it."""
    short = os.fsdecode(os.fsencode(name)[:_LONGEST])
    taken = set(os.listdir(shelf))
    names = (short, *(f"{short}.{number}" for number in range(2, 10_000)))
    return next((each for each in names if not taken & {each, f"{each}{_WHY}"}), f"{short[:40]}.{time.time_ns()}")


def _printable(text: str) -> str:
    """Names may hold what no terminal can show."""
    return text.encode("utf-8", "backslashreplace").decode()


def _told(error: OSError) -> str:
    return f"{os.strerror(error.errno or 0)}"
