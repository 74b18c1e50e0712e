"""WiSE-FT: after each session, weights between those it began with and those it ended with (arXiv:2109.01903)."""

import hashlib
from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cl.errors import MethodError
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

    def scales(self) -> bool:
        """Whether the other end is the base model."""
        return self.reference == "original"

    def spans(self) -> bool:
        """Likewise."""
        return self.reference == "original"


class Interpolate(Merge):
    """Pulls back in a straight line, the logit scale in the logarithm; the next session goes on from there."""

    def __init__(self, config: InterpolateConfig, tuner: Tuner) -> None:
        super().__init__()
        self.config = config
        # no memory: the base model's weights come with it, and the others are the session's own
        self._reference: Mapping[str, Tensor] = _all(tuner) if config.reference == "original" else {}
        self._statistics: Mapping[str, Tensor] = {}
        self._base = "" if tuner.linear else _still(tuner)

    def start(self, at: Site) -> None:
        """Note what the session begins with: weights where they are the other end, and running statistics."""
        if self._base and _still(at.tuner) != self._base:
            raise MethodError(
                f"merge interpolate with reference original: another method moved the model under {type(at.tuner).__name__}, which can "
                "only be scaled back to that; leave merge out, or begin from the base model"
            )
        self._statistics = snapshot(running(at.tuner.clip))
        if self.config.reference == "session":
            self._reference = _all(at.tuner)

    def close(self, at: Site) -> None:
        """Put what learned between the two ends; the rest stays where the session found it, which need not be where the base has it."""
        learned = self._learned(at.tuner)
        if not at.tuner.linear:
            at.tuner.shrink(self.config.share)
        reference = {name: self._reference[name].to(tensor) for name, tensor in learned.items()}
        put(learned, interpolate(reference, learned, self.config.share))
        self._statistics = {}
        if self.config.reference == "session":
            self._reference = {}

    def _learned(self, tuner: Tuner) -> dict[str, Tensor]:
        """Weights that train, and the running statistics beside them or that moved: they move in train mode, whatever trains."""
        weights, statistics = tuner.weights(), running(tuner.clip)
        moved = {name for name, value in statistics.items() if not torch.equal(value.cpu(), self._statistics[name].cpu())}
        names = moved | beside(weights, statistics)
        return {**(weights if tuner.linear else {}), **{name: value for name, value in statistics.items() if name in names}}


def _all(tuner: Tuner) -> dict[str, Tensor]:
    return snapshot({**tuner.weights(), **running(tuner.clip)})


def _still(tuner: Tuner) -> str:
    """A digest of the model's weights, which such a tuner never moves."""
    content = hashlib.sha256()
    for weight in tuner.clip.parameters():
        content.update(weight.detach().float().cpu().contiguous().numpy().tobytes())
    return content.hexdigest()
