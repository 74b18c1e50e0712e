"""Which version of a model is champion: aliases in MLflow's registry, each change noted there before and after it is made."""

import getpass
import socket
import uuid
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cl.errors import StoreError
from cl.text import some
from flows.intake.readers import NOBODY, registers
from flows.project import check_own, own_models
from flows.registry import changes
from flows.registry.changes import HISTORY, Change, hide, note
from flows.registry.experiment_card import describe_runs_of
from flows.registry.model_card import describe
from flows.settings import Place
from flows.tracking.runs import locked

CHAMPION, CHALLENGER = "champion", "challenger"


def change(place: Place, client: MlflowClient, name: str, alias: str, version: str, why: str, who: str | None = None) -> Change:
    """Point an alias at a version, given by number or alias; the history says nothing of a change that is none.

    `who`: the person that decided it; by default whoever runs this process.

    Killed at any moment, the alias is the old or the new one and the history says which.

    Raises:
        StoreError: no such version, or the model is another project's.
    """
    version = str(find(client, name, version).version)
    check_own(place, client, name)
    with locked(place, f"registry-{name}.lock"):
        _settle(client, name)
        hide(client, name)
        before = holder(client, name, alias)
        if before and str(before.version) == version:
            return Change(_now(), who or whoami(), alias, version, version, why, "done")
        number = 1 + max((made.number for _, made in _noted(client, name)), default=0)
        made = Change(_now(), who or whoami(), alias, str(before.version) if before else None, version, why, "intended", number)
        key = f"{HISTORY}{uuid.uuid4().hex}"
        note(client, name, key, made)
        client.set_registered_model_alias(name, alias, version)
        made = replace(made, state="done")
        note(client, name, key, made)
        describe(client, name, versions_of(client, name))
        if alias == CHAMPION:
            describe_runs_of(client, name, find(client, name, version))
    return made


def history(place: Place, client: MlflowClient, name: str) -> list[Change]:
    """Every change of every alias of a model, oldest first; one that a crash cut short is settled by looking at the alias.

    Raises:
        StoreError: no such model.
    """
    _noted(client, name)
    with locked(place, f"registry-{name}.lock"):  # of a model that exists, so that the name is one of a file
        _settle(client, name)
    return [made for _, made in _noted(client, name) if made.state == "done"]


def holder(client: MlflowClient, name: str, alias: str) -> ModelVersion | None:
    """The version that an alias points at."""
    try:
        return client.get_model_version_by_alias(name, alias)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def find(client: MlflowClient, name: str, version: str) -> ModelVersion:
    """A version by number or alias.

    Raises:
        StoreError: there is none; says which there are.
    """
    try:
        return client.get_model_version(name, version) if version.isdigit() else client.get_model_version_by_alias(name, version)
    except MlflowException as error:
        versions = sorted((int(each.version) for each in versions_of(client, name)), reverse=True)
        if versions:
            named = sorted(client.get_registered_model(name).aliases)
            told = some(versions, 5) + (f", and {some(named, 5)}" if named else "")
            how = f"; `evergreen promote {name} {versions[0]}` makes one champion" if version == CHAMPION else ""
            raise StoreError(f"model {name}: no version or alias {version!r}; there are {told}{how}") from error
        again = "`evergreen run` or `update` with its config registers"
        if name in names_of(client):
            raise StoreError(f"model {name}: it has no version any more; {again} one again") from error
        raise StoreError(f"no model {name!r}; {_there(client)}; if it was deleted in MLflow, {again} it again") from error


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Every version of a model; none where a model cannot have that name."""
    quote = '"' if "'" in name else "'"
    return [] if quote in name else list(client.search_model_versions(f"name = {quote}{name}{quote}"))


def only(place: Place, client: MlflowClient) -> str:
    """The name of the one model that this project has registered.

    Raises:
        StoreError: there is none, or there are several.
    """
    names = own_models(place, client)
    if len(names) == 1:
        return names[0]
    raise StoreError(f"which model? {_there(client)}" if names else f"no model is registered yet; {registers(place)}")


def names_of(client: MlflowClient) -> list[str]:
    """The names of all registered models."""
    return [str(model.name) for model in client.search_registered_models()]


def stands(client: MlflowClient, address: str | None) -> str | None:
    """What tells a version ("models:/name/version") from one that gets its number after it was deleted; None: there is none to be read."""
    if not address:
        return None
    _, name, version = address.rsplit("/", 2)
    try:
        version_there = client.get_model_version(name, version)
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return None
        raise
    return f"{name}/{version} of {version_there.creation_timestamp}" if readable(address) else None


def readable(address: str) -> bool:
    """Whether the files of a model ("models:/name/version", "models:/id") are there, as far as their list says."""
    try:
        return any(artifact.path.rsplit("/", 1)[-1] == "MLmodel" for artifact in mlflow.artifacts.list_artifacts(address))
    except MlflowException as error:
        if error.error_code == "RESOURCE_DOES_NOT_EXIST":
            return False
        raise


def _there(client: MlflowClient) -> str:
    names = names_of(client)
    return f"there are {some(names, 10)}" if names else NOBODY


def earlier(place: Place, client: MlflowClient, name: str) -> str:
    """The version that was champion before the one that is; going back twice goes back two versions.

    Raises:
        StoreError: there was none.
    """
    now = str(find(client, name, CHAMPION).version)
    past = before([made.after for made in history(place, client, name) if made.alias == CHAMPION], now)
    if past is None:
        raise StoreError(f"model {name}: no version was champion before {now}; say which with --to")
    return past


def before(champions: Sequence[str], now: str) -> str | None:
    """The one before `now` when whoever became champion again took with it what had come since.

    >>> before(["1", "2", "3"], "3"), before(["1", "2", "3", "2"], "2"), before(["1", "2", "1"], "1")
    ('2', '1', None)
    """
    line: list[str] = []
    for version in (*champions, now):
        line = [*(line[: line.index(version)] if version in line else line), version]
    return line[-2] if len(line) > 1 else None


def as_of(place: Place, client: MlflowClient, name: str, moment: datetime) -> str:
    """The version that was champion at a moment: the last to become it of those that had by then.

    Raises:
        StoreError: none was.
    """
    past = [made for made in history(place, client, name) if made.alias == CHAMPION and datetime.fromisoformat(made.when) <= moment]
    if not past:
        raise StoreError(f"model {name}: no version was champion on {moment:%Y-%m-%d %H:%M}; see `evergreen history {name}`")
    return past[-1].after


def _settle(client: MlflowClient, name: str) -> None:
    # a change that was noted and not confirmed either reached the alias or did not
    pending = [(key, made) for key, made in _noted(client, name) if made.state == "intended"]
    for key, made in pending:
        now = holder(client, name, made.alias)
        note(client, name, key, replace(made, state="done" if now and str(now.version) == made.after else "abandoned"))


def _noted(client: MlflowClient, name: str) -> list[tuple[str, Change]]:
    try:
        return changes.noted(client, name)
    except MlflowException as error:
        find(client, name, "1")
        raise StoreError(f"model {name}: {error.message}") from error


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="microseconds")


def whoami() -> str:
    """Who runs this process: user and machine."""
    return f"{getpass.getuser()}@{socket.gethostname()}"
