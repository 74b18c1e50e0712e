"""Heads of sums: what sessions add up to is what all of their rows at once would be, in any order, and rows can be taken out again."""

from abc import abstractmethod
from collections.abc import Sequence
from typing import ClassVar

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import MethodConfig
from cl.methods.closed_form.base import ClosedForm
from cl.methods.features import ClassRows, encoded
from cl.methods.rows import lacking, teaching
from cl.streams.stream import Session

_BLOCK = 1024  # rows lifted at a time: wide random features of all rows at once may not fit


class SumsConfig(MethodConfig):
    """Settings of a head of sums, which learns from labels alone."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)


class Sums(ClosedForm):
    """Keeps the second moment of all lifted features and, for each class, their sum: a subclass says how they are lifted and asked.

    A class never taught is scored by zero-shot CLIP (`fall_back`).
    """

    sums: ClassRows

    @property
    @abstractmethod
    def second(self) -> Float[Tensor, "m m"]:
        """The sum of the outer products of lifted features, which is added to in place."""

    def lift(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """What is summed in place of features of length 1: these, in double precision."""
        return features.double()

    def counted(self, lifted: Float[Tensor, "b m"]) -> Float[Tensor, "b w"]:
        """What is summed for a row's class."""
        return lifted

    def check(self, session: Session) -> None:
        """A session needs at least one labelled row."""
        if not len(teaching(session, "labelled")):
            raise MethodError(lacking(session, "labelled"))

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows."""
        super().begin(session)
        return teaching(session, "labelled")

    def end(self, session: Session) -> None:
        """Add the session's labelled rows to what is kept."""
        rows = teaching(session, "labelled")
        self.add(labels(rows), encoded(self.encode_image, self.clip, rows))

    def add(self, names: Sequence[str], features: Float[Tensor, "n d"]) -> None:
        """Add rows by the names of their classes."""
        self._sum(names, features, 1)

    def subtract(self, names: Sequence[str], features: Float[Tensor, "n d"]) -> None:
        """Take rows out that were added; a class of which nothing is left is one never taught."""
        self._sum(names, features, -1)

    def _sum(self, names: Sequence[str], features: Float[Tensor, "n d"], sign: int) -> None:
        for start in range(0, len(names), _BLOCK):
            lifted = self.lift(features[start : start + _BLOCK])
            self.second.add_(lifted.T @ lifted, alpha=sign)
            change = self.sums.add if sign > 0 else self.sums.subtract
            change(names[start : start + _BLOCK], self.counted(lifted))

    def texts(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Mean text feature of each class's prompts."""
        return super().class_features(classes)


def labels(rows: ImageTable) -> list[str]:
    """The class of every row, by name; the rows are labelled."""
    return [str(name) for name in rows.labels]


def fall_back(own: Float[Tensor, "b k"], zero_shot: Float[Tensor, "b k"], taught: Bool[Tensor, " k"]) -> Float[Tensor, "b k"]:
    """One ranking of classes that were taught and classes that never were, whose scores have different units.

    Zero-shot says whether an image shows a taught class or another; which of the taught ones, their own scores say. The best of
    those is put where the best zero-shot logit of a taught class is. All taught: `own`; none taught: `zero_shot`.

    >>> own, zero = torch.tensor([[9.0, 8.5, 0.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    >>> fall_back(own, zero, torch.tensor([True, True, False]))
    tensor([[3.0000, 2.5000, 2.0000]])
    """
    if taught.all():
        return own
    if not taught.any():
        return zero_shot
    lift = zero_shot[:, taught].amax(1, keepdim=True) - own[:, taught].amax(1, keepdim=True)
    return torch.where(taught, own + lift, zero_shot)
