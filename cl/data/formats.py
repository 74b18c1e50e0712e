"""Reads the layouts people keep images in; one reader: what cannot be used is noted, and who is strict raises from that."""

import os
import tempfile
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cl.data.archive import TABLES, unzip
from cl.data.columns import FAULT, PLACE, SYNONYMS, CellError, blanks, own, pick, roles
from cl.data.faults import Problem, Reason, summary
from cl.data.images import decode
from cl.data.layouts import lists
from cl.data.layouts import reading as layouts
from cl.data.layouts.places import images
from cl.data.layouts.reading import Part, Reading
from cl.data.layouts.survey import survey
from cl.data.rows import finish, usable
from cl.data.schema import EXTRAS, SCHEMA
from cl.data.table import SPLITS, ImageTable, concat, openable
from cl.data.told import Told, Topic, merged
from cl.errors import DataError
from cl.text import did_you_mean, plural, some

_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)  # UnicodeError is a ValueError
_HARMLESS = (Reason.DUPLICATE, Reason.LONG)  # says nothing that another row does not say; a model cuts it


@dataclass
class Look:
    """What was found at a path: rows by split, the samples that cannot be used, and what is to be told."""

    path: Path
    splits: dict[str, ImageTable]
    problems: list[Problem] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)

    def strictly(self) -> dict[str, ImageTable]:
        """The rows by split, if there is nothing that cannot be used.

        Raises:
            DataError: names what cannot be used, by reason.
        """
        bad = [problem for problem in self.problems if problem.reason not in _HARMLESS]
        if bad:
            aside = "; repair them, or have `evergreen ingest` set them aside" if len(bad) > 1 else ""
            raise DataError(f"{self.path}: {summary(bad)}{aside}")
        return self.splits


def read(path: Path, *, split: str | None = None, check: bool = True, **columns: str | None) -> ImageTable:
    """All rows found at a path, or those of one split.

    Args:
        path: a folder or file; see `look`.
        split: train, val or test; None: the rows of all splits.
        check: decode every image, so that a damaged file is told now.
        columns: which column plays a role (id, image, label, captions, domain, time, split); default: by its name.

    Raises:
        DataError: as `read_splits`, or the split does not exist.
    """
    splits = read_splits(path, check=check, **columns)
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; {did_you_mean(split, list(splits))}")
    return concat(list(splits.values())) if split is None else splits[split]


def read_splits(path: Path, *, check: bool = True, **columns: str | None) -> dict[str, ImageTable]:
    """Rows by split (train, val, test), if there is nothing at the path that cannot be used.

    Raises:
        DataError: as `look`, or a sample that cannot be used.
    """
    splits = look(path, columns).strictly()
    if check:
        openable(concat(list(splits.values())), str(path), decode)
    return splits


def look(
    path: Path,
    columns: Mapping[str, str | None] | None = None,
    *,
    links: bool = True,
    scratch: Path | None = None,
    problems: list[Problem] | None = None,
) -> Look:
    """What there is at a path: rows by split, as files or folders are named or a column says; all of it train where nothing says.

    Read are: a folder per class; images with texts beside them; .parquet (ours, or with Hugging Face's image struct and class
    names), .csv, .tsv, .jsonl, .tar (WebDataset, img2dataset); Flickr's and COCO's captions, Karpathy's splits and other JSON
    records; lists of paths with classes; split folders holding any of these; a .zip of them. Rows that name the same image and
    differ in their caption become one row. Image paths start at the folder of the file that names them, or at a folder of images.

    Args:
        path: a folder or file.
        columns: which column plays a role (id, image, label, captions, domain, time, split); default: by its name.
        links: whether images may be links that lead out of the folder.
        scratch: where a .zip is unpacked; default: a folder that goes afterwards, and with it the files that problems name.
        problems: where samples that cannot be used are noted, for who wants them whatever is raised.

    Raises:
        DataError: nothing readable, not one usable sample, an export of boxes, or an id twice.
    """
    columns = columns or {}
    unknown = [name for name in columns if name not in SYNONYMS]
    if unknown:
        raise DataError(f"column role {unknown[0]!r} does not exist; {did_you_mean(unknown[0], list(SYNONYMS))}")
    path = Path(path)
    if not os.path.exists(path):  # of a name that no file can have, it says no
        raise DataError(f"{path}: does not exist; give a folder or one of {', '.join((*TABLES, '.zip'))}")
    zipped = path.suffix.lower() == ".zip" and path.is_file()
    with tempfile.TemporaryDirectory(prefix="evergreen-") if zipped and scratch is None else nullcontext(scratch) as folder:
        reading = Reading(path if path.is_dir() else path.parent, columns, links and not zipped, [] if problems is None else problems)
        if not zipped:
            return _read(path, path, reading)
        reading.root = unzip(path, Path(folder or "") / path.stem, reading.problems)
        place = reading.root
        try:
            return _read(path, place, reading)
        except DataError as error:  # the folder is ours, and nobody knows it
            raise DataError(str(error).replace(str(place), str(path))) from error


def _read(given: Path, path: Path, reading: Reading) -> Look:
    parts = survey(path, reading)
    tables: dict[str, list[ImageTable]] = defaultdict(list)
    for part in parts:
        for name, rows in _rows(part, reading):
            tables[name].append(rows)
    splits = {name: concat(tables[name]) for name in SPLITS if name in tables}
    for name, table in splits.items():
        if twice := [each for each, count in Counter(table.ids).items() if count > 1]:
            raise DataError(
                f"{given}: {name} holds {plural(len(twice), 'id')} twice ({some(twice)}); ids must be unique, so rename or remove them"
            )
    reading.tell(Topic.LAYOUT, *dict.fromkeys(part.words for part in parts))
    if path.is_dir() and not any(part.literal for part in parts):
        _unnamed(reading)
    return Look(given, splits, reading.problems, merged(reading.told))


def _rows(part: Part, reading: Reading) -> Iterator[tuple[str, ImageTable]]:
    files = part.files
    where = files[0] if len(files) == 1 else files[0].parent
    base = files[0] if files[0].is_dir() and len(files) == 1 else files[0].parent
    raws = [_raw(file, part, base, reading) for file in files]
    ours = all(_ours(raw) for raw in raws)
    try:
        table = pa.concat_tables([_picked(raw, file, part, reading, ours) for raw, file in zip(raws, files, strict=True)],
                                 promote_options="permissive")  # fmt: skip
    except pa.ArrowException as error:
        raise DataError(
            f"{reading.root}: the columns of {some([file.name for file in files])} differ in kind ({error}); write them alike"
        ) from error
    table = usable(table, where, base, reading, mixed=part.split is None, ours=ours)
    groups: dict[str, list[int]] = defaultdict(list)
    if part.split is None and "split" in table.column_names:
        for row, word in enumerate(table["split"].to_pylist()):
            groups[layouts.SPLITS[word.lower()]].append(row)
    for name, rows in groups.items():
        yield name, finish(table.take(rows), where, base, reading.root, name)
    if not groups:
        name = part.split or "train"
        yield name, finish(table, where, base, reading.root, name)


def _raw(file: Path, part: Part, base: Path, reading: Reading) -> pa.Table:
    try:
        table = part.read(file, reading)
        table.validate(full=True)  # text that is not UTF-8 breaks everything later
    except _BROKEN as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read as {file.suffix} ({told}); repair or replace it") from error
    if file.is_dir() and file != base:  # paths from the folder that holds several
        table = table.set_column(table.column_names.index("image"), "image",
                                 pa.array([f"{file.name}/{name}" for name in table["image"].to_pylist()], pa.string()))  # fmt: skip
    if PLACE not in table.column_names:
        table = table.append_column(PLACE, pa.array([f"{file.name} row {row + 1}" for row in range(table.num_rows)], pa.string()))
    return table if FAULT in table.column_names else table.append_column(FAULT, pa.nulls(table.num_rows, pa.string()))


def _sorted_out(raw: pa.Table, taken: dict[str, str], reading: Reading) -> tuple[pa.Table, dict[str, str]]:
    """The rows with the split that a list of paths says, without those that no list names; as they are where the lists name none."""
    if not reading.lists or "split" in taken:
        return raw, taken
    known = {name: split for split, file in reading.lists.items() for name in lists.paths(file, reading)["image"].to_pylist()}
    names = [str(name) for name in raw[taken["image"]].to_pylist()]
    words = [next((known[key] for key in _ends(name) if key in known), None) for name in names]
    if not any(words):
        reading.tell(Topic.UNREAD, *(layouts.shown(file, reading.root) for file in reading.lists.values()))
        return raw, taken
    if rest := dict.fromkeys(name for name, word in zip(names, words, strict=True) if word is None):
        reading.tell(Topic.UNNAMED, *rest)
    table = raw.append_column("split", pa.array(words, pa.string()))
    return table.filter(pa.array([word is not None for word in words], pa.bool_())), taken | {"split": "split"}


def _ends(path: str) -> Iterator[str]:
    """The path as a list may write it: from any folder on, with and without its kind."""
    parts = path.split("/")
    for start in range(len(parts)):
        end = "/".join(parts[start:])
        yield from (end, end.rpartition(".")[0])


def _ours(raw: pa.Table) -> bool:
    there = [(field.name, field.type) for field in raw.schema if field.name not in (PLACE, FAULT)]
    fields = [*SCHEMA, *(field for field in EXTRAS if field.name in raw.column_names)]
    return there == [(field.name, field.type) for field in fields]


def _picked(raw: pa.Table, file: Path, part: Part, reading: Reading, ours: bool) -> pa.Table:
    """The columns by role, without the rows whose cells cannot be read."""
    if part.literal and not raw.num_rows:
        raise DataError(f"{file}: no image can be used: {summary(reading.problems) or 'it holds none'}")
    raw, taken = _sorted_out(raw, roles(raw, file, reading.columns), reading)
    if not (part.literal or ours):
        reading.tell(Topic.COLUMNS, *(f"{name} as {role}" for role, name in taken.items()))
        if rest := [name for name in own(raw.column_names) if name not in taken.values()]:
            reading.tell(Topic.UNUSED, *rest)
        if count := blanks(raw, taken):
            reading.tell(Topic.BLANK, file.name, count=count)
    literal = part.literal or ours
    parts = list(_readable(raw, taken, file, literal, reading))
    if not parts:
        raise DataError(f"{file}: none of {plural(raw.num_rows, 'row')} can be used: {summary(reading.problems)}")
    return pa.concat_tables(parts)


def _readable(raw: pa.Table, taken: Mapping[str, str], file: Path, literal: bool, reading: Reading) -> Iterator[pa.Table]:
    """Runs of rows that `pick` takes; a run that it refuses for a cell is halved until the row stands alone."""
    todo = [(0, raw.num_rows)]
    while todo:
        first, last = todo.pop()
        try:
            yield pick(raw.slice(first, last - first), taken, file, literal)
        except CellError as error:
            if last - first == 1:
                told = f"column {error.column!r}: {error.detail}"
                reading.problems.append(Problem(raw[PLACE][first].as_py(), Reason.VALUE, told))
            else:
                todo += [((first + last) // 2, last), (first, (first + last) // 2)]  # the first half is taken next


def _unnamed(reading: Reading) -> None:
    """Images beside a table that no row names."""
    if left := sorted(set(images(reading.root)) - reading.named):
        reading.tell(Topic.UNNAMED, *left)
