"""Mod-X: continual pretraining that aligns the off-diagonal of the contrastive matrix (ICML 2023, arXiv:2305.07437)."""

from typing import Literal

from pydantic import Field, NonNegativeFloat

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.align import AlignConfig
from cl.methods.terms.fit import FitConfig


class ModXConfig(PresetConfig):
    """Fine-tuning that aligns in-batch similarities with the model before, where that was right (arXiv:2305.07437).

    Defaults as in the authors' five-session script.
    """

    name: Literal["mod_x"] = "mod_x"
    alpha: NonNegativeFloat = Field(20.0, description="weight of the alignment at 280 pairs per batch")
    fixed_alpha: bool = Field(False, description="use alpha as it is; otherwise alpha x 280 / pairs, since the term sums over rows")
    mask_diagonal: bool = Field(False, description="align only what is off the diagonal; the authors' code aligns whole rows")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective and the alignment, over the whole model."""
        align = AlignConfig(alpha=self.alpha, fixed_alpha=self.fixed_alpha, mask_diagonal=self.mask_diagonal)
        return RecipeConfig(terms=(FitConfig(), align))
