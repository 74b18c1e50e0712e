"""The report of a stream as people read it, once the gate has spoken: with its version, its loss, and the images that broke."""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import mlflow
from mlflow.exceptions import MlflowException
from prefect import task

from cl.errors import EvergreenError, StoreError
from cl.evaluation.evaluate import unpack
from cl.learning.host import threads
from cl.reports.figures import LINES, POINTS, thinned
from cl.reports.gallery import Comparison
from cl.reports.report import Losses, Report
from cl.reports.sides import Side, side_by_side
from cl.reports.write import write
from cl.run import load_method
from cl.run import report as made
from cl.run_config import RunConfig
from cl.streams.stream import EvalSet
from flows.learn.job import Job, planned, title, turns
from flows.learn.session import RETRIED, read, report_of, tracker_of
from flows.registry.cards import tell
from flows.registry.predict import served
from flows.registry.question import GATE, REASON
from flows.settings import Place, stores
from flows.tracking.runs import KEY, MODEL, PARENT, Tracker
from flows.tracking.steplog import STEPS
from flows.tracking.views import NOTE
from flows.watch import watch

if TYPE_CHECKING:
    from cl.run import Step

PAGE = "evergreen.page"  # which page of a run is written: for which version, and what the gate had said of it by then
IMAGES = "images.json"


@task(task_run_name="write the report", **RETRIED)
def page(job: Job, run_id: str, steps: list[dict[str, Any]]) -> dict[str, Any]:
    """Write the report's files and keep them in MLflow, unless they are there as they would be; the report as plain values."""
    tracker, known = tracker_of(job), [read(step) for step in steps]
    report = told(tracker, job, run_id, report_of(job, steps))
    folder, mark, tags = job.place.reports / run_id, _mark(report), tracker.client.get_run(run_id).data.tags
    if tags.get(PAGE) != mark or NOTE not in tags:
        tell(tracker, run_id, report, folder)
    if tags.get(PAGE) != mark or not (folder / "report.html").exists():
        write([report], folder, images(tracker, job, known, report))
        tracker.client.log_artifacts(run_id, str(folder), "report")
        tracker.client.set_tag(run_id, PAGE, mark)
    return report.to_json()


def told(tracker: Tracker, job: Job, run_id: str, report: Report) -> Report:
    """A report with what MLflow knows of its run: the loss of its sessions, which version it became, and what the gate said of that."""
    return replace(judged(tracker, run_id, report), losses=tuple(_losses(tracker, job, run_id)))


def judged(tracker: Tracker, run_id: str, report: Report) -> Report:
    """A report with the version that its run became, and what the gate said of that."""
    tags = tracker.client.get_run(run_id).data.tags
    gate = {"word": tags[GATE], "reason": tags.get(REASON, ""), **_gate(run_id)} if GATE in tags else {}
    return replace(report, version=tags.get(MODEL, "").removeprefix("models:/"), gate=gate)


def images(tracker: Tracker | None, job: Job, steps: "Sequence[Step]", report: Report) -> dict[str, Comparison]:
    """What became of single images since the champion of then, or else since the start; nothing where models are gone."""
    plan, last = planned(job), len(steps) - 1

    def both() -> tuple[Side, Side, Sequence[EvalSet]]:
        hits = {name: unpack(right) for name, right in steps[-1].hits.items()}
        after = Side(report.version or "the model after the last session", load_method(plan, last, job.place.steps), hits)
        return _before(tracker, job, steps[0], report), after, plan.stream.exam(last)

    return compared(title(job), report.method, both, plan.config)


def compared(name: str, method: str, both: Callable[[], tuple[Side, Side, Sequence[EvalSet]]], config: RunConfig) -> dict[str, Comparison]:
    """What became of single images of some sets from one side to the other; nothing, which is told, where models are gone."""
    try:
        with threads(config.threads):
            return {method: side_by_side(*both(), config.evaluate, (watch().progress, watch().progress))}
    except (EvergreenError, OSError) as error:  # the numbers stand without it
        watch().tell(f"{name}: the report shows no images that broke: {error}")
        return {}


def again(jobs: "Sequence[tuple[Job, list[Step]]]") -> tuple[list[Report], dict[str, Comparison]]:
    """The reports of streams that are learned, and what became of single images under the first seed of each method."""
    reports, seen = [], dict[str, Comparison]()
    for job, steps in jobs:
        report, kept, tracker = made(planned(job), steps), dict[str, Comparison](), _tracker(job)
        run = tracker.find(turns(job)[-1].key, "stream") if tracker else None
        if tracker and run:
            report, kept = told(tracker, job, run.info.run_id, report), shown(job.place, run.info.run_id)
        if report.method not in seen:
            seen |= kept or images(tracker, job, steps, report)
        reports.append(report)
    return reports, seen


def _tracker(job: Job) -> Tracker | None:
    """None where MLflow has nothing to say: there is no store of it, or it does not answer."""
    try:
        return tracker_of(job) if stores(job.place) else None
    except (StoreError, MlflowException) as error:
        watch().tell(f"{title(job)}: the report says nothing of versions and losses: {error}")
        return None


def shown(place: Place, run_id: str) -> dict[str, Comparison]:
    """What the report of a stream's run shows of single images, read again; nothing where there is none."""
    try:
        kept = json.loads((place.reports / run_id / IMAGES).read_text(encoding="utf-8"))
        return {method: Comparison.from_json(each) for method, each in kept.items()}
    except (OSError, ValueError):  # none, or not what was written
        return {}


def _before(tracker: Tracker | None, job: Job, start: "Step", report: Report) -> Side:
    plan, champion = planned(job), report.gate.get("champion")
    if tracker and champion and report.gate.get("hits"):
        model = served(job.place, tracker.client, f"{report.version.partition('/')[0]}/{champion}")
        hits = {name: unpack(right) for name, right in report.gate["hits"].items()}
        return Side(f"{model.name}/{champion}, the champion", model.bundle.method, hits)
    first, now = plan.stream.exam(0), plan.stream.exam(len(plan.keys) - 1)
    same = [each.name for each, other in zip(first, now, strict=True) if each.digest == other.digest and each.name in start.hits]
    return Side("the model before any session", plan.frozen(), {name: unpack(start.hits[name]) for name in same})


def _gate(run_id: str) -> dict[str, Any]:
    try:
        kept = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/gate.json"))
        return {name: kept[name] for name in ("checks", "champion", "accepted", "scores", "hits") if name in kept}
    except Exception:  # none, or of a store that raises its own: the word and the reason are known without it
        return {}


def _losses(tracker: Tracker, job: Job, run_id: str) -> list[Losses]:
    learned = turns(job)[1:]
    some = [learned[place] for place in thinned(len(learned), LINES)]
    children = tracker.client.search_runs([tracker.experiment], f"tags.`{PARENT}` = '{run_id}'", max_results=5000)
    by_key = {child.data.tags.get(KEY): child.info.run_id for child in reversed(children)}  # the newest try of a session last
    curves: list[Losses] = []
    for turn in some:
        curves += loss_of(tracker, turn.session, by_key[turn.key]) if turn.key in by_key else []
    return curves


def loss_of(tracker: Tracker, session: str, run_id: str) -> list[Losses]:
    """The loss of some steps of a session, by its run; nothing where none was told."""
    points = tracker.client.get_metric_history(run_id, f"{STEPS}/loss") or tracker.client.get_metric_history(run_id, "train/loss")
    kept = [points[place] for place in thinned(len(points), POINTS)]
    return [Losses(session, tuple(point.step for point in kept), tuple(point.value for point in kept))] if kept else []


def _mark(report: Report) -> str:
    return f"{report.version} {report.gate.get('word', '')} {report.gate.get('reason', '')}"[:1000]
