"""From picked columns to rows of the schema: what cannot be used is noted with its reason, images are loaded, captions of one gathered."""

import base64
import binascii
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from cl.data.columns import FAULT, PLACE, TYPES
from cl.data.faults import Fault, Problem, Reason, summary
from cl.data.layouts.places import Places
from cl.data.layouts.reading import SPLITS, Reading
from cl.data.schema import TEXTS
from cl.data.table import ImageTable
from cl.errors import DataError
from cl.text import plural, some


def usable(table: pa.Table, file: Path, base: Path, reading: Reading, mixed: bool, ours: bool) -> pa.Table:
    """The rows whose letters can be read and whose image is there, a regular file inside the root and not too large, and stands once.

    Rows that name one image and differ in their caption stay; those that differ in more are all left out. The image column names
    files as they are found.

    Args:
        table: what `columns.pick` gave.
        file: named in errors.
        base: relative image paths start here.
        reading: where problems are noted.
        mixed: whether a column `split` decides, and must say train, val or test.
        ours: a data set of ours: its ids are as they are.

    Raises:
        DataError: no row is left, or none of a whole class because of its letters.
    """
    paths, inline = places(table["image"], file)
    finder = Places(base, reading.root)
    paths = [path if ready or not path else finder.find(path) for path, ready in zip(paths, inline, strict=True)]
    names: list[str | None] = table["id"].to_pylist() if "id" in table.column_names else _whose(paths, inline, base)
    faults = _faults(table, paths, inline, base, reading, mixed)
    if "id" in table.column_names:
        for row, name in enumerate(names):
            if not name or not (ours or name.isprintable()):
                faults[row] = Reason.ID, repr(name)
    where = table[PLACE].to_pylist()
    _no_class_lost(table, faults, file)
    for row, fault in enumerate(faults):
        if fault:
            named = None if inline[row] or not paths[row] else base / str(paths[row])
            reading.problems.append(Problem(where[row], *fault, path=named))
    files = [path for path, ready in zip(paths, inline, strict=True) if path and not ready]
    reading.named.update(os.path.relpath(base / path, reading.root) for path in files)
    table = _located(table, paths, inline)
    keep = _once(table, names, [row for row, fault in enumerate(faults) if not fault], where, reading)
    if not keep:
        raise DataError(f"{file}: none of {plural(len(paths), 'row')} can be used: {summary(reading.problems)}")
    return table if len(keep) == len(paths) else table.take(pa.array(keep, pa.int64()))


def finish(table: pa.Table, file: Path, base: Path, root: Path, split: str) -> ImageTable:
    """Usable columns as rows of the schema: ids given, captions of one image gathered, images loaded.

    Args:
        table: what `usable` gave.
        file: named in errors.
        base: relative image paths start here.
        root: ids of images in files are paths relative to it.
        split: part of ids that have to be made up.
    """
    paths, inline = places(table["image"], file)
    paths = [None if ready else path for path, ready in zip(paths, inline, strict=True)]
    ids = table["id"].to_pylist() if "id" in table.column_names else _ids(paths, table["image"], split, base, root)
    first, texts = _gathered(table, ids)
    table = table.take(pa.array(first, pa.int64())) if len(first) < len(ids) else table
    images = _loaded(table["image"], [paths[row] for row in first], base, file)
    columns = {"id": pa.array([ids[row] for row in first], pa.string()), "image": images, **texts}
    for name in ("label", "domain", "time", "identity"):
        columns[name] = table[name] if name in table.column_names else pa.nulls(len(first), TYPES[name])
    return ImageTable(pa.table(columns))


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


def _whose(paths: Sequence[str | None], inline: Sequence[bool], base: Path) -> list[str | None]:
    return [None if ready or not path else os.path.normpath(os.path.join(base, path)) for path, ready in zip(paths, inline, strict=True)]


def _faults(
    table: pa.Table, paths: Sequence[str | None], inline: Sequence[bool], base: Path, reading: Reading, mixed: bool
) -> list[Fault | None]:
    texts = pa.types.is_string(table["image"].type) or pa.types.is_large_string(table["image"].type)
    cells = table["image"].to_pylist() if texts else [None] * len(paths)
    words = table["split"].to_pylist() if mixed and "split" in table.column_names else None
    letters: list[str | None] = table[FAULT].to_pylist() if FAULT in table.column_names else [None] * len(paths)
    known: dict[str | None, Fault | None] = {}  # a path may stand in many rows
    faults: list[Fault | None] = []
    for row, path in enumerate(paths):
        if not inline[row] and path not in known:
            known[path] = _file_fault(path, base, reading)
        fault = _text_fault(cells[row]) if inline[row] else known[path]
        if words and (words[row] or "").lower() not in SPLITS:
            fault = Reason.VALUE, f"split {words[row]!r}; expected train, val or test"
        faults.append((Reason.NOT_UTF8, told) if (told := letters[row]) else fault)
    return faults


def _text_fault(cell: str | None) -> Fault | None:
    try:
        if cell is not None:
            base64.b64decode(cell.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        return Reason.UNREADABLE, f"the image text is not base64 ({error}); write data:image/png;base64,..."
    return None


def _file_fault(path: str | None, base: Path, reading: Reading) -> Fault | None:
    if not path:
        return Reason.NO_IMAGE, "the row has neither a path nor bytes"
    if not path.isprintable():
        return Reason.NAME, repr(path)
    if not Path(os.path.abspath(base / path)).is_relative_to(os.path.abspath(reading.root)):
        return Reason.OUTSIDE, path
    fault = reading.fault(base / path)
    return (Reason.MISSING, path) if fault and fault[0] == Reason.MISSING else fault


def _no_class_lost(table: pa.Table, faults: Sequence[Fault | None], file: Path) -> None:
    """A class none of whose rows can be read is lost without a trace: its name is what could not be read."""
    if "label" not in table.column_names:
        return
    labels = table["label"].to_pylist()
    bad = Counter(label for label, fault in zip(labels, faults, strict=True) if fault and fault[0] == Reason.NOT_UTF8)
    left = {label for label, fault in zip(labels, faults, strict=True) if not (fault and fault[0] == Reason.NOT_UTF8)}
    if lost := [label for label in bad if label is not None and label not in left]:
        first = next(fault[1] for fault in faults if fault and fault[0] == Reason.NOT_UTF8)
        told = (
            f"{sum(bad.values())} of {plural(len(labels), 'row is', 'rows are')} not UTF-8 ({first}), and no row would be "
            f"left of {some(lost)}"
        )
        raise DataError(f"{file}: {told}; save the table as UTF-8")


def _located(table: pa.Table, paths: Sequence[str | None], inline: Sequence[bool]) -> pa.Table:
    column = table["image"]
    if all(inline) or not pa.types.is_string(column.type):
        return table  # a struct's paths are as they are
    cells = [cell if ready else path for cell, path, ready in zip(column.to_pylist(), paths, inline, strict=True)]
    return table.set_column(table.column_names.index("image"), "image", pa.array(cells, column.type))


def _once(table: pa.Table, names: Sequence[str | None], rows: Sequence[int], where: Sequence[str], reading: Reading) -> list[int]:
    rest = [table[name].to_pylist() for name in ("label", "domain", "time", "identity") if name in table.column_names]
    words = [table[name].to_pylist() for name in TEXTS if name in table.column_names]
    first: dict[str, int] = {}
    said: dict[str, set[tuple[tuple[int, str], ...]]] = {}
    clash: set[str] = set()
    keep, again = [], []
    for row in rows:
        name, told = names[row], tuple((place, text) for place, column in enumerate(words) for text in column[row] or ())
        if name is None or name not in first:
            keep.append(row)
        elif any(column[row] != column[first[name]] for column in rest):
            detail = f"{where[first[name]]} has the same image and says otherwise"
            reading.problems.append(Problem(where[row], Reason.CONFLICT, detail))
            clash.add(name)
        elif told and () not in said[name] and told not in said[name]:
            keep.append(row)
        else:
            again.append(Problem(where[row], Reason.DUPLICATE, f"of {where[first[name]]}"))
        if name is not None:
            first.setdefault(name, row)
            said.setdefault(name, set()).add(told)
    for name in sorted(clash):
        reading.problems.append(Problem(where[first[name]], Reason.CONFLICT, "other rows have the same image and say otherwise"))
    reading.problems += again
    return [row for row in keep if names[row] not in clash]


def _ids(paths: Sequence[str | None], column: pa.ChunkedArray, split: str, base: Path, root: Path) -> list[str]:
    if None not in paths:
        return [Path(os.path.relpath(base / str(path), root)).as_posix() for path in paths]
    hints = pc.struct_field(column, "path").to_pylist() if pa.types.is_struct(column.type) else [None]
    if None in hints or len(set(hints)) < len(hints):  # base names of different folders may coincide
        hints = [f"{row:06d}" for row in range(len(column))]
    return [f"{split}/{hint}" for hint in hints]


def _gathered(table: pa.Table, ids: Sequence[str]) -> tuple[list[int], dict[str, pa.Array]]:
    """The first row of each id and all its captions, right, reworded and wrong ones: a caption per row is a common layout."""
    # shards of one split may differ in whether they have captions
    told = {name: table[name].to_pylist() if name in table.column_names else [None] * len(ids) for name in TEXTS}
    texts = {name: [cell or [] for cell in cells] for name, cells in told.items()}
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        start = first.setdefault(name, row)
        if row != start:
            for cells in texts.values():
                cells[start] = cells[start] + cells[row]
    rows = list(first.values())
    return rows, {name: pa.array([cells[row] for row in rows], TYPES[name]) for name, cells in texts.items()}


def _loaded(column: pa.ChunkedArray, paths: Sequence[str | None], base: Path, file: Path) -> Any:
    inline = pc.struct_field(column, "bytes") if pa.types.is_struct(column.type) else column
    if not any(paths) and not pa.types.is_string(inline.type):
        return inline
    cells = zip(inline.to_pylist(), paths, strict=True)
    return pa.array([_bytes(cell, path, base, file) for cell, path in cells], pa.large_binary())


def _bytes(cell: Any, path: str | None, base: Path, file: Path) -> bytes:
    if path is None:
        return cell if isinstance(cell, bytes) else base64.b64decode(cell.partition(",")[2], validate=True)
    try:
        return (base / path).read_bytes()
    except OSError as error:
        raise DataError(f"{file}: {path} cannot be read any more ({error.strerror}); it was there a moment ago") from error
