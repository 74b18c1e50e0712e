"""Which project an experiment or a model is of, where several share one MLflow: an id that the project keeps, as a tag on what it makes.

A database of the project's own holds nothing of others, and nothing in it is tagged or asked.
"""

import os
import uuid
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Experiment
from mlflow.exceptions import MlflowException

from cl.errors import StoreError
from flows.settings import Place, tracking_uri

PROJECT, LOCK = "evergreen.project", "evergreen.lock"
_FILE = ".evergreen"  # in the project's root, to be committed: checkouts of one project are one project


def shared(place: Place) -> bool:
    """Whether this project's store may hold what is of others."""
    return tracking_uri(place) != f"sqlite:///{place.runs / 'mlflow.db'}"


def identity(place: Place) -> str:
    """The project's id: EVERGREEN_PROJECT where it is set, else that of the file `.evergreen`, made where there is none.

    Raises:
        StoreError: the file cannot be read or written, or is empty.
    """
    if given := os.environ.get("EVERGREEN_PROJECT", "").strip():
        return given
    file = place.root / _FILE
    try:
        if not file.exists():
            _make(file)
        kept = file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise StoreError(
            f"{file}: the project's id cannot be kept or read ({error}); make it readable, or set EVERGREEN_PROJECT"
        ) from error
    if not kept or len(kept) > 200 or not kept.isprintable():
        raise StoreError(f"{file}: found {kept!r:.40}, expected one word, the project's id; put it back, or set EVERGREEN_PROJECT")
    return kept


def own_experiments(place: Place, client: MlflowClient, owner: str) -> list[str]:
    """The ids of this project's experiments; `owner` is the name that its runs' locks carry."""
    experiments = client.search_experiments()
    if not shared(place):
        return [each.experiment_id for each in experiments]
    mine = identity(place)
    return [
        each.experiment_id
        for each in experiments
        if each.tags.get(PROJECT) == mine or (PROJECT not in each.tags and _runs(client, each, owner))
    ]


def claim(place: Place, client: MlflowClient, experiment: Experiment, model: str, owner: str) -> None:
    """Take an experiment and the model of its name for this project's, where they are, or are nobody's.

    What carries no id is from before there were ids: it is this project's if one of its runs says so, or there is nothing in it.

    Raises:
        StoreError: they are another project's: two projects would replace each other's champion.
    """
    if not shared(place):
        return
    mine, name = identity(place), experiment.name
    whose = experiment.tags.get(PROJECT)
    if whose is None and (_runs(client, experiment, owner) or not client.search_runs([experiment.experiment_id], max_results=1)):
        client.set_experiment_tag(experiment.experiment_id, PROJECT, mine)
        whose = mine
    if whose != mine:
        raise _foreign(f"experiment {name!r}", whose, mine)
    known = _model(client, model)
    if known is None or known.tags.get(PROJECT) == mine:
        return
    if PROJECT in known.tags or not _learned_in(client, model, experiment):
        raise _foreign(f"model {model!r}", known.tags.get(PROJECT), mine)
    client.set_registered_model_tag(model, PROJECT, mine)


def check_own(place: Place, client: MlflowClient, model: str) -> None:
    """Raise where a model is another project's, whose champion is not this one's to change.

    Raises:
        StoreError: it is.
    """
    known = _model(client, model) if shared(place) else None
    if known and known.tags.get(PROJECT, mine := identity(place)) != mine:
        raise _foreign(f"model {model!r}", known.tags[PROJECT], mine)


def own_models(place: Place, client: MlflowClient) -> list[str]:
    """The names of this project's registered models; of a store of its own all."""
    models = client.search_registered_models()
    return [str(each.name) for each in models if not shared(place) or each.tags.get(PROJECT) == identity(place)]


def marks(place: Place) -> dict[str, str]:
    """The tags of what this project makes."""
    return {PROJECT: identity(place)} if shared(place) else {}


def _make(file: Path) -> None:
    part = file.with_name(f".{file.name}.{uuid.uuid4().hex}.part")
    try:
        part.write_text(f"{uuid.uuid4().hex}\n", encoding="utf-8")
        os.link(part, file)  # unlike a rename it does not replace what another process has put there
    except FileExistsError:
        pass
    finally:
        part.unlink(missing_ok=True)


def _runs(client: MlflowClient, experiment: Experiment, owner: str) -> bool:
    return bool(client.search_runs([experiment.experiment_id], f"tags.`{LOCK}` LIKE '{owner}/%'", max_results=1))


def _model(client: MlflowClient, name: str) -> Any:
    try:
        return client.get_registered_model(name)
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return None
        raise


def _learned_in(client: MlflowClient, model: str, experiment: Experiment) -> bool:
    versions = client.search_model_versions(f"name = '{model}'", max_results=10)
    return all(client.get_run(each.run_id).info.experiment_id == experiment.experiment_id for each in versions if each.run_id)


def _foreign(what: str, whose: str | None, mine: str) -> StoreError:
    if whose is None:
        told = f"carries no project's id, and nothing in it is of this project; tag it {PROJECT}={mine} in MLflow to take it over"
        return StoreError(f"{what} of this MLflow {told}, or give this config another name")
    same = f"if both are one project, let both keep its id, in the file {_FILE} or as EVERGREEN_PROJECT"
    return StoreError(f"{what} of this MLflow is another project's ({whose}); give this config another name, or, {same}")
