"""What RESULTS.md measured of a method or a part: rows of its tables, parsed and not copied."""

import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[2]
CALLED = {"pseudolabel": ("FPL", "IFPL", "GRIP")}  # what tables call it instead


class Row(NamedTuple):
    """A row of a table, with the table's heading and the anchor that it has on the page of the results."""

    heading: str
    anchor: str
    columns: tuple[str, ...]
    cells: tuple[str, ...]


def rows(text: str | None = None) -> Iterator[Row]:
    """Every row of every table; the row of a variant ("– without ...") gets the method that it is a variant of before it."""
    lines = ((ROOT / "RESULTS.md").read_text(encoding="utf-8") if text is None else text).splitlines()
    headings: list[str] = []
    columns: tuple[str, ...] = ()
    method = ""
    for line in lines:
        if heading := re.match(r"(##+) (.*)", line):
            headings = [*headings[: len(heading[1]) - 2], heading[2]]
            columns = ()
        elif not line.startswith("|"):
            columns = ()
        elif not columns:
            columns = cells(line)
        elif not set(line) <= set("|-: "):
            own = cells(line)
            method = method if own[0].startswith("–") else own[0]
            named = (f"{method} {own[0]}", *own[1:]) if own[0].startswith("–") else own
            yield from (Row(": ".join(headings), slug(headings[-1]), *each) for each in _halves(columns, named))


def cells(line: str) -> tuple[str, ...]:
    """What stands between the bars."""
    return tuple(cell.strip() for cell in line.strip().strip("|").split("|"))


def slug(heading: str) -> str:
    """A heading's anchor, as the site makes it."""
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", heading).strip().lower())


def measured(name: str, kind: str = "preset") -> str:
    """Rows about a preset or a part as Markdown, table by table; a sentence where there is none."""
    tables: dict[tuple[str, str, tuple[str, ...]], list[tuple[str, ...]]] = {}
    for row in rows():
        if _about(name, row.cells[0]):
            tables.setdefault(row[:3], []).append(row.cells)
    if not tables:
        return f"Not measured: no table of the [results](../results.md) has this {kind}.\n"
    told = []
    for (heading, anchor, columns), body in tables.items():
        lines = [columns, ("---",) * len(columns), *body]
        told.append(f"[{heading}](../results.md#{anchor})\n\n" + "\n".join(f"| {' | '.join(line)} |" for line in lines) + "\n")
    return "\n".join(told)


def has_rows(name: str) -> bool:
    """Whether a table has a row about a preset or a part."""
    return any(_about(name, row.cells[0]) for row in rows())


def _about(name: str, cell: str) -> bool:
    # a combination is called by its parts: "replay + l2"
    return f"`{name}`" in cell or name in cell.split(" + ") or cell.split(",")[0] in CALLED.get(name, ())


def _halves(columns: Sequence[str], own: Sequence[str]) -> Iterator[tuple[tuple[str, ...], tuple[str, ...]]]:
    # a table that stands twice side by side, to save height
    half = len(columns) // 2
    if len(columns) % 2 == 0 and columns[:half] == columns[half:]:
        yield tuple(columns[:half]), tuple(own[:half])
        yield tuple(columns[half:]), tuple(own[half:])
    else:
        yield tuple(columns), tuple(own)
