"""One file or folder as the Arrow table it stands for, columns named as they are: CSV, JSON lines, Parquet, WebDataset tar, class folders.

Where `problems` is given, a row that cannot be read is noted there and left out; else it is an error.
"""

import io
import json
import os
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from cl.archive import TABLES, clean_tar
from cl.columns import PLACE, SYNONYMS, some
from cl.errors import DataError
from cl.faults import Problem, Reason
from cl.sift import file_fault

IMAGES = frozenset({".png", ".jpg", ".jpeg", ".webp", ".avif", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm"})
_NOTES = frozenset({".txt", ".md", ".json", ".csv", ".xml", ".ini", ".db", ".yaml", ".dvc"})
_BLOCK = 1 << 28  # an inline image is one line of a JSON file, and a line must fit in a block
_BROKEN = (pa.ArrowException, OSError, ValueError, OverflowError, RecursionError)  # UnicodeError is a ValueError


def raw(file: Path, root: Path, problems: list[Problem] | None = None) -> pa.Table:
    """The table that a file or a folder of class folders stands for.

    Raises:
        DataError: an unknown kind of file, or one that cannot be read as what it is called.
    """
    if file.is_dir():
        return _class_folders(file, root, problems)
    try:
        table = _by_kind(file, root, problems)
        table.validate(full=True)  # text that is not UTF-8 breaks everything later
    except _BROKEN as error:
        told = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{file}: cannot be read as {file.suffix} ({told}); repair or replace it") from error
    return table


def _by_kind(file: Path, root: Path, problems: list[Problem] | None) -> pa.Table:
    match file.suffix.lower():
        case ".parquet":
            return pq.read_table(file)
        case ".csv" | ".tsv" as kind:
            return _csv(file, "," if kind == ".csv" else "\t", problems)
        case ".jsonl" | ".ndjson":
            return _json_lines(file, problems)
        case ".tar":
            if problems is None:
                return _tar(file, file, f"{file.parent.name}/{file.stem}", root, None)
            with tempfile.TemporaryDirectory() as folder:
                name = file.relative_to(root).with_suffix("").as_posix()  # the same wherever the folder lies
                return _tar(clean_tar(file, Path(folder) / file.name, problems), file, name, root, problems)
        case ".json":
            return _karpathy(file)
    zipped = " (`evergreen ingest` reads a .zip too)" if file.suffix.lower() == ".zip" else ""
    raise DataError(f"{file}: unknown kind of file; expected a folder or one of {', '.join(TABLES)}{zipped}")


def _csv(file: Path, delimiter: str, problems: list[Problem] | None) -> pa.Table:
    # one thread: only then does an error say which row it means
    options = pyarrow.csv.ReadOptions(use_threads=False)
    lenient = None if problems is None else lambda row: "skip"
    with pyarrow.csv.open_csv(file, read_options=options, parse_options=_parse(delimiter, lenient)) as reader:
        names = reader.schema.names
    # every cell is text: 007 is a class, and so is NA
    kind = pa.string() if problems is None else pa.binary()
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, kind), strings_can_be_null=False)
    if problems is None:
        return pyarrow.csv.read_csv(file, read_options=options, parse_options=_parse(delimiter, None), convert_options=convert)
    odd: list[int] = []

    def note(row: Any) -> str:
        odd.append(row.number - 2)  # it counts from 1, the header with it
        told = f"{row.actual_columns} cells where the header has {row.expected_columns}"
        problems.append(Problem(f"{file.name} row {row.number - 1}", Reason.VALUE, told))
        return "skip"

    table = pyarrow.csv.read_csv(file, read_options=options, parse_options=_parse(delimiter, note), convert_options=convert)
    return _decoded(table, odd, file, problems)


def _parse(delimiter: str, note: Callable[[Any], str] | None) -> pyarrow.csv.ParseOptions:
    return pyarrow.csv.ParseOptions(delimiter=delimiter, newlines_in_values=True, invalid_row_handler=note)


def _decoded(table: pa.Table, odd: Sequence[int], file: Path, problems: list[Problem]) -> pa.Table:
    """Cells of bytes as text, without the rows that are not UTF-8; `odd` are rows that were left out before."""
    skipped = set(odd)
    numbers = [row for row in range(table.num_rows + len(skipped)) if row not in skipped]
    where = [f"{file.name} row {number + 1}" for number in numbers]
    columns, wrong = [], set()
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):  # two may share a name
        try:
            columns.append(column.cast(pa.string()))
        except pa.ArrowInvalid:
            cells = [_utf8(cell) for cell in column.to_pylist()]
            for row in (row for row, cell in enumerate(cells) if cell is None and row not in wrong):
                problems.append(Problem(where[row], Reason.NOT_UTF8, f"column {name!r}"))
                wrong.add(row)
            columns.append(pa.array(cells, pa.string()))
    text = pa.table([*columns, pa.array(where, pa.string())], names=[*table.column_names, PLACE])
    return text.filter(pa.array([row not in wrong for row in range(len(where))], pa.bool_())) if wrong else text


def _utf8(cell: bytes) -> str | None:
    try:
        return cell.decode()
    except UnicodeDecodeError:
        return None


def _json_lines(file: Path, problems: list[Problem] | None) -> pa.Table:
    options = pyarrow.json.ReadOptions(block_size=_BLOCK)
    if problems is None:
        return pyarrow.json.read_json(file, read_options=options)
    lines, where = [], []
    for number, line in enumerate(file.read_bytes().splitlines(), start=1):
        try:
            told = "" if not line.strip() or isinstance(json.loads(line.decode()), dict) else "no mapping"
        except (ValueError, RecursionError) as error:
            told = f"{error}"
        if told:
            problems.append(Problem(f"{file.name} row {number}", Reason.VALUE, told))
        elif line.strip():
            lines.append(line)
            where.append(f"{file.name} row {number}")
    if not lines:
        raise DataError(f"{file}: no line holds a JSON mapping; expected one per image")
    table = pyarrow.json.read_json(io.BytesIO(b"\n".join(lines)), read_options=options)
    return table.append_column(PLACE, pa.array(where, pa.string()))


def _class_folders(folder: Path, root: Path, problems: list[Problem] | None) -> pa.Table:
    """One row per image below a folder per class; the class is the folder's name. Without any such folder: unlabelled images."""
    classes = sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    paths: list[str] = []
    labels: list[str | None] = []
    empty = []
    for each in classes:
        images = _images(each) if problems is None else _sound_images(each, root, problems)
        paths += [file.relative_to(folder).as_posix() for file in images]
        labels += [each.name] * len(images)
        empty += [] if images else [each.name]
    if empty and problems is None:
        raise DataError(f"{folder}: {len(empty)} of {len(classes)} classes have no image ({some(empty)}); add images or remove the folders")
    if problems is not None:
        problems += [Problem(f"{name}/", Reason.EMPTY_CLASS) for name in empty]
        loose = [file for file in sorted(folder.iterdir()) if file.suffix.lower() in IMAGES and not file.name.startswith(".")]
        loose = [file for file in loose if not file.is_dir() and _sound(file, root, problems)]
        if classes:
            problems += [Problem(_shown(file, root), Reason.NO_CLASS, path=file) for file in loose]
        else:
            paths, labels = [file.name for file in loose], [None] * len(loose)
    return pa.table({"image": pa.array(paths, pa.string()), "label": pa.array(labels, pa.string()), PLACE: pa.array(paths, pa.string())})


def _images(folder: Path) -> list[Path]:
    files = sorted(file for file in folder.rglob("*") if file.is_file() and not file.name.startswith("."))
    strange = [file for file in files if file.suffix.lower() not in IMAGES | _NOTES]
    if strange:
        raise DataError(f"{strange[0]}: not a kind of image that is read; convert it to PNG or JPEG, or remove it")
    return [file for file in files if file.suffix.lower() in IMAGES]


def _sound_images(folder: Path, root: Path, problems: list[Problem]) -> list[Path]:
    """The images of a class; folders that are links are not entered."""
    if folder.is_symlink():
        problems.append(Problem(_shown(folder, root), Reason.LINK, "a folder"))
        return []
    found = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        problems += [
            Problem(_shown(Path(parent, name), root), Reason.LINK, "a folder") for name in folders if Path(parent, name).is_symlink()
        ]
        found += [Path(parent, name) for name in files if not name.startswith(".") and Path(name).suffix.lower() not in _NOTES]
    return [file for file in sorted(found) if _sound(file, root, problems)]


def _sound(file: Path, root: Path, problems: list[Problem]) -> bool:
    fault = (Reason.NAME, "") if not str(file).isprintable() else file_fault(file, root)
    if not fault and file.suffix.lower() not in IMAGES:
        fault = Reason.NOT_AN_IMAGE, "convert it to PNG or JPEG"
    if fault:
        problems.append(Problem(_shown(file, root), *fault, path=file))
    return fault is None


def _shown(file: Path, root: Path) -> str:
    return file.relative_to(root).as_posix().encode("utf-8", "backslashreplace").decode()


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
    except (AttributeError, KeyError, TypeError, ValueError, RecursionError) as error:
        raise DataError(
            f"{file}: not a file of Karpathy's splits ({error.__class__.__name__}: {error}); "
            "expected images, each with filename, split and sentences; write other tables as CSV or JSON lines"
        ) from error
    return pa.Table.from_pylist(rows)


def _tar(file: Path, given: Path, prefix: str, root: Path, problems: list[Problem] | None) -> pa.Table:
    """One row per WebDataset sample: an image, and any of .cls (index or name), .txt (caption), .json (further columns)."""
    import webdataset

    notes = [folder / "classnames.txt" for folder in (given.parent, given.parent.parent, root)]
    rows = []
    try:
        names = next((note.read_text(encoding="utf-8").splitlines() for note in notes if note.is_file()), [])
        for sample in webdataset.WebDataset([str(file.absolute())], shardshuffle=False, empty_check=False):
            try:
                rows.append(_sample(sample, given, prefix, names))
            except DataError as error:
                if problems is None:
                    raise
                problems.append(Problem(f"{prefix}/{sample['__key__']}", Reason.VALUE, str(error).removeprefix(f"{given}: ")))
    except (tarfile.TarError, OSError, EOFError, ValueError) as error:
        raise DataError(
            f"{given}: cannot be read as a WebDataset tar ({error.args[0] if error.args else error}); repair or replace it"
        ) from error
    if not rows:
        raise DataError(f"{given}: no sample; expected files such as 0001.jpg and 0001.txt in it")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    folders = {row["id"].rpartition("/")[0] for row in rows}
    if problems is None and len(folders) > 1 and set(columns) == {"image", "id"}:
        told = f"its images lie in {len(folders)} folders and have no .cls, .txt or .json beside them, so nothing in it is a label"
        raise DataError(f"{given}: {told}. If the folders are classes, unpack it and give the folder, or `ingest` it as a .zip")
    return pa.table({name: [row.get(name) for row in rows] for name in columns} | {PLACE: [row["id"] for row in rows]})


def _sample(sample: Mapping[str, Any], file: Path, prefix: str, names: Sequence[str]) -> dict[str, Any]:
    key = sample["__key__"]
    image = next((sample[kind[1:]] for kind in IMAGES if kind[1:] in sample), None)
    if image is None:
        raise DataError(
            f"{file}: sample {key!r} has no image, only {some([k for k in sample if not k.startswith('__')])}; expected jpg, png or webp"
        )
    try:
        further = json.loads(sample.get("json", b"{}"))
        row = {name: further[name] for name in further if any(name.lower() in words for words in SYNONYMS.values())}
        row.update({"image": image, "id": f"{prefix}/{key}"})
        if "txt" in sample:
            row["captions"] = [line for line in sample["txt"].decode("utf-8").splitlines() if line.strip()]
        if "cls" in sample:
            word = sample["cls"].decode("utf-8").strip()
            row["label"] = names[int(word)] if names and word.isdecimal() else word
    except IndexError as error:
        raise DataError(f"{file}: sample {key!r} has class {word}, but classnames.txt names {len(names)}") from error
    except (AttributeError, TypeError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: sample {key!r} cannot be read ({error}); expected UTF-8 text and JSON") from error
    return row
