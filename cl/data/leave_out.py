"""A collection without a session, or a session without some of its images; a kill at any moment leaves what the same call ends."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet as pq

from cl.data import tombs
from cl.data.collection import Entry, digest, write_index
from cl.data.table import ImageTable, concat, write
from cl.disk.durable import beside
from cl.errors import DataError

_SPLITS = ("train", "test")


def bury(folder: Path, name: str, number: int) -> None:
    """Put a tombstone in a session's place; for who holds the lock. Killed meanwhile, the same again ends it.

    Raises:
        DataError: the folder cannot be written.
    """
    session = folder / f"{number:04d}-{name}"
    try:
        tombs.place(folder, name, number)  # first: from here on the session is not there, whatever is left of it
        if session.is_symlink():
            session.unlink()
        elif session.exists():
            shutil.rmtree(session)
    except OSError as error:
        raise DataError(f"{session}: cannot be removed ({error.strerror}); make it writable") from error


def lessened(folder: Path, entry: Entry, leave: Callable[[bytes], bool]) -> tuple[Entry, dict[str, ImageTable]]:
    """A session without the images that `leave` says of, by their fingerprints: its entry, and the rows that stay, by split.

    Raises:
        DataError: it cannot be read; or no training image, or no test image where there were some, would be left.
    """
    before = rows(folder, entry)
    stay = {split: table.where([not leave(each) for each in table.prints]) for split, table in before.items()}
    if not len(stay["train"]) or (entry.test and not len(stay["test"])):
        raise DataError(
            f"session {entry.name!r}: no {'test' if len(stay['train']) else 'training'} image would be left; withdraw all of it"
        )
    content = digest(entry.supervision, stay["train"], stay["test"])
    train, test = len(stay["train"]), len(stay["test"])
    gone = entry.withdrawn + entry.train + entry.test - train - test
    return entry.model_copy(update={"digest": content, "train": train, "test": test, "withdrawn": gone}), stay


def rewrite(folder: Path, entry: Entry, leave: Callable[[bytes], bool]) -> Entry:
    """Write a session again as `lessened` has it; for who holds the lock.

    File by file, each whole or not at all, and what describes them last: killed meanwhile, the same again ends it.

    Raises:
        DataError: as `lessened`, or it cannot be written.
    """
    place, (said, stay) = folder / entry.folder, lessened(folder, entry, leave)
    write({split: table for split, table in stay.items() if len(table)}, place)
    try:
        with beside(place / "index.parquet") as part:
            write_index([stay["train"], stay["test"]], part)
        with beside(place / "session.json") as part:
            part.write_text(said.text(), encoding="utf-8")
    except OSError as error:
        raise DataError(f"{place}: cannot be written ({error.strerror}); free space or make it writable") from error
    return said


def rows(folder: Path, entry: Entry) -> dict[str, ImageTable]:
    """The rows of a session as they are, whether or not they are those that its note speaks of; none where it is gone.

    Raises:
        DataError: a file cannot be read.
    """
    files = {split: folder / entry.folder / f"{split}.parquet" for split in _SPLITS}
    try:
        return {split: ImageTable(pq.read_table(file)) if file.exists() else concat([]) for split, file in files.items()}
    except (OSError, ValueError) as error:  # Arrow's are the latter
        raise DataError(
            f"{folder / entry.folder}: cannot be read ({str(error).partition(chr(10))[0]}); `dvc checkout` restores it"
        ) from error
