"""The accuracy matrix and what is read off it; every metric is a pure function of the whole matrix."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from jaxtyping import Float

from cl.errors import DataError

Square = Float[np.ndarray, "t t"]


@dataclass(frozen=True, eq=False)
class Matrix:
    """`rows[t, j]`: score (0..1; NaN: not measured) on set j after session t. Row 0 is the model before any learning.

    `taught[j]` is the session (1..T) that teaches set j, 0 for a probe, which none teaches, -1 for the set of a session that was left
    out. What was not measured does not count in any mean.
    """

    rows: Float[np.ndarray, "t s"]
    sets: tuple[str, ...]
    taught: tuple[int, ...]

    def __post_init__(self) -> None:
        if self.rows.ndim != 2 or self.rows.shape[1] != len(self.sets) or len(self.sets) != len(self.taught):
            raise DataError(
                f"matrix: {self.rows.shape} scores for {len(self.sets)} sets taught by {len(self.taught)} sessions; expected one each"
            )

    @property
    def sessions(self) -> int:
        """Sessions learned so far."""
        return len(self.rows) - 1

    @property
    def known(self) -> list[int]:
        """Columns of the sets taught so far."""
        taught = np.asarray(self.taught, dtype=np.int64)
        return [int(j) for j in np.flatnonzero((taught > 0) & (taught <= self.sessions))]

    @property
    def probes(self) -> list[int]:
        """Columns of the probes."""
        return [j for j, session in enumerate(self.taught) if session == 0]

    def upto(self, session: int) -> "Matrix":
        """The matrix as it stood after a session."""
        return Matrix(self.rows[: session + 1], self.sets, self.taught)

    def to_json(self) -> dict[str, Any]:
        """Plain values; null where nothing was measured."""
        rows = [[None if value != value else value for value in row] for row in self.rows.tolist()]  # eight times as fast as asking numpy
        return {"rows": rows, "sets": list(self.sets), "taught": list(self.taught)}

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Matrix":
        """What `to_json` gave, to the last bit."""
        rows = np.array(value["rows"], dtype=np.float64)  # None is NaN
        return cls(rows.reshape(len(value["rows"]), len(value["sets"])), tuple(value["sets"]), tuple(value["taught"]))


def mean(matrices: Sequence[Matrix]) -> Matrix:
    """Seeds of one method as one matrix: the mean of each score."""
    return replace(matrices[0], rows=np.mean([matrix.rows for matrix in matrices], axis=0))


def last(m: Matrix) -> float:
    """Mean over taught sets of the last row."""
    return _mean(m.rows[-1, m.known])


def average(m: Matrix) -> float:
    """Mean over t >= 1 of the mean over the sets taught up to t (macro: each set counts the same, whatever its size)."""
    taught = np.asarray(m.taught, dtype=np.int64)
    return _mean([_mean(m.rows[t, np.flatnonzero((taught > 0) & (taught <= t))]) for t in range(1, m.sessions + 1)])


def learned(m: Matrix) -> float:
    """Mean over taught sets of the score right after being taught: how well new things are learned."""
    return _mean([m.rows[m.taught[j], j] for j in m.known])


def backward_transfer(m: Matrix) -> float:
    """BWT: mean over sets taught before the last session of last score minus score right after being taught."""
    return _mean([m.rows[-1, j] - m.rows[m.taught[j], j] for j in m.known if m.taught[j] < m.sessions])


def forgetting(m: Matrix) -> float:
    """Mean over sets taught before the last session of the best score since being taught, the last left out, minus the last.

    Chaudhry et al., arXiv:1801.10112. Negative where a set went on improving.
    """
    return _mean([np.fmax.reduce(m.rows[m.taught[j] : -1, j]) - m.rows[-1, j] for j in m.known if m.taught[j] < m.sessions])


def forward_transfer(m: Matrix) -> float:
    """FWT: mean over sets not taught by the first session of the score just before being taught minus the score at the start."""
    return _mean([m.rows[m.taught[j] - 1, j] - m.rows[0, j] for j in m.known if m.taught[j] > 1])


def transfer(m: Matrix) -> float:
    """Mean over sets not taught by the first session of the mean score of all sessions before it (ZSCL, arXiv:2303.06628)."""
    return _mean([_mean(m.rows[1 : m.taught[j], j]) for j in m.known if m.taught[j] > 1])


def zero_shot_drop(m: Matrix) -> float:
    """Mean over probes of the score at the start minus the last: what was lost of what nobody taught."""
    return _mean(m.rows[0, m.probes] - m.rows[-1, m.probes])


class Change(NamedTuple):
    """What one session did to some of the sets: a mean over them now, and what it was before the session; None: not measured then.

    `taught`: scores of the sets that it teaches. `forgotten`: best score since being taught minus the score now, of the sets taught
    before it. `probes`: scores of what none teaches. Of the start: `untaught` and `probes`.

    `more`: now asked among more classes than before, so that scores fall where nothing is lost. `wider`: how much of what is forgotten came
    by that alone, measured on the model before the session, asked as now; None: not measured.
    """

    what: Literal["untaught", "taught", "forgotten", "probes"]
    now: float
    before: float | None
    more: bool = False
    wider: float | None = None


def changes(m: Matrix) -> list[Change]:
    """What the last session of a matrix changed; of kinds that have no set, nothing."""
    t = m.sessions
    if not t:
        untaught = [j for j, session in enumerate(m.taught) if session]
        told = [Change("untaught", _mean(m.rows[0, untaught]), None), Change("probes", _mean(m.rows[0, m.probes]), None)]
        return [change for change, sets in zip(told, (untaught, m.probes), strict=True) if sets]
    new, old = [j for j in m.known if m.taught[j] == t], [j for j in m.known if m.taught[j] < t]
    now, before = m.upto(t), m.upto(t - 1)
    told = [
        Change("taught", _mean(now.rows[-1, new]), _known(before.rows[-1, new])),
        Change("forgotten", _lost(now, old), _known(_lost(before, old))),
        Change("probes", _mean(now.rows[-1, m.probes]), _known(before.rows[-1, m.probes])),
    ]
    return [change for change, sets in zip(told, (new, old, m.probes), strict=True) if sets]


def among_more(told: Sequence[Change], wider: float | None = None) -> tuple[Change, ...]:
    """The same of sets that are asked among all classes taught so far."""
    return tuple(change._replace(more=True, wider=wider) if change.what == "forgotten" else change for change in told)


def _lost(m: Matrix, sets: Sequence[int]) -> float:
    return _mean([m.rows[m.taught[j] :, j].max() - m.rows[-1, j] for j in sets])


def _known(values: Any) -> float | None:
    mean = _mean(values)
    return None if np.isnan(mean) else mean


METRICS = {
    "last": last,
    "average": average,
    "learned": learned,
    "forgetting": forgetting,
    "bwt": backward_transfer,
    "fwt": forward_transfer,
    "transfer": transfer,
    "zero_shot_drop": zero_shot_drop,
}


def summary(m: Matrix) -> dict[str, float]:
    """All metrics by name; NaN where one is not defined, such as forgetting after a single session."""
    return {name: metric(m) for name, metric in METRICS.items()}


def performance_drop(accuracies: Sequence[float]) -> float:
    """PD of few-shot class-incremental learning: first accuracy minus last, each over all classes seen by then.

    >>> performance_drop([90.0, 80.0, 70.0])
    20.0
    """
    return float(accuracies[0] - accuracies[-1])


def seen_accuracy(m: Matrix, sizes: Sequence[int]) -> list[float]:
    """A_t for t >= 1: accuracy over all test samples of the classes taught so far (micro; arXiv:2004.10956). NaN sets do not count.

    `sizes[j]` is the number of samples of set j; meant for streams whose exam is among all classes seen.
    """
    known = [m.upto(t).known for t in range(1, m.sessions + 1)]
    return [float(np.average(m.rows[t, sets], weights=[sizes[j] for j in sets])) for t, sets in enumerate(known, start=1)]


def bootstrap(
    mine: Sequence[Float[np.ndarray, " n"]], theirs: Sequence[Float[np.ndarray, " n"]], draws: int = 2000, seed: int = 0
) -> tuple[float, float, float]:
    """Difference of two models' macro means on the same sets, with its 95 % percentile interval over paired redraws within each set.

    Raises:
        DataError: the models were not scored on the same samples.
    """
    if [len(hits) for hits in mine] != [len(hits) for hits in theirs] or not all(len(hits) for hits in mine) or not mine:
        raise DataError(
            f"bootstrap: sets of {[len(hits) for hits in mine]} and {[len(hits) for hits in theirs]} samples; expected the same, none empty"
        )
    random = np.random.default_rng(seed)
    redrawn, total = np.zeros(draws), 0.0
    for one, other in zip(mine, theirs, strict=True):
        difference = one.astype(np.float64) - other.astype(np.float64)
        redrawn += difference[random.integers(0, len(difference), (draws, len(difference)))].mean(1) / len(mine)
        total += float(difference.mean()) / len(mine)
    low, high = np.percentile(redrawn, [2.5, 97.5])
    return total, float(low), float(high)


def _mean(values: Any) -> float:
    scores = np.asarray(values, dtype=np.float64)
    scores = scores[~np.isnan(scores)]
    return float(scores.mean()) if scores.size else float("nan")


# The same words mean other things elsewhere. Each function below takes A[i, j], the score on set j after session i (both from
# 0, sessions and sets alike T in number), and answers as that code base would.


def avalanche(a: Square) -> dict[str, float]:
    """Forgetting is first minus last and BWT its negative, over all but the last set."""
    lost = np.diag(a)[:-1] - a[-1, :-1]
    return {"forgetting": float(lost.mean()), "bwt": float(-lost.mean())}


def mammoth(a: Square) -> dict[str, float]:
    """Forgetting is the best of all rows, the last among them, minus the last: never negative (PyCIL and PILOT do the same)."""
    return {"forgetting": float((a.max(0) - a[-1])[:-1].mean()), "bwt": float((a[-1] - np.diag(a))[:-1].mean())}


def renate(a: Square) -> dict[str, float]:
    """Forgetting is the best of the earlier rows, those before the set was taught among them, minus the last."""
    return {"forgetting": float((a[:-1].max(0) - a[-1])[:-1].mean()), "bwt": float((a[-1] - np.diag(a))[:-1].mean())}


def continuum(a: Square) -> dict[str, float]:
    """Forgetting counts only since a set was taught, and BWT averages the change since then over every later session.

    Continuum's main branch at 43ba009. Its release 1.2.7 also leaves out the newest old set and the newest old session, and still
    divides by T - 1.
    """
    t = len(a)
    lost = [a[j:-1, j].max() - a[-1, j] for j in range(t - 1)]
    moved = [a[i, j] - a[j, j] for i in range(1, t) for j in range(i)]
    return {"forgetting": float(np.mean(lost)), "bwt": float(np.mean(moved))}


def libcontinual(a: Square) -> dict[str, float]:
    """Both measure the change since a set was taught, leave out each session's newest old set, and divide as if it were there.

    RL-VIG/LibContinual at 3fab380: forgetting is a sum of T - 2 differences over T - 1, BWT a sum over all sessions from the third
    on over T(T-1)/2.
    """
    t, first = len(a), np.diag(a)
    lost = (first - a[-1])[: t - 2].sum()
    moved = sum((a[i] - first)[: i - 1].sum() for i in range(2, t))
    return {"forgetting": float(lost / (t - 1)), "bwt": float(moved / (t * (t - 1) / 2))}


def zscl(a: Square) -> dict[str, float]:
    """Transfer, average over the whole square, and last (arXiv:2303.06628); the row before learning is not counted."""
    before = [a[:j, j].mean() for j in range(1, len(a))]
    return {"transfer": float(np.mean(before)), "average": float(a.mean()), "last": float(a[-1].mean())}


def clclip(a: Square) -> dict[str, float]:
    """BWT with the zero of the newest set counted in: (T - 1) / T of the usual one (arXiv:2207.09248's code)."""
    return {"bwt": float((a[-1] - np.diag(a)).mean())}


DIALECTS = {
    "avalanche": avalanche,
    "mammoth": mammoth,
    "renate": renate,
    "continuum": continuum,
    "libcontinual": libcontinual,
    "zscl": zscl,
    "clclip": clclip,
}
