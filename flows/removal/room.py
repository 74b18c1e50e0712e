"""Making room: weights of states, MLflow's copies of versions, stale checkpoints and leftovers go, and every number stays."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import TYPE_CHECKING

from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from cl.errors import StoreError
from cl.names import slug
from cl.store.store import drop
from cl.text import some
from flows.history.entries import Pruned, history_of, note
from flows.history.idle import idle
from flows.removal.spare import PRUNED, Goes, Model, Plan, copies_of, files_of, histories, model_of, planned, state_of, with_foundations
from flows.settings import Place, stores
from flows.tracking.reap import alive_flows
from flows.tracking.runs import connect

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from flows.line.work import Work


def prune(
    place: Place, model: str | None, back: int, experiments: bool, agreed: Callable[[Plan], bool], tell: Callable[[str], None]
) -> Plan | None:
    """Drop what is not needed, once `agreed` to; None where it was not.

    Args:
        place: the project.
        model: only what this one learned; None: whatever has a history.
        back: how many champions before the present one a rollback may need.
        experiments: also what `run` and `compare` learned and no history uses.
        agreed: hears what would go, and says whether it does.
        tell: hears what could not be dropped.

    Raises:
        StoreError: no such model, somebody learns it, or its history is damaged.
    """
    with ExitStack() as stack:
        for name in _named(place, model):
            stack.enter_context(idle(place, name))
        if experiments and alive_flows(place):
            raise StoreError("a run of this project is going on, and --experiments might take what it needs; start again once it is over")
        client = connect(place) if stores(place) else None
        plan = planned(place, client, model, back, experiments)
        if not plan.goes or not agreed(plan):
            return plan if not plan.goes else None
        for each in plan.models:
            _note(place, each, plan, "intent")
        _carry_out(place, client, plan.goes, tell)
        for each in plan.models:
            _note(place, each, plan, "done")
    return plan


def finish(at: "Work") -> None:
    """End what was begun and cut short: to be called before anything else is done to a model, by who holds its lock."""
    standing, client = at.standing(), None
    for said in standing.unfinished:
        if isinstance(said, Pruned):
            client = client or connect(at.place)
            own = model_of(at.place, client, slug(at.config.name), 3)
            stay = with_foundations(at.place, own.kept.states)  # what is needed by now stays
            states = [state_of(at.place, state, own.name) for state in said.states if state not in stay]
            gone = copies_of(at.place, client, own.name, {version for version in said.versions if version not in own.kept.versions})
            _carry_out(at.place, client, [*states, *gone], lambda text: None)
            note(at.journal, Pruned(phase="done", states=said.states, versions=said.versions))


def _named(place: Place, model: str | None) -> list[str]:
    names = histories(place)
    if model is None:
        return names
    if slug(model) not in names:
        there = f"there are {some(names, 10)}" if names else "`evergreen update` begins one"
        raise StoreError(f"model {model}: it has no history; {there}; what `run` and `compare` learned: evergreen prune --experiments")
    return [slug(model)]


def _note(place: Place, model: Model, plan: Plan, phase: str) -> None:
    mine = [each for each in plan.goes if each.model == model.name]
    states, versions = (tuple(each.name for each in mine if each.kind == kind) for kind in ("state", "version"))
    if states or versions:
        note(history_of(place, model.name), Pruned(phase=phase, states=states, versions=versions))  # type: ignore[arg-type]


def _carry_out(place: Place, client: "MlflowClient | None", goes: Sequence[Goes], tell: Callable[[str], None]) -> None:
    for each in goes:
        match each.kind:
            case "state":
                _let_go(place, each.name, tell)
            case "version":
                assert client
                _empty(place, client, each)
            case "checkpoint":
                shutil.rmtree(place.steps / "interim" / each.name, ignore_errors=True)
            case _:
                path = place.runs / each.name
                shutil.rmtree(path) if path.is_dir() and not path.is_symlink() else path.unlink(missing_ok=True)


def _let_go(place: Place, state: str, tell: Callable[[str], None]) -> None:
    try:
        drop(place.steps / "states" / state)
    except StoreError as error:
        tell(f"{error}; its weights stay")


def _empty(place: Place, client: "MlflowClient", version: Goes) -> None:
    """Drop a version's files; its entry stays in the registry and says so."""
    entry = client.get_model_version(version.model, version.name)
    address, size = files_of(place, client, entry)
    if address and size:
        get_artifact_repository(address).delete_artifacts()
    client.set_model_version_tag(version.model, version.name, PRUNED, "true")
