"""Reads the layouts people keep images in: folder per class, CSV, JSON lines, Parquet, WebDataset tars."""

import os
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from cl.archive import TABLES
from cl.columns import SYNONYMS, did_you_mean, finish, pick, some
from cl.data import SPLITS, ImageTable, concat
from cl.errors import DataError
from cl.faults import Problem
from cl.raw import IMAGES, raw
from cl.sift import picked, usable

_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
_KINDS = {".parquet": "Parquet", ".csv": "a CSV table", ".tsv": "a TSV table", ".tar": "WebDataset tars", ".json": "Karpathy's splits"}
_KINDS |= {".jsonl": "JSON lines", ".ndjson": "JSON lines"}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}


def read(path: Path, *, split: str | None = None, check: bool = True, **columns: str | None) -> ImageTable:
    """All rows found at a path, or those of one split.

    Args:
        path: a folder or file; see `read_splits`.
        split: train, val or test; None: the rows of all splits.
        check: decode every image, so that a damaged file is told now.
        columns: which column plays a role (id, image, label, captions, domain, time, split); default: by its name.

    Raises:
        DataError: as `read_splits`, or the split does not exist.
    """
    splits = read_splits(path, check=check, problems=None, **columns)
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; {did_you_mean(split, list(splits))}")
    return concat(list(splits.values())) if split is None else splits[split]


def read_splits(path: Path, *, check: bool = True, problems: list[Problem] | None = None, **columns: str | None) -> dict[str, ImageTable]:
    """Rows by split (train, val, test): as files or folders are named, or by a column; all of it train where nothing says.

    Read are: a .parquet file (ours, or with Hugging Face's image struct and class names), .csv, .tsv, .jsonl, .tar
    (WebDataset); a folder with such files, one or several per split; a folder per class; and split folders holding any
    of these. A .json file that is named itself is read as Karpathy's splits. Rows that name the same image and differ in
    their caption become one row. Relative image paths start at the folder of the file that names them.

    Args:
        path: a folder or file.
        check: decode every image, so that a damaged file is told now.
        problems: where given, samples that cannot be used are noted here and left out; a folder of images is then unlabelled.
        columns: as `read`.

    Raises:
        DataError: nothing readable, an image missing, damaged or outside the folder, a class without images, an id twice.
    """
    unknown = [name for name in columns if name not in SYNONYMS]
    if unknown:
        raise DataError(f"column role {unknown[0]!r} does not exist; {did_you_mean(unknown[0], list(SYNONYMS))}")
    path = Path(path)
    if not os.path.exists(path):  # of a name that no file can have, it says no
        raise DataError(f"{path}: does not exist; give a folder or one of {', '.join(TABLES)}")
    root = path if path.is_dir() else path.parent
    found: dict[str, list[ImageTable]] = defaultdict(list)
    for split, files in _parts(path, problems is not None) if path.is_dir() else [(_split(path), [path])]:
        for name, table in _tables(files, root, split, columns, check, problems):
            found[name].append(table)
    splits = {name: concat(found[name]) for name in SPLITS if name in found}
    for name, table in splits.items():
        if twice := [each for each, count in Counter(table.ids).items() if count > 1]:
            raise DataError(f"{path}: {name} holds {len(twice)} ids twice ({some(twice)}); ids must be unique, so rename or remove them")
    return splits


def layout(path: Path) -> str:
    """What `read_splits` takes a path for, in words.

    >>> layout(Path("train.csv"))
    'a CSV table'
    """
    parts = _parts(path, False) if path.is_dir() else [(_split(path), [path])]
    kinds = dict.fromkeys("a folder per class" if file.is_dir() else _KINDS[file.suffix.lower()] for _, files in parts for file in files)
    return " and ".join(kinds)


def _split(path: Path) -> str | None:
    # train.csv, train-00000-of-00004.parquet, train_000.tar
    word = path.stem.lower().replace("_", "-").replace(".", "-").partition("-")[0]
    return _SPLITS.get(word)


def _parts(folder: Path, bare: bool) -> list[tuple[str | None, list[Path]]]:
    """What to read in a folder: files of one kind per split, or one folder with a folder per class."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    tables = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in TABLES]
    if tables:
        return _named(folder, tables)
    named = {entry: _SPLITS[entry.name.lower()] for entry in folders if entry.name.lower() in _SPLITS}
    # "train" may also be a class, among car, bus and plane
    if named and (len(named) == len(folders) or len(set(named.values())) > 1):
        return [(split, files) for entry, split in named.items() for _, files in _parts(entry, bare)]
    if [entry.name for entry in folders] == ["data"]:
        return _parts(folders[0], bare)
    if not folders and not (bare and any(entry.suffix.lower() in IMAGES for entry in entries)):
        found = some([entry.name for entry in entries]) or "nothing"
        raise DataError(f"{folder}: found {found}; expected a folder per class, or files {', '.join(TABLES)}")
    return [(None, [folder])]


def _named(folder: Path, tables: Sequence[Path]) -> list[tuple[str | None, list[Path]]]:
    by_split: dict[str | None, list[Path]] = defaultdict(list)
    for table in tables:
        by_split[_split(table)].append(table)
    if len(by_split) > 1:
        by_split.pop(None, None)  # beside train.csv and test.csv, classes.csv is a note
    for split, files in by_split.items():
        kinds = {file.suffix.lower() for file in files}
        if len(kinds) > 1 or (len(files) > 1 and split is None and kinds != {".tar"}):
            raise DataError(
                f"{folder}: several tables ({some([f.name for f in files])}); name them by split (train.csv, test.csv) or give one"
            )
    return list(by_split.items())


def _tables(
    files: Sequence[Path], root: Path, split: str | None, columns: Mapping[str, str | None], check: bool, problems: list[Problem] | None
) -> Iterator[tuple[str, ImageTable]]:
    tables = [_picked(file, root, columns, problems) for file in files]
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except pa.ArrowException as error:
        raise DataError(
            f"{root}: the columns of {some([file.name for file in files])} differ in kind ({error}); write them alike"
        ) from error
    where, base = (files[0] if len(files) == 1 else files[0].parent), (files[0] if files[0].is_dir() else files[0].parent)
    if problems is not None:
        table = usable(table, where, base, root, () if split else _SPLITS, problems)
    groups: dict[str, list[int]] = defaultdict(list)
    if split is None and "split" in table.column_names:
        for row, word in enumerate(table["split"].to_pylist()):
            if (word or "").lower() not in _SPLITS:
                raise DataError(f"{where}, row {row + 1}: split {word!r}; expected train, val or test")
            groups[_SPLITS[word.lower()]].append(row)
    for name, rows in groups.items():
        yield name, finish(table.take(rows), where, base=base, root=root, split=name, check=check)
    if not groups:
        name = split or "train"
        yield name, finish(table, where, base=base, root=root, split=name, check=check)


def _picked(file: Path, root: Path, columns: Mapping[str, str | None], problems: list[Problem] | None) -> pa.Table:
    table = raw(file, root, problems)
    return pick(table, file, columns) if problems is None else picked(table, file, columns, problems)
