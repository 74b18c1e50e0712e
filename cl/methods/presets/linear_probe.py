"""A linear probe: one trained weight row per class over frozen image features, grown as classes arrive."""

from typing import Any, ClassVar, Literal

from pydantic import field_validator

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.head import HeadConfig


class LinearProbeConfig(PresetConfig):
    """A linear classifier on frozen features, by gradient descent.

    Its learning rate is its own: in sessions of 1,200 glyphs 0.1 is best and at fine-tuning's 0.001 it learns next to nothing, over
    few shots 0.001 (RESULTS, a and d). Give it `train: {lr: ...}`.
    """

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["linear_probe"] = "linear_probe"
    init: Literal["text", "zeros"] = "text"  # what the row of a new class begins with

    @field_validator("candidates", mode="before")
    @classmethod
    def _in_words_of_now(cls, given: Any) -> Any:
        return "lesson" if given == "session" else given  # as releases up to 0.2.0 called it

    def recipe(self) -> RecipeConfig:
        """Cross-entropy over scaled products of image features and class rows."""
        return RecipeConfig(tune=HeadConfig(init=self.init), terms=(FitConfig(rows="labelled"),))
