"""One session of a stream, as tasks: learn it (never retried), then tell MLflow about it (retried)."""

import functools
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import httpx
from mlflow.exceptions import MlflowException
from prefect import task
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State, TaskRun
from prefect.context import TaskRunContext
from prefect.tasks import Task

from cl.errors import EvergreenError
from cl.evaluation.matrix import among_more, changes
from cl.names import in_markdown
from cl.reports.items import metrics
from cl.reports.report import Report
from cl.run import Step, advance, find, report, scores
from flows.learn.far import half
from flows.learn.job import Job, Turn, planned, title
from flows.pace import Ended, line
from flows.settings import Place, tracking_uri
from flows.tracking.notes import describe_run
from flows.tracking.runs import Tracker
from flows.tracking.steplog import StepLogger
from flows.watch import watch


def transient(task: Task[..., Any], run: TaskRun, state: State[Any]) -> bool:
    """Whether trying again could help: not when the user has to act first, nor where Prefect's client has tried for a while."""
    return not isinstance(state.result(raise_on_failure=False), EvergreenError | httpx.TransportError)


# for what fetches or tells; learning is never retried
RETRIED: dict[str, Any] = {"cache_policy": NO_CACHE, "retries": 3, "retry_delay_seconds": [1, 5, 20], "retry_condition_fn": transient}


def content_key(context: TaskRunContext, arguments: dict[str, Any]) -> str:
    """Prefect's name for a result is its content key, so that a result is found by any later run."""
    return f"evergreen-{arguments['turn'].key}"


def learn(job: Job, run_id: str, turn: Turn, before: list[dict[str, Any]]) -> dict[str, Any]:
    """The finished step of a turn: Prefect's record of it where that still holds, else found on disk or learned; tell what it changed."""
    # Prefect remembers numbers; whether the weights are still there, only the store knows
    stale = find(planned(job), turn.index, job.place.steps) is None
    step = dict(learn_session.with_options(refresh_cache=stale)(job, run_id, turn))
    watch().end(_ended(job, turn, [read(each) for each in (*before, step)], known=not stale))
    return step


def _ended(job: Job, turn: Turn, steps: list[Step], known: bool) -> Ended:
    cost = steps[-1].cost
    plan = planned(job)
    told = tuple(changes(scores(plan, steps)))
    told = among_more(told) if plan.stream.candidates == "seen" else told
    return Ended(title(job), turn.index, turn.last, turn.session, known, cost.steps, cost.seconds, told)


@task(
    task_run_name="learn {turn.index} {turn.session}",
    cache_key_fn=content_key,
    persist_result=True,
    result_serializer="json",
    retries=0,
)
def learn_session(job: Job, run_id: str, turn: Turn) -> dict[str, Any]:
    """Learn one session and measure the model on everything; returns numbers, the weights stay on disk."""
    plan, store = planned(job), job.place.steps
    known = find(plan, turn.index, store)
    if known:
        return known.to_json()
    watch().begin(title(job), turn.index, turn.last, turn.session)
    for choice in plan.chosen if turn.index == 1 else ():
        watch().tell(f"{title(job)}: {choice}")
    if far := half(store, plan.states[turn.index]):
        watch().tell(f"{title(job)}: {turn.index}/{turn.last} {turn.session}: goes on after {far}")
    with _attempt(job, run_id, turn) as logger:
        return advance(plan, turn.index, store, logger=logger, progress=watch().progress).to_json()


@task(task_run_name="log {turn.index} {turn.session}", **RETRIED)
def log_session(job: Job, run_id: str, turn: Turn, steps: list[dict[str, Any]]) -> None:
    """Put a finished step on MLflow's charts: the stream's run at step = session, and the session's own nested run."""
    tracker = tracker_of(job)
    session_run = tracker.find(turn.key, "session", run_id)
    child = session_run.info.run_id if session_run else tracker.attempt(run_id, turn.key, turn.session, planned(job).states[turn.index])
    if tracker.logged(child):
        return
    with tracker.ending(child):
        known = list(metrics(report_of(job, steps), turn.index))
        when = read(steps[-1]).finished  # not now: killed before the mark, it is all written again, and must be the same points
        tracker.write(run_id, known, when)
        tracker.write(child, (metric for metric in known if not metric.name.startswith("cl/")), when)  # those are about the whole stream
        describe_run(tracker.client, child, in_markdown(line(_ended(job, turn, [read(step) for step in steps], known=False))))
        tracker.mark(child)


def tracker_of(job: Job) -> Tracker:
    """Where the runs of this job's stream are kept."""
    return _tracker(job.place, job.settings["name"], tracking_uri(job.place))


@functools.lru_cache(maxsize=1)
def _tracker(place: Place, experiment: str, uri: str) -> Tracker:
    return Tracker(place, experiment)


def report_of(job: Job, steps: list[dict[str, Any]]) -> Report:
    """What the steps so far say together."""
    return report(planned(job), [read(step) for step in steps])


def read(step: dict[str, Any]) -> Step:
    """A step as it travelled between tasks."""
    return Step.from_json(step)


@contextmanager
def _attempt(job: Job, run_id: str, turn: Turn) -> Iterator[Any]:
    tracker = tracker_of(job)
    child = tracker.attempt(run_id, turn.key, turn.session, planned(job).states[turn.index])
    with logged_to(tracker, child) as logger:
        yield logger


@contextmanager
def logged_to(tracker: Tracker, run_id: str) -> Iterator[Any]:
    """A logger of steps into a session's run, which ends with the block."""
    logger = StepLogger(tracker.client, run_id, tracker.reached(run_id))
    # what is learned is learned, whether MLflow can be told so or not: telling it is tried again, and again
    with suppress(MlflowException), tracker.ending(run_id):
        try:
            yield logger
        finally:
            logger.flush()
