"""Ridge regression to class indicators in closed form: what sessions add up to is the joint solution, in any order."""

from collections.abc import Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from cl.data.classes import ClassName
from cl.methods.closed_form.judging import Looked
from cl.methods.closed_form.moments import Moments
from cl.methods.closed_form.sums import Sums, SumsConfig
from cl.methods.closed_form.taught import Taught
from cl.methods.features import ClassRows
from cl.models.clip import Clip
from cl.seeds import generator


class RidgeConfig(SumsConfig):
    """Ridge regression on frozen features, in closed form."""

    name: Literal["ridge"] = "ridge"
    penalty: PositiveFloat = Field(0.1, description="times the squared weights, where features have length 1")
    projection: PositiveInt | None = Field(None, description="random features, such as 2000 (RanPAC); memory grows with their square")

    def build(self, clip: Clip, seed: int) -> "Ridge":
        """Ridge regression beside the clip, which stays as it is."""
        return Ridge(clip, seed, self)


class Ridge(Sums):
    """Keeps the Gram matrix of all lifted features and their sum per class, from which the weights follow (RanPAC, arXiv:2307.02251).

    No gradient and no exemplar.
    """

    younger: ClassVar[tuple[str, ...]] = (*Sums.younger, "moments")
    gram: Tensor
    random: Tensor | None

    def __init__(self, clip: Clip, seed: int, config: RidgeConfig) -> None:
        super().__init__(clip, seed, config)
        self.config = config
        width, wide = int(clip.model_cfg["embed_dim"]), config.projection
        drawn = None if wide is None else torch.randn(width, wide, generator=generator(seed, "projection"), dtype=torch.float64)
        self.register_buffer("random", drawn, persistent=False)  # the seed gives it back
        self.bound = {} if wide is None else {"seed": seed}
        self.register_buffer("gram", torch.zeros(wide or width, wide or width, dtype=torch.float64))
        self.sums = ClassRows(wide or width)
        self.moments = Moments(width)

    def meaning(self) -> dict[str, str | int]:
        """What notes mean nothing without: they go with what they are of."""
        return super().meaning() | {"projection": self.config.projection or 0}

    def change(self, taught: Taught, sign: int) -> None:
        """Add some rows, or take them out."""
        super().change(taught, sign)
        lifted = self.lift(taught.wide)
        self.gram.add_(lifted.T @ lifted, alpha=sign)
        (self.sums.add if sign > 0 else self.sums.subtract)(taught.names, lifted)

    def lift(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """The features themselves, or relu(features R) with R drawn from N(0, 2/m), which keeps their mean square length."""
        if self.random is None:
            return features.double()
        return (features.double() @ self.random).relu() * (2 / self.random.shape[1]) ** 0.5

    def weights(self, names: Sequence[str]) -> tuple[Float[Tensor, "k m"], Bool[Tensor, " k"]]:
        """(G + penalty I)^-1 applied to the feature sum of each class, and which of the classes were taught."""
        sums, known = self.sums.find(names)
        penalised = self.gram + self.config.penalty * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        return torch.cholesky_solve(sums.T, torch.linalg.cholesky(penalised)).T, known

    def head(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k m"], Bool[Tensor, " k"]]:
        """Ridge weights of each class, and which were taught."""
        return self.weights([each.name for each in classes])

    def score(self, looked: Looked, zero_shot: Float[Tensor, "b k"], own: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """Ridge scores."""
        return self.lift(looked.wide) @ own.T
