"""Rehearsal: fine-tuning on the session's rows together with exemplars of earlier ones (ER, arXiv:1902.10486)."""

from typing import Literal

from pydantic import Field

from cl.config import Count
from cl.methods.buffer import Policy
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.memories.exemplars import CHOSEN
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.whole import Part, WholeConfig


class ReplayConfig(PresetConfig):
    """Fine-tuning on the session and kept images: `capacity` of them in all, chosen by `policy`."""

    name: Literal["replay"] = "replay"
    part: Part = "whole"
    capacity: Count = Field(500, description="images kept at most")
    policy: Policy = Field("reservoir", description="which stay: any of all seen alike, as many of each class, or of each session")
    repeat: Count = Field(1, le=1000, description="how often each exemplar stands among the rows of a session")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective over the model's own weights, with a memory of images."""
        kept = CHOSEN[self.policy](capacity=self.capacity, repeat=self.repeat)
        return RecipeConfig(tune=WholeConfig(part=self.part), terms=(FitConfig(),), memory=kept)
