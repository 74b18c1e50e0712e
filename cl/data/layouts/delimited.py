"""Tables as Arrow tables whose columns are named as they are: CSV and its kin, JSON lines, Parquet.

Rows keep where they stand (PLACE) and, where their letters are not UTF-8, what is wrong with them (FAULT).
"""

import io
import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv
import pyarrow.json
import pyarrow.parquet as pq

from cl.data.columns import FAULT, PLACE, SYNONYMS
from cl.data.faults import Problem, Reason
from cl.data.layouts.encodings import guess, mended, source
from cl.data.layouts.reading import Reading
from cl.errors import DataError

_BLOCK = 1 << 28  # an inline image is one line of a JSON file, and a line must fit in a block
_MARKS = (",", ";", "\t", "|")
_FLICKR30K = re.compile(r"(.+?)\|\s*(\d+)\s+(.+)")  # one row of its table lacks the second mark


def parquet(file: Path, reading: Reading) -> pa.Table:
    """A Parquet file, ours or anybody's."""
    return pq.read_table(file)


def csv(file: Path, reading: Reading) -> pa.Table:
    """A table of text whose cells end at a comma, semicolon, tab or bar, whichever makes its header one of images."""
    head, data = _header(file, reading)
    known = {word for words in SYNONYMS.values() for word in words} | {str(name).lower() for name in reading.columns.values() if name}
    mark = delimiter(head, "\t" if file.suffix.lower() == ".tsv" else ",", known)
    options = pyarrow.csv.ReadOptions(use_threads=False)  # one thread: only then does a row know its number
    with pyarrow.csv.open_csv(_again(data), read_options=options, parse_options=_parse(mark, lambda row: "skip")) as reader:
        names = reader.schema.names
    # every cell is text, and is bytes at first: 007 is a class, and so is NA
    convert = pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(names, pa.binary()), strings_can_be_null=False)
    odd: dict[int, str] = {}

    def note(row: Any) -> str:
        odd[row.number - 2] = row.text  # it counts from 1, the header with it
        return "skip"

    table = pyarrow.csv.read_csv(_again(data), read_options=options, parse_options=_parse(mark, note), convert_options=convert)
    repaired = _repaired(odd, mark, len(names))
    for row, text in odd.items():
        if row not in repaired:
            told = f"{len(text.split(mark))} cells where the header has {len(names)}"
            reading.problems.append(Problem(f"{file.name} row {row + 1}", Reason.VALUE, told))
    numbers = [row for row in range(table.num_rows + len(odd)) if row not in odd]
    if repaired:
        cells = zip(*repaired.values(), strict=True)
        more = [pa.array([cell.encode() for cell in column], pa.binary()) for column in cells]
        table = pa.concat_tables([table, pa.Table.from_arrays(more, names=table.column_names)])
        numbers += list(repaired)
    table = _decoded(table.rename_columns([name.strip() for name in table.column_names]), [f"{file.name} row {n + 1}" for n in numbers])
    return table if mark != "|" else _trimmed(table)


def delimiter(header: str, usual: str, known: set[str]) -> str:
    """Where the cells of a header end: at the mark that makes one of them a known name, else at the usual one.

    >>> delimiter("path;caption, in English", ",", {"path", "caption"})
    ';'
    """
    for mark in (usual, *_MARKS):
        cells = [cell.strip().strip('"').lower() for cell in header.split(mark)]
        if len(cells) > 1 and known & set(cells):
            return mark
    return usual if usual in header else max(_MARKS, key=header.count) if any(map(header.count, _MARKS)) else usual


def _header(file: Path, reading: Reading) -> tuple[str, Path | bytes]:
    data = source(file, reading)
    with data.open("rb") if isinstance(data, Path) else data as handle:
        head = handle.readline(1 << 20)
        rest = None if isinstance(data, Path) else head + handle.read()
    try:
        return head.decode("utf-8-sig").rstrip("\r\n"), file if rest is None else rest
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: cannot be read as {file.suffix}: its header is not UTF-8 but {guess(head)}; save it as UTF-8") from error


def _again(data: Path | bytes) -> Path | io.BytesIO:
    return data if isinstance(data, Path) else io.BytesIO(data)


def _parse(mark: str, note: Any) -> pyarrow.csv.ParseOptions:
    # cells between bars are not quoted: a quotation mark there is one
    return pyarrow.csv.ParseOptions(
        delimiter=mark, quote_char=False if mark == "|" else '"', newlines_in_values=mark != "|", invalid_row_handler=note
    )


def _repaired(odd: dict[int, str], mark: str, width: int) -> dict[int, tuple[str, ...]]:
    if mark != "|" or width != 3:
        return {}
    return {row: cells.groups() for row, text in odd.items() if (cells := _FLICKR30K.fullmatch(text))}


def _decoded(table: pa.Table, where: Sequence[str]) -> pa.Table:
    """Cells of bytes as text; a row that is not UTF-8 says so, and in which encoding it would be what."""
    columns: list[Any] = []
    faults: dict[int, str] = {}
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):  # two may share a name
        try:
            columns.append(column.cast(pa.string()))
        except pa.ArrowInvalid:
            cells = []
            for row, cell in enumerate(column.to_pylist()):
                text, encoding = mended(cell)
                cells.append(text)
                if encoding:
                    faults.setdefault(row, f"column {name!r} reads as {encoding}: {text!r:.60}")
            columns.append(pa.array(cells, pa.string()))
    faulty = pa.array([faults.get(row) for row in range(len(where))], pa.string())
    return pa.table([*columns, pa.array(where, pa.string()), faulty], names=[*table.column_names, PLACE, FAULT])


def _trimmed(table: pa.Table) -> pa.Table:
    """Between bars people leave blanks."""
    return pa.table([pc.utf8_trim_whitespace(column) for column in table.columns], names=table.column_names)


def json_lines(file: Path, reading: Reading) -> pa.Table:
    """One JSON mapping per line."""
    data = source(file, reading)
    rows = (data.read_bytes() if isinstance(data, Path) else data.getvalue()).removeprefix(b"\xef\xbb\xbf").splitlines()
    kept, where, faults = [], [], []
    for number, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        text, encoding = mended(row)
        place = f"{file.name} row {number}"
        try:
            told = "" if isinstance(json.loads(text), dict) else "no mapping"
        except (ValueError, RecursionError) as error:
            told = f"{error}"
        if told:
            reading.problems.append(Problem(place, Reason.VALUE, told))
            continue
        kept.append(text.encode())
        where.append(place)
        faults.append(f"reads as {encoding}: {text!r:.60}" if encoding else None)
    if not kept:
        first = f" (the first: {reading.problems[-1].detail})" if rows and reading.problems else ""
        raise DataError(f"{file}: cannot be read as {file.suffix}: no line holds a JSON mapping{first}; expected one per image")
    return json_table(kept, where, faults)


def json_table(rows: Sequence[bytes], where: Sequence[str], faults: Sequence[str | None] | None = None) -> pa.Table:
    """Mappings in JSON, one per row, as a table."""
    table = pyarrow.json.read_json(io.BytesIO(b"\n".join(rows)), read_options=pyarrow.json.ReadOptions(block_size=_BLOCK))
    table = table.append_column(PLACE, pa.array(where, pa.string()))
    return table.append_column(FAULT, pa.array(faults or [None] * len(rows), pa.string()))
