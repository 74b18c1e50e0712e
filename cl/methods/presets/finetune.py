"""Plain fine-tuning of the whole model: what forgetting looks like when nothing is done against it."""

from typing import Literal

from pydantic import Field

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.whole import Part, Scale, WholeConfig


class FinetuneConfig(PresetConfig):
    """Plain fine-tuning of the whole model or one tower: cross-entropy on labels, contrastive on captions."""

    name: Literal["finetune"] = "finetune"
    part: Part = "whole"  # with any part, the logit scale too
    scale: Scale = Field("trained", description="the logit scale (ZSCL's comparison: frozen)")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets (ZSCL's comparison: 0.2)")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective over the model's own weights."""
        return RecipeConfig(tune=WholeConfig(part=self.part, scale=self.scale), terms=(FitConfig(smoothing=self.smoothing),))
