"""Sorts the rows of a table that can be used from those that cannot, each with its reason; the strict readers take what is left."""

import base64
import binascii
import os
import stat
from collections.abc import Container, Iterator, Mapping, Sequence
from pathlib import Path

import pyarrow as pa

from cl.columns import PLACE, CellError, pick, places
from cl.errors import DataError
from cl.faults import Fault, Problem, Reason
from cl.images import LARGEST


def picked(raw: pa.Table, file: Path, chosen: Mapping[str, str | None], problems: list[Problem]) -> pa.Table:
    """As `columns.pick`, without the rows whose cells cannot be read; a column PLACE says where each row stood.

    Raises:
        DataError: as `columns.pick`, for what is wrong with the whole table; or no row is left.
    """
    if PLACE not in raw.column_names:
        raw = raw.append_column(PLACE, pa.array([f"{file.name} row {row + 1}" for row in range(raw.num_rows)], pa.string()))
    rows = [row for first, last in _readable(raw, file, chosen, problems) for row in range(first, last)]
    if raw.num_rows and not rows:
        raise DataError(f"{file}: none of {raw.num_rows} rows can be used ({problems[-1].detail}); repair the table")
    raw = raw if len(rows) == raw.num_rows else raw.take(pa.array(rows, pa.int64()))
    return pick(raw, file, chosen).append_column(PLACE, raw[PLACE])


def usable(table: pa.Table, file: Path, base: Path, root: Path, splits: Container[str], problems: list[Problem]) -> pa.Table:
    """The picked rows whose image is there, a regular file inside `root` and not too large, and stands once, in one of `splits` where
    a column says which; PLACE is dropped.

    Rows that name one image and differ in their caption stay; those that differ in more are all left out.

    Raises:
        DataError: no row is left.
    """
    paths, inline = places(table["image"], file)
    named = "id" in table.column_names
    ids: list[str | None] = table["id"].to_pylist() if named else _ids(paths, inline, base)
    texts = pa.types.is_string(table["image"].type) or pa.types.is_large_string(table["image"].type)
    cells = table["image"].to_pylist() if texts else [None] * len(paths)
    where = table[PLACE].to_pylist()
    words = table["split"].to_pylist() if "split" in table.column_names else None
    known: dict[str | None, Fault | None] = {}  # a path may stand in many rows
    keep = []
    for row, path in enumerate(paths):
        if not inline[row] and path not in known:
            known[path] = _file_fault(path, base, root)
        fault = _text_fault(cells[row]) if inline[row] else known[path]
        if words and splits and (words[row] or "").lower() not in splits:
            fault = (Reason.VALUE, f"split {words[row]!r}; expected train, val or test")
        if named and not ((name := ids[row]) and name.isprintable()):
            fault = (Reason.ID, repr(ids[row]))
        if fault:
            problems.append(Problem(where[row], *fault, path=None if inline[row] or not path else base / path))
        else:
            keep.append(row)
    keep = _once(table.drop_columns(PLACE), ids, keep, where, problems)
    if not keep:
        raise DataError(f"{file}: none of {len(paths)} rows can be used ({problems[-1].where}: {problems[-1].reason}); repair the data")
    table = table.drop_columns(PLACE)
    return table if len(keep) == len(paths) else table.take(pa.array(keep, pa.int64()))


def _ids(paths: Sequence[str | None], inline: Sequence[bool], base: Path) -> list[str | None]:
    return [None if ready or not path else os.path.normpath(os.path.join(base, path)) for path, ready in zip(paths, inline, strict=True)]


def _readable(raw: pa.Table, file: Path, chosen: Mapping[str, str | None], problems: list[Problem]) -> Iterator[tuple[int, int]]:
    """Runs of rows that `pick` takes; a run that it refuses for a cell is halved until the row stands alone."""
    todo = [(0, raw.num_rows)]
    while todo:
        first, last = todo.pop()
        try:
            pick(raw.slice(first, last - first), file, chosen)
        except CellError as error:
            if last - first == 1:
                problems.append(Problem(raw[PLACE][first].as_py(), Reason.VALUE, str(error).removeprefix(f"{file}, ")))
            else:
                todo += [((first + last) // 2, last), (first, (first + last) // 2)]  # the first half is taken next
        else:
            yield first, last


def _once(table: pa.Table, ids: Sequence[str | None], rows: Sequence[int], where: Sequence[str], problems: list[Problem]) -> list[int]:
    rest = [table[name].to_pylist() for name in ("label", "domain", "time") if name in table.column_names]
    texts = table["captions"].to_pylist() if "captions" in table.column_names else [[]] * len(where)
    first: dict[str, int] = {}
    said: dict[str, set[tuple[str, ...]]] = {}
    clash: set[str] = set()
    keep = []
    for row in rows:
        name, told = ids[row], tuple(texts[row] or ())
        if name is None or name not in first:
            keep.append(row)
        elif any(column[row] != column[first[name]] for column in rest):
            problems.append(Problem(where[row], Reason.CONFLICT, f"{where[first[name]]} has the same image and says otherwise"))
            clash.add(name)
        elif told and () not in said[name] and told not in said[name]:
            keep.append(row)
        else:
            problems.append(Problem(where[row], Reason.DUPLICATE, f"of {where[first[name]]}"))
        if name is not None:
            first.setdefault(name, row)
            said.setdefault(name, set()).add(told)
    for name in sorted(clash):
        problems.append(Problem(where[first[name]], Reason.CONFLICT, "other rows have the same image and say otherwise"))
    return [row for row in keep if ids[row] not in clash]


def _text_fault(cell: str | None) -> Fault | None:
    try:
        if cell is not None:
            base64.b64decode(cell.partition(",")[2], validate=True)
    except (binascii.Error, ValueError) as error:
        return Reason.UNREADABLE, f"the image text is not base64 ({error})"
    return None


def _file_fault(path: str | None, base: Path, root: Path) -> Fault | None:
    if not path:
        return Reason.NO_IMAGE, "the row has neither a path nor bytes"
    if not path.isprintable():
        return Reason.NAME, repr(path)
    if not Path(os.path.abspath(base / path)).is_relative_to(os.path.abspath(root)):
        return Reason.OUTSIDE, path
    return file_fault(base / path, root)


def file_fault(file: Path, root: Path) -> Fault | None:
    """Why a file that should be an image inside `root` is not read: reason and detail; None if it can be.

    A link is never followed out of the folder, and what is no regular file (a pipe, a device) is never opened.
    """
    try:
        found = os.stat(file)
        real = os.path.realpath(file, strict=True)
    except OSError as error:
        return (Reason.LINK if os.path.islink(file) else Reason.MISSING), f"{error.strerror}"
    if not Path(real).is_relative_to(os.path.realpath(root)):
        return Reason.LINK, "leads out of the folder"
    if not stat.S_ISREG(found.st_mode):
        return Reason.NOT_REGULAR, stat.filemode(found.st_mode)
    if found.st_size > LARGEST:
        return Reason.TOO_LARGE, f"{found.st_size:,} bytes; at most {LARGEST:,} are read"
    return None if os.access(file, os.R_OK) else (Reason.UNREADABLE, "no permission to read it")
