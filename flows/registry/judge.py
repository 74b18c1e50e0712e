"""The gate as a task: a registered candidate becomes champion, or challenger with the reason why not."""

from dataclasses import replace
from typing import Any

import numpy as np
from jaxtyping import Bool
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from prefect import task
from prefect.artifacts import create_table_artifact

from cl.data.table import ImageTable
from cl.errors import EvergreenError
from cl.evaluation.evaluate import evaluate, headline, pack, spread, unpack
from cl.evaluation.gate import Check, Decision, Judged, decide
from cl.reports.kinds import worst
from flows.learn.job import Job, planned, title
from flows.learn.session import RETRIED, read, report_of, tracker_of
from flows.registry.champion import CHALLENGER, CHAMPION, change, holder, stands
from flows.registry.lineage import report_of as report_in
from flows.registry.predict import served
from flows.registry.question import BOUNDS, GATE, REASON, WAITING, Answer, answer_in, said
from flows.tracking.runs import MODEL, Tracker, slug
from flows.watch import watch

JUDGED = "evergreen.gate_version"


@task(task_run_name="judge", **RETRIED)
def judge(job: Job, run_id: str, steps: list[dict[str, Any]]) -> str:
    """What the gate says of this stream's model: "promoted", "refused", or "waiting" where a person's answer is wanted and not given yet.

    Said once, and told in MLflow, in Prefect and to whoever watches; the same bounds are not asked again.
    """
    tracker = tracker_of(job)
    tags, bounds = tracker.client.get_run(run_id).data.tags, planned(job).config.gate
    if tags.get(GATE, WAITING) != WAITING and tags.get(BOUNDS) == bounds.model_dump_json() and same(tracker.client, tags):
        version = tags[MODEL].rsplit("/", 1)[1]
        watch().tell(f"{title(job)}: version {version} was {tags[GATE]} before, by the same bounds: {tags.get(REASON, '')}")
        return str(tags[GATE])
    _, name, version = tags[MODEL].rsplit("/", 2)
    before = holder(tracker.client, name, CHAMPION)
    if before and str(before.version) == version:  # killed between the alias and the note of it
        return _told(tracker, job, run_id, Decision(True, (), "it is the champion already"), "promoted")
    judged, champion = candidate(job, steps), _champion(job, tracker, before) if before else None
    decision = decide(judged, champion, bounds)
    _show(tracker, job, run_id, decision, _beside(judged, champion, before))
    word = "promoted" if decision.promote else "refused"
    answer = answer_in(tags) if bounds.approval and decision.promote else None
    if bounds.approval and decision.promote:
        decision, word = _asked(decision, answer, f"{name} {version}")
    alias = CHAMPION if decision.promote else CHALLENGER
    held = holder(tracker.client, name, alias)
    if held is None or str(held.version) != version:
        change(job.place, tracker.client, name, alias, version, f"the gate: {decision.reason}", answer.who if answer else None)
    return _told(tracker, job, run_id, decision, word)


def same(client: MlflowClient, tags: dict[str, str]) -> bool:
    """Whether the version that a stream's run names is still there, and is the one that was judged."""
    now = stands(client, tags.get(MODEL))
    return now is not None and tags.get(JUDGED, now) == now


def _asked(decision: Decision, answer: Answer | None, version: str) -> tuple[Decision, str]:
    """What becomes of a decision to promote that a person has to agree with."""
    if answer is None:
        return replace(
            decision, promote=False, reason=f"{decision.reason}, and a person has to agree: evergreen promote {version}"
        ), WAITING
    told = f"{decision.reason}, and {said(answer)}"
    return replace(decision, promote=answer.approve, reason=told), "promoted" if answer.approve else "refused"


def candidate(job: Job, steps: list[dict[str, Any]]) -> Judged:
    """The stream's last model as the gate sees it."""
    report, step, start = report_of(job, steps), read(steps[-1]), read(steps[0]).row
    numbers = {name: worst(report, name) for name in ("forgetting", "zero_shot_drop")}
    numbers |= {"seconds": sum(cost.seconds for cost in report.costs)}
    numbers |= {"stored_mb": max((cost.stored_bytes for cost in report.costs), default=0) / 1e6}
    scores = {name: step.row[name][metric] for name, metric in report.headline.items()}
    plan = planned(job)
    vocabulary, exam = plan.stream.sessions[-1].vocabulary, plan.stream.exam(len(plan.keys) - 1)
    limit = plan.config.evaluate.limit
    return Judged(
        numbers,
        scores,
        step.row,
        {name: unpack(hits) for name, hits in step.hits.items()},
        frozenset(step.row),
        frozenset(known.name for known in vocabulary),
        {test.name: worst_of(spread(test.data, limit), unpack(step.hits[test.name])) for test in exam if test.kind == "classify"},
        {name: start[name][metric] for name, metric in report.headline.items()},
    )


def worst_of(data: ImageTable, hits: Bool[np.ndarray, " n"]) -> str:
    """The class that a model gets right most seldom."""
    right: dict[str, list[bool]] = {}
    for label, hit in zip(data.labels, hits, strict=True):
        right.setdefault(str(label), []).append(bool(hit))
    return min(right, key=lambda name: sum(right[name]) / len(right[name]))


def _champion(job: Job, tracker: Tracker, version: ModelVersion) -> Judged | str:
    """The champion on the samples that the candidate was scored on, or why that cannot be had."""
    plan = planned(job)
    exam = plan.stream.exam(len(plan.keys) - 1)
    try:
        model = served(job.place, tracker.client, f"{version.name}/{version.version}")  # what is asked out there, not what was learned here
        known = frozenset(report_in(version).matrix.sets), frozenset(each.name for each in model.bundle.classes)
        scores = evaluate(model.bundle.method, exam, plan.config.evaluate, watch().progress)
    except (EvergreenError, OSError) as error:
        return f"version {version.version}: {error}"
    names = headline(exam)
    return Judged(
        {},
        {name: scores[name].metrics[metric] for name, metric in names.items()},
        {name: score.metrics for name, score in scores.items()},
        {name: score.hits for name, score in scores.items()},
        *known,
    )


def row(check: Check) -> dict[str, Any]:
    """A bound as a row of the table that people read."""
    shown = {"candidate": check.candidate, "champion": check.champion, "from": check.low, "to": check.high, "limit": check.limit}
    cells = {name: "" if value != value else round(value, 4) for name, value in shown.items()}
    return {"bound": check.bound, **cells, "holds": "yes" if check.holds else "NO"}


def _beside(judged: Judged, champion: Judged | str | None, version: ModelVersion | None) -> dict[str, Any]:
    """The champion's number, both headline scores of each set, and which samples the champion gets right."""
    known = champion if isinstance(champion, Judged) else None
    before = known.headline if known else {}
    scores = {name: [_plain(value), _plain(before.get(name))] for name, value in judged.headline.items()}
    hits = {name: pack(right) for name, right in known.hits.items()} if known else {}
    return {"champion": str(version.version) if version else None, "scores": scores, "hits": hits}


def _plain(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _show(tracker: Tracker, job: Job, run_id: str, decision: Decision, beside: dict[str, Any]) -> None:
    rows = [row(check) for check in decision.checks]
    if rows:
        create_table_artifact(key=f"{slug(title(job))}-gate", table=rows, description=f"{title(job)}: {decision.reason}")
        told = {"reason": decision.reason, "promote": decision.promote, "checks": rows}
        tracker.client.log_dict(run_id, told | beside, "gate.json")


def _told(tracker: Tracker, job: Job, run_id: str, decision: Decision, word: str) -> str:
    _, name, version = tracker.client.get_run(run_id).data.tags[MODEL].rsplit("/", 2)
    tracker.client.set_tag(run_id, REASON, decision.reason[:4000])
    tracker.client.set_tag(run_id, BOUNDS, planned(job).config.gate.model_dump_json())
    tracker.client.set_tag(run_id, JUDGED, str(stands(tracker.client, f"models:/{name}/{version}")))
    tracker.client.set_tag(run_id, GATE, word)
    place = CHAMPION if decision.promote else CHALLENGER
    watch().tell(f"{title(job)}: version {version} of {name} is {place}: {decision.reason}")
    return word
