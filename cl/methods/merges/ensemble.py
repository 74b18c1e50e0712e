"""The mean of the weights along a session (weight ensemble of ZSCL, arXiv:2303.06628)."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from cl.config import Count
from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site
from cl.methods.weights import put, running_mean, snapshot


class EnsembleConfig(MergeConfig):
    """A session ends with the mean of its start, of every so many steps, and of its last (arXiv:2303.06628)."""

    kind: Literal["ensemble"] = "ensemble"
    every: Count = Field(100, description="steps from one that counts to the next (the authors: a tenth of a session's)")

    def build(self, tuner: Tuner, seed: int) -> "Ensemble":
        """The running mean."""
        return Ensemble(self.every)


class Ensemble(Merge):
    """The mean of the weights at the start, after the first step, after every `every` more, and at the end."""

    along = True

    def __init__(self, every: int) -> None:
        super().__init__()
        self.every = every
        self.mean: Mapping[str, Tensor] = {}  # of this session alone, hence no memory
        self.count, self.steps = 1, 0

    def start(self, at: Site) -> None:
        """The start counts."""
        self.mean, self.count, self.steps = snapshot(at.tuner.weights()), 1, 0

    def step(self, weights: Mapping[str, nn.Parameter]) -> None:
        """Most steps are passed over."""
        if self.steps % self.every == 0:
            self._take(weights)
        self.steps += 1

    def close(self, at: Site) -> None:
        """Go on with the mean, the last weights among it: in the authors' code the last step is always one that counts."""
        weights = at.tuner.weights()
        if self.steps and (self.steps - 1) % self.every:
            self._take(weights)
        put(weights, self.mean)
        self.mean = {}

    def midway(self) -> dict[str, Tensor]:
        """The mean and its two counters, as tensors."""
        return {**self.mean, "counters": torch.tensor([self.count, self.steps])}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """The mean as it was."""
        self.mean = {name: tensors[name].to(mean.device) for name, mean in self.mean.items()}
        self.count, self.steps = tensors["counters"].tolist()

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        self.mean = running_mean(self.mean, weights, self.count)
        self.count += 1
