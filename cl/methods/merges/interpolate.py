"""WiSE-FT: after each session, weights between those it began with and those it ended with (arXiv:2109.01903)."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Kind, Site
from cl.methods.weights import beside, interpolate, put, running, snapshot


class InterpolateConfig(MergeConfig):
    """Interpolation between the weights of before and those that were learned (arXiv:2109.01903)."""

    kind: Literal["interpolate"] = "interpolate"
    share: float = Field(0.5, ge=0, le=1, description="share of the learned weights")
    reference: Kind = Field("session", description="the other end: the weights as this session found them, or the base model's")

    def build(self, tuner: Tuner, seed: int) -> "Interpolate":
        """The interpolation."""
        return Interpolate(self, tuner)


class Interpolate(Merge):
    """Pulls back in a straight line, the logit scale in the logarithm; the next session goes on from there."""

    def __init__(self, config: InterpolateConfig, tuner: Tuner) -> None:
        super().__init__()
        self.config = config
        # no memory: the base model's weights come with it, and the others are the session's own
        self._reference: Mapping[str, Tensor] = _all(tuner) if config.reference == "original" else {}
        self._statistics: Mapping[str, Tensor] = {}

    def start(self, at: Site) -> None:
        """Note what the session begins with: weights where they are the other end, and running statistics."""
        self._statistics = snapshot(running(at.tuner.clip))
        if self.config.reference == "session":
            self._reference = _all(at.tuner)

    def close(self, at: Site) -> None:
        """Put what learned between the two ends; the rest stays where the session found it, which need not be where the base has it."""
        learned = self._learned(at.tuner)
        reference = {name: self._reference[name].to(tensor.device) for name, tensor in learned.items()}
        put(learned, interpolate(reference, learned, self.config.share))
        self._statistics = {}
        if self.config.reference == "session":
            self._reference = {}

    def _learned(self, tuner: Tuner) -> dict[str, Tensor]:
        """Weights that train, and the running statistics beside them or that moved: they move in train mode, whatever trains."""
        weights, statistics = tuner.weights(), running(tuner.clip)
        moved = {name for name, value in statistics.items() if not torch.equal(value.cpu(), self._statistics[name].cpu())}
        names = moved | beside(weights, statistics)
        return {**weights, **{name: value for name, value in statistics.items() if name in names}}


def _all(tuner: Tuner) -> dict[str, Tensor]:
    return snapshot({**tuner.weights(), **running(tuner.clip)})
