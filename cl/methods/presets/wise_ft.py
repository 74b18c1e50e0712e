"""WiSE-FT: after each session, weights between those it began with and those it ended with (arXiv:2109.01903)."""

from typing import Literal

from pydantic import Field

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.merges.interpolate import InterpolateConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.whole import Part, Scale, WholeConfig
from cl.methods.view import Kind


class WiSEFTConfig(PresetConfig):
    """Fine-tuning, then interpolation between old and new weights (arXiv:2109.01903)."""

    name: Literal["wise_ft"] = "wise_ft"
    part: Part = "whole"
    scale: Scale = Field("trained", description="the logit scale (ZSCL's comparison: frozen)")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets (ZSCL's comparison: 0.2)")
    alpha: float = Field(0.5, ge=0, le=1, description="share of the fine-tuned weights (ZSCL's comparison: 0.8)")
    reference: Kind = "session"  # the other end: the weights as this session found them, or the stream

    def recipe(self) -> RecipeConfig:
        """CLIP's objective over the model's own weights, and the interpolation."""
        return RecipeConfig(
            tune=WholeConfig(part=self.part, scale=self.scale),
            terms=(FitConfig(smoothing=self.smoothing),),
            merge=InterpolateConfig(share=self.alpha, reference=self.reference),
        )
