"""Images that two models answer differently: which flipped, which class took whose place, and how each class fares."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int

Hits = Bool[np.ndarray, " n"]
Rows = Int[np.ndarray, " m"]


class Flips(NamedTuple):
    """Rows that were right and are wrong now, and rows that were wrong and are right now, in order."""

    broke: Rows
    mended: Rows


class Answer(NamedTuple):
    """What a model says of an image, and how sure it is: the softmax over the candidates, 0..1."""

    name: str
    share: float


class Change(NamedTuple):
    """One image and both answers; `truth` is None where nobody knows it."""

    row: int
    truth: str | None
    before: Answer
    after: Answer


class Group(NamedTuple):
    """The changes in which `now` took the place of `was`, those first of which the second model is surest."""

    was: str
    now: str
    changes: list[Change]


class ClassScore(NamedTuple):
    """Of one class: its test images, and the share of them that was right before and is right now, 0..1."""

    name: str
    images: int
    before: float
    after: float


class Confusion(NamedTuple):
    """How many images of a class get the answer of another."""

    truth: str
    answer: str
    images: int


def flipped(before: Hits, after: Hits) -> Flips:
    """Which samples changed sides between two models that were asked the same.

    >>> [rows.tolist() for rows in flipped(np.array([True, True, False, False]), np.array([True, False, True, False]))]
    [[1], [2]]

    Raises:
        ValueError: they were not asked the same number of samples.
    """
    if before.shape != after.shape:
        raise ValueError(f"flipped: {before.shape} hits and {after.shape}; expected one for each of the same samples")
    return Flips(np.flatnonzero(before & ~after), np.flatnonzero(~before & after))


def evenly(rows: Rows, limit: int) -> Rows:
    """At most `limit` of the rows, evenly spread over them, the first and the last among them.

    >>> evenly(np.arange(10, 20), 4).tolist(), evenly(np.arange(3), 4).tolist(), evenly(np.arange(3), 0).tolist()
    ([10, 13, 16, 19], [0, 1, 2], [])
    """
    return rows if len(rows) <= limit else rows[np.linspace(0, len(rows) - 1, limit).round().astype(int)]


def changes(
    rows: Sequence[int], truths: Sequence[str | None], before: Sequence[Answer], after: Sequence[Answer], same: bool = False
) -> list[Change]:
    """Both models' answers side by side; rows on which both say the same are left out, unless `same` keeps them."""
    every = (Change(*each) for each in zip(map(int, rows), truths, before, after, strict=True))
    return [each for each in every if same or each.before.name != each.after.name]


def grouped(flips: Sequence[Change]) -> list[Group]:
    """The flips by which answer took whose place: largest group first; within one, those that the second model is surest of.

    >>> sure, less = Change(0, "cat", Answer("cat", 0.5), Answer("dog", 0.9)), Change(1, "cat", Answer("cat", 0.9), Answer("dog", 0.6))
    >>> other = Change(2, "dog", Answer("dog", 0.8), Answer("fox", 0.99))
    >>> [(each.was, each.now, [change.row for change in each.changes]) for each in grouped([less, other, sure])]
    [('cat', 'dog', [0, 1]), ('dog', 'fox', [2])]
    """
    groups: dict[tuple[str, str], list[Change]] = {}
    for change in sorted(flips, key=lambda each: (-each.after.share, each.row)):
        groups.setdefault((change.before.name, change.after.name), []).append(change)
    return sorted((Group(*names, own) for names, own in groups.items()), key=lambda group: -len(group.changes))


def class_scores(labels: Sequence[str | None], before: Hits | None, after: Hits) -> list[ClassScore]:
    """Every class that has test images, in order of appearance; `before` is nan where the samples were others then.

    >>> class_scores(["a", "a", "b"], np.array([True, False, True]), np.array([True, True, False]))
    [ClassScore(name='a', images=2, before=0.5, after=1.0), ClassScore(name='b', images=1, before=1.0, after=0.0)]
    """
    place = {name: index for index, name in enumerate(dict.fromkeys(label for label in labels if label is not None))}
    targets = np.array([place.get(label or "", -1) for label in labels], dtype=np.int64)
    known = targets >= 0
    counts = np.bincount(targets[known], minlength=len(place))
    shares = [
        np.full(len(place), np.nan) if hits is None else np.bincount(targets[known], weights=hits[known], minlength=len(place)) / counts
        for hits in (before if before is not None and len(before) == len(after) else None, after)
    ]
    return [ClassScore(name, int(counts[index]), float(shares[0][index]), float(shares[1][index])) for name, index in place.items()]


def confusions(truths: Sequence[str | None], answers: Sequence[str]) -> list[Confusion]:
    """Which class gets which other's answer how often, the most frequent first; right answers are no confusion.

    >>> confusions(["a", "a", "b", "b", None], ["b", "b", "b", "a", "a"])
    [Confusion(truth='a', answer='b', images=2), Confusion(truth='b', answer='a', images=1)]
    """
    pairs = Counter((truth, answer) for truth, answer in zip(truths, answers, strict=True) if truth is not None and truth != answer)
    return [Confusion(truth, answer, count) for (truth, answer), count in pairs.most_common()]
