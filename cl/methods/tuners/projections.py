"""The matrices in which the towers end: the least of a CLIP that can bring new images and new texts together."""

import re
from collections.abc import Mapping
from typing import Literal

from pydantic import Field
from torch import nn

from cl.errors import ModelError
from cl.methods.tuners.base import TOWERS, Tower, Towers, Tuner, TunerConfig
from cl.methods.weights import named
from cl.models.clip import Clip

# by family: open_clip's transformers, ResNets, timm's towers (their own head, or one behind them), Hugging Face's text towers
_NAMES: dict[Tower, str] = {
    "image": r"visual\.(proj|attnpool\.c_proj\.\w+|head\.(proj|mlp)\..+|trunk\.head\.(fc\.)?\w+)",
    "text": r"(text\.)?text_projection(\.\w+)?|text\.proj\..+",
}


class ProjectionsConfig(TunerConfig):
    """The projection matrices of the towers descend, and the logit scale with them."""

    kind: Literal["projections"] = "projections"
    towers: Towers = "both"
    scale: Literal["trained", "frozen"] = Field("trained", description="the logit scale")

    def build(self, clip: Clip, seed: int) -> "Projections":
        """The clip's own projections."""
        return Projections(clip, self.towers, trained=self.scale == "trained")


class Projections(Tuner):
    """What of each tower comes last: 655,360 weights for ViT-B/16."""

    def __init__(self, clip: Clip, towers: Towers = "both", *, trained: bool = True) -> None:
        super().__init__(clip)
        self.trained = trained
        self.moved = TOWERS[towers]
        self.fixed = TOWERS["both"] - self.moved
        for tower in sorted(self.moved):
            if not any(projects(name, tower) for name, _ in clip.model.named_parameters()):
                other = " or ".join(sorted(TOWERS["both"] - {tower}))
                raise ModelError(
                    f"its {tower} tower ends in no projection that could be tuned; set towers to {other}, or choose another tuner"
                )

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The projections, and the logit scale unless it is frozen."""
        chosen = {id(each) for name, each in self.clip.model.named_parameters() if any(projects(name, tower) for tower in self.moved)} | (
            {id(self.clip.logit_scale)} if self.trained else set()
        )
        return named(self.clip, (each for each in self.clip.parameters() if id(each) in chosen))


def projects(name: str, tower: Tower) -> bool:
    """Whether an open_clip model calls the projection of a tower, or a part of it, so.

    >>> projects("visual.proj", "image"), projects("text.text_projection.weight", "text"), projects("visual.conv1.weight", "image")
    (True, True, False)
    """
    return re.fullmatch(_NAMES[tower], name) is not None
