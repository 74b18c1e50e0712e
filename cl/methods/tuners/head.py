"""A linear head: one weight row per class over the features of a model that stays as it is, grown as classes arrive."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field
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
    average: float = Field(1.0, ge=0, le=1, description="share of what was trained in the rows that a session brings; the rest is text")

    def build(self, clip: Clip, seed: int) -> "Head":
        """A head without a class."""
        return Head(clip, text=self.init == "text", average=self.average)


class Head(Tuner):
    """The row of a class that was taught stands for its text feature; a class never taught is its text feature.

    Rows that begin as text features make zero-shot CLIP the starting point (arXiv:2109.01903, section 2). When a session is over the rows
    that it brought may go part of the way back there (REAL, arXiv:2401.12425); those of classes that were known before stay as they are.
    """

    grows = True
    rows = "labelled"  # captions are compared with features that nothing moves
    fixed, resting = TOWERS["both"], True

    def __init__(self, clip: Clip, *, text: bool = True, average: float = 1.0) -> None:
        super().__init__(clip)
        self.from_text, self.average = text, average
        self._new: list[ClassName] = []  # classes that the session under way brings
        self._competing: Sequence[ClassName] = ()  # those that every step of its first lesson asks for, all of which have a row
        self._places: Int[Tensor, " k"] = torch.zeros(0, dtype=torch.int64)
        self._scale: Float[Tensor, ""] | None = None  # while a session is learned, which does not move it
        self.head = ClassRows(int(clip.model_cfg["embed_dim"]), torch.float32)
        self.head.rows.requires_grad_(True)

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The rows."""
        return {"tuner.head.rows": self.head.rows}

    def begin(self, session: Session, competing: Sequence[ClassName]) -> None:
        """Give new classes a row."""
        with torch.no_grad():
            values = super().answers(competing) if self.from_text and competing else None
            self._scale = super().scale()
        self._new = [each for each in competing if each.name not in self.head.names]
        self.head.grow([each.name for each in competing], values)
        self._competing, self._places = competing, self.head.places([each.name for each in competing])

    def end(self, session: Session) -> None:
        """Average the rows of the session's new classes with their text features, not renormalised."""
        if self.average < 1 and self._new:
            with torch.no_grad():
                places = [self.head.names.index(each.name) for each in self._new]
                texts = super().answers(self._new).to(self.head.rows)
                self.head.rows[places] = self.average * self.head.rows[places] + (1 - self.average) * texts
        self._new, self._competing, self._scale = [], (), None

    def classes(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """As they are answered with."""
        return self.head.rows.index_select(0, self._places) if names is self._competing and names else self.answers(names)

    def answers(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """The trained row of each class, or its text feature."""
        rows, known = self.head.find([each.name for each in names])
        return rows if known.all() else torch.where(known[:, None], rows, super().answers(names))

    def scale(self) -> Float[Tensor, ""]:
        """The model's own."""
        return super().scale() if self._scale is None else self._scale

    def folded(self) -> None:
        """None: a plain CLIP has no rows for classes."""
