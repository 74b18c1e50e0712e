"""A learned method becomes a version in MLflow's registry: weights in safetensors, settings in JSON, code in files, nothing pickled."""

import base64
import importlib.metadata
import io
import json
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from urllib.parse import unquote, urlsplit

import mlflow
import numpy as np
import pandas as pd
from mlflow import MlflowClient
from mlflow.entities import LoggedModel, LoggedModelStatus
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model, ModelSignature
from mlflow.types import ColSpec, DataType, ParamSchema, ParamSpec, Schema
from mlflow.types.schema import Array
from mlflow.utils.mlflow_tags import MLFLOW_MODEL_VERSIONS
from PIL import Image

import cl
from cl.models.source import WEIGHTS
from cl.store.bundle import CLIP, Bundle, write_bundle
from cl.store.share import share
from flows.project import marks
from flows.registry.champion import readable, stands
from flows.tracking.runs import MODEL, STATE, Tracker, slug

_NEEDS = ("open_clip_torch", "torch", "torchvision", "mlflow", "numpy", "pandas", "pillow", "PyYAML", "safetensors", "timm")
_NEEDS_BESIDE = ("jaxtyping", "pyarrow", "pydantic")  # what the code of `cl` imports to answer


def register(tracker: Tracker, run_id: str, name: str, bundle: Bundle, step: int, tags: Mapping[str, str]) -> str:
    """A new version of model `name`, once per run whatever was killed half-way before; returns its address, "models:/name/version".

    One that was deleted in MLflow since is registered again.
    """
    known = tracker.client.get_run(run_id).data.tags.get(MODEL)
    if stands(tracker.client, known):
        _share(tracker, str(known), tags)
        return str(known)
    version = _version(tracker.client, run_id)
    if version is None:
        model = _logged(tracker, run_id, bundle, step)
        _named(tracker, slug(name))
        made = tracker.client.create_model_version(slug(name), f"models:/{model}", run_id, tags=dict(tags), model_id=model)
        version = f"models:/{made.name}/{made.version}"
        _shown(tracker.client, model, made)
    tracker.client.set_tag(run_id, MODEL, version)
    _share(tracker, version, tags)
    return version


def _shown(client: MlflowClient, model: str, made: ModelVersion) -> None:
    """Let MLflow's lists of runs say which version a logged model became, as `mlflow.register_model` does."""
    known = json.loads(client.get_logged_model(model).tags.get(MLFLOW_MODEL_VERSIONS, "[]"))
    now = {"name": made.name, "version": str(made.version)}
    client.set_logged_model_tags(model, {MLFLOW_MODEL_VERSIONS: json.dumps([*(each for each in known if each != now), now])})


def _share(tracker: Tracker, version: str, tags: Mapping[str, str]) -> None:
    """One file of weights for a version and its state, where the artifacts are a folder of this machine and the two hold the same."""
    _, name, number = version.rsplit("/", 2)
    address = tracker.client.get_model_version_download_uri(name, number)
    file = Path(unquote(urlsplit(address).path)) / "artifacts" / "bundle" / CLIP / WEIGHTS
    state = tracker.place.steps / "states" / tags.get(STATE, "-")
    if urlsplit(address).scheme in ("", "file") and file.is_file() and state.is_dir():
        share(state, file)


def example() -> pd.DataFrame:
    """One row as the served model reads it."""
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()], "labels": [["blank page", "letter"]]})


def signature() -> ModelSignature:
    """A base64 image with labels, texts, a query, or no question at all (null) in; the version, what was asked and its scores out."""
    texts = Array(DataType.string)
    kinds = {"labels": texts, "texts": texts, "query": DataType.string, "none": DataType.boolean}
    inputs = Schema([ColSpec(DataType.string, "image"), *(ColSpec(kind, name, required=False) for name, kind in kinds.items())])
    outputs = Schema([ColSpec(DataType.string, "model"), ColSpec(texts, "asked"), ColSpec(Array(DataType.double), "scores")])
    return ModelSignature(inputs, outputs, ParamSchema([ParamSpec("template", DataType.string, None)]))


def _version(client: MlflowClient, run_id: str) -> str | None:
    """The version that this run has registered."""
    registered = sorted(client.search_model_versions(f"run_id = '{run_id}'"), key=lambda version: int(version.version))
    addresses = [f"models:/{version.name}/{version.version}" for version in registered]
    return next((address for address in addresses if stands(client, address)), None)


def _logged(tracker: Tracker, run_id: str, bundle: Bundle, step: int) -> str:
    """The id of the run's logged model: a finished one, or one that a killed process began, finished now, or a new one."""
    model = _begun(tracker, run_id)
    if model is None:
        params = tracker.client.get_run(run_id).data.params
        model = tracker.client.create_logged_model(tracker.experiment, "clip", source_run_id=run_id, params=params, model_type="clip")
    if model.status != LoggedModelStatus.READY:
        with tempfile.TemporaryDirectory() as folder:
            _log(None if _linked(tracker, run_id, model.model_id) else run_id, model.model_id, bundle, Path(folder), step)
    return str(model.model_id)


def _begun(tracker: Tracker, run_id: str) -> LoggedModel | None:
    models = [
        model
        for model in tracker.client.search_logged_models([tracker.experiment], f"source_run_id = '{run_id}'")
        if model.status != LoggedModelStatus.READY or readable(f"models:/{model.model_id}")  # its files may be gone since
    ]
    return min(models, key=lambda model: (model.status != LoggedModelStatus.READY, model.creation_timestamp), default=None)


def _linked(tracker: Tracker, run_id: str, model_id: str) -> bool:
    outputs = tracker.client.get_run(run_id).outputs  # MLflow refuses to say twice that a model came of a run
    return bool(outputs) and any(output.model_id == model_id for output in outputs.model_outputs)


def _log(run_id: str | None, model_id: str, bundle: Bundle, folder: Path, step: int) -> None:
    (folder / "bundle").mkdir()
    write_bundle(bundle, folder / "bundle")
    if bundle.beside:  # with its code, so that it can be served where Evergreen is not installed
        shutil.copytree(Path(cl.__file__).parent, folder / "cl", ignore=shutil.ignore_patterns("__pycache__", "assets", "*.md"))
    Model.log(
        artifact_path=None,
        name="clip",
        flavor=mlflow.pyfunc,
        run_id=run_id,
        model_id=model_id,
        step=step,
        python_model=str(Path(__file__).with_name("model.py")),
        artifacts={"bundle": str(folder / "bundle")},
        code_paths=[str(folder / "cl")] if bundle.beside else None,
        signature=signature(),
        input_example=example(),
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in (*_NEEDS, *(_NEEDS_BESIDE if bundle.beside else ()))],
    )


def _named(tracker: Tracker, name: str) -> None:
    try:
        tracker.client.create_registered_model(name, tags=marks(tracker.place))
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":  # it exists from the second version on
            raise
