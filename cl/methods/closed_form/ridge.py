"""Ridge regression to class indicators in closed form: what sessions add up to is the joint solution, in any order."""

import logging
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat
from torch import Tensor

from cl.config import Count
from cl.data.classes import ClassName
from cl.methods.closed_form.folds import Folds
from cl.methods.closed_form.judging import Looked
from cl.methods.closed_form.moments import Moments, positive
from cl.methods.closed_form.sums import Sums, SumsConfig
from cl.methods.closed_form.taught import Taught
from cl.methods.features import ClassRows
from cl.models.clip import Clip
from cl.seeds import generator
from cl.streams.stream import Session

_WIDE = 5000  # random features above which time and memory are worth a word


class RidgeSettings(SumsConfig):
    """What can be set of ridge regression, and of what is the same under other settings."""

    penalty: Literal["auto"] | PositiveFloat = Field(
        "auto",
        description="times the squared weights, where features have length 1; auto: of 1e-6, 1e-5, ... 100 that under which folds are "
        "told best by each other",
    )
    projection: Count | None = Field(
        2000, le=50_000, description="random features (RanPAC), of which memory and time grow with the square and the cube; null: none"
    )
    folds: int = Field(2, ge=2, le=10, description="auto: into how many rows fall, each by its own bytes; memory grows with them")

    def build(self, clip: Clip, seed: int) -> "Ridge":
        """Ridge regression beside the clip, which stays as it is."""
        return Ridge(clip, seed, self)


class RidgeConfig(RidgeSettings):
    """Ridge regression on frozen features, in closed form."""

    former: ClassVar[Mapping[str, Any]] = {"penalty": 0.1, "projection": None}

    name: Literal["ridge"] = "ridge"


class Ridge(Sums):
    """Keeps the Gram matrix of all lifted features and their sum per class, from which the weights follow (RanPAC, arXiv:2307.02251).

    No gradient and no exemplar. The penalty, where it is chosen, follows from the same sums, kept of some of the rows besides: it is
    the same in whatever order and sessions rows come.
    """

    version = 2
    younger: ClassVar[tuple[str, ...]] = (*Sums.younger, "moments", "folds")
    gram: Tensor
    random: Tensor | None

    def __init__(self, clip: Clip, seed: int, config: RidgeSettings) -> None:
        super().__init__(clip, seed, config)
        self.config, self.partial = config, False
        self.factored: tuple[tuple[Tensor, int, float], Tensor] | None = None
        width, wide = self.width, config.projection
        if wide and wide > _WIDE:
            told = (
                f"{config.called()}: {wide:,} random features (projection) keep {16 * wide**2 / 1e9:.1f} GB, and however few the images, "
                f"their weights take minutes to solve for after each session; projection: 2000 takes 1/{(wide / 2000) ** 3:.0f} of that"
            )
            logging.getLogger(__name__).warning(told)
        drawn = None if wide is None else torch.randn(width, wide, generator=generator(seed, "projection"), dtype=torch.float64)
        self.register_buffer("random", drawn, persistent=False)  # the seed gives it back
        self.bound |= {} if wide is None else {"seed": seed}
        self.register_buffer("gram", torch.zeros(wide or width, wide or width, dtype=torch.float64))
        self.sums = ClassRows(wide or width)
        self.moments = Moments(width)  # of features: what tells how far an image is from a class
        if config.penalty == "auto":
            self.folds = Folds(wide or width, config.folds)

    def meaning(self) -> dict[str, str | int]:
        """What notes and folds mean nothing without: they go with what they are of."""
        return super().meaning() | {"projection": self.config.projection or 0}

    def end(self, session: Session) -> None:
        """As every head of sums, and choose the penalty."""
        super().end(session)
        if self.config.penalty == "auto":
            self.folds.chosen.fill_(self.best_penalty())

    def subtract(self, taught: Taught) -> None:
        """As every head of sums. Moments and folds that do not know all rows, since an older release learned some, begin anew."""
        self.partial = set(self.moments.sums.names) != set(self.sums.names)
        try:
            super().subtract(taught)
        finally:
            partial, self.partial = self.partial, False
        if partial or self.moments.sound():
            self.moments.clear()
            self.notes.keep(self.notes.prints < 0)
        if self.config.penalty == "auto":
            if not self.folds.sound(self.gram.double(), self.sums.names):
                self.folds.clear()
            self.folds.chosen.fill_(self.best_penalty())

    def wrong(self) -> str | None:
        """What tells that rows were taken out which never were in the sums."""
        gram = self.gram.double()
        return None if positive(gram, float(gram.trace())) else "what would be left is the Gram matrix of no rows"

    def change(self, taught: Taught, sign: int) -> None:
        """Add some rows, or take them out."""
        if sign > 0 or not self.partial:
            super().change(taught, sign)
        lifted = self.lift(taught.wide)
        self.gram.add_(lifted.T @ lifted, alpha=sign)
        (self.sums.add if sign > 0 else self.sums.subtract)(taught.names, lifted)
        if self.config.penalty == "auto":
            self.folds.change(taught.names, lifted, taught.prints, sign)

    def lift(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """The features themselves, or relu(features R) with R drawn from N(0, 2/m), which keeps their mean square length."""
        if self.random is None:
            return features.double()
        return (features.double() @ self.random.double()).relu() * (2 / self.random.shape[1]) ** 0.5

    def penalty(self) -> float:
        """What is set, or what the folds choose."""
        if self.config.penalty != "auto":
            return self.config.penalty
        return float(self.folds.chosen) or self.best_penalty()

    def best_penalty(self) -> float:
        """What the folds choose, found anew."""
        return self.folds.penalty(self.gram.double(), self.sums.names, self.sums.rows.detach().double())

    def weights(self, names: Sequence[str]) -> tuple[Float[Tensor, "k m"], Bool[Tensor, " k"]]:
        """(G + penalty I)^-1 applied to the feature sum of each class, and which of the classes were taught."""
        sums, known = self.sums.find(names)
        weights = torch.zeros_like(sums, dtype=torch.float64)
        if bool(known.any()):  # of the others the sum is zero, and so are the weights
            weights[known] = torch.cholesky_solve(sums[known].double().T, self.factor()).T
        return weights, known

    def factor(self) -> Float[Tensor, "m m"]:
        """The Cholesky factor of G + penalty I, once for all sets asked of the same sums: with many features it is what takes time."""
        made = (self.gram, self.gram._version, self.penalty())  # torch counts whatever changes a tensor
        if self.factored is None or self.factored[0][0] is not made[0] or self.factored[0][1:] != made[1:]:
            self.factored = None  # before the next is made: two do not fit where one does
            penalised = self.gram.double() + made[2] * torch.eye(len(self.gram), dtype=torch.float64, device=self.gram.device)
            self.factored = (made, torch.linalg.cholesky(penalised))
        return self.factored[1]

    def head(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k m"], Bool[Tensor, " k"]]:
        """Ridge weights of each class, and which were taught."""
        return self.weights([each.name for each in classes])

    def score(self, looked: Looked, zero_shot: Float[Tensor, "b k"], own: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """Ridge scores."""
        return self.lift(looked.wide) @ own.T
