"""What a model gained on a set since the start, class by class: the weak against the strong, the seen against the unseen."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool

from cl.evaluation.equity import equity, harmonic_mean, per_class
from cl.evaluation.evaluate import spread
from cl.streams.stream import EvalSet, Session

Hits = Bool[np.ndarray, " n"]


def gains(examined: EvalSet, sessions: Sequence[Session], before: Hits, after: Hits, limit: int | None) -> dict[str, float]:
    """What `cl.evaluation.equity.equity` finds; and `seen`, `unseen`, `harmonic` where a session labelled some of its classes only.

    Nothing for a set that is not for classifying, or that was asked about other samples before.

    Args:
        examined: the set.
        sessions: those learned so far; one of them may teach it.
        before: which of its samples were right at the start.
        after: which of them are right now.
        limit: how many samples of a set are asked at most.
    """
    if examined.kind != "classify" or len(before) != len(after):
        return {}
    place = {label: row for row, label in enumerate(dict.fromkeys(examined.data.labels))}
    labels = spread(examined.data, limit).labels
    targets = np.array([place[label] for label in labels])
    asked = np.bincount(targets, minlength=len(place)) > 0
    shares = equity(per_class(before, targets, len(place))[asked], per_class(after, targets, len(place))[asked])
    now = {"rich": shares.rich, "poor": shares.poor, "robin_hood": shares.robin_hood, "gini": shares.gini[1]}
    now |= {"worst_tenth": shares.worst_tenth[1]} | _unseen(examined, sessions, labels, after)
    return {name: value for name, value in now.items() if value == value}


def _unseen(examined: EvalSet, sessions: Sequence[Session], labels: Sequence[str | None], hits: Hits) -> dict[str, float]:
    session = next((each for each in sessions if any(test.name == examined.name for test in each.tests)), None)
    if session is None or None not in session.data.labels:
        return {}
    taught = set(session.data.labels) - {None}
    seen = np.array([label in taught for label in labels])
    if not taught or seen.all() or not seen.any():
        return {}
    s, u = float(hits[seen].mean()), float(hits[~seen].mean())
    return {"seen": s, "unseen": u, "harmonic": harmonic_mean(s, u)}
