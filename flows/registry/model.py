"""A registered version as an MLflow model: this file is its code, what it asks lies beside it; nothing is pickled."""

import base64
import binascii
import hashlib
import io
import json
import threading
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Protocol

import numpy as np
import open_clip
import pandas as pd
import torch
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import set_model
from mlflow.pyfunc import PythonModel, PythonModelContext
from PIL import Image, ImageOps, features
from torch import Tensor

COLUMNS = ("labels", "texts", "query")
NONE = "none of these"
# these and the four functions below them are as in `cl.data.images`, which is not there where this is served alone
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
MAX_PIXELS = 64_000_000
MAX_ASPECT = 100
_DECODING = threading.Lock()  # one image at a time, however many requests there are
_BATCH = 64  # images


class Question(NamedTuple):
    """What is asked of an image: which of the labels (in templates) or texts (word for word) it shows, or how well it fits a query.

    With `none`, whether it shows any of them.
    """

    column: str
    asked: tuple[str, ...]
    none: bool = False


class Answering(Protocol):
    """What can be asked."""

    def shares(
        self, images: Iterable[Image.Image], names: Sequence[str], template: Sequence[str] | None = None, none: bool = False
    ) -> Tensor:
        """Image by image, how sure it is of each name, and last of none of them where that is asked; rows of sum 1."""
        ...

    def cosines(self, images: Iterable[Image.Image], texts: Sequence[str]) -> Tensor:
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

    def shares(
        self, images: Iterable[Image.Image], names: Sequence[str], template: Sequence[str] | None = None, none: bool = False
    ) -> Tensor:
        """Zero-shot: the mean feature of each name's prompts; a learned class is asked as it was learned, unless a template is given."""
        if none:
            raise _wrong("none: this model's method does not tell whether an image shows none of the names")
        rows = []
        for name in names:
            worded = [each.replace("{}", name.replace("_", " ")) for each in template or self.template]
            prompts = worded if template else self.prompts.get(name, worded)
            rows.append(self.clip.encode_text(self.tokenize(prompts), normalize=True).mean(0))
        features = torch.nn.functional.normalize(torch.stack(rows), dim=-1)
        return (self.clip.logit_scale.exp() * self._encoded(images) @ features.T).double().softmax(-1)

    def cosines(self, images: Iterable[Image.Image], texts: Sequence[str]) -> Tensor:
        """The cosine of each image with each text."""
        return (self._encoded(images) @ self.clip.encode_text(self.tokenize(list(texts)), normalize=True).T).double()

    def _encoded(self, images: Iterable[Image.Image]) -> Tensor:
        return self.clip.encode_image(torch.stack([self.preprocess(image) for image in images]), normalize=True)


class Served(PythonModel):
    """Answers questions about images, row by row; a wrong row is a 400 that names it."""

    def load_context(self, context: PythonModelContext) -> None:
        """Read what was stored beside this file: the CLIP alone where that is all, else through the code of `cl` that came with it."""
        folder = Path(context.artifacts["bundle"])
        note = note_of(folder)
        self.classes = tuple(each["name"] for each in note["classes"])
        self.answering: Answering = Alone(folder / "clip", note) if note["memory"] is None else _through_its_method(folder)
        self.version = version_of(folder.parents[1])

    @torch.no_grad()
    def predict(self, context: PythonModelContext, model_input: pd.DataFrame, params: dict[str, Any] | None = None) -> pd.DataFrame:
        """Per row: the `model` that answers, what was `asked`, and its `scores`: shares of sum 1, or the cosine with a `query`."""
        template = (params or {}).get("template")
        if template is not None and template.count("{}") != 1:
            raise _wrong(f"template: found {template!r}, expected a text with one {{}} for the label")
        rows = model_input.to_dict("records")
        groups: dict[Question, list[int]] = {}  # what is asked of many images is read once
        for index, row in enumerate(rows):
            groups.setdefault(question(row, index, self.classes), []).append(index)
        scores: dict[int, list[float]] = {}
        for each, places in groups.items():
            for start in range(0, len(places), _BATCH):
                part = places[start : start + _BATCH]
                images = (image_of(rows[place].get("image"), place) for place in part)  # each is small before the next is decoded
                scores |= zip(part, self._answers(each, images, template).tolist(), strict=True)
        asked = {place: [*each.asked, *([NONE] if each.none else [])] for each, places in groups.items() for place in places}
        return pd.DataFrame([{"model": self.version, "asked": asked[place], "scores": scores[place]} for place in range(len(rows))])

    def _answers(self, each: Question, images: Iterable[Image.Image], template: str | None) -> Tensor:
        if each.column == "query":
            return self.answering.cosines(images, each.asked)
        if each.column == "texts":
            return self.answering.shares(images, each.asked, ["{}"], each.none)
        return self.answering.shares(images, each.asked, [template] if template else None, each.none)


def version_of(folder: Path) -> str:
    """What a model's folder is a copy of, as "name/version": MLflow notes that where it fetches one; else the id of the logged model.

    It is what was served when it was loaded: an alias that moves later moves without it.
    """
    for file, names in (("registered_model_meta", ("model_name", "model_version")), ("MLmodel", ("model_id",))):
        if (folder / file).is_file():
            noted = yaml.safe_load((folder / file).read_text(encoding="utf-8"))
            if all(noted.get(name) for name in names):
                return "/".join(str(noted[name]) for name in names)
    return "unknown"


def note_of(folder: Path) -> dict[str, Any]:
    """What lies beside the CLIP says of it, once both are what was written: as `cl.store.bundle` and `cl.disk.seal` check them.

    Raises:
        MlflowException: the note or a file of the CLIP is damaged.
    """
    note: dict[str, Any] = json.loads((folder / "bundle.json").read_text(encoding="utf-8"))
    digest = note.pop("digest", None)
    first = digest is None and note.keys() == {"method", "seed", "template", "classes", "memory"}  # version 0.1.0 sealed nothing
    if not first and digest != hashlib.sha256(json.dumps(note, sort_keys=True).encode()).hexdigest():
        raise MlflowException(f"{folder / 'bundle.json'}: damaged, it is not what was written; register the model again")
    for name, expected in note.get("clip", {}).items():
        if hashlib.sha256((folder / "clip" / name).read_bytes()).hexdigest() != expected:
            raise MlflowException(f"{folder / 'clip' / name}: damaged, it is not what was written; register the model again")
    return note


def _through_its_method(folder: Path) -> Answering:
    from cl.errors import MethodError  # this and the next: where a plain CLIP is served, there is no `cl`
    from cl.store.bundle import Bundle, read_bundle

    class Told(Bundle):
        """What a question asks and its method cannot tell is the question's fault."""

        def shares(self, *asked: Any, **how: Any) -> Tensor:
            try:
                return super().shares(*asked, **how)
            except MethodError as error:
                raise _wrong(str(error)) from error

    return Told(**vars(read_bundle(folder)))


def image_of(value: Any, row: int) -> Image.Image:
    """The image in a base64 string, upright and in RGB: as `cl.data.images.decode` opens it.

    Raises:
        MlflowException: (400) it is none, too large, or of a kind that is not read.
    """
    try:
        content = base64.b64decode(value, validate=True)
    except (binascii.Error, TypeError, ValueError) as error:
        raise _wrong(f"row {row}: image is not base64 ({error}); send the bytes of an image file in base64") from error
    try:
        image: Image.Image = Image.open(io.BytesIO(content), formats=FORMATS)
        if fault := oversized(image):
            raise ValueError(fault)
        with _DECODING:
            image.load()
            return upright_rgb(image)
    except Exception as error:  # a file can be wrong in as many ways as there are formats
        raise _wrong(f"row {row}: image is not one that can be read ({error}); send a PNG, JPEG or the like") from error


def pixels(image: Image.Image) -> int:
    """How many are held to decode it: those of a tile too, which may be larger than the image."""
    tags = getattr(image, "tag_v2", {})  # TIFF's: 322 and 323 are a tile's sides
    return max(image.width * image.height, int(tags.get(322, 0)) * int(tags.get(323, 0)))


def oversized(image: Image.Image) -> str | None:
    """Why an image is not decoded, though its header can be read."""
    if pixels(image) > MAX_PIXELS:
        return f"{image.width} x {image.height} pixels or tiles of as many, and at most {MAX_PIXELS:,} are read"
    if max(image.size) > MAX_ASPECT * min(image.size):
        return f"{image.width} x {image.height} pixels, and at most {MAX_ASPECT} times as long as wide are read"
    return None


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as people see it, in RGB, with white where it is transparent.

    Raises:
        ValueError: it is of a kind of which white is not known.
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of other depths as 0 to 255: 12 and 16 bits from their black to their white, floats from 0 to 1.

    Pillow's own conversion cuts at 255: 16 bits come out white, and 0.9 black.

    Raises:
        ValueError: 32-bit or signed integers, of which no value is known to be white, or floats that leave 0 to 1.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    tags, values = getattr(image, "tag_v2", {}), np.asarray(image)
    bits, kind = tags.get(258, (16,))[0], tags.get(339, (1,))[0]  # TIFF's: bits of a sample; 1: unsigned, 2: signed, 3: float
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not -0.01 <= low <= high <= 1.01:  # a little beyond: scaling down overshoots
            raise ValueError(f"floats from {low:g} to {high:g}, and those from 0 to 1 are read")
        grey = np.rint(values.clip(0, 1) * 255)
    elif bits > 16 or kind != 1:
        raise ValueError(f"{'signed ' if kind == 2 else ''}integers of {bits} bits, of which none is known to be white")
    else:
        white = (1 << bits) - 1
        grey = values.clip(0, white) // (white // 255) if bits == 16 else values.clip(0, white).astype(np.int64) * 255 // white
    grey = grey.astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # TIFF's 0: white is zero


def question(row: dict[str, Any], index: int, classes: Sequence[str]) -> Question:
    """What a row asks; one that asks nothing asks for the classes that the model has learned.

    Raises:
        MlflowException: (400) it asks several things, too few, or nothing where no class was learned.
    """
    given = {name: row[name] for name in COLUMNS if not isinstance(row.get(name), float | None)}  # pandas fills a gap with nan
    none = isinstance(row.get("none"), bool | np.bool_) and bool(row["none"])
    if none and "query" in given:
        raise _wrong(f"row {index}: none is about labels or texts, and a query has neither; leave it out")
    if len(given) > 1 or not (given or classes):
        raise _wrong(f"row {index}: found {' and '.join(given) or 'no question'}, expected one of labels, texts, query")
    for name, value in given.items():
        asked = (value,) if name == "query" else tuple(value)
        if not all(isinstance(each, str) and each.strip() for each in asked) or len(asked) < (1 if name == "query" else 2):
            raise _wrong(f"row {index}: {name} is {value!r:.80}, expected {'a text' if name == 'query' else 'at least two texts'}")
        return Question(name, asked, none)
    return Question("labels", tuple(classes), none)


def _wrong(told: str) -> MlflowException:
    return MlflowException.invalid_parameter_value(told)


set_model(Served())
