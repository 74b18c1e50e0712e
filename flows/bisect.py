"""Where a model broke: what a set, a class or a domain scored after each session, from what was measured then, else measured now."""

from collections.abc import Callable, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.data import ImageTable
from cl.errors import DataError, StoreError
from cl.evaluate import evaluate, spread, unpack
from cl.plain_yaml import parse
from cl.plan import Plan
from cl.run import Step, revive
from cl.stream import EvalSet
from flows.job import Job, job_of, planned
from flows.lineage import report_of, steps_of, text_of
from flows.settings import Place

Kind = Literal["set", "class", "domain"]


class Course(NamedTuple):
    """(session, score) at the start and after each session, and whether models had to be asked again for it."""

    scores: list[tuple[str, float]]
    measured: bool

    def worst(self) -> tuple[str, float, float] | None:
        """The session that cost most, the score before it and after it; None where the score never fell.

        >>> Course([("start", 0.5), ("one", 0.9), ("two", 0.4)], False).worst()
        ('two', 0.9, 0.4)
        """
        falls = [(after - before, name, before, after) for (_, before), (name, after) in zip(self.scores, self.scores[1:], strict=False)]
        deepest = min(falls, default=None)
        return None if deepest is None or deepest[0] >= 0 else deepest[1:]


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

    Where a class has test images that `evaluate.limit` left out and no other, the states of the sessions are asked about those.

    Raises:
        StoreError: the run, a step or a state of it is gone, or the data is not what was measured.
        DataError: no such set, or no test image of that class or domain.
    """
    report = report_of(version)
    sessions = ["start", *report.sessions]
    if kind == "set":
        if name not in report.matrix.sets:
            raise DataError(f"no evaluation set {name!r}; there are {', '.join(report.matrix.sets)}")
        return Course(list(zip(sessions, report.matrix.rows[:, report.matrix.sets.index(name)].tolist(), strict=True)), False)
    job = _job(version, data_root, rev)
    plan = planned(job)
    if plan.stream.digest != report.provenance.stream:
        told = f"the test images are not those that were measured (data {report.provenance.data}, here {job.data})"
        raise StoreError(f"model {version.name} version {version.version}: {told}; give the data as it was with --data-rev")
    steps = steps_of(place, client, version)
    if len(steps) < len(sessions):
        missing = f"{len(sessions) - len(steps)} of {len(sessions)} steps are not in {place.steps}"
        raise StoreError(f"model {version.name} version {version.version}: {missing}; --set NAME works without them")
    exam, limit = plan.stream.exam(len(sessions) - 1), plan.config.evaluate.limit
    asked = {each.name: mask for each in exam if (mask := _of(spread(each.data, limit), kind, name)).any()}
    if asked:
        scores = [float(np.concatenate([unpack(step.hits[each])[mask] for each, mask in asked.items()]).mean()) for step in steps]
        return Course(list(zip(sessions, scores, strict=True)), False)
    return Course(list(zip(sessions, _measured(place, plan, steps, exam, kind, name, tell), strict=True)), True)


def _of(data: ImageTable, kind: Kind, name: str) -> Any:
    return np.array(data.labels if kind == "class" else data.domains) == name


def _measured(
    place: Place, plan: Plan, steps: list[Step], exam: Sequence[EvalSet], kind: Kind, name: str, tell: Callable[[int, int], None]
) -> list[float]:
    rows = {each.name: np.flatnonzero(_of(each.data, kind, name)).tolist() for each in exam}
    sets = [EvalSet(each.name, each.kind, each.data.take(rows[each.name]), each.classes) for each in exam if rows[each.name]]
    if not sets:
        raise DataError(f"no test image of {kind} {name!r}; it is named as in the data")
    config, scores = plan.config.evaluate.model_copy(update={"limit": None}), []
    for done, step in enumerate(steps):
        tell(done, len(steps))
        found = evaluate(revive(plan.build(), step.state, place.steps) if step.index else plan.frozen(), sets, config)
        scores.append(float(np.concatenate([score.hits for score in found.values()]).mean()))
    return scores


def _job(version: ModelVersion, data_root: str | None, rev: str | None) -> Job:
    settings = parse(text_of(version, "config.yaml"), f"config.yaml of {version.name}/{version.version}")
    return job_of(settings, (), data_root, rev or version.tags.get("evergreen.data_rev"))
