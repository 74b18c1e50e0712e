"""What a model answers for single images, and how sure it is; asked only of those images that somebody wants to see."""

from collections.abc import Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.evaluation.evaluate import at_rest, decoded
from cl.evaluation.flips import Answer
from cl.methods.base import Method
from cl.methods.losses import precise


class Asker:
    """A model to be asked about images of many sets: the features of each list of classes are computed once."""

    def __init__(self, method: Method, config: EvalConfig) -> None:
        self.method, self.config = method, config
        self.features: dict[tuple[ClassName, ...], Float[Tensor, "k d"]] = {}

    def answers(self, data: ImageTable, rows: Sequence[int], classes: Sequence[ClassName] | None) -> dict[int, Answer]:
        """By row of `data`: the likeliest of the classes, or, without classes, the nearest of all captions that the data have.

        Changes neither the method nor any random state.
        """
        if not rows:
            return {}
        reduced = self.config.precision == "bf16"
        with at_rest(self.method), torch.autocast(self.method.clip.device.type, torch.bfloat16, enabled=reduced):
            answers = _captions(self.method, data, rows, self.config) if classes is None else self._classes(data, rows, tuple(classes))
            return dict(zip(rows, answers, strict=True))

    def _classes(self, data: ImageTable, rows: Sequence[int], classes: tuple[ClassName, ...]) -> list[Answer]:
        if classes not in self.features:
            self.features[classes] = self.method.class_features(classes)
        features, names = self.features[classes], [known.name for known in classes]
        pixels = _pixels(self.method, data, rows, self.config)
        return [each for images in pixels for each in _best(self.method.classify(images, features), names)]


def _captions(method: Method, data: ImageTable, rows: Sequence[int], config: EvalConfig) -> list[Answer]:
    texts = list(dict.fromkeys(text for own in data.captions for text in own))
    parts = [texts[start : start + config.batch_size] for start in range(0, len(texts), config.batch_size)]
    features = torch.cat([method.encode_text(method.tokens(part)) for part in parts])
    scale = method.clip.scale()
    return [
        each
        for images in _pixels(method, data, rows, config)
        for each in _best(scale * precise(method.encode_image(images)) @ precise(features).T, texts)
    ]


def _best(logits: Float[Tensor, "b k"], names: Sequence[str]) -> list[Answer]:
    shares, places = precise(logits).double().softmax(-1).max(-1)
    return [Answer(names[place], share) for share, place in zip(shares.tolist(), places.tolist(), strict=True)]


def _pixels(method: Method, data: ImageTable, rows: Sequence[int], config: EvalConfig) -> Iterator[Float[Tensor, "b 3 h w"]]:
    transform, known = method.clip.transform(), decoded(method, data)
    for start in range(0, len(rows), config.batch_size):
        some = rows[start : start + config.batch_size]
        images = torch.stack([transform(data.image(row)) for row in some]) if known is None else known[list(some)]
        yield images.to(method.clip.device, method.clip.dtype)
