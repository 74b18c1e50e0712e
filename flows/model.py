"""A registered version as an MLflow model: this file is its code, what it asks lies beside it; nothing is pickled."""

import base64
import binascii
import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import open_clip
import pandas as pd
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image, ImageOps
from torch import Tensor

COLUMNS = ("labels", "texts", "query")
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM")  # what Pillow may try
MAX_PIXELS = 64_000_000


class Question(NamedTuple):
    """What is asked of an image: which of the labels (in templates) or texts (word for word) it shows, or how well it fits a query."""

    column: str
    asked: tuple[str, ...]


class Answering(Protocol):
    """What can be asked."""

    def shares(self, images: Sequence[Image.Image], names: Sequence[str], template: Sequence[str] | None = None) -> Tensor:
        """Image by image, how sure it is of each name; rows of sum 1."""
        ...

    def cosines(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        """The cosine of each image with each text."""
        ...


class Alone:
    """A CLIP that answers for itself. It needs open_clip and nothing of Evergreen, so that it can be served where that is not installed."""

    def __init__(self, folder: Path, note: dict[str, Any]) -> None:
        name = f"local-dir:{folder.resolve()}"
        self.clip, _, self.preprocess = open_clip.create_model_and_transforms(name)
        self.tokenize = open_clip.get_tokenizer(name)
        self.template, self.prompts = note["template"], {each["name"]: each["prompts"] for each in note["classes"]}
        self.clip.eval().requires_grad_(False)

    def shares(self, images: Sequence[Image.Image], names: Sequence[str], template: Sequence[str] | None = None) -> Tensor:
        """Zero-shot: the mean feature of each name's prompts; a learned class is asked as it was learned, unless a template is given."""
        rows = []
        for name in names:
            worded = [each.replace("{}", name.replace("_", " ")) for each in template or self.template]
            prompts = worded if template else self.prompts.get(name, worded)
            rows.append(self.clip.encode_text(self.tokenize(prompts), normalize=True).mean(0))
        features = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
        return (self.clip.logit_scale.exp() * self._encoded(images) @ features.T).double().softmax(-1)

    def cosines(self, images: Sequence[Image.Image], texts: Sequence[str]) -> Tensor:
        """The cosine of each image with each text."""
        return (self._encoded(images) @ self.clip.encode_text(self.tokenize(list(texts)), normalize=True).T).double()

    def _encoded(self, images: Sequence[Image.Image]) -> Tensor:
        return self.clip.encode_image(torch.stack([self.preprocess(image) for image in images]), normalize=True)


class Served(PythonModel):
    """Answers questions about images, row by row; a wrong row is a 400 that names it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read what was stored beside this file: the CLIP alone where that is all, else through the code of `cl` that came with it."""
        folder = Path(context.artifacts["bundle"])
        note = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
        self.classes = tuple(each["name"] for each in note["classes"])
        self.answering: Answering = Alone(folder / "clip", note) if note["memory"] is None else _through_its_method(folder)

    @torch.no_grad()
    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Per row: what was `asked`, and its `scores` in that order: shares of sum 1, or the cosine with a `query`."""
        template = (params or {}).get("template")
        if template is not None and template.count("{}") != 1:
            raise _wrong(f"template: found {template!r}, expected a text with one {{}} for the label")
        rows = model_input.to_dict("records")
        images = [image_of(row.get("image"), index) for index, row in enumerate(rows)]
        groups: dict[Question, list[int]] = {}  # what is asked of many images is read once
        for index, row in enumerate(rows):
            groups.setdefault(question(row, index, self.classes), []).append(index)
        scores: dict[int, list[float]] = {}
        for each, places in groups.items():
            scores |= zip(places, self._answers(each, [images[place] for place in places], template).tolist(), strict=True)
        asked = {place: list(each.asked) for each, places in groups.items() for place in places}
        return pd.DataFrame([{"asked": asked[place], "scores": scores[place]} for place in range(len(rows))])

    def _answers(self, each: Question, images: Sequence[Image.Image], template: str | None) -> Tensor:
        if each.column == "query":
            return self.answering.cosines(images, each.asked)
        if each.column == "texts":
            return self.answering.shares(images, each.asked, ["{}"])
        return self.answering.shares(images, each.asked, [template] if template else None)


def _through_its_method(folder: Path) -> Answering:
    from cl.bundle import read_bundle

    return read_bundle(folder)


def image_of(value: Any, row: int) -> Image.Image:
    """The image in a base64 string, upright and in RGB: as `cl.data.decode` opens it, which is not there where this is served alone.

    Raises:
        MlflowException: (400) it is none, or has too many pixels.
    """
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _wrong(f"row {row}: image is not base64 ({error}); send the bytes of an image file in base64") from error
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{image.width} x {image.height} pixels, at most {MAX_PIXELS:,}")
        image = ImageOps.exif_transpose(image)
        if image.mode.startswith("I"):  # 16 bits
            image = Image.fromarray((np.asarray(image).clip(0, 65535) // 257).astype(np.uint8))
        if image.has_transparency_data:
            image = image.convert("RGBA")
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
        return image.convert("RGB")
    except Exception as error:  # a file can be wrong in as many ways as there are formats
        raise _wrong(f"row {row}: image is not one that can be read ({error}); send a PNG, JPEG or the like") from error


def question(row: dict[str, Any], index: int, classes: Sequence[str]) -> Question:
    """What a row asks; one that asks nothing asks for the classes that the model has learned.

    Raises:
        MlflowException: (400) it asks several things, too few, or nothing where no class was learned.
    """
    given = {name: row[name] for name in COLUMNS if not isinstance(row.get(name), float | None)}  # pandas fills a gap with nan
    if len(given) > 1 or not (given or classes):
        raise _wrong(f"row {index}: found {' and '.join(given) or 'no question'}, expected one of labels, texts, query")
    for name, value in given.items():
        asked = (value,) if name == "query" else tuple(value)
        if not all(isinstance(each, str) and each.strip() for each in asked) or len(asked) < (1 if name == "query" else 2):
            raise _wrong(f"row {index}: {name} is {value!r:.80}, expected {'a text' if name == 'query' else 'at least two texts'}")
        return Question(name, asked)
    return Question("labels", tuple(classes))


def _wrong(told: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(told)


set_model(Served())
