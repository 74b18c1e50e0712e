"""From the columns people have (any names, paths or bytes, indices or words) to rows that follow the schema."""

import base64
import binascii
import difflib
import json
import os
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cl.data import SCHEMA, ImageTable, openable
from cl.errors import DataError
from cl.images import decode

SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("id", "uid", "key"),
    "image": (
        *("image", "img", "image_bytes", "bytes", "base64", "image_path", "img_path", "filepath", "file_path"),
        *("file_name", "filename", "image_file", "file", "path"),
    ),
    "label": ("label", "class", "category", "class_name", "label_name"),
    "captions": ("captions", "caption", "texts", "text", "sentences", "sentence", "title"),
    "domain": ("domain",),
    "time": ("time", "timestamp", "datetime", "date"),
    "split": ("split",),
}
PLACE = "where it stands"  # a column of ours beside those of the file


class CellError(DataError):
    """The cells of some rows do not fit; the table without these rows would."""


_STRINGS = pa.list_(pa.string())
_TYPES = {"label": pa.string(), "captions": _STRINGS, "domain": pa.string(), "time": SCHEMA.field("time").type}


def did_you_mean(word: str, known: Sequence[str]) -> str:
    """A list of what there is, and the closest match where there is one.

    >>> did_you_mean("greke", ["greek", "latin"])
    'there are greek, latin; did you mean greek?'
    """
    close = difflib.get_close_matches(word, known, n=1)
    listed = ", ".join(known[:12]) + (f" and {len(known) - 12} more" if len(known) > 12 else "")
    return f"there are {listed or 'none'}" + (f"; did you mean {close[0]}?" if close else "")


def some(words: Sequence[object]) -> str:
    """The first three, and how many more there are.

    >>> some(["a", "b", "c", "d"])
    'a, b, c and 1 more'
    """
    return ", ".join(str(w) for w in words[:3]) + (f" and {len(words) - 3} more" if len(words) > 3 else "")


def pick(raw: pa.Table, file: Path, chosen: Mapping[str, str | None]) -> pa.Table:
    """The table with its columns found, renamed to their roles, and class or domain indices turned into names.

    Raises:
        DataError: a chosen column or the image column is missing, the table is empty, or values do not fit.
    """
    if not raw.num_rows:
        raise DataError(f"{file}: the table has no rows; expected one per image")
    names = [name for name in raw.column_names if name != PLACE]
    if len(set(names)) < len(names):
        raise DataError(f"{file}: two columns share a name among {', '.join(names)}; rename one")
    columns = {}
    for role, synonyms in SYNONYMS.items():
        found = _find(names, role, synonyms, chosen.get(role), file)
        if found is not None:
            columns[role] = _column(role, raw[found], f"{file}, column {found!r}", _class_names(raw.schema, found, file))
    if "image" not in columns:
        if len(names) == 1 and (other := re.search(r"[;\t|,]", names[0])):
            told = f"{file}: its header is one cell, {names[0]!r:.100}; cells end at a comma in .csv and at a tab in .tsv"
            raise DataError(f"{told}, not at {other[0]!r}: write it so, or give it the other name")
        raise DataError(f"{file}: no image column among {', '.join(names)}; name it image or path, or say which: `data add` has --image")
    return pa.table(columns)


def finish(table: pa.Table, file: Path, *, base: Path, root: Path, split: str, check: bool) -> ImageTable:
    """Picked columns as rows of the schema: ids given, captions of one image gathered, images loaded and looked at.

    Args:
        table: what `pick` gave.
        file: named in errors.
        base: relative image paths start here.
        root: no image may lie outside; ids of images in files are paths relative to it.
        split: part of ids that have to be made up.
        check: decode every image to its last pixel.

    Raises:
        DataError: an image is missing, damaged or outside `root`; an id stands twice; an id or image is empty.
    """
    paths = _paths(table["image"], file, base, root)
    ids = table["id"].to_pylist() if "id" in table.column_names else _ids(paths, table["image"], split, base, root)
    if None in ids or "" in ids:
        raise DataError(f"{file}, row {1 + next(i for i, x in enumerate(ids) if not x)}: the id is empty; every row needs one")
    first, captions = _gathered(table, ids, file)
    table = table.take(pa.array(first, pa.int64())) if len(first) < len(ids) else table
    images = _loaded(table["image"], [paths[row] for row in first], file, base)
    columns = {"id": pa.array([ids[row] for row in first], pa.string()), "image": images, "captions": captions}
    for name in ("label", "domain", "time"):
        columns[name] = table[name] if name in table.column_names else pa.nulls(len(first), _TYPES[name])
    rows = ImageTable(pa.table({name: columns[name] for name in SCHEMA.names}))
    if check:
        openable(rows, str(file), decode)
    return rows


def _column(role: str, column: pa.ChunkedArray, where: str, names: list[str] | None) -> Any:
    match role:
        case "image":
            return column
        case "label" | "domain":
            return _words(column, names, where)
        case "captions":
            return _texts(column, where)
        case "time":
            return _times(column, where)
    return _text(column, where)


def _find(names: Sequence[str], role: str, synonyms: Sequence[str], chosen: str | None, file: Path) -> str | None:
    if chosen is not None:
        if chosen not in names:
            raise DataError(f"{file}: no column {chosen!r} for the {role}; {did_you_mean(chosen, names)}")
        return chosen
    lower = {name.lower().strip(): name for name in reversed(names)}
    return next((lower[synonym] for synonym in synonyms if synonym in lower), None)


def _class_names(schema: pa.Schema, column: str, file: Path) -> list[str] | None:
    try:  # the layout Hugging Face `datasets` writes
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}")).get("info", {}).get("features", {})
        names = features.get(column, {}).get("names")
    except (ValueError, AttributeError) as error:
        raise DataError(f"{file}: the class names in its 'huggingface' metadata cannot be read ({error}); write the file again") from error
    return None if names is None else [str(name) for name in names]


def _text(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: holds {column.type}; expected text") from error


def _words(column: pa.ChunkedArray, names: list[str] | None, where: str) -> pa.ChunkedArray:
    if names is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        words = _text(_whole(column, where) if pa.types.is_floating(column.type) else column, where)
        return pc.if_else(pc.equal(words, ""), pa.scalar(None, pa.string()), words)
    index = _whole(column, where)
    wrong = pc.or_(pc.less(index, -1), pc.greater_equal(index, len(names))).to_pylist()
    if True in wrong:
        row = wrong.index(True)
        raise CellError(
            f"{where}, row {row + 1}: index {index[row]}, but the file names {len(names)} classes; expected 0 to {len(names) - 1}"
        )
    index = pc.if_else(pc.equal(index, -1), pa.scalar(None, pa.int64()), index)  # -1 is how that layout says "unlabelled"
    return pa.array(names, pa.string()).take(index.combine_chunks())


def _whole(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)  # how pandas writes an empty cell
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CellError(f"{where}: holds numbers that are not whole ({error}); expected names or indices") from error


def _texts(column: pa.ChunkedArray, where: str) -> pa.Array:
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if not (pa.types.is_string(inner) or pa.types.is_large_string(inner) or pa.types.is_null(inner)):
        raise DataError(f"{where}: holds {kind}; expected a text or a list of texts")
    cells = ([cell] if isinstance(cell, str) else cell or [] for cell in column.to_pylist())
    return pa.array([[text for text in cell if text and text.strip()] for cell in cells], _STRINGS)


def _times(column: pa.ChunkedArray, where: str) -> pa.Array:
    moments = []
    for row, cell in enumerate(column.to_pylist()):
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime(cell.year, cell.month, cell.day)
        elif cell is not None and not isinstance(cell, datetime):
            text = f"{cell}".strip()
            try:  # 2014 and 2014-03 are dates to people, though not to fromisoformat
                cell = datetime.fromisoformat(text + "-01-01"[3 * text.count("-") :] if len(text) in (4, 7) else text) if text else None
            except ValueError as error:
                raise CellError(f"{where}, row {row + 1}: {text!r} is not a date; write 2024-03-31 or 2024-03-31T12:00:00") from error
        moments.append(cell.replace(tzinfo=UTC) if cell is not None and cell.tzinfo is None else cell)
    return pa.array(moments, _TYPES["time"])


def places(column: pa.ChunkedArray, file: Path) -> tuple[list[str | None], list[bool]]:
    """The path that each row names, and whether its image is inline instead.

    Raises:
        DataError: the column holds neither paths nor bytes.
    """
    kind = column.type
    if pa.types.is_struct(kind):
        if {"bytes", "path"} - {field.name for field in kind}:
            raise DataError(f"{file}: the image column is {kind}; expected bytes and path in it")
        return pc.struct_field(column, "path").to_pylist(), pc.is_valid(pc.struct_field(column, "bytes")).to_pylist()
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        paths = column.to_pylist()
        return paths, [path is not None and path.startswith("data:") for path in paths]
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return [None] * len(column), pc.is_valid(column).to_pylist()
    raise DataError(f"{file}: the image column holds {kind}; expected paths or encoded bytes")


def _paths(column: pa.ChunkedArray, file: Path, base: Path, root: Path) -> list[str | None]:
    """The file each row names (None: its image is inline), after checking that it lies in the folder."""
    paths, inline = places(column, file)
    for row, (path, ready) in enumerate(zip(paths, inline, strict=True)):
        if not ready and not path:
            raise DataError(f"{file}, row {row + 1}: no image; every row needs a path or bytes")
        if not ready and not Path(os.path.abspath(base / str(path))).is_relative_to(os.path.abspath(root)):
            raise DataError(f"{file}, row {row + 1}: {path} lies outside the folder {root}; move the image into it")
    return [None if ready else path for path, ready in zip(paths, inline, strict=True)]


def _ids(paths: Sequence[str | None], column: pa.ChunkedArray, split: str, base: Path, root: Path) -> list[str]:
    if None not in paths:
        return [Path(os.path.relpath(base / str(path), root)).as_posix() for path in paths]
    hints = pc.struct_field(column, "path").to_pylist() if pa.types.is_struct(column.type) else [None]
    if None in hints or len(set(hints)) < len(hints):  # base names of different folders may coincide
        hints = [f"{row:06d}" for row in range(len(column))]
    return [f"{split}/{hint}" for hint in hints]


def _gathered(table: pa.Table, ids: Sequence[str], file: Path) -> tuple[list[int], pa.Array]:
    """The first row of each id and its captions: a caption per row is a common layout."""
    # shards of one split may differ in whether they have captions
    texts = [cell or [] for cell in table["captions"].to_pylist()] if "captions" in table.column_names else [[] for _ in ids]
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        first.setdefault(name, row)
    if len(first) < len(ids):
        rest = table.drop_columns([c for c in ("captions", "image") if c in table.column_names])
        for row, name in enumerate(ids):
            start = first[name]
            if row != start and not (texts[row] and texts[start] and rest.slice(row, 1).equals(rest.slice(start, 1))):
                raise DataError(f"{file}: {name!r} stands in rows {start + 1} and {row + 1}; ids must be unique, so remove or rename one")
            if row != start:
                texts[start] = texts[start] + texts[row]
    rows = list(first.values())
    return rows, pa.array([texts[row] for row in rows], _STRINGS)


def _loaded(column: pa.ChunkedArray, paths: Sequence[str | None], file: Path, base: Path) -> Any:
    missing = [path for path in paths if path is not None and not os.path.isfile(base / path)]
    if missing:
        raise DataError(
            f"{file}: {len(missing)} of {len(paths)} images do not exist ({some(missing)}); looked in {base}. Add them or drop the rows"
        )
    inline = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    if not any(paths) and not pa.types.is_string(inline.type):
        return inline
    cells = inline.to_pylist()
    return pa.array([_bytes(cell, path, base, f"{file}, row {row + 1}") for row, (cell, path) in enumerate(zip(cells, paths, strict=True))],
                    pa.large_binary())  # fmt: skip


def _bytes(cell: Any, path: str | None, base: Path, where: str) -> bytes:
    if path is not None:
        try:
            return (base / path).read_bytes()
        except OSError as error:
            raise DataError(f"{where}: {path} cannot be read ({error.strerror}); check its permissions") from error
    try:
        return cell if isinstance(cell, bytes) else base64.b64decode(cell.partition(",")[2], validate=True)
    except binascii.Error as error:
        raise DataError(f"{where}: the image text is not base64 ({error}); write data:image/png;base64,...") from error
