"""The flow that learns a stream: fetch the data, take the sessions in order, publish what came out."""

from contextlib import nullcontext
from typing import Any

from prefect import flow, task
from prefect.utilities.annotations import quote

from flows.approval import approved, ask
from flows.history.entries import history_of
from flows.learn.configs import settings
from flows.learn.failures import noted
from flows.learn.job import Job, learnable, planned, sizes, title, turns
from flows.learn.pulse import Pulse, pulse_file
from flows.learn.run_page import run_name
from flows.learn.session import RETRIED, learn, log_session, tracker_of
from flows.registry.judge import judge
from flows.registry.pages import page
from flows.registry.publish import own_command, publish, show, tracked
from flows.settings import Place, check_writable, quiet
from flows.tracking.locks import model_locked
from flows.tracking.reap import alive
from flows.tracking.runs import MODEL, slug
from flows.watch import Watch, watch, watched_by

Config = str | dict[str, Any]


@flow(name="learn-stream", flow_run_name=run_name)
def learn_stream(
    config: Config = "glyphs",
    overrides: list[str] | None = None,
    data_root: str | None = None,
    data_rev: str | None = None,
    promote: bool = True,
) -> dict[str, Any]:
    """Learn a stream with one method, session after session; sessions that were learned before are found, not repeated.

    Args:
        config: a YAML file, the name of a shipped one, or the settings themselves.
        overrides: settings to change, such as "method=replay" or "train.lr=1e-4".
        data_root: the folder that holds the data sets; by default the project's `data`.
        data_rev: a git revision whose version of the data to learn from.
        promote: ask the gate whether the model may become champion, where `update` has begun no history of it; a comparison does not.
    """
    quiet()
    place = Place.find()
    with alive(place), noted(place, own_command(), config, overrides or []):
        with model_locked(place, settings(config, overrides or [], place).name) if promote else nullcontext():
            job = fetch(config, overrides or [], data_root, data_rev)
            outcome = take(job, promote)
            asked = ask(job, outcome) if promote else None
        return approved(job, outcome, asked)


def take(job: Job, promote: bool = True) -> dict[str, Any]:
    """Every session of a job in order, and then the whole published and judged."""
    for remark in planned(job).remarks() if promote else ():  # a comparison says it once
        watch().tell(f"{title(job)}: {remark}")
    with tracked(job) as run, watched_by(pulse_of(job, watch())):
        steps: list[dict[str, Any]] = []
        unread: Any = quote(steps)  # Prefect would search it for results of other tasks: at 100 sessions two seconds for each task
        for turn in turns(job):
            steps.append(learn(job, run, turn, steps))
            log_session(job, run, turn, unread)
        publish(job, run, unread)
        verdict = None if not promote or beside(job, run) else judge(job, run, unread)
        report = page(job, run, unread)
    whole: Any = quote(report)
    show(job, whole)
    return {"run": run, "key": steps[-1]["key"], "report": report, "gate": verdict, "steps": steps}


def beside(job: Job, run: str) -> bool:
    """Whether the model has a history, which `update` goes on with: what a run learned is then registered, told, and not judged."""
    name = slug(job.settings["name"])
    if not history_of(job.place, name).read():
        return False
    version = tracker_of(job).client.get_run(run).data.tags[MODEL].rsplit("/", 1)[1]
    adopt = f"evergreen promote {name} {version} makes it champion, and `update` goes on from it"
    watch().tell(f"{title(job)}: version {version} of {name} is registered and not judged, as the model has a history; {adopt}")
    return True


@task(task_run_name="fetch the data", **RETRIED)
def fetch(config: Config, overrides: list[str], data_root: str | None, data_rev: str | None) -> Job:
    """Settings and data that fit each other, before anything is learned; fetching may be retried, a mistake is told."""
    check_writable(Place.find())
    return learnable(config, overrides, data_root, data_rev)


def pulse_of(job: Job, inner: Watch) -> Pulse:
    """The pulse of a job that is about to be learned here."""
    return Pulse(inner, pulse_file(job.place, turns(job)[-1].key), title(job), sizes(job))
