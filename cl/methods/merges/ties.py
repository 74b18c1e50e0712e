"""TIES: the largest changes of each session, a sign elected for each weight, the mean of those that have it (arXiv:2306.01708)."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.methods.merges.chain import Chain, ChainConfig
from cl.methods.tuners.base import Tuner


class TIESConfig(ChainConfig):
    """The largest changes of each session, trimmed, signs elected, merged by their mean (arXiv:2306.01708)."""

    kind: Literal["ties"] = "ties"
    keep: float = Field(0.2, gt=0, le=1, description="share of a session's changes that votes, the largest of all weights together")
    scaling: float = Field(1.0, ge=0, le=1, description="lambda, what the merged change is multiplied with")

    def build(self, tuner: Tuner, seed: int) -> "TIES":
        """No votes yet."""
        return TIES(self, tuner)


class TIES(Chain):
    """Keeps sums and numbers of the positive and of the negative votes of each weight: they give what all task vectors would give."""

    up: Tensor
    ups: Tensor
    down: Tensor
    downs: Tensor

    def __init__(self, config: TIESConfig, tuner: Tuner) -> None:
        super().__init__(config, tuner)
        self.keep, self.scaling = config.keep, config.scaling
        for name in ("up", "down"):
            self.register_buffer(name, torch.zeros_like(self.base))
            self.register_buffer(f"{name}s", torch.zeros_like(self.base, dtype=torch.int16))  # a byte would be full after 255 sessions

    def take(self, vector: Float[Tensor, " p"]) -> None:
        """Count the votes of what is left of it."""
        kept = trimmed(vector, self.keep)
        self.up += kept.clamp(min=0)
        self.down += kept.clamp(max=0)
        self.ups += (kept > 0).to(torch.int16)
        self.downs += (kept < 0).to(torch.int16)

    def merged(self) -> Float[Tensor, " p"]:
        """For each weight the mean of the votes that have the elected sign, scaled."""
        mean_up, mean_down = self.up / self.ups.clamp(min=1), self.down / self.downs.clamp(min=1)
        return self.scaling * torch.where(elected(self.up + self.down) > 0, mean_up, mean_down)


def trimmed(vector: Float[Tensor, " p"], keep: float) -> Float[Tensor, " p"]:
    """Zeros but for the largest share by magnitude: int(share x p) + 1 values as in the authors' code, all where that is more, and equals.

    >>> trimmed(torch.tensor([3.0, -1.0, 0.5, -4.0]), 0.3)
    tensor([ 3.,  0.,  0., -4.])
    """
    sizes = vector.abs()
    rank = max(len(vector) - int(len(vector) * keep), 1)
    return torch.where(sizes >= sizes.kthvalue(rank).values, vector, torch.zeros_like(vector))


def elected(total: Float[Tensor, " p"]) -> Float[Tensor, " p"]:
    """The sign of each sum, and where that is zero the one that most of the others have."""
    signs = total.sign()
    return torch.where(signs == 0, signs.sum().sign(), signs)
