"""A folder that people drop data into: each entry becomes a session once nobody writes to it any more."""

import os
import re
import time
from collections.abc import Callable
from pathlib import Path

from cl.errors import DataError, EvergreenError

DONE, REFUSED = ".done", ".refused"
_UNFINISHED = (".part", ".partial", ".crdownload", ".tmp", ".filepart", "~")
Look = dict[Path, tuple[object, ...]]


def attend(folder: Path, take: Callable[[Path, str], str], tell: Callable[[str], None], every: float, once: bool = False) -> int:
    """Take every entry whose sizes and times are the same at two looks, `every` seconds apart, in order of name; for ever, or `once`.

    Afterwards it lies in `.done`, or where it was refused in `.refused`, beside a file that says why.

    Args:
        folder: where entries are dropped; names that start with a dot or end as unfinished downloads do are left alone.
        take: takes an entry in as a session of that name, and says in a line what came of it.
        tell: hears that line, or why it was refused.
        every: seconds between two looks.
        once: two looks, and no more.

    Returns:
        How many entries were refused.

    Raises:
        DataError: there is no such folder, or it cannot be written.
    """
    if not folder.is_dir():
        raise DataError(f"{folder}: no such folder; make it, or give the one that data is dropped into")
    before, refused = look(folder), 0
    while True:
        time.sleep(every)
        now = look(folder)
        for entry in [entry for entry in sorted(now) if before.get(entry) == now[entry]]:
            del now[entry]
            refused += not _settle(entry, take, tell)
        if once:
            return refused
        before = now


def look(folder: Path) -> Look:
    """Every entry, with what changes while somebody writes to it."""
    entries = (entry for entry in folder.iterdir() if not entry.name.startswith(".") and not entry.name.endswith(_UNFINISHED))
    return {entry: tuple(sorted(_stamps(entry))) for entry in entries}


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
            found = os.lstat(path)
        except FileNotFoundError:  # it went between two calls: still being written
            continue
        stamps.append((path, found.st_size, found.st_mtime_ns))
    return stamps


def _settle(entry: Path, take: Callable[[Path, str], str], tell: Callable[[str], None]) -> bool:
    try:
        if entry.is_symlink():
            raise DataError(f"{entry}: a link; put the data itself there")
        said, place = take(entry, session_of(entry)), DONE
    except EvergreenError as error:
        said, place = f"{entry.name} is refused: {' '.join(str(error).split())}", REFUSED
    target = _free(entry.parent / place, entry.name)
    try:
        target.parent.mkdir(exist_ok=True)
        if place == REFUSED:
            target.with_name(f"{target.name}.reason.txt").write_text(said + "\n", encoding="utf-8")
        os.rename(entry, target)
    except OSError as error:
        raise DataError(f"{entry}: cannot be moved to {target} ({error.strerror}); make the folder writable") from error
    tell(said)
    return place == DONE


def _free(folder: Path, name: str) -> Path:
    names = (name, *(f"{name}.{number}" for number in range(2, 10_000)))
    return next(folder / each for each in names if not os.path.lexists(folder / each))
