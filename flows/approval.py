"""A person's word before a model becomes champion: a question on a page of Prefect, which nobody holds a place or a lock for."""

import json
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from prefect import flow, runtime
from prefect.deployments import run_deployment
from prefect.exceptions import FlowPauseTimeout, ObjectNotFound
from prefect.flow_runs import pause_flow_run, suspend_flow_run
from prefect.input import RunInput
from prefect.utilities.urls import url_for
from pydantic import Field

from cl.errors import StoreError
from cl.names import in_markdown
from flows.forward import answered, catch_up
from flows.history.conclude import conclude
from flows.history.entries import history_of
from flows.learn.job import Job, title
from flows.learn.session import tracker_of
from flows.registry.as_learned import as_learned
from flows.registry.champion import find
from flows.registry.judge import judge
from flows.registry.lineage import steps_of
from flows.registry.pages import page
from flows.registry.question import BOUNDS, GATE, WAITING, Answer, Question, note, question_in, standing
from flows.settings import EMBEDDED, Place, quiet
from flows.tracking.locks import model_locked
from flows.tracking.reap import alive
from flows.tracking.runs import MODEL, connect
from flows.watch import watch

DEPLOYMENT = "approve/approve"


class Approval(RunInput):
    """What the page asks for."""

    approve: bool = Field(default=False, title="May it become champion?")
    who: str = Field(min_length=1, title="Your name", description="kept with the answer; a yes stands in the model's history too")
    why: str = Field(default="", title="Why", description="kept with the answer; `evergreen status` tells it")


def ask(job: Job, outcome: dict[str, Any]) -> Question | None:
    """Put the question about a candidate that waits, once; returns what this very run has to wait for, if anything.

    For who is alone with the model, so that nobody else asks the same. A run of a deployment waits for nothing: another run, of the
    deployment `approve`, asks in its stead. A pause would give back the deployment's place, and Prefect ends who cannot renew it.
    """
    if outcome.get("gate") != WAITING or os.environ.get(EMBEDDED):
        return None
    client, hours = tracker_of(job).client, float(job.settings["gate"]["approval_hours"])
    tags = client.get_run(outcome["run"]).data.tags
    _, name, version = tags[MODEL].rsplit("/", 2)
    if told := standing(job.place, tags):
        watch().tell(f"{title(job)}: {told}")
        return None
    until = (datetime.now(UTC) + timedelta(hours=hours)).isoformat(timespec="seconds")
    here = not runtime.deployment.id
    before = question_in(tags)
    parameters = {"model": name, "version": version, "until": until, "data_root": runtime.flow_run.parameters.get("data_root")}
    run = str(runtime.flow_run.id) if here else _asked_elsewhere(parameters, f"{outcome['run']} after {before.run if before else 'none'}")
    if run is None:
        instead = f"start `evergreen serve` anew, or: evergreen promote {name} {version}"
        watch().tell(f"{title(job)}: there is no deployment {DEPLOYMENT} that asks a person; {instead}")
        return None
    asked = Question(run, url_for("flow-run", run) or "", until)
    note(client, outcome["run"], asked)
    waits = f"version {version} of {name} waits for a person until {asked.deadline} ({hours:g} {'hour' if hours == 1 else 'hours'})"
    watch().tell(
        f"{title(job)}: {waits}: click Resume at {asked.page} (sign in on the start page first), or: evergreen promote {name} {version}"
    )
    return asked if here else None


def approved(job: Job, outcome: dict[str, Any], asked: Question | None) -> dict[str, Any]:
    """The same outcome after a person has answered what this run asked; nobody else waits for that."""
    steps = outcome.pop("steps", None)
    if asked is None:
        return outcome
    form = _form(outcome["run"], title(job))
    try:
        given = pause_flow_run(wait_for_input=form, timeout=_seconds(asked.until), poll_interval=2)
    except FlowPauseTimeout:
        watch().tell(f"{title(job)}: nobody answered until {asked.deadline}; it stays challenger")
        return outcome
    note(tracker_of(job).client, outcome["run"], Answer(given.approve, given.who, given.why))
    with model_locked(job.place, job.settings["name"]):  # judged again: another champion may have come meanwhile
        if steps is None:
            return outcome | catch_up(job)
        outcome["gate"] = judge(job, outcome["run"], steps)
        outcome["report"] = page(job, outcome["run"], steps)
    return outcome


@flow(name="approve", flow_run_name="may {model} version {version} become champion?")
def approve(model: str, version: str, until: str, data_root: str | None = None) -> str:
    """Ask a person whether a version that holds every bound may become champion, and do as they say.

    Until somebody answers the run is suspended: no process waits for it, and it outlives `evergreen serve`, servers and machines.

    Args:
        model: the name of a registered model.
        version: its version, by number.
        until: the moment (ISO) after which nobody is waited for.
        data_root: the folder that holds the data sets; by default the project's `data`.
    """
    quiet()
    place = Place.find()
    with alive(place):
        client = connect(place)
        candidate = find(client, model, version)
        run = str(candidate.run_id)
        if client.get_run(run).data.tags.get(GATE) == WAITING:
            form = _form(run, f"{model} version {version}")
            given = suspend_flow_run(wait_for_input=form, timeout=_seconds(until), key="approval")
            if client.get_run(run).data.tags.get(GATE) == WAITING:  # else it was settled by hand while this run was suspended
                note(client, run, Answer(given.approve, given.who, given.why))
                return _judged(candidate, data_root, place, client)
        return client.get_run(run).data.tags[GATE]


def _judged(candidate: ModelVersion, data_root: str | None, place: Place, client: MlflowClient) -> str:
    if waiting := conclude(history_of(place, candidate.name).read()).waiting:
        with model_locked(place, candidate.name):
            return answered(place, candidate.name, waiting, data_root)
    job = as_learned(candidate, data_root)
    bounds = json.loads(client.get_run(str(candidate.run_id)).data.tags[BOUNDS])  # asked last, maybe others than it was published with
    job = replace(job, config=json.dumps({**job.settings, "gate": bounds}, sort_keys=True))
    steps = [step.to_json() for step in steps_of(place, client, candidate)]
    if not steps:
        told = f"its sessions are not in {place.steps}, so its bounds cannot be asked again"
        raise StoreError(
            f"model {candidate.name} version {candidate.version}: {told}; evergreen promote {candidate.name} {candidate.version}"
        )
    with model_locked(place, job.settings["name"]):
        word = judge(job, str(candidate.run_id), steps)
        page(job, str(candidate.run_id), steps)
        return word


def _asked_elsewhere(parameters: dict[str, Any], once: str) -> str | None:
    """The id of the run that asks in our stead; None where nobody offers the deployment. The same `once` asks once."""
    named = f"may {parameters['model']} version {parameters['version']} become champion?"  # from its first second
    try:
        started: Any = run_deployment(
            DEPLOYMENT, parameters=parameters, flow_run_name=named, timeout=0, as_subflow=False, idempotency_key=once
        )
    except ObjectNotFound:
        return None
    return str(started.id)


def _seconds(until: str) -> int:
    return max(1, int((datetime.fromisoformat(until) - datetime.now(UTC)).total_seconds()))


def _form(run_id: str, what: str) -> type[Approval]:
    try:
        checks = json.loads(mlflow.artifacts.load_text(f"runs:/{run_id}/gate.json"))["checks"]
    except Exception:  # whatever store it lies in raises its own; the question can be asked without the table
        checks = []
    return Approval.with_initial_data(description=question(what, "every bound holds", checks))


def question(title: str, reason: str, checks: list[dict[str, Any]]) -> str:
    """The page's text: what the gate found, as Markdown. A list: the dialog is narrow, and cuts a table off.

    >>> print(question("pets replay seed 0", "every bound holds", [{"bound": "flips", "candidate": 0.01, "from": "", "holds": "yes"}]))
    **pets replay seed 0** may become champion: every bound holds.
    <BLANKLINE>
    - **flips**: candidate 0.01, holds yes
    <BLANKLINE>
    Switch it on to approve, or leave it off to keep the champion there is. The report is an artifact of the run that learned it.
    """
    lines = [f"- **{in_markdown(str(check['bound']))}**: {_cells(check)}" for check in checks]
    last = "Switch it on to approve, or leave it off to keep the champion there is. The report is an artifact of the run that learned it."
    return "\n".join([f"**{in_markdown(title)}** may become champion: {in_markdown(reason)}.", *(["", *lines] if lines else []), "", last])


def _cells(check: dict[str, Any]) -> str:
    return ", ".join(f"{name} {in_markdown(str(value))}" for name, value in check.items() if name != "bound" and value != "")
