"""WiSE-FT: after each session, weights between those it began with and those it ended with (arXiv:2109.01903)."""

from collections.abc import Mapping
from typing import Literal

import torch
from pydantic import Field
from torch import Tensor

from cl.data.table import ImageTable
from cl.methods.base import MethodConfig
from cl.methods.finetune import Finetune, Part, Scale
from cl.methods.weights import interpolate, named, snapshot
from cl.models.clip import Clip
from cl.streams.stream import Session


class WiSEFTConfig(MethodConfig):
    """Fine-tuning, then interpolation between old and new weights (arXiv:2109.01903)."""

    name: Literal["wise_ft"] = "wise_ft"
    part: Part = "whole"
    scale: Scale = Field("trained", description="the logit scale (ZSCL's comparison: frozen)")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets (ZSCL's comparison: 0.2)")
    alpha: float = Field(0.5, ge=0, le=1, description="share of the fine-tuned weights (ZSCL's comparison: 0.8)")
    reference: Literal["session", "original"] = "session"  # the other end: the weights as this session found them, or the stream

    def build(self, clip: Clip, seed: int) -> "WiSEFT":
        """WiSE-FT over the clip, which it changes."""
        return WiSEFT(clip, seed, self)


class WiSEFT(Finetune):
    """Plain fine-tuning whose result is pulled back in a straight line; the next session goes on from there."""

    def __init__(self, clip: Clip, seed: int, config: WiSEFTConfig) -> None:
        super().__init__(clip, seed, config.part, config.smoothing, config.scale)
        self.config = config
        # no memory: the original weights come with the model, and the others are the session's own
        self._reference: Mapping[str, Tensor] = snapshot(clip.state_dict()) if config.reference == "original" else {}
        self._statistics: Mapping[str, Tensor] = {}

    def begin(self, session: Session) -> ImageTable:
        """Note what the session begins with: weights where they are the other end, and running statistics."""
        data = super().begin(session)
        self._statistics = snapshot(self._running())
        if self.config.reference == "session":
            self._reference = snapshot(self.clip.state_dict())
        return data

    def end(self, session: Session) -> None:
        """Put what learned between the two ends; the logit scale in the logarithm.

        The rest stays where the session found it, which after another method need not be where the original has it.
        """
        super().end(session)
        learned = self._learned()
        reference = {name: self._reference[name].to(tensor.device) for name, tensor in learned.items()}
        self.clip.load_state_dict(interpolate(reference, learned, self.config.alpha), strict=False)
        self._statistics = {}
        if self.config.reference == "session":
            self._reference = {}

    def _learned(self) -> dict[str, Tensor]:
        """Weights that train, and the running statistics beside them or that moved: they move in train mode, whatever trains."""
        trained = named(self.clip, self.trainable())
        homes = {name.rpartition(".")[0] for name in trained}
        moved = {name for name, value in self._running().items() if not torch.equal(value.cpu(), self._statistics[name].cpu())}
        beside = {name for name in self._statistics if name.rpartition(".")[0] in homes}
        return {name: value for name, value in self.clip.state_dict().items() if name in trained or name in moved | beside}

    def _running(self) -> dict[str, Tensor]:
        weights = dict(self.clip.named_parameters())
        return {name: value for name, value in self.clip.state_dict().items() if name not in weights}
