"""Pseudolabels as pure functions: which images stand for a class, how many of them, and how much they weigh (arXiv:2306.01669)."""

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
import pyarrow as pa
import torch
from jaxtyping import Float
from torch import Tensor

from cl.data.classes import ClassName
from cl.data.schema import SCHEMA
from cl.data.table import ImageTable
from cl.streams.stream import Session

VERSION = 1  # see cl/store/units.py

Probabilities = Float[np.ndarray, "n c"]
Rule = Literal["topk_per_class", "unique", "argmax_topk", "official_stream"]
Weighting = Literal["balanced", "official_iterative"]
Paradigm = Literal["ssl", "trzsl", "ul"]


_NEEDS: dict[str, str] = {
    "ssl": "some labelled rows of every class",
    "trzsl": "labelled rows of some classes and none of the others",
    "ul": "a session without labels",
}


class Pick(NamedTuple):
    """One pseudolabel: an image (row), the class it is taken for (column), and the probability of that."""

    row: int
    label: int
    probability: float


class Counted(NamedTuple):
    """What was picked for one class; `accuracy` is None where the truth is not known, `minimum` where nothing was picked."""

    label: int
    picked: int
    minimum: float | None
    shared: int  # images that other classes picked too
    accuracy: float | None


def topk_per_class(probabilities: Probabilities, k: int) -> list[Pick]:
    """For each class the k images it is most probable for, ties to the earlier row: min(k, n) per class, whatever they resemble most.

    >>> topk_per_class(np.full((3, 2), 0.5), 1)
    [Pick(row=0, label=0, probability=0.5), Pick(row=0, label=1, probability=0.5)]
    """
    order = np.argsort(-probabilities, axis=0, kind="stable")[: _at_least_one(k)]
    return [_pick(probabilities, row, label) for label in range(probabilities.shape[1]) for row in order[:, label]]


def unique(probabilities: Probabilities, k: int) -> list[Pick]:
    """The most probable pairs of image and class first, each image once, at most k per class."""
    n, c = probabilities.shape
    k, unpicked = _at_least_one(k), np.ones(n, dtype=bool)
    boards: list[list[Pick]] = [[] for _ in range(c)]
    # stable: ties to the earlier row, then to the earlier class, as the pairs lie
    for pair in np.argsort(-probabilities, axis=None, kind="stable"):
        row, label = divmod(int(pair), c)
        if unpicked[row] and len(boards[label]) < k:
            unpicked[row] = False
            boards[label].append(_pick(probabilities, row, label))
    return [pick for board in boards for pick in board]


def argmax_topk(probabilities: Probabilities, k: int) -> list[Pick]:
    """Among the images that a class is the most probable for, the k surest: a class may get fewer, or none (UPL, arXiv:2204.03649)."""
    best = probabilities.argmax(1)
    picks = []
    for label in range(probabilities.shape[1]):
        mine = np.flatnonzero(best == label)
        order = mine[np.argsort(-probabilities[mine, label], kind="stable")][: _at_least_one(k)]
        picks += [_pick(probabilities, row, label) for row in order]
    return picks


def official_stream(probabilities: Probabilities, k: int) -> list[Pick]:
    """The authors' leaderboards, image by image; for comparison with their numbers, since the result depends on the order of rows.

    An image is offered to its most probable class; if refused, to all others. A board that is not full takes it without sorting;
    a full one takes it if it beats the last entry, which is the least probable one only after the first such exchange.
    """
    k = _at_least_one(k)
    boards: list[list[tuple[float, int]]] = [[] for _ in range(probabilities.shape[1])]

    def accepts(label: int, row: int) -> bool:
        board, entry = boards[label], (float(probabilities[row, label]), row)
        if len(board) < k:
            board.append(entry)
        elif entry[0] > board[-1][0]:
            board[:] = sorted([*board, entry], reverse=True)[:k]
        else:
            return False
        return True

    for row in range(len(probabilities)):
        first, *others = np.argsort(-probabilities[row], kind="stable").tolist()
        if not accepts(first, row):
            for label in others:
                accepts(label, row)
    return [Pick(row, label, probability) for label, board in enumerate(boards) for probability, row in board]


RULES: dict[Rule, Callable[[Probabilities, int], list[Pick]]] = {
    "topk_per_class": topk_per_class,
    "unique": unique,
    "argmax_topk": argmax_topk,
    "official_stream": official_stream,
}


def schedule(strategy: Literal["fpl", "ifpl", "grip"], unlabelled: int, classes: int, *, k: int = 16, iterations: int = 10) -> list[int]:
    """How many images per class each round learns from: once k, always k, or growing until all images are used.

    >>> schedule("grip", 6210, 45)
    [13, 27, 41, 55, 69, 82, 96, 110, 124, 138]
    """
    if strategy != "grip":
        return [k] * (1 if strategy == "fpl" else iterations)
    step, most = unlabelled // iterations, unlabelled // classes
    return [max(1, min(turn * step // classes, most)) for turn in range(1, iterations + 1)]


def weights(
    labelled: int, pseudo: int, paradigm: Paradigm, *, multimodal: bool = False, iterative: bool = False, rule: Weighting = "balanced"
) -> tuple[float, float]:
    """What the mean loss over labelled and over pseudolabelled rows is multiplied with.

    `balanced`: under ssl the labelled mean is multiplied by pseudo / labelled, under trzsl the pseudolabelled one by
    labelled / pseudo; by the square root of that for multimodal prompts. The authors' code has that for FPL alone.
    `official_iterative` is all of their code: in IFPL and GRIP the ratio is upside down under ssl, and there is never a root.

    >>> weights(72, 576, "ssl"), weights(72, 576, "ssl", iterative=True, rule="official_iterative")
    ((8.0, 1.0), (0.125, 1.0))
    """
    if paradigm == "ul" or not labelled or not pseudo:
        return 1.0, 1.0
    official = iterative and rule == "official_iterative"
    ratio = labelled / pseudo if paradigm == "trzsl" or official else pseudo / labelled
    ratio = math.sqrt(ratio) if multimodal and not official else ratio
    return (1.0, ratio) if paradigm == "trzsl" else (ratio, 1.0)


def count(picks: Sequence[Pick], classes: int, truth: Sequence[int] | None = None) -> list[Counted]:
    """What each class got; `truth[row]` is the class of an image, for whoever knows it (the method does not)."""
    uses = Counter(pick.row for pick in picks)
    counted = []
    for label in range(classes):
        mine = [pick for pick in picks if pick.label == label]
        right = None if truth is None or not mine else sum(truth[pick.row] == label for pick in mine) / len(mine)
        lowest = min((pick.probability for pick in mine), default=None)
        counted.append(Counted(label, len(mine), lowest, sum(uses[pick.row] > 1 for pick in mine), right))
    return counted


def table(
    rounds: Sequence[Sequence[Pick]], vocabulary: Sequence[ClassName], classes: Sequence[int], truth: Sequence[int] | None
) -> list[dict[str, Any]]:
    """By round and class what was picked, as `count` has it."""
    rows = []
    for turn, picks in enumerate(rounds, start=1):
        for counted in count(picks, len(vocabulary), truth):
            if counted.label in classes:
                rows.append({"round": turn, "class": vocabulary[counted.label].name, **counted._asdict()})
                del rows[-1]["label"]
    return rows


def as_tensors(rounds: Sequence[Sequence[Pick]]) -> dict[str, Float[Tensor, "..."]]:
    """Picks by round as numbers: [n, 3] of row, class and probability, and how many of them are each round's."""
    picks = [pick for picks in rounds for pick in picks]
    return {
        "picked": torch.tensor(picks, dtype=torch.float64).reshape(-1, 3),
        "picked_by_round": torch.tensor([len(picks) for picks in rounds], dtype=torch.int64),
    }


def as_rounds(tensors: Mapping[str, Tensor]) -> list[list[Pick]]:
    """What `as_tensors` was given.

    >>> as_rounds(as_tensors([[Pick(3, 1, 0.5)], []]))
    [[Pick(row=3, label=1, probability=0.5)], []]
    """
    parts = torch.split(tensors["picked"], tensors["picked_by_round"].tolist())
    return [[Pick(int(row), int(label), probability) for row, label, probability in part.tolist()] for part in parts]


def kept(rows: int, hold_out: float, source: torch.Generator) -> list[int]:
    """Rows that teach, in their order: int(rows * (1 - hold_out)) of them as in the authors' code, but never none of some."""
    if not hold_out or not rows:
        return list(range(rows))
    count = max(1, int(rows * (1 - hold_out)))
    return sorted(torch.randperm(rows, generator=source)[:count].tolist())


def paradigm_of(session: Session) -> Paradigm:
    """What a session's labels make of it: all of its classes have some (ssl), some have (trzsl), none has (ul)."""
    taught = set(session.data.labels) - {None}
    names = {session.vocabulary[index].name for index in session.classes}
    return "ul" if not taught else "ssl" if taught == names else "trzsl"


def mismatch(session: Session, wanted: Literal["auto", "ssl", "trzsl", "ul"]) -> str | None:
    """Why a session is not of the paradigm that is wanted, and what to do; None if it is."""
    paradigm = paradigm_of(session)
    if wanted in ("auto", paradigm):
        return None
    taught = len(set(session.data.labels) - {None})
    return (
        f"paradigm {wanted} needs {_NEEDS[wanted]}; found labels for {taught} of {len(session.classes)} classes, "
        f"which is {paradigm}: set paradigm (method.paradigm, in a recipe method.rounds.paradigm) to auto or {paradigm}"
    )


def pseudolabelled(data: ImageTable, picks: Sequence[Pick], vocabulary: Sequence[ClassName]) -> ImageTable:
    """The picked rows under the class they were picked for; an image may stand for several classes, so ids name both."""
    names = [vocabulary[pick.label].name for pick in picks]
    rows = data.take([pick.row for pick in picks]).table
    ids = [f"{known} as {name}" for known, name in zip(rows["id"].to_pylist(), names, strict=True)]
    for column, values in (("id", ids), ("label", names)):
        rows = rows.set_column(SCHEMA.get_field_index(column), SCHEMA.field(column), pa.array(values, pa.string()))
    return ImageTable(rows)


def _pick(probabilities: Probabilities, row: int, label: int) -> Pick:
    return Pick(int(row), label, float(probabilities[row, label]))


def _at_least_one(k: int) -> int:
    return max(1, k)
