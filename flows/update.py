"""The flow that brings a model up to date: by event, schedule or hand, what waits is learned once, when the config's policy says so."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple

from prefect import flow, runtime, task
from prefect.artifacts import create_table_artifact
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled

from flows.alone import alone
from flows.approval import approved, ask
from flows.failures import noted
from flows.job import Job, Turn, planned, settings, title, turns
from flows.judge import same
from flows.publish import own_command
from flows.question import BOUNDS, GATE, WAITING, standing
from flows.reap import alive
from flows.session import RETRIED, tracker_of
from flows.settings import Place, quiet
from flows.stream import Config, fetch, run_name, take
from flows.watch import watch

if TYPE_CHECKING:
    from cl.drift import Drift


class Ruling(NamedTuple):
    """Whether to learn what waits, and why in a few words; the drift test where one was made."""

    learn: bool
    why: str
    drift: "Drift | None" = None


@flow(name="update", flow_run_name=run_name)
def update(config: Config = "glyphs", overrides: list[str] | None = None, data_root: str | None = None) -> dict[str, Any]:
    """Learn the sessions of a stream that are not learned yet, judge the model and promote it if the gate lets it.

    Args:
        config: a YAML file, the name of a shipped one, or the settings themselves; its `update` section says when.
        overrides: settings to change, such as "update.policy=drift".
        data_root: the folder that holds the data sets; by default the project's `data`.
    """
    quiet()
    place = Place.find()
    with alive(place), noted(place, own_command(), config, overrides or []):
        with alone(place, settings(config, overrides or [], place).name):  # the data are looked at once nobody else learns
            absorb()
            job = fetch(config, overrides or [], data_root, None)
            outcome = catch_up(job)
            asked = ask(job, outcome)
        return approved(job, outcome, asked)


def catch_up(job: Job) -> dict[str, Any]:
    """Learn what waits, if anything does and the policy says so; else only why not."""
    waiting = unlearned(job)
    why = None if waiting else settled(job)
    if why:
        grows = planned(job).config.stream.kind == "collection"
        told = "" if grows else "; it reads no collection, so what `evergreen ingest` takes in is for another config"
        watch().tell(f"{title(job)}: all {turns(job)[-1].last} sessions are learned; {why}{told}")
        return {"waiting": 0, "why": why}
    ruling = rule(job, waiting)
    watch().tell(f"{title(job)}: {len(waiting)} sessions wait; {'learning' if ruling.learn else 'left waiting'}: {ruling.why}")
    if not ruling.learn:
        return {"waiting": len(waiting), "why": ruling.why}
    outcome = take(job)
    note(job, outcome["run"], ruling)
    return outcome


def absorb() -> None:
    """Cancel the runs of this deployment that events have queued so far: what they were to learn is there, and this run learns it."""
    if not runtime.deployment.id:
        return
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(runtime.flow_run.id)
        queued = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[runtime.deployment.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        )
        for run in client.read_flow_runs(flow_run_filter=queued):
            if run.id != own.id and run.parameters == own.parameters:
                client.set_flow_run_state(run.id, Cancelled(message=f"{own.name} learns what this run was to learn"), force=True)


def unlearned(job: Job) -> list[Turn]:
    """The sessions whose learned state is not on disk, in order."""
    from cl.run import find_state

    return [turn for turn in turns(job)[1:] if find_state(planned(job), turn.index, job.place.steps) is None]


def settled(job: Job) -> str | None:
    """Why nothing is left to do with the stream as it is now: it is published, and judged by the bounds asked now or before a person."""
    tracker = tracker_of(job)
    run = tracker.find(turns(job)[-1].key, "stream")
    tags = run.data.tags if run else {}
    if run is None or not tracker.logged(run.info.run_id) or tags.get(BOUNDS) != planned(job).config.gate.model_dump_json():
        return None
    if not same(tracker.client, tags):
        return None
    return standing(job.place, tags) if tags.get(GATE, WAITING) == WAITING else "up to date"


@task(task_run_name="whether to learn", **RETRIED)
def rule(job: Job, waiting: list[Turn]) -> Ruling:
    """What the policy says of the sessions that wait; the test for drift and its calibration are shown on the run's page."""
    plan = planned(job)
    policy, images = plan.config.update, sum(len(plan.stream.sessions[turn.index - 1].data) for turn in waiting)
    if not waiting or waiting[0].index == 1 or policy.policy == "every":
        return Ruling(True, "every session is learned" if waiting else "what is learned is not judged yet, or by other bounds")
    if policy.policy == "samples":
        return Ruling(images >= policy.samples, f"{images:,} new images, and the policy wants {policy.samples:,}")
    found = drifted(job, waiting)
    create_table_artifact(key=f"{_key(job)}-drift", table=[shown(found)], description=f"{title(job)}: drift of {images:,} new images")
    compared = f"distance {found.value:.4f}, threshold {found.threshold:.4f}"
    measured = f"{found.false_alarms:.1%} false alarms measured, {found.asked:.1%} asked for"
    return Ruling(found.found, f"new images {'differ from' if found.found else 'are like'} known ones ({compared}; {measured})", found)


def drifted(job: Job, waiting: list[Turn]) -> "Drift":
    """The new images against those learned so far, as the model sees them that would go on from there."""
    from cl.data import concat
    from cl.drift import drift
    from cl.evaluate import image_features, spread
    from cl.run import load_method

    plan, first = planned(job), waiting[0].index
    policy, sessions = plan.config.update, plan.stream.sessions
    method = load_method(plan, first - 1, job.place.steps)
    known, fresh = (
        image_features(method, spread(concat([session.data for session in part]), policy.images), plan.config.evaluate)
        for part in (sessions[: first - 1], sessions[first - 1 :])
    )
    return drift(known, fresh, policy.false_alarms, seed=plan.config.seed)


def shown(found: "Drift") -> dict[str, Any]:
    """The test as a row of a table."""
    return {
        "distance": round(found.value, 6),
        "threshold": round(found.threshold, 6),
        "drift": "yes" if found.found else "no",
        "false alarms asked": found.asked,
        "false alarms measured": round(found.false_alarms, 4),
        "known images": found.known,
        "new images": found.fresh,
    }


@task(task_run_name="note why", **RETRIED)
def note(job: Job, run_id: str, ruling: Ruling) -> None:
    """Why the sessions were learned now, on the stream's run in MLflow."""
    content = {"why": ruling.why, **({"drift": shown(ruling.drift)} if ruling.drift else {})}
    tracker_of(job).client.log_dict(run_id, content, "update.json")


def _key(job: Job) -> str:
    from flows.tracking import slug

    return slug(title(job))
