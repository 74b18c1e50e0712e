"""What a registered model says of images: through the method that was measured where its state is here, else through its CLIP."""

import contextlib
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

import mlflow
import torch
import yaml
from mlflow import MlflowClient
from PIL import Image

from cl.build_stream import class_names
from cl.errors import DataError, StoreError
from cl.methods import Method
from flows.registry import CHAMPION, as_of, find
from flows.settings import Place
from flows.tracking import STATE


class Served(NamedTuple):
    """A version ready to be asked, and the templates of its class names."""

    name: str
    version: str
    method: Method
    template: tuple[str, ...]


def served(place: Place, client: MlflowClient, model: str, moment: datetime | None = None) -> Served:
    """NAME (its champion), NAME@ALIAS or NAME/VERSION, or the champion of a day.

    Raises:
        StoreError: no such model or version, or its files cannot be read.
    """
    from cl.clip import load
    from cl.methods import CONFIGS
    from cl.run import parse_config, revive

    name, at, alias = model.partition("@")
    name, slash, number = name.partition("/")
    wanted = as_of(place, client, name, moment.replace(tzinfo=UTC)) if moment else alias if at else number if slash else CHAMPION
    version = find(client, name, wanted)
    tree = yaml.safe_load(_read(f"runs:/{version.run_id}/config.yaml"))
    config = parse_config(tree, f"config of {name}/{version.version}")
    template = tuple(config.stream.template)
    with contextlib.suppress(StoreError):
        method = config.method.located(place.data).build(load(config.model), config.seed)
        return Served(name, str(version.version), revive(method, version.tags.get(STATE, "unknown"), place.steps), template)
    if config.method.name in ("ridge", "gda", "linear_probe", "cpe_clip", "pseudolabel"):
        told = f"{name}/{version.version}: what {config.method.name} learned lies beside its CLIP, in mlruns/steps, and is not here"
        raise StoreError(f"{told}; run the stream again, or ask on the machine that learned it")
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version.version}")) / "artifacts" / "clip"
    clip = load(config.model.model_copy(update={"name": f"local-dir:{folder}", "pretrained": None}))
    return Served(name, str(version.version), CONFIGS["zero_shot"]().build(clip, 0), template)


@torch.no_grad()
def classify(found: Served, images: Sequence[Path], names: Sequence[str], template: str | None = None) -> list[list[tuple[str, float]]]:
    """By image: the names and their shares, the likeliest first.

    Raises:
        DataError: an image cannot be read, or fewer than two names.
    """
    if len(set(names)) < 2:
        raise DataError(f"--labels: found {len(set(names))} name, expected at least two, separated by commas")
    method = found.method.eval()
    features = method.class_features(class_names(list(dict.fromkeys(names)), (template,) if template else found.template))
    shares = method.classify(_pixels(method, images), features).double().softmax(-1)
    return [sorted(zip(dict.fromkeys(names), row.tolist(), strict=True), key=lambda each: -each[1]) for row in shares]


@torch.no_grad()
def rank(found: Served, images: Sequence[Path], query: str) -> list[tuple[Path, float]]:
    """The images and their cosine with the text, the best first.

    Raises:
        DataError: an image cannot be read.
    """
    method = found.method.eval()
    text = method.encode_text(method.clip.tokenize([query]))
    cosines = (method.encode_image(_pixels(method, images)) @ text.T)[:, 0].tolist()
    return sorted(zip(images, cosines, strict=True), key=lambda each: -each[1])


def _pixels(method: Method, images: Sequence[Path]) -> torch.Tensor:
    transform, rows = method.clip.transform(), []
    for path in images:
        try:
            with Image.open(path) as image:
                rows.append(transform(image.convert("RGB")))
        except (OSError, ValueError, Image.DecompressionBombError) as error:
            raise DataError(f"{path}: not an image that can be read ({str(error).splitlines()[0]})") from error
    return torch.stack(rows).to(method.clip.device)


def _read(uri: str) -> str:
    try:
        return str(mlflow.artifacts.load_text(uri))
    except Exception as error:  # whatever store it lies in raises its own
        raise StoreError(f"{uri}: cannot be read; the run that registered the model is gone") from error
