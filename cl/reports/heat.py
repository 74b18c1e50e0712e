"""A matrix as a table whose cells are shaded by their score: read aloud, printed, narrow or in the dark, it says the same."""

from collections.abc import Sequence
from typing import NamedTuple

from cl.evaluation.matrix import Matrix
from cl.reports.figures import ASIDE, LINES, thinned

LEVELS = 11
_ENDS = {"light": ((244, 248, 245), (14, 84, 50)), "dark": ((26, 33, 29), (126, 214, 164))}  # a score of 0, a score of 1

RGB = tuple[int, int, int]


class Cell(NamedTuple):
    """What it shows, the classes that shade it, and whether it was measured right after its set was taught."""

    text: str
    shade: str
    taught: bool


class Heat(NamedTuple):
    """Columns and rows of a matrix, what they are called, and what was left out of a long one."""

    sets: list[tuple[str, bool]]  # and whether it is a probe
    rows: list[tuple[str, list[Cell]]]
    left_out: str


def heat(matrix: Matrix, sessions: Sequence[str]) -> Heat:
    """At most 40 rows and 40 columns, evenly spread."""
    names = ("start", *sessions)
    down, over = thinned(len(matrix.rows), LINES), thinned(len(matrix.sets), LINES)
    rows = [(names[t], [_cell(float(matrix.rows[t, j]), matrix.taught[j] == t > 0) for j in over]) for t in down]
    cut = [
        f"{len(kept)} of {count} {what}"
        for kept, count, what in ((down, len(matrix.rows), "rows"), (over, len(matrix.sets), "sets"))
        if len(kept) < count
    ]
    left_out = f"Shown are {' and '.join(cut)}, evenly spread; report.json has them all." if cut else ""
    return Heat([(called(matrix, j), not matrix.taught[j]) for j in over], rows, left_out)


def called(matrix: Matrix, column: int) -> str:
    """What a set is called at the head of its column."""
    return matrix.sets[column] + (ASIDE if matrix.taught[column] < 0 else "")


def _cell(value: float, taught: bool) -> Cell:
    if value != value:
        return Cell("–", "", taught)
    return Cell(f"{100 * value:.0f}", f"h{round(min(max(value, 0.0), 1.0) * (LEVELS - 1))}", taught)


def shade(level: int, scheme: str) -> tuple[RGB, RGB]:
    """The background of a level and the ink on it, black or white, whichever stands out more: at least 4.5 to 1."""
    low, high = _ENDS[scheme]
    share = level / (LEVELS - 1)
    ground = tuple(round(a + share * (b - a)) for a, b in zip(low, high, strict=True))
    ink = max(((0, 0, 0), (255, 255, 255)), key=lambda colour: contrast(colour, ground))
    return (ground[0], ground[1], ground[2]), ink


def contrast(one: Sequence[int], other: Sequence[int]) -> float:
    """WCAG 2.2's contrast ratio of two sRGB colours: 1 to 21.

    >>> contrast((0, 0, 0), (255, 255, 255))
    21.0
    """
    light, dark = sorted((_luminance(one), _luminance(other)), reverse=True)
    return round((light + 0.05) / (dark + 0.05), 9)


def _luminance(colour: Sequence[int]) -> float:
    linear = [value / 255 / 12.92 if value / 255 <= 0.04045 else ((value / 255 + 0.055) / 1.055) ** 2.4 for value in colour]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def css() -> str:
    """Rules for every level, in the light and in the dark."""
    rules = {
        scheme: " ".join(
            f".h{level} {{ background: rgb{ground}; color: rgb{ink}; }}"
            for level in range(LEVELS)
            for ground, ink in [shade(level, scheme)]
        )
        for scheme in _ENDS
    }
    return f"{rules['light']}\n@media screen and (prefers-color-scheme: dark) {{ {rules['dark']} }}"
