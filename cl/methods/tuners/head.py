"""A linear head: one weight row per class over the features of a model that stays as it is, grown as classes arrive."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.methods.features import ClassRows
from cl.methods.tuners.base import TOWERS, Tuner, TunerConfig
from cl.models.clip import Clip
from cl.streams.stream import Session


class HeadConfig(TunerConfig):
    """One row of weights for each class descends, over frozen features."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)
    caches: ClassVar[bool] = True

    kind: Literal["head"] = "head"
    init: Literal["text", "zeros"] = "text"  # what the row of a new class begins with

    def build(self, clip: Clip, seed: int) -> "Head":
        """A head without a class."""
        return Head(clip, text=self.init == "text")


class Head(Tuner):
    """The row of a class that was taught stands for its text feature; a class never taught is its text feature.

    Rows that begin as text features make zero-shot CLIP the starting point (arXiv:2109.01903, section 2).
    """

    grows = True
    rows = "labelled"  # captions are compared with features that nothing moves
    fixed, resting = TOWERS["both"], True

    def __init__(self, clip: Clip, *, text: bool = True) -> None:
        super().__init__(clip)
        self.from_text = text
        self.head = ClassRows(int(clip.model_cfg["embed_dim"]), torch.float32)
        self.head.rows.requires_grad_(True)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The rows."""
        return {"tuner.head.rows": self.head.rows}

    def begin(self, session: Session, competing: Sequence[ClassName]) -> None:
        """Give new classes a row."""
        with torch.no_grad():
            values = super().answers(competing) if self.from_text and competing else None
        self.head.grow([each.name for each in competing], values)

    def classes(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """As they are answered with."""
        return self.answers(names)

    def answers(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """The trained row of each class, or its text feature."""
        rows, known = self.head.find([each.name for each in names])
        return rows if known.all() else torch.where(known[:, None], rows, super().answers(names))

    def folded(self) -> None:
        """None: a plain CLIP has no rows for classes."""
