"""Where a model broke: what each session did to a set, a class or a domain, from what was measured then, else measured now."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.data.table import ImageTable
from cl.errors import DataError, StoreError
from cl.evaluation.evaluate import evaluate, spread, unpack
from cl.plan import Plan
from cl.reports.report import Report
from cl.run import Step, revive
from cl.streams.stream import EvalSet
from cl.text import plural
from cl.text import some as some_of
from flows.history.entries import Learned
from flows.learn.job import planned
from flows.line.asked import Asked
from flows.registry.as_learned import as_learned
from flows.registry.lineage import line_of, report_of, steps_of
from flows.settings import Place

Kind = Literal["set", "class", "domain"]
Hits = Bool[np.ndarray, " images"]


class Effect(NamedTuple):
    """What a session did: the scores before it and after it, on as many `images`, all of which existed before it; NaN without any."""

    session: str
    before: float
    after: float
    images: int


class Course(NamedTuple):
    """What each session did, in order, and whether models had to be asked again for it."""

    effects: list[Effect]
    measured: bool

    def judged(self) -> list[Effect]:
        """Those sessions before which there were test images."""
        return [effect for effect in self.effects if effect.images]

    def worst(self) -> Effect | None:
        """The session that cost most; None where the score never fell.

        >>> Course([Effect("one", 0.5, 0.9, 8), Effect("two", 0.9, 0.4, 8)], False).worst()
        Effect(session='two', before=0.9, after=0.4, images=8)
        """
        deepest = min(self.judged(), key=lambda effect: effect.after - effect.before, default=None)
        return None if deepest is None or deepest.after >= deepest.before else deepest


def effects(sessions: Sequence[str], taught: Sequence[int], hits: Sequence[Sequence[Hits | None]]) -> list[Effect]:
    """What each session did to the images of all sets that were there before it: those of earlier sessions, and of probes.

    A session's own test images say nothing against it: one whose labels are wrong brings test images whose labels are wrong alike, and
    learns to get those right.

    Args:
        sessions: their names, in order.
        taught: for each set, the number of the session that teaches it; 0 for a probe.
        hits: at the start and after each session, for each set: (images,) whether each is right; None: it was not asked.
    """
    judged = []
    for number, name in enumerate(sessions, start=1):
        rows = [pair for pair, session in zip(zip(hits[number - 1], hits[number], strict=True), taught, strict=True) if session < number]
        there = [(first, then) for first, then in rows if first is not None and then is not None]
        before, after = (np.concatenate([np.zeros(0, bool), *part]) for part in (zip(*there, strict=True) if there else ((), ())))
        scores = (float(before.mean()), float(after.mean())) if len(before) else (float("nan"),) * 2
        judged.append(Effect(name, *scores, len(before)))
    return judged


def course(
    place: Place,
    client: MlflowClient,
    version: ModelVersion,
    kind: Kind,
    name: str,
    data_root: str | None = None,
    rev: str | None = None,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Course:
    """How a version's stream went. A set is read from its report; a class or a domain from which test images each step got right.

    Where `evaluate.limit` left out all test images that a set has of it, the states of the sessions are asked about all there are. Of a
    collection that has grown since, the sessions are read that there were.

    Raises:
        StoreError: the run, a step or a state of it is gone, or the data is not what was measured.
        DataError: no such set, or no test image of that class or domain.
    """
    report = report_of(version)
    if kind == "set":
        return Course(_of_set(report, name), False)
    if path := line_of(place, version):
        return _of_line(path, kind, name, data_root, rev, tell)
    job = as_learned(version, data_root, rev)
    plan = planned(job)
    if plan.stream.digest != report.provenance.stream:
        told = f"the test images are not those that were measured (data {report.provenance.data}, here {job.data})"
        raise StoreError(f"model {version.name} version {version.version}: {told}; give the data as it was with --data-rev")
    steps = steps_of(place, client, version)
    if len(steps) <= len(report.sessions):
        missing = (
            f"{len(report.sessions) + 1 - len(steps)} of {plural(len(report.sessions) + 1, 'step is', 'steps are')} not in {place.steps}"
        )
        raise StoreError(f"model {version.name} version {version.version}: {missing}; --set NAME works without them")
    exam, limit = plan.stream.exam(len(report.sessions)), plan.config.evaluate.limit
    asked, there = ([_of(spread(each.data, some), kind, name) for each in exam] for some in (limit, None))
    if not any(mask.any() for mask in there):
        raise DataError(f"no test image of {kind} {name!r}; it is named as in the data")
    measured = any(full.any() and not mask.any() for mask, full in zip(asked, there, strict=True))
    if measured:
        hits = _measured(place, plan, steps, exam, there, tell)
    else:
        hits = [[unpack(step.hits[each.name])[mask] for each, mask in zip(exam, asked, strict=True)] for step in steps]
    return Course(effects(report.sessions, plan.stream.taught, hits), measured)


def _of_line(
    path: Sequence[Learned], kind: Kind, name: str, data_root: str | None, rev: str | None, tell: Callable[[int, int], None]
) -> Course:
    """How the line of a model's history went, on the sets that its states were asked."""
    at = Asked(path, data_root, rev)
    asked, there = ([_of(spread(rows, some), kind, name) for rows in at.rows] for some in (at.evaluate.limit, None))
    if not any(mask.any() for mask in there):
        gone = f"; of {some_of(at.gone)} the images are gone, or other ones" if at.gone else ""
        raise DataError(f"no test image of {kind} {name!r}; it is named as in the data{gone}")
    measured = any(full.any() and not mask.any() for mask, full in zip(asked, there, strict=True))
    hits = at.measured(there, tell) if measured else at.hits(asked)
    return Course(effects([learned.session for learned in path], at.taught, hits), measured)


def _of_set(report: Report, name: str) -> list[Effect]:
    if name not in report.matrix.sets:
        raise DataError(f"no evaluation set {name!r}; there are {', '.join(report.matrix.sets)}")
    scores = report.matrix.rows[:, report.matrix.sets.index(name)].tolist()
    images = len(unpack(report.hits[name]))
    pairs = zip(report.sessions, pairwise(scores), strict=True)
    return [Effect(session, *pair, 0 if np.isnan(pair).any() else images) for session, pair in pairs]  # NaN: it was not asked then


def _of(data: ImageTable, kind: Kind, name: str) -> Hits:
    return np.array(data.labels if kind == "class" else data.domains) == name


def _measured(
    place: Place, plan: Plan, steps: list[Step], exam: Sequence[EvalSet], masks: Sequence[Hits], tell: Callable[[int, int], None]
) -> list[list[Hits]]:
    config, hits = plan.config.evaluate.model_copy(update={"limit": None}), []
    cut = [
        EvalSet(each.name, each.kind, each.data.take(np.flatnonzero(mask).tolist()), each.classes)
        for each, mask in zip(exam, masks, strict=True)
        if mask.any()
    ]
    for done, step in enumerate(steps):
        tell(done, len(steps))
        scores = evaluate(revive(plan.build(), step.state, place.steps) if step.index else plan.frozen(), cut, config)
        hits.append([scores[each.name].hits if each.name in scores else np.zeros(0, bool) for each in exam])
    return hits
