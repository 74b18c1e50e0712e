"""What a version that `run` made has learned, as a history keeps it: from the steps on disk, its run in MLflow, and the data of today.

Where the data are those that it was taught, the chain says which classes and sets each session brought; where they are not, the steps
alone say which states there are, and the registered model which classes: its sets can then not be asked again.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.errors import EvergreenError, StoreError
from cl.plain_yaml import parse
from cl.plan import Plan
from cl.steps import Step, noted
from cl.store.bundle import NOTE
from cl.store.store import read_state
from cl.streams.arrivals import Arrivals
from cl.text import some
from flows.history.entries import AskedSet, Classes, Learned
from flows.learn.job import outlined
from flows.line.work import asked_sets, told
from flows.registry.as_learned import as_learned
from flows.registry.lineage import report_of, steps_of, text_of
from flows.settings import Place
from flows.tracking.runs import KEY


class _Taught(NamedTuple):
    """What is known of a session beside its state; the defaults are those of one whose data are gone."""

    source: str = ""
    content: str = ""
    classes: Classes = ()
    exam: tuple[AskedSet, ...] = ()
    images: int = 0


def chain_of(place: Place, client: MlflowClient, version: ModelVersion) -> tuple[Learned, ...]:
    """What a version has learned, from the first session to the state that it holds; nothing is learned or asked for it.

    Raises:
        StoreError: its run, one of its steps or the weights of one of its states are gone, or it learned its sessions all at once.
    """
    called = f"model {version.name} version {version.version}"
    settings = parse(text_of(version, "config.yaml"), f"config.yaml of {version.name}/{version.version}")
    if settings.get("joint"):
        raise StoreError(f"{called}: it learned every session at once (joint), so no further one can grow from it")
    steps = steps_of(place, client, version)
    if len(steps) < 2:
        lost = _lost(place, client, version)
        what = f"the weights it had after {some(lost)} are" if lost else "what it learned is"
        raise StoreError(f"{called}: {what} not in {place.steps}, so nothing could grow from it; share that folder")
    plan = _then(client, version)
    named = plan is not None and [step.state for step in steps[1:]] == list(plan.states[1:])
    taught = _taught(place, plan) if plan else _by_name(version, steps)
    return tuple(
        _learned(place, settings, step, before, plan.states[0] if plan and named else "", taught.get(step.session, _Taught()))
        for step, before in zip(steps[1:], steps[:-1], strict=True)
    )


def _learned(place: Place, settings: dict[str, Any], step: Step, before: Step, identity: str, taught: _Taught) -> Learned:
    noted = read_state(place.steps / "states" / step.state)
    return Learned(
        session=step.session,
        source=taught.source,
        parent=before.state if before.index else None,
        state=step.state,
        number=step.index,
        identity=identity,
        config=settings,
        content=taught.content,
        classes=taught.classes,
        exam=taught.exam,
        code=step.code or noted.code,
        versions=dict(noted.versions),
        seconds=step.cost.seconds,
        images=taught.images,
        happened=step.finished,
    )


def _lost(place: Place, client: MlflowClient, version: ModelVersion) -> list[str]:
    """The sessions whose states are not there, in order; none where the steps are not."""
    key, sessions = client.get_run(str(version.run_id)).data.tags.get(KEY), []
    while key:
        try:
            told = noted(place.steps / "steps" / key)
        except StoreError:
            return []
        if told["index"] and not (place.steps / "states" / told["state"]).is_dir():
            sessions.append(str(told["session"]))
        key = told["parent"]
    return sessions[::-1]


def _then(client: MlflowClient, version: ModelVersion) -> Plan | None:
    """The plan that the version came of, where the data are still those that it was taught."""
    try:
        plan = outlined(as_learned(version, _folder(client, version)))
        return plan if plan.stream.digest == report_of(version).provenance.stream else None
    except EvergreenError:  # data that are gone, or settings that this release does not know
        return None


def _folder(client: MlflowClient, version: ModelVersion) -> str | None:
    """Where the data lay that it learned from, if they still do."""
    inputs = client.get_run(str(version.run_id)).inputs.dataset_inputs
    folder = json.loads(inputs[0].dataset.source).get("uri") if inputs else None
    return folder if folder and Path(folder).is_dir() else None


def _taught(place: Place, plan: Plan) -> dict[str, _Taught]:
    there = Arrivals(plan.config.stream, plan.root, place.steps / "listings", plan.data).there()
    taught, known = {}, 0
    for session in plan.stream.sessions:
        arrival = there.get(session.name)
        taught[session.name] = _Taught(
            source=arrival.source if arrival else "",
            content=arrival.content if arrival else "",
            classes=told(session.vocabulary[known:]),
            exam=asked_sets(session),
            images=len(session.data),
        )
        known = len(session.vocabulary)
    return taught


def _by_name(version: ModelVersion, steps: Sequence[Step]) -> dict[str, _Taught]:
    """Every class that the model knows is the first session's: which brought which, only the data could say."""
    address = f"models:/{version.name}/{version.version}/artifacts/bundle/{NOTE}"
    try:
        note = json.loads(mlflow.artifacts.load_text(address))
        classes = tuple((str(each["name"]), tuple(map(str, each["prompts"]))) for each in note["classes"])
    except Exception as error:  # whatever store it lies in raises its own
        raise StoreError(
            f"model {version.name} version {version.version}: its data are not those that it was taught, and its classes cannot be read "
            f"({str(error).partition(chr(10))[0]})"
        ) from error
    return {steps[1].session: _Taught(classes=classes)}
