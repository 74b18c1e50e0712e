"""A learned model becomes a version in MLflow's registry: weights in safetensors, code in one file, and nothing pickled."""

import base64
import contextlib
import importlib.metadata
import io
import tempfile
from collections.abc import Mapping
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, DataType, Schema
from mlflow.types.schema import Array
from PIL import Image

from cl.clip import Clip
from flows.tracking import MODEL, Tracker, slug

_NEEDS = ("open_clip_torch", "torch", "torchvision", "mlflow", "numpy", "pandas", "pillow", "safetensors", "timm")


def register(tracker: Tracker, run_id: str, name: str, clip: Clip, step: int, tags: Mapping[str, str]) -> str:
    """A new version of model `name`, once per run; returns its address, "models:/name/version"."""
    known = tracker.client.get_run(run_id).data.tags.get(MODEL)
    if known:
        return known
    with tempfile.TemporaryDirectory() as folder:
        clip.save(Path(folder) / "clip")
        model = _log(run_id, Path(folder) / "clip", step)
    with contextlib.suppress(MlflowException):  # it exists from the second version on
        tracker.client.create_registered_model(slug(name))
    version = tracker.client.create_model_version(slug(name), f"models:/{model}", run_id, tags=dict(tags), model_id=model)
    address = f"models:/{slug(name)}/{version.version}"
    tracker.client.set_tag(run_id, MODEL, address)
    return address


def example() -> pd.DataFrame:
    """One row as the served model reads it."""
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 255, np.uint8)).save(file, "PNG")
    return pd.DataFrame({"image": [base64.b64encode(file.getvalue()).decode()], "texts": [["a blank page", "a letter"]]})


def signature() -> ModelSignature:
    """A base64 image and its candidate texts in, one probability per text out."""
    columns = [ColSpec(DataType.string, "image"), ColSpec(Array(DataType.string), "texts")]
    return ModelSignature(inputs=Schema(columns), outputs=Schema([ColSpec(Array(DataType.double))]))


def _log(run_id: str, folder: Path, step: int) -> str:
    with mlflow.start_run(run_id=run_id):
        info = mlflow.pyfunc.log_model(
            name="clip",
            python_model=str(Path(__file__).with_name("model.py")),
            artifacts={"clip": str(folder)},
            signature=signature(),
            input_example=example(),
            pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _NEEDS],
            step=step,
            model_type="clip",
        )
    return str(info.model_id)
