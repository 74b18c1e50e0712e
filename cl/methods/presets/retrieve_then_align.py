"""Images told apart by the image tower, then the text tower aligned with it again (arXiv:2409.01936)."""

from typing import Literal

from pydantic import Field, NonNegativeFloat

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.rounds.towers import TowersConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.identity import IdentityConfig
from cl.methods.terms.vocabulary import VocabularyConfig


class RetrieveThenAlignConfig(PresetConfig):
    """Two rounds: images of one class drawn together, then texts to the images again (arXiv:2409.01936).

    The paper draws images together by ArcFace over labels and aligns with captions; its settings are not public. Here it is a contrast
    of images, which needs no classifier, and random texts hold in both rounds what the session does not show.
    """

    name: Literal["retrieve_then_align"] = "retrieve_then_align"
    by: Literal["label", "identity"] = Field("label", description="what two images have in common: their class, or the column identity")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the contrast of images")
    alpha: NonNegativeFloat = Field(1.0, description="weight of keeping images and random texts where they were")

    def recipe(self) -> RecipeConfig:
        """The contrast, CLIP's objective, and the random vocabulary, in rounds over the towers."""
        terms = (IdentityConfig(by=self.by, smoothing=self.smoothing), FitConfig(), VocabularyConfig(alpha=self.alpha))
        return RecipeConfig(terms=terms, rounds=TowersConfig())
