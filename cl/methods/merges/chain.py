"""Merging at the end of each session of what all sessions so far have changed in the base model."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site
from cl.methods.weights import beside, put, running, signature


class ChainConfig(MergeConfig):
    """What every such rule has."""

    chain: Literal["sequential", "running"] = Field(
        "sequential", description="what the next session trains on from: the weights as they were learned, or those that answer"
    )
    newest: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of what was just learned beside the rule over the sessions before; 0: the rule over all",
    )

    def spans(self) -> bool:
        """All of them do."""
        return True


class Chain(Merge):
    """Keeps what a rule needs of the task vectors: a session's learned weights less the base model's, as one vector.

    Running statistics beside the weights are part of it; counters and other statistics are those of the last session. The base model's
    weights come with it and are no memory.
    """

    base: Tensor
    learned: Tensor
    sessions: Tensor

    def __init__(self, config: ChainConfig, tuner: Tuner) -> None:
        super().__init__()
        self.chain, self.newest = config.chain, config.newest
        tensors = moving(tuner)
        self._over = signature(tensors)
        base = flat(tensors)
        self.register_buffer("base", base, persistent=False)
        self.register_buffer("sessions", torch.zeros((), dtype=torch.int64))
        if self.chain == "sequential":  # in the model lie the weights that answer
            self.register_buffer("learned", torch.zeros_like(base))

    def bound(self) -> dict[str, str | int]:
        """Which weights a vector is of: towers may be of one size."""
        return {"merge": self._over}

    def before(self, at: Site) -> None:
        """Training goes on from what was learned, not from what answers."""
        if self.sessions and self.chain == "sequential":
            put_flat(moving(at.tuner), self.learned)

    def close(self, at: Site) -> None:
        """Take the session in, and answer by the rule."""
        tensors = moving(at.tuner)
        learned, before = flat(tensors), self.base + self.merged()
        self.take(learned - self.base)
        self.sessions += 1
        if self.chain == "sequential":
            self.learned.copy_(learned)
        put_flat(tensors, torch.lerp(before, learned, self.newest) if self.newest else self.base + self.merged())

    @abstractmethod
    def take(self, vector: Float[Tensor, " p"]) -> None:
        """Keep what the rule needs of one more session."""

    @abstractmethod
    def merged(self) -> Float[Tensor, " p"]:
        """What the rule makes of all taken so far, as a change of the base model; zeros where there is none."""


def moving(tuner: Tuner) -> dict[str, Tensor]:
    """What descends, and the running statistics beside it that hold fractions."""
    weights, statistics = tuner.weights(), running(tuner.clip)
    names = beside(weights, statistics)
    return {**weights, **{name: each for name, each in statistics.items() if name in names and each.is_floating_point()}}


def flat(tensors: Mapping[str, Tensor]) -> Float[Tensor, " p"]:
    """All values in a row, in storage of their own."""
    return torch.cat([each.detach().flatten() for each in tensors.values()])


def put_flat(into: Mapping[str, Tensor], values: Float[Tensor, " p"]) -> None:
    """Write a row of values back where `flat` took them from."""
    parts = torch.split(values, [each.numel() for each in into.values()])
    put(into, {name: part.view_as(each) for (name, each), part in zip(into.items(), parts, strict=True)})
