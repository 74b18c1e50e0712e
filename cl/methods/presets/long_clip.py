"""Long-CLIP: contrast with long captions, and of what a picture mostly shows with their first sentences (arXiv:2403.15378)."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat

from cl.config import Count
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.primary import PrimaryConfig
from cl.methods.tuners.whole import WholeConfig

TRAIN: dict[str, Any] = {"epochs": 2, "batch_size": 128, "lr": 1e-6, "weight_decay": 0.01, "clip_grad": None}


class LongCLIPConfig(PresetConfig):
    """Fine-tuning on long captions that keeps their first sentences near the main components of images (arXiv:2403.15378).

    The model reads 77 tokens unless its `context` says more: Long-CLIP's is `model: {context: 248}`. The first 20 positions move with all
    the rest, where the authors hold them.
    """

    name: Literal["long_clip"] = "long_clip"
    primary: NonNegativeFloat = 1.0
    components: Count = 32
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of what belongs together, for both")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective over all of a caption and over what comes first of it."""
        return RecipeConfig(
            tune=WholeConfig(train=TRAIN), terms=(FitConfig(), PrimaryConfig(weight=self.primary, components=self.components))
        )
