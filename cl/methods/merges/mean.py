"""The mean of the base model and of the weights after each session (model soup over a stream, arXiv:2203.05482)."""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

from cl.methods.merges.chain import Chain, ChainConfig
from cl.methods.tuners.base import Tuner


class MeanConfig(ChainConfig):
    """The mean of the base model and of the weights after each session (arXiv:2203.05482)."""

    kind: Literal["mean"] = "mean"

    def build(self, tuner: Tuner, seed: int) -> "Mean":
        """The mean of nothing yet."""
        return Mean(self, tuner)


class Mean(Chain):
    """One vote for the base model and one for each session."""

    total: Tensor

    def __init__(self, config: MeanConfig, tuner: Tuner) -> None:
        super().__init__(config, tuner)
        self.register_buffer("total", torch.zeros_like(self.base))

    def take(self, vector: Float[Tensor, " p"]) -> None:
        """Add it."""
        self.total += vector

    def merged(self) -> Float[Tensor, " p"]:
        """The sum over sessions, by their number and one."""
        return self.total / (self.sessions + 1)
