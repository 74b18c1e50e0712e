"""Which recipes to try first on a stream: those that did best on the measured stream most like it, with the rows that say so."""

import math
from collections.abc import Callable, Iterator, Sequence
from importlib.resources import files
from typing import Any, Literal, NamedTuple

from pydantic import Field

from cl.config import Config, validate
from cl.plain_yaml import parse

# what most rows have; where that is neither label nor caption: labels of some rows of each class, of some classes alone, or none
Teaches = Literal["labels", "captions", "some labels", "labels of some classes", "nothing"]
_APART = 1.0  # how far a stream may be from the nearest measured one before that is said


class Row(Config):
    """A method as it was measured: scores in percent at the end of a stream, means over seeds."""

    recipe: dict[str, Any]
    label: str = ""  # as the table has it, where that is not the name
    last: float  # over the sets that sessions teach
    drop: float | None = None  # of what no session teaches
    images: bool = False  # keeps images of earlier sessions
    steps: bool = True  # descends, and does not only add up

    @property
    def name(self) -> str:
        """What its table calls it."""
        return self.label or f"`{self.recipe['name']}`"


class Measured(Config):
    """A stream that methods were measured on."""

    where: str
    what: str
    config: str
    teaches: Teaches
    zero_shot: float  # percent, of the model before any session on what is taught
    per_class: float | None = Field(None, gt=0)  # labelled images of a class in a session, the median
    sessions: int
    rows: list[Row]


class Facts(NamedTuple):
    """The same of a stream that somebody wants to learn."""

    teaches: Teaches
    zero_shot: float  # 0..1
    per_class: float | None
    sessions: int


class Choice(NamedTuple):
    """A recipe, and why it is among the first to try."""

    row: Row
    why: str


def measured() -> dict[str, Measured]:
    """All that was measured, by stream."""
    text = (files("cl") / "assets" / "measured.yaml").read_text(encoding="utf-8")
    return {name: validate(Measured, tree, name) for name, tree in parse(text, "measured.yaml").items()}


def nearest(facts: Facts, streams: Sequence[Measured]) -> tuple[Measured, float]:
    """The measured stream most like one, and how far it is: 20 points of zero-shot or three times the images of a class are 1.

    A single session, before which there is nothing to keep but what none teaches, is half as far from several.

    >>> streams = list(measured().values())
    >>> [nearest(Facts("labels", *each), streams)[0].where[-1] for each in ((0.4, 5, 4), (0.1, 300, 1), (0.1, 300, 5), (0.02, 6, 9))]
    ['d', 'c', 'h', 'a']
    """
    alike = [(each, _apart(facts, each)) for each in streams if each.teaches == facts.teaches]
    return min(alike, key=lambda each: each[1])


def _apart(facts: Facts, stream: Measured) -> float:
    level = abs(100 * facts.zero_shot - stream.zero_shot) / 20
    alone = 0.5 * ((facts.sessions > 1) != (stream.sessions > 1))
    images = math.log(facts.per_class / stream.per_class, 3) if facts.per_class and stream.per_class else 0.0
    return math.hypot(level, alone, images)


def choices(stream: Measured, *, images: bool = True, refused: Callable[[Row], bool] = lambda row: False) -> list[Choice]:
    """At most three of a stream's rows, those first that more reasons speak for; none where all are refused.

    `images`: whether images of earlier sessions may be kept. `refused`: what cannot learn the stream that is asked about; the best alone
    are asked, and the next best where one of them is refused.
    """
    rows = [row for row in stream.rows if images or not row.images]
    while True:
        told: dict[int, list[str]] = {}
        for why, best in _best(rows):
            told.setdefault(rows.index(best), []).append(why)
        order = sorted(told, key=lambda row: -len(told[row]))[:3]
        out = [row for row in order if refused(rows[row])]
        if not out:
            return [Choice(rows[row], ", ".join(told[row])) for row in order]
        rows = [row for place, row in enumerate(rows) if place not in out]


def _best(rows: Sequence[Row]) -> Iterator[tuple[str, Row]]:
    if rows:
        yield "best on what is taught, at the end", max(rows, key=lambda row: row.last)
    if kept := [row for row in rows if row.drop is not None]:
        yield "the best trade of what is taught against what is not", max(kept, key=lambda row: row.last - (row.drop or 0.0))
    if steps := [row for row in rows if row.steps]:
        yield "the best of those that take gradient steps", max(steps, key=lambda row: row.last - (row.drop or 0.0))


def unlike(facts: Facts, stream: Measured) -> list[str]:
    """In what a stream differs from the measured one, in words; where it is far from it, that is said first."""
    told = ["no stream like this one was measured: take this as a guess"] if _apart(facts, stream) > _APART else []
    told.append(f"zero-shot {100 * facts.zero_shot:.1f} here, {stream.zero_shot:.1f} there")
    if facts.per_class and stream.per_class:
        told.append(f"{facts.per_class:g} labelled images a class and session here, {stream.per_class:g} there")
    return [*told, f"{facts.sessions} sessions here, {stream.sessions} there"]
