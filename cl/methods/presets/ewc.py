"""EWC: fine-tuning that weights which mattered to earlier sessions are held back in (arXiv:1612.00796)."""

from typing import Literal

from pydantic import Field, NonNegativeFloat

from cl.config import Count
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.hold import HoldConfig
from cl.methods.tuners.whole import Part, WholeConfig


class EWCConfig(PresetConfig):
    """Fine-tuning with a pull to the old weights, each by its importance (arXiv:1612.00796)."""

    name: Literal["ewc"] = "ewc"
    part: Part = "whole"
    weight: NonNegativeFloat = Field(1000.0, description="lambda, the strength of the hold; its scale depends on model and data: search it")
    decay: float = Field(1.0, ge=0, le=1, description="share of the importance so far that a session keeps; below 1: online EWC")
    samples: Count | None = Field(256, description="rows of a session, drawn at random, that tell the importance; null: all")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective and the hold, over the model's own weights."""
        hold = HoldConfig(weight=self.weight, decay=self.decay, samples=self.samples)
        return RecipeConfig(tune=WholeConfig(part=self.part), terms=(FitConfig(), hold))
