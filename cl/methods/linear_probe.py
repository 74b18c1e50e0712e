"""A linear probe: one trained weight row per class over frozen image features, grown as classes arrive."""

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.methods.base import Batch, MethodConfig
from cl.methods.features import ClassRows
from cl.methods.frozen import Frozen
from cl.methods.losses import classification, similarities
from cl.models.clip import Clip
from cl.streams.stream import Session


class LinearProbeConfig(MethodConfig):
    """A linear classifier on frozen features, by gradient descent.

    Its learning rate is its own: in sessions of 1,200 glyphs 0.1 is best and at fine-tuning's 0.001 it learns next to nothing, over
    few shots 0.001 (RESULTS, a and d). Give it `train: {lr: ...}`.
    """

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["linear_probe"] = "linear_probe"
    init: Literal["text", "zeros"] = "text"  # what the row of a new class begins with
    candidates: Literal["session", "seen"] = "session"  # the classes that compete in the loss

    def build(self, clip: Clip, seed: int) -> "LinearProbe":
        """A linear probe beside the clip, which stays as it is."""
        return LinearProbe(clip, seed, self)


class LinearProbe(Frozen):
    """Cross-entropy over scaled products of image features and class rows; a class never taught is its text feature.

    Rows that begin as text features make zero-shot CLIP the starting point (arXiv:2109.01903, section 2).
    """

    def __init__(self, clip: Clip, seed: int, config: LinearProbeConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        self.pixels = False
        self.head = ClassRows(int(clip.model_cfg["embed_dim"]), torch.float32)
        self.head.rows.requires_grad_(True)

    def trainable(self) -> Iterable[nn.Parameter]:
        """The class rows."""
        return self.head.parameters()

    def begin(self, session: Session) -> ImageTable:
        """Give new classes a row; the labelled rows."""
        data = super().begin(session)
        if self.config.candidates == "seen":
            self.candidates = tuple(range(len(session.vocabulary)))
        taught = [self.vocabulary[index] for index in self.candidates]
        with torch.no_grad():
            values = super().class_features(taught) if self.config.init == "text" else None
        self.head.grow([known.name for known in taught], values)
        return data

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`classify`, over the candidate classes."""
        rows, _ = self.head.find([self.vocabulary[index].name for index in self.candidates])
        logits = similarities(self.clip.scale(), self.features_of(batch), rows)
        return {"classify": classification(logits, self.position(batch.labels))}

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """The trained row of each class, or its text feature."""
        rows, known = self.head.find([each.name for each in classes])
        return torch.where(known[:, None], rows, super().class_features(classes))
