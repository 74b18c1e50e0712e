"""What of a project's past could go: states, versions, checkpoints and leftovers, each with its size; nothing is touched."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple
from urllib.parse import unquote, urlsplit

from mlflow.exceptions import MlflowException
from mlflow.store.artifact.artifact_repository_registry import get_artifact_repository

from cl.errors import StoreError
from cl.names import slug
from cl.store.store import WEIGHTS, read_state, weight
from flows.history.conclude import conclude
from flows.history.entries import history_of
from flows.history.standing import Standing
from flows.project import own_models
from flows.registry.champion import versions_of
from flows.removal.prune import Kept, keeps, versions_in
from flows.settings import Place, artifact_uri
from flows.tracking.reap import parts
from flows.tracking.runs import STATE

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.entities.model_registry import ModelVersion

PRUNED = "evergreen.pruned"  # the tag of a version whose files were dropped


class Goes(NamedTuple):
    """One thing that would go, and its bytes; `model` is "" for what belongs to none."""

    kind: str  # state, version, checkpoint or leftover
    name: str
    model: str
    size: int


class Model(NamedTuple):
    """A model with a history, what stays of it, and its versions in MLflow by number, with the state of each."""

    name: str
    standing: Standing
    kept: Kept
    held: dict[str, str]


class Plan(NamedTuple):
    """What pruning would do: the models it is about, and what goes, in the order in which it does."""

    models: tuple[Model, ...]
    goes: tuple[Goes, ...]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(each.size for each in self.goes)


def planned(place: Place, client: "MlflowClient | None", model: str | None, back: int, experiments: bool) -> Plan:
    """What would go; nothing is touched."""
    every = [model_of(place, client, name, back) for name in histories(place)]
    chosen = tuple(each for each in every if model is None or each.name == slug(model))
    others = {state for each in every if each not in chosen for state in each.standing.tree}
    known = {state for each in every for state in each.standing.tree}
    unclaimed = [folder.name for folder in _folders(place.steps / "states") if folder.name not in known]
    kept = {state for each in every for state in each.kept.states}
    stay = with_foundations(place, {*others, *kept, *_aliased(place, client), *(() if experiments else unclaimed)})
    goes: list[Goes] = []
    for each in chosen:
        goes += [state_of(place, state, each.name) for state in each.standing.tree if state not in stay]
        mine = {number: state for number, state in each.held.items() if state in each.standing.tree}
        goes += copies_of(
            place, client, each.name, {number for number in mine if number not in each.kept.versions and mine[number] not in stay}
        )
    if experiments:
        unclaimed = [state for state in unclaimed if state not in stay]
        goes += [state_of(place, state, "") for state in unclaimed]
        for name in own_models(place, client) if client else ():
            of = {str(each.version): each.tags.get(STATE) for each in versions_of(client, name)} if client else {}
            goes += copies_of(place, client, name, {number for number, state in of.items() if state in unclaimed})
    begun = {each.standing.open.state for each in every if each.standing.open}
    goes += list(_checkpoints(place, begun, known, experiments))
    goes += [Goes("leftover", part.relative_to(place.runs).as_posix(), "", _size(part)) for part in parts(place)]
    return Plan(chosen, tuple(each for each in dict.fromkeys(goes) if each.size or each.kind == "leftover"))


def histories(place: Place) -> list[str]:
    """The models of a project that have a history."""
    return sorted(path.stem for path in (place.runs / "history").glob("[!.]*.jsonl"))


def model_of(place: Place, client: "MlflowClient | None", name: str, back: int) -> Model:
    """A model with a history, and what stays of it when so many champions before the present one can be gone back to."""
    entries = history_of(place, name).read()
    standing, held = conclude(entries), versions_in(entries)
    aliased: set[str] = set()
    if client and name in own_models(place, client):
        held |= {str(each.version): each.tags[STATE] for each in versions_of(client, name) if STATE in each.tags}
        aliased = set(map(str, client.get_registered_model(name).aliases.values()))
    return Model(name, standing, keeps(standing, held, aliased, back), held)


def _aliased(place: Place, client: "MlflowClient | None") -> set[str]:
    """The states of all versions that MLflow knows by a name, of models with and without a history."""
    states: set[str] = set()
    for name in own_models(place, client) if client else ():
        assert client
        named = set(map(str, client.get_registered_model(name).aliases.values()))
        states |= {each.tags[STATE] for each in versions_of(client, name) if str(each.version) in named and STATE in each.tags}
    return states


def with_foundations(place: Place, states: Iterable[str]) -> set[str]:
    """The states and all that they stand on."""
    needed: set[str] = set()
    todo = list(states)
    while todo:
        state = todo.pop()
        if state in needed:
            continue
        needed.add(state)
        try:
            below = read_state(place.steps / "states" / state).stands_on
        except StoreError:  # damaged, or of another machine: there is nothing that it could be kept with
            continue
        todo += [below] if below else []
    return needed


def state_of(place: Place, state: str, model: str) -> Goes:
    """The weights of a state."""
    return Goes("state", state, model, weight(place.steps / "states" / state))


def copies_of(place: Place, client: "MlflowClient | None", model: str, numbers: set[str]) -> list[Goes]:
    """The files of some versions, but those that another version shares, and those that are gone."""
    if client is None or not numbers:
        return []
    there = {str(each.version): each for each in versions_of(client, model)}
    stay = {each.source for number, each in there.items() if number not in numbers}  # two versions may share the files of one
    wanted = [there[number] for number in sorted(numbers, key=int) if number in there and there[number].source not in stay]
    return [Goes("version", str(each.version), model, files_of(place, client, each)[1]) for each in wanted if PRUNED not in each.tags]


def files_of(place: Place, client: "MlflowClient", version: "ModelVersion") -> tuple[str, int]:
    """Where a version's files lie, and how many bytes they are; nowhere, where that is not this project's store of artifacts."""
    try:
        address = client.get_model_version_download_uri(version.name, str(version.version))
        if not ours(place, address):
            return "", 0
        repository, todo, size = get_artifact_repository(address), [""], 0
        while todo:
            for each in repository.list_artifacts(todo.pop() or None):
                todo += [each.path] if each.is_dir else []
                size += each.file_size or 0
        return address, size
    except (MlflowException, OSError):  # its model was deleted in MLflow
        return "", 0


def ours(place: Place, address: str) -> bool:
    """Whether artifacts lie where this project keeps its own: what a version's address names can be written by others, and is deleted."""
    kind, _, rest = address.partition("://")
    if rest and kind != "file":
        return address.startswith("mlflow-artifacts:") or address.startswith(f"{artifact_uri(place).rstrip('/')}/")
    root = artifact_uri(place)
    if not root.startswith("file:") and "://" in root:
        return False
    path, own = Path(_local(address)), Path(_local(root)).resolve()
    return not path.is_symlink() and path.resolve().is_relative_to(own) and path.resolve() != own


def _local(address: str) -> str:
    return unquote(urlsplit(address).path) if address.startswith("file:") else address


def _checkpoints(place: Place, begun: set[str], known: set[str], experiments: bool) -> Iterator[Goes]:
    """Halves of sessions that nobody goes on with: of what is learned, or was begun by a history and is not any more."""
    for folder in _folders(place.steps / "interim"):
        over = (place.steps / "states" / folder.name / WEIGHTS).exists() or folder.name in known
        if folder.name not in begun and (over or experiments):
            yield Goes("checkpoint", folder.name, "", _size(folder))


def _folders(place: Path) -> list[Path]:
    """Those that are ours: no link, and no name that begins with a dot."""
    return [each for each in sorted(place.glob("[!.]*")) if each.is_dir() and not each.is_symlink()]


def _size(path: Path) -> int:
    if path.is_symlink() or not path.is_dir():
        return path.lstat().st_size if path.exists() or path.is_symlink() else 0
    return sum(os.lstat(os.path.join(parent, name)).st_size for parent, _, files in os.walk(path) for name in files)
