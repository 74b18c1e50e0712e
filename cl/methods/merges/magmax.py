"""MagMax: of all sessions' changes of a weight the largest (ECCV 2024, arXiv:2407.06322)."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.methods.merges.chain import Chain, ChainConfig
from cl.methods.tuners.base import Tuner


class MagMaxConfig(ChainConfig):
    """Of all sessions' changes of a weight the largest, scaled (arXiv:2407.06322)."""

    kind: Literal["magmax"] = "magmax"
    scaling: float = Field(0.5, ge=0, le=1, description="lambda, what the merged change is multiplied with (the authors: 0.5)")

    def build(self, tuner: Tuner, seed: int) -> "MagMax":
        """No change yet."""
        return MagMax(self, tuner)


class MagMax(Chain):
    """Keeps the winner of each weight alone: the largest so far is all that later sessions are compared with."""

    winner: Tensor

    def __init__(self, config: MagMaxConfig, tuner: Tuner) -> None:
        super().__init__(config, tuner)
        self.scaling = config.scaling
        self.register_buffer("winner", torch.zeros_like(self.base))

    def take(self, vector: Float[Tensor, " p"]) -> None:
        """Where it is at least as large it wins, so that of equal ones the later does."""
        self.winner.copy_(torch.where(vector.abs() >= self.winner.abs(), vector, self.winner))

    def merged(self) -> Float[Tensor, " p"]:
        """The winners, scaled."""
        return self.scaling * self.winner
