"""Reads the layouts people keep images in: folder per class, CSV, JSON lines, Parquet, WebDataset tars."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from cl.columns import SYNONYMS, did_you_mean, finish, pick, some
from cl.data import SPLITS, ImageTable, concat
from cl.errors import DataError

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".tar")
_NOTES = frozenset({".txt", ".md", ".json", ".csv", ".xml", ".ini", ".db", ".yaml", ".dvc"})
_WORDS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
_SPLITS = {word: split for split, words in _WORDS.items() for word in words}
_BLOCK = 1 << 28  # an inline image is one line of a JSON file, and a line must fit in a block


def read(path: Path, *, split: str | None = None, check: bool = True, **columns: str | None) -> ImageTable:
    """All rows found at a path, or those of one split.

    Args:
        path: a folder or file; see `read_splits`.
        split: train, val or test; None: the rows of all splits.
        check: open every image (its header), so that a damaged file is told now.
        columns: which column plays a role (id, image, label, captions, domain, time, split); default: by its name.

    Raises:
        DataError: as `read_splits`, or the split does not exist.
    """
    splits = read_splits(path, check=check, **columns)
    if split is not None and split not in splits:
        raise DataError(f"{path}: no split {split!r}; {did_you_mean(split, list(splits))}")
    return concat(list(splits.values())) if split is None else splits[split]


def read_splits(path: Path, *, check: bool = True, **columns: str | None) -> dict[str, ImageTable]:
    """Rows by split (train, val, test): as files or folders are named, or by a column; all of it train where nothing says.

    Read are: a .parquet file (ours, or with Hugging Face's image struct and class names), .csv, .tsv, .jsonl, .tar
    (WebDataset); a folder with such files, one or several per split; a folder per class; and split folders holding any
    of these. A .json file that is named itself is read as Karpathy's splits. Rows that name the same image and differ in
    their caption become one row. Relative image paths start at the folder of the file that names them.

    Raises:
        DataError: nothing readable, an image missing, damaged or outside the folder, a class without images, an id twice.
    """
    unknown = [name for name in columns if name not in SYNONYMS]
    if unknown:
        raise DataError(f"column role {unknown[0]!r} does not exist; {did_you_mean(unknown[0], list(SYNONYMS))}")
    path = Path(path)
    if not path.exists():
        raise DataError(f"{path}: does not exist; give a folder or one of {', '.join(TABLES)}")
    root = path if path.is_dir() else path.parent
    found: dict[str, list[ImageTable]] = defaultdict(list)
    for split, files in _parts(path) if path.is_dir() else [(_split(path), [path])]:
        for name, table in _tables(files, root, split, columns, check):
            found[name].append(table)
    splits = {name: concat(found[name]) for name in SPLITS if name in found}
    for name, table in splits.items():
        if twice := [each for each, count in Counter(table.ids).items() if count > 1]:
            raise DataError(f"{path}: {name} holds {len(twice)} ids twice ({some(twice)}); ids must be unique, so rename or remove them")
    return splits


def _split(path: Path) -> str | None:
    # train.csv, train-00000-of-00004.parquet, train_000.tar
    word = path.stem.lower().replace("_", "-").replace(".", "-").partition("-")[0]
    return _SPLITS.get(word)


def _parts(folder: Path) -> list[tuple[str | None, list[Path]]]:
    """What to read in a folder: files of one kind per split, or one folder with a folder per class."""
    entries = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = [entry for entry in entries if entry.is_dir()]
    tables = [entry for entry in entries if entry.is_file() and entry.suffix.lower() in TABLES]
    if tables:
        return _named(folder, tables)
    named = {entry: _SPLITS[entry.name.lower()] for entry in folders if entry.name.lower() in _SPLITS}
    # "train" may also be a class, among car, bus and plane
    if named and (len(named) == len(folders) or len(set(named.values())) > 1):
        return [(split, files) for entry, split in named.items() for _, files in _parts(entry)]
    if [entry.name for entry in folders] == ["data"]:
        return _parts(folders[0])
    if not folders:
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
    files: Sequence[Path], root: Path, split: str | None, columns: Mapping[str, str | None], check: bool
) -> Iterator[tuple[str, ImageTable]]:
    picked = [_picked(file, root, columns) for file in files]
    try:
        raw = pa.concat_tables(picked, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(
            f"{root}: the columns of {some([file.name for file in files])} differ in kind ({error}); write them alike"
        ) from error
    where, base = (files[0] if len(files) == 1 else files[0].parent), (files[0] if files[0].is_dir() else files[0].parent)
    groups: dict[str, list[int]] = defaultdict(list)
    if split is None and "split" in raw.column_names:
        for row, word in enumerate(raw["split"].to_pylist()):
            if (word or "").lower() not in _SPLITS:
                raise DataError(f"{where}, row {row + 1}: split {word!r}; expected train, val or test")
            groups[_SPLITS[word.lower()]].append(row)
    for name, rows in groups.items():
        yield name, finish(raw.take(rows), where, base=base, root=root, split=name, check=check)
    if not groups:
        name = split or "train"
        yield name, finish(raw, where, base=base, root=root, split=name, check=check)


def _picked(file: Path, root: Path, columns: Mapping[str, str | None]) -> pa.Table:
    if file.is_dir():
        return pick(_class_folders(file), file, columns)
    try:
        return pick(_raw(file, root), file, columns)
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
        raise DataError(f"{file}: cannot be read as {file.suffix} ({str(error).splitlines()[0]}); repair or replace it") from error


def _raw(file: Path, root: Path) -> pa.Table:
    match file.suffix.lower():
        case ".parquet":
            return pq.read_table(file)
        case ".csv" | ".tsv" as kind:
            return _csv(file, "," if kind == ".csv" else "\t")
        case ".jsonl" | ".ndjson":
            return pyarrow.json.read_json(file, read_options=pyarrow.json.ReadOptions(block_size=_BLOCK))
        case ".tar":
            return _tar(file, root)
        case ".json":
            return _karpathy(file)
    raise DataError(f"{file}: unknown kind of file; expected a folder or one of {', '.join(TABLES)}")


def _csv(file: Path, delimiter: str) -> pa.Table:
    parse = pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True)
    # one thread: only then does an error say which row it means
    options = pyarrow.csv.ReadOptions(use_threads=False)
    with pyarrow.csv.open_csv(file, read_options=options, parse_options=parse) as reader:
        names = reader.schema.names
    # every cell is text: 007 is a class, and so is NA
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False)
    return pyarrow.csv.read_csv(file, read_options=options, parse_options=parse, convert_options=convert)


def _class_folders(folder: Path) -> pa.Table:
    """One row per image below a folder per class; the class is the folder's name."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths, labels, empty = [], [], []
    for each in classes:
        files = sorted(file for file in each.rglob("*") if file.is_file() and not file.name.startswith("."))
        images = [file for file in files if file.suffix.lower() in IMAGES]
        strange = [file for file in files if file.suffix.lower() not in IMAGES | _NOTES]
        if strange:
            raise DataError(f"{strange[0]}: not a kind of image that is read; convert it to PNG or JPEG, or remove it")
        paths += [file.relative_to(folder).as_posix() for file in images]
        labels += [each.name] * len(images)
        empty += [] if images else [each.name]
    if empty:
        raise DataError(f"{folder}: {len(empty)} of {len(classes)} classes have no image ({some(empty)}); add images or remove the folders")
    return pa.table({"image": pa.array(paths, pa.string()), "label": pa.array(labels, pa.string())})


def _karpathy(file: Path) -> pa.Table:
    """Karpathy and Fei-Fei's splits of COCO, Flickr8k and Flickr30k: one JSON file that names images, sentences and splits."""
    try:
        images = json.loads(file.read_text(encoding="utf-8"))["images"]
        rows = [
            {
                "image": "/".join(part for part in (image.get("filepath", "images"), image["filename"]) if part),
                "captions": [sentence["raw"].strip() for sentence in image["sentences"]],
                "split": "train" if image["split"] == "restval" else image["split"],
            }
            for image in images
        ]
    except (KeyError, TypeError, ValueError) as error:
        raise DataError(
            f"{file}: not a file of Karpathy's splits ({error.__class__.__name__}: {error}); "
            "expected images, each with filename, split and sentences; write other tables as CSV or JSON lines"
        ) from error
    return pa.Table.from_pylist(rows)


def _tar(file: Path, root: Path) -> pa.Table:
    """One row per WebDataset sample: an image, and any of .cls (index or name), .txt (caption), .json (further columns)."""
    import tarfile

    import webdataset

    notes = [folder / "classnames.txt" for folder in (file.parent, file.parent.parent, root)]
    names = next((note.read_text(encoding="utf-8").splitlines() for note in notes if note.is_file()), [])
    rows = []
    try:
        for sample in webdataset.WebDataset([str(file.absolute())], shardshuffle=False, empty_check=False):
            rows.append(_sample(sample, file, names))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{file}: cannot be read as a WebDataset tar ({error.args[0] if error.args else error}); repair or replace it"
        ) from error
    if not rows:
        raise DataError(f"{file}: no sample; expected files such as 0001.jpg and 0001.txt in it")
    names = list(dict.fromkeys(name for row in rows for name in row))
    return pa.table({name: [row.get(name) for row in rows] for name in names})


def _sample(sample: Mapping[str, Any], file: Path, names: Sequence[str]) -> dict[str, Any]:
    key = sample["__key__"]
    image = next((sample[kind[1:]] for kind in IMAGES if kind[1:] in sample), None)
    if image is None:
        raise DataError(
            f"{file}: sample {key!r} has no image, only {some([k for k in sample if not k.startswith('__')])}; expected jpg, png or webp"
        )
    try:
        further = json.loads(sample.get("json", b"{}"))
        row = {name: further[name] for name in further if any(name.lower() in words for words in SYNONYMS.values())}
        row.update({"image": image, "id": f"{file.parent.name}/{file.stem}/{key}"})
        if "txt" in sample:
            row["captions"] = [line for line in sample["txt"].decode("utf-8").splitlines() if line.strip()]
        if "cls" in sample:
            word = sample["cls"].decode("utf-8").strip()
            row["label"] = names[int(word)] if names and word.isdecimal() else word
    except IndexError as error:
        raise DataError(f"{file}: sample {key!r} has class {word}, but classnames.txt names {len(names)}") from error
    except ValueError as error:
        raise DataError(f"{file}: sample {key!r} cannot be read ({error}); expected UTF-8 text and JSON") from error
    return row
