"""A collection: a folder of sessions that grows, `0001-first`, `0002-second`, ...; what is in it never changes or moves."""

import contextlib
import fcntl
import hashlib
import re
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field, NonNegativeInt, PositiveInt, ValidationError

from cl.config import Config
from cl.data.table import ImageTable, Supervision, concat, write
from cl.data.tombs import NAME as NAME
from cl.data.tombs import tombstones
from cl.disk import beneath
from cl.disk.durable import land
from cl.errors import DataError
from cl.explain import explain
from cl.text import some

_FOLDER = re.compile(rf"(\d{{4,}})-({NAME})")
_SPLITS = ("train", "test")


class Entry(Config):
    """What a session's `session.json` says: no times and no paths of a machine, so that the same data is the same bytes."""

    name: str = Field(pattern=f"^{NAME}$")
    number: PositiveInt = Field(description="its place in the order of arrival; never given twice")
    supervision: Supervision
    digest: str = Field(description="of supervision, training and test rows")
    train: PositiveInt = Field(description="number of rows")
    test: NonNegativeInt = Field(description="number of rows; 0 only where supervision is none")
    source: str = Field(description="name of the file or folder it came from")
    quarantined: NonNegativeInt = Field(description="how many samples of the source were left out")
    withdrawn: NonNegativeInt = Field(0, description="how many rows had to go since; nothing says which")

    @property
    def folder(self) -> str:
        """The name of its folder.

        >>> Entry(name="may", number=7, supervision="labels", digest="", train=1, test=1, source="", quarantined=0).folder
        '0007-may'
        """
        return f"{self.number:04d}-{self.name}"

    def text(self) -> str:
        """What `session.json` says; of what was never withdrawn from, as releases wrote it that knew of no such thing."""
        return self.model_dump_json(indent=1, exclude=None if self.withdrawn else {"withdrawn"}) + "\n"


class Seen(NamedTuple):
    """An image that a collection holds: in which session, and under which label."""

    session: str
    label: str | None


def listed(folder: Path, until: int | None, gaps: bool = False) -> list[Entry]:
    """The sessions with a number up to `until`: what was withdrawn makes no room for others; `gaps` as of `sessions`.

    Raises:
        DataError: as `sessions`.
    """
    return [entry for entry in sessions(folder, gaps) if until is None or entry.number <= until]


def sessions(folder: Path, gaps: bool = False) -> list[Entry]:
    """The sessions of a collection in order of arrival; none where the folder is missing or empty.

    `gaps`: some may be gone, for who knows what they taught.

    Raises:
        DataError: a `session.json` cannot be read or belongs elsewhere, numbers are not 1, 2, ... without a gap but for what was
            withdrawn, or it is a data set of another kind.
    """
    gone = {stone.number for stone in tombstones(folder)}
    there = (path for path in numbered(folder) if int(path.name.partition("-")[0]) not in gone)  # whose removal was cut short
    entries = sorted((described_in(path) for path in there), key=lambda entry: entry.number)
    if not entries and (loose := sorted(path.name for path in folder.glob("[!.]*.parquet"))):
        raise DataError(f"{folder}: a data set ({some(loose)}) and no collection of sessions; choose another name for the collection")
    numbers = sorted([*gone, *(entry.number for entry in entries)])
    if not gaps and numbers != list(range(1, len(numbers) + 1)):
        raise DataError(
            f"{folder}: its sessions are numbered {some(numbers)}; expected 1, 2, ... without a gap. `dvc checkout` restores them"
        )
    return entries


def is_session(name: str) -> bool:
    """Whether a folder's name is that of a session.

    >>> is_session("0001-may"), is_session("birds")
    (True, False)
    """
    return _FOLDER.fullmatch(name) is not None


def numbered(folder: Path) -> list[Path]:
    """The folders of a collection's sessions, unread and in any order."""
    return [path for path in folder.iterdir() if _FOLDER.fullmatch(path.name)] if folder.is_dir() else []


def read(folder: Path, entry: Entry) -> tuple[ImageTable, ImageTable]:
    """The training and the test rows of a session, after checking that they are what its `session.json` says.

    Raises:
        DataError: a file is missing, damaged or changed.
    """
    train, test = (
        _table(folder / entry.folder / f"{split}.parquet", rows) for split, rows in zip(_SPLITS, (entry.train, entry.test), strict=True)
    )
    if digest(entry.supervision, train, test) != entry.digest:
        raise DataError(f"{folder / entry.folder}: the rows are not those that were taken in; `dvc checkout` restores them")
    return train, test


def read_test(folder: Path, entry: Entry) -> ImageTable:
    """The test rows of a session alone, for who knows what they have to be.

    Raises:
        DataError: the file is missing or damaged.
    """
    return _table(folder / entry.folder / "test.parquet", entry.test)


def digest(supervision: Supervision, train: ImageTable, test: ImageTable) -> str:
    """32 hex digits over everything that a session holds but its name and number."""
    return hashlib.sha256(f"{supervision}/{train.digest()}/{test.digest()}".encode()).hexdigest()[:32]


def seen(folder: Path, entries: Sequence[Entry]) -> dict[bytes, Seen]:
    """The images of some sessions of a collection, by the hash of their bytes (`fingerprint`).

    Raises:
        DataError: an index cannot be read.
    """
    known: dict[bytes, Seen] = {}
    for entry in entries:
        file = folder / entry.folder / "index.parquet"
        index = _parquet(file)
        if index.column_names != ["sha256", "label"]:
            raise DataError(f"{file}: cannot be read as an index (columns {', '.join(index.column_names)}); `dvc checkout` restores it")
        for key, label in zip(index["sha256"].to_pylist(), index["label"].to_pylist(), strict=True):
            known.setdefault(key, Seen(entry.name, label))
    return known


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Nobody else adds to the collection meanwhile; the kernel frees the lock when its holder dies.

    Raises:
        DataError: the folder cannot be written.
    """
    path = folder / ".lock"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        file = beneath.lock(path)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); free space or choose another data root") from error
    with file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def append(
    folder: Path, name: str, splits: Mapping[str, ImageTable], supervision: Supervision, *, source: str = "", quarantined: int = 0
) -> Entry:
    """Add a session at the end of a collection, whole or not at all; from any number of processes at once.

    The same content under the same name again changes nothing and gives the session that is there.

    Args:
        folder: the collection; made where there is none.
        name: of the session: letters, digits, dots, dashes and underscores.
        splits: `train`, and `test` which may be left out where supervision is none.
        supervision: what the session teaches with.
        source: name of the file or folder it came from.
        quarantined: how many samples of the source were left out.

    Raises:
        DataError: a session of that name holds something else, there is nothing to learn from or to be examined with, the
            name is none, or the folder cannot be written.
    """
    with locked(folder):
        return add(folder, name, splits, supervision, source=source, quarantined=quarantined)


def add(
    folder: Path, name: str, splits: Mapping[str, ImageTable], supervision: Supervision, *, source: str = "", quarantined: int = 0
) -> Entry:
    """As `append`, for who holds the lock already."""
    entry = described(folder, name, splits, supervision, source=source, quarantined=quarantined)
    if entry not in sessions(folder):
        _write(folder, entry, *(splits.get(split, concat([])) for split in _SPLITS))
    return entry


def described(
    folder: Path, name: str, splits: Mapping[str, ImageTable], supervision: Supervision, *, source: str = "", quarantined: int = 0
) -> Entry:
    """The entry that `append` would give; nothing is written."""
    train, test = (splits.get(split, concat([])) for split in _SPLITS)
    if not re.fullmatch(NAME, name):
        raise DataError(f"{name!r}: a session's name is made of up to 100 letters, digits, dots, dashes and underscores")
    if not len(train) or not (len(test) or supervision == "none"):
        raise DataError(f"session {name!r}: no {'test' if len(train) else 'training'} image; add some")
    entries = sessions(folder)
    content = digest(supervision, train, test)
    for entry in entries:
        if entry.name == name and entry.digest == content:
            return entry
        if entry.name == name:
            raise DataError(f"{folder}: session {name!r} is there and holds other data; sessions never change, so choose another name")
    if any(stone.name == name for stone in tombstones(folder)):
        raise DataError(f"{folder}: session {name!r} was withdrawn; choose another name")
    rows = {"train": len(train), "test": len(test)}
    number = len(entries) + len(tombstones(folder)) + 1
    return Entry(name=name, number=number, supervision=supervision, digest=content, source=source, quarantined=quarantined, **rows)


def write_index(tables: Sequence[ImageTable], file: Path) -> None:
    """What lies beside a session's rows to find images by: fingerprint and label of each.

    Raises:
        OSError: the place cannot be written.
    """
    everything = concat(tables)
    hashes = pa.array(everything.prints, pa.binary())
    pq.write_table(pa.table({"sha256": hashes, "label": everything.table["label"]}), file, compression="zstd")


def _write(folder: Path, entry: Entry, train: ImageTable, test: ImageTable) -> None:
    for left in folder.glob(".*.part"):  # by who was killed while writing: nobody else writes while we hold the lock
        shutil.rmtree(left, ignore_errors=True)
    part = folder / f".{entry.folder}.{uuid.uuid4().hex}.part"
    try:
        write({split: rows for split, rows in (("train", train), ("test", test)) if len(rows)}, part)
        write_index([train, test], part / "index.parquet")
        (part / "session.json").write_text(entry.text(), encoding="utf-8")
        land(part, folder / entry.folder)
    except OSError as error:
        raise DataError(f"{folder}: cannot be written ({error.strerror}); free space or choose another data root") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)


def described_in(path: Path) -> Entry:
    """What the note in a session's folder says.

    Raises:
        DataError: it cannot be read, or belongs elsewhere.
    """
    file = path / "session.json"
    try:
        entry = Entry.model_validate_json(file.read_bytes())
    except OSError as error:
        raise DataError(f"{file}: cannot be read ({error.strerror}); `dvc checkout` restores it") from error
    except ValidationError as error:
        raise DataError(f"{file}: not what describes a session ({explain(error, None)}); `dvc checkout` restores it") from error
    if entry.folder != path.name:
        raise DataError(f"{file}: describes {entry.folder}, not {path.name}; sessions are never renamed, so `dvc checkout` restores them")
    return entry


def _table(file: Path, rows: int) -> ImageTable:
    return ImageTable(_parquet(file)) if rows else concat([])


def _parquet(file: Path) -> pa.Table:
    try:
        return pq.read_table(file)
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{file}: cannot be read ({(str(error).splitlines() or [''])[0]}); `dvc checkout` restores it") from error
