"""From the columns people have (any names, paths or bytes, indices or words) to columns of the schema."""

import ast
import json
import re
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cl.data.schema import EXTRAS, SCHEMA
from cl.errors import DataError
from cl.text import did_you_mean
from cl.text import some as some

SYNONYMS: dict[str, tuple[str, ...]] = {
    "id": ("id", "uid", "key"),
    "image": (
        *("image", "img", "image_bytes", "bytes", "base64", "image_path", "img_path", "filepath", "file_path"),
        *("file_name", "filename", "image_file", "file", "path", "image_name", "jpg", "jpeg", "png", "webp"),
    ),
    "label": ("label", "class", "category", "class_name", "label_name"),
    "captions": ("captions", "caption", "texts", "text", "sentences", "sentence", "title", "comment"),
    "domain": ("domain",),
    "time": ("time", "timestamp", "datetime", "date"),
    "split": ("split",),
    "identity": ("identity",),
    "rewrites": ("rewrites",),
    "counterfactuals": ("counterfactuals",),
}
PLACE, FAULT = "where it stands", "what is wrong with its letters"  # columns of ours beside those of the file
BLANK = ("nan", "NaN", "NAN", "None", "NULL", "null", "NaT", "<NA>")  # how programs write that a cell is empty


class CellError(DataError):
    """The cells of some rows do not fit; the table without these rows would."""

    def __init__(self, column: str, detail: str) -> None:
        super().__init__(f"column {column!r}: {detail}")
        self.column, self.detail = column, detail


_STRINGS = pa.list_(pa.string())
TYPES = {field.name: field.type for field in (*SCHEMA, *EXTRAS) if field.name not in ("id", "image")}
_QUOTED = re.compile(r"'(?:[^'\\]|\\.)*'|\"(?:[^\"\\]|\\.)*\"")


def roles(raw: pa.Table, file: Path, chosen: Mapping[str, str | None]) -> dict[str, str]:
    """Which column plays which role.

    Raises:
        DataError: a chosen column or the image column is missing, the table is empty, or two columns share a name.
    """
    names = own(raw.column_names)
    if not raw.num_rows:
        raise DataError(f"{file}: the table has no rows; expected one per image")
    if len(set(names)) < len(names):
        raise DataError(f"{file}: two columns share a name among {', '.join(names)}; rename one")
    by_role = {role: _find(names, role, synonyms, chosen.get(role), file) for role, synonyms in SYNONYMS.items()}
    taken = {role: name for role, name in by_role.items() if name is not None}
    if "image" not in taken:
        raise DataError(f"{file}: no image column among {', '.join(names)}; name it image or path, or say which: `data add` has --image")
    return taken


def own(names: Sequence[str]) -> list[str]:
    """The columns of the file itself."""
    return [name for name in names if name not in (PLACE, FAULT)]


def pick(raw: pa.Table, taken: Mapping[str, str], file: Path, literal: bool = False) -> pa.Table:
    """The table with its columns renamed to their roles, class and domain indices turned into names; PLACE and FAULT stay.

    Args:
        raw: a table as it was read.
        taken: which column plays which role.
        file: named in errors.
        literal: a label or caption that reads as programs write an empty cell is one all the same, and a file is called just as it says.

    Raises:
        CellError: values of some rows do not fit.
        DataError: values do not fit.
    """
    columns: dict[str, Any] = {}
    for role, name in taken.items():
        where, column = f"{file}, column {name!r}", raw[name]
        match role:
            case "label" | "domain" | "identity":
                columns[role] = _words(column, _class_names(raw.schema, name, file), name, where, literal)
            case "captions" | "rewrites" | "counterfactuals":
                columns[role] = _texts(column, where, literal)
            case "time":
                columns[role] = _times(column, name)
            case "image":
                columns[role] = pc.utf8_trim_whitespace(column) if _is_text(column.type) and not literal else column
            case _:
                columns[role] = _text(column, where)
    return pa.table(columns | {name: raw[name] for name in (PLACE, FAULT) if name in raw.column_names})


def blanks(raw: pa.Table, taken: Mapping[str, str]) -> int:
    """How many cells of labels and captions hold a word that programs write for nothing."""
    columns = [raw[taken[role]] for role in ("label", "captions") if role in taken]
    hits = [pc.sum(pc.is_in(c, value_set=pa.array(BLANK, c.type))).as_py() for c in columns if _is_text(c.type)]
    return sum(hit or 0 for hit in hits)


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


def _is_text(kind: pa.DataType) -> bool:
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(column: pa.ChunkedArray, where: str) -> pa.ChunkedArray:
    try:
        return pc.utf8_trim_whitespace(column.cast(pa.string()))
    except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
        raise DataError(f"{where}: holds {column.type}; expected text") from error


def _words(column: pa.ChunkedArray, names: list[str] | None, name: str, where: str, literal: bool) -> pa.ChunkedArray:
    if names is None or not (pa.types.is_integer(column.type) or pa.types.is_floating(column.type)):
        words = _single(_text(_whole(column, name) if pa.types.is_floating(column.type) else column, where), name)
        empty = pa.array(["", *(() if literal else BLANK)], pa.string())
        return pc.if_else(pc.is_in(words, value_set=empty), pa.scalar(None, pa.string()), words)
    index = _whole(column, name)
    wrong = pc.or_(pc.less(index, -1), pc.greater_equal(index, len(names))).to_pylist()
    if True in wrong:
        told = f"index {index[wrong.index(True)]}, but the file names {len(names)} classes; expected 0 to {len(names) - 1}"
        raise CellError(name, told)
    index = pc.if_else(pc.equal(index, -1), pa.scalar(None, pa.int64()), index)  # -1 is how that layout says "unlabelled"
    return pa.array(names, pa.string()).take(index.combine_chunks())


def _single(words: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    """A list of one class is that class; an image is of one class."""
    if not pc.any(pc.starts_with(words, "[")).as_py():
        return words
    cells = [listed(cell) if cell is not None else [None] for cell in words.to_pylist()]
    if many := next((cell for cell in cells if len(cell) > 1), None):
        raise CellError(name, f"holds several labels ({some(many)}); an image is of one class")
    return pa.chunked_array([pa.array([cell[0] if cell else None for cell in cells], pa.string())])


def _whole(column: pa.ChunkedArray, name: str) -> pa.ChunkedArray:
    if pa.types.is_floating(column.type):
        column = pc.if_else(pc.is_nan(column), pa.scalar(None, column.type), column)  # how pandas writes an empty cell
    try:
        return column.cast(pa.int64())
    except pa.ArrowInvalid as error:
        raise CellError(name, f"holds numbers that are not whole ({error}); expected names or indices") from error


def _texts(column: pa.ChunkedArray, where: str, literal: bool) -> pa.Array:
    kind = column.type
    inner = kind.value_type if pa.types.is_list(kind) or pa.types.is_large_list(kind) else kind
    if not (_is_text(inner) or pa.types.is_null(inner)):
        raise DataError(f"{where}: holds {kind}; expected a text or a list of texts")
    cells = (listed(cell) if isinstance(cell, str) else cell or [] for cell in column.to_pylist())
    nothing = {"", *(() if literal else BLANK)}
    return pa.array([[text for text in cell if text and text.strip() not in nothing] for cell in cells], _STRINGS)


def listed(cell: str) -> list[str]:
    """The texts of a cell: several where it holds a list as JSON, Python or NumPy write one.

    >>> [listed(cell) for cell in ("a dog", '["a dog", "it runs"]', "['a dog' 'it runs']", "[a dog]")]
    [['a dog'], ['a dog', 'it runs'], ['a dog', 'it runs'], ['[a dog]']]
    """
    text = cell.strip()
    if not (text.startswith("[") and text.endswith("]")):
        return [cell]
    try:
        words = json.loads(text)
    except (ValueError, RecursionError):
        if _QUOTED.sub("", text[1:-1]).replace(",", "").strip():  # something stands between what is quoted
            return [cell]
        try:
            words = [ast.literal_eval(each) for each in _QUOTED.findall(text)]
        except (ValueError, SyntaxError):
            return [cell]
    return words if isinstance(words, list) and all(isinstance(each, str) for each in words) else [cell]


def _times(column: pa.ChunkedArray, name: str) -> pa.Array:
    moments = []
    for cell in column.to_pylist():
        if isinstance(cell, date) and not isinstance(cell, datetime):
            cell = datetime(cell.year, cell.month, cell.day)
        elif cell is not None and not isinstance(cell, datetime):
            text = f"{cell}".strip()
            try:  # 2014 and 2014-03 are dates to people, though not to fromisoformat
                cell = datetime.fromisoformat(text + "-01-01"[3 * text.count("-") :] if len(text) in (4, 7) else text) if text else None
            except ValueError as error:
                raise CellError(name, f"{text!r} is not a date; write 2024-03-31 or 2024-03-31T12:00:00") from error
        moments.append(cell.replace(tzinfo=UTC) if cell is not None and cell.tzinfo is None else cell)
    return pa.array(moments, TYPES["time"])
