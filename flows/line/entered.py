"""What a model's history leaves in MLflow: one run for the model, one below it for each session, and versions in the registry."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import yaml
from prefect import task

from cl.names import in_markdown, slug
from cl.reports.card import rows_of
from cl.reports.figures import LINES, thinned
from cl.reports.items import Metric, metrics, whole
from cl.reports.report import Report
from cl.reports.tables import percent
from cl.run_config import parse_config
from cl.store.bundle import Bundle
from flows.history.standing import chain
from flows.learn.job import Job, label
from flows.learn.session import RETRIED, tracker_of
from flows.line.grow import method_of
from flows.line.ruling import Ruled, told_of
from flows.line.view import report_of_line, step
from flows.line.work import Work, classes, work
from flows.registry.package import register
from flows.registry.publish import own_command
from flows.registry.question import BOUNDS, GATE, REASON
from flows.tracking.notes import describe_run, reopen
from flows.tracking.reap import reap_runs
from flows.tracking.runs import COMMAND, MODEL, SESSIONS, STATE, Tracker, locked

_NAME, _REASON = 60, 500  # characters of a set's name, and of what the gate said, in a description
_SETS = 100  # of which a session's run has every metric, and not only the one that stands in the matrix
CHARTED = "evergreen.charted"  # how many sessions the curves of a model's run have


@contextmanager
def model_run(job: Job, opened: str) -> Iterator[str]:
    """The model's run in MLflow, which ends as what happens inside ends; `opened`: the id of the history's first entry."""
    tracker, at = tracker_of(job), work(job)
    with locked(job.place, f"history-{opened}.lock"), tracker.answering():  # while it is held, the run is not a dead process's
        reap_runs(job.place, tracker.client)
        tags = job.tags() | {COMMAND: own_command()}
        named = f"{at.config.name} model, {label(job)} seed {at.config.seed}"
        run, new = tracker.open(f"history-{opened}", "stream", named, tags, job.settings)
        for name, value in () if new else tags.items():  # it is known by the settings and the data of now
            tracker.client.set_tag(run, name, value)
        if not new:
            tracker.client.update_run(run, name=named)
        if new:
            tracker.use_data(run, job.folder, job.data, {"pinned": str(job.pinned)})
        with tracker.ending(run):
            yield run


def session_run(tracker: Tracker, run_id: str, state: str, session: str) -> str:
    """The run of a session below that of its model: the one that there is, else a new one."""
    known = tracker.find(state, "session", run_id)
    return str(known.info.run_id) if known else tracker.attempt(run_id, state, session, state)


@task(task_run_name="log {session}", **RETRIED)
def enter(job: Job, run_id: str, session: str, state: str) -> None:
    """What a session came to, as points of its own run, and of the model's at step = its place in the line."""
    tracker, at = tracker_of(job), work(job)
    standing = at.standing()
    learned, grown = standing.tree[state], chain(standing, state)
    child = session_run(tracker, run_id, learned.state, learned.session)
    if tracker.logged(child) or tracker.logged(child, "published"):
        return
    entered = step(at, at.line(grown, at.sets(standing, grown).every), grown, len(grown))
    with tracker.ending(child):
        every = list(_points(entered.row, entered.geometry, entered.equity, len(grown)))
        costs = [
            Metric(f"cost/{name}", float(getattr(entered.cost, name)), len(grown)) for name in ("seconds", "steps", "samples", "flops")
        ]
        heads = [point for point in every if point.name.split("/")[0] in ("top1", "recall_at_10")]
        # MLflow takes milliseconds for a point, and copies a run's last ones to its model: of a long line the rest is in its report
        tracker.write(child, [*(every if len(entered.row) <= _SETS else heads), *costs], entered.finished or None)
        tracker.write(run_id, [*heads, *costs, Metric("geometry/logit_scale", entered.scale, len(grown))], entered.finished or None)
        tracker.client.set_tag(run_id, SESSIONS, str(len(grown)))
        describe_run(tracker.client, child, _note(session, len(grown), heads))
        tracker.mark(child)


def _note(session: str, number: int, heads: Sequence[Metric]) -> str:
    """The page of a session's run, before the gate has spoken."""
    some = [heads[place] for place in thinned(len(heads), LINES)]
    rows = rows_of(["set", "score"], [[point.name.partition("/")[2][:_NAME], percent(point.value)] for point in some])
    return "\n".join([f"{in_markdown(session)}, number {number} of the line: not judged yet.", "", *rows])


def _points(row: Any, geometry: Any, equity: Any, number: int) -> Iterator[Metric]:
    for kind, part in (("", row), ("geometry/", geometry), ("equity/", equity)):
        for name, scores in part.items():
            for metric, value in scores.items():
                yield Metric(f"{kind}{metric.replace('@', '_at_')}/{name}", float(value), number)


@task(task_run_name="publish {session}", **RETRIED)
def publish(job: Job, run_id: str, session: str, state: str) -> tuple[str, str]:
    """A state as a version in the registry, with its report; returns the session's run and the version's number."""
    tracker, at = tracker_of(job), work(job)
    standing = at.standing()
    learned, grown = standing.tree[state], chain(standing, state)
    child = session_run(tracker, run_id, state, session)
    if not tracker.logged(child, "published"):
        report = report_of_line(at, standing, grown)
        tracker.write(child, whole(report))
        tracker.client.log_text(child, yaml.safe_dump(learned.config, sort_keys=False), "config.yaml")
        _charts(tracker, run_id, report)
        tracker.mark(child, "published")
    config = parse_config(learned.config, "the history")
    known = tuple(each for one in grown for each in classes(one.classes))
    tags = job.tags() | {STATE: learned.state}
    bundle = Bundle(method_of(at, learned), config.method, config.seed, tuple(config.stream.template), known)
    address = register(tracker, child, at.config.name, bundle, len(grown), tags)
    tracker.client.set_tag(run_id, MODEL, address)
    tracker.client.set_terminated(child, "FINISHED")
    return child, address.rsplit("/", 1)[1]


def _charts(tracker: Tracker, run_id: str, report: Report) -> None:
    """The curves of the whole line, which take every row: those points that the model's run has not got yet."""
    had = int(tracker.client.get_run(run_id).data.tags.get(CHARTED, 0))
    last = len(report.sessions)
    numbers = range(min(had, last - 1) + 1, last + 1)  # after a rollback the line is shorter than the chart
    tracker.write(run_id, [point for number in numbers for point in metrics(report, number) if point.name.startswith("cl/")])
    tracker.client.set_tag(run_id, CHARTED, str(last))


def say(job: Job, run_ids: Sequence[str], word: str, reason: str, ruled: Ruled | None) -> None:
    """What became of a candidate, on its run and on the model's."""
    client, bounds = tracker_of(job).client, work(job).config.gate.model_dump_json()
    for run in run_ids:
        client.set_tag(run, REASON, reason[:4000])
        client.set_tag(run, BOUNDS, bounds)
        client.set_tag(run, GATE, word)
        if word == "accepted":
            reopen(client, run, f"Accepted: {in_markdown(reason[:_REASON])}")
        if ruled:
            client.log_dict(run, told_of(ruled), "gate.json")


def name_of(at: Work) -> str:
    """What the model is called in the registry."""
    return slug(at.config.name)
