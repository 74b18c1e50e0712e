"""A linear probe: one trained weight row per class over frozen image features, grown as classes arrive."""

from typing import Any, Literal

from pydantic import Field, field_validator

from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.objective import Scale
from cl.methods.terms.text_rows import TextRowsConfig
from cl.methods.tuners.head import HeadConfig

# REAL-Linear's steps are ten passes over its images; their warm-up of 50 steps begins above the rate that it then falls to
TRAIN: dict[str, Any] = {"epochs": 10, "batch_size": 32, "lr": 1e-4, "weight_decay": 0.01, "clip_grad": None}


class LinearProbeConfig(PresetConfig):
    """A linear classifier on frozen features, by gradient descent.

    Its learning rate is its own: in sessions of 1,200 glyphs 0.1 is best and at fine-tuning's 0.001 it learns next to nothing; over few
    shots 0.001 is best of letters, and of photographs none is above zero-shot (RESULTS, a and d). Give it `train: {lr: ...}`.
    """

    name: Literal["linear_probe"] = "linear_probe"
    init: Literal["text", "zeros"] = "text"  # what the row of a new class begins with
    texts_in_batch: bool = Field(False, description="as many class prompts as images in every step, each classified as its class")
    average: float = Field(1.0, ge=0, le=1, description="share of what was trained in the rows that a session brings; the rest is text")

    @field_validator("candidates", mode="before")
    @classmethod
    def _in_words_of_now(cls, given: Any) -> Any:
        return "lesson" if given == "session" else given  # as releases up to 0.2.0 called it

    def recipe(self) -> RecipeConfig:
        """Cross-entropy over scaled products of image features and class rows."""
        return probe(HeadConfig(init=self.init, average=self.average), self.texts_in_batch)


class RealLinearConfig(PresetConfig):
    """A linear classifier on frozen features, half of it text: class prompts in every batch, rows averaged with texts (arXiv:2401.12425).

    REAL-Linear without its retrieval of images from the pretraining data: it learns from the session's. The scale is fixed at 100.
    """

    name: Literal["real_linear"] = "real_linear"
    average: float = Field(0.5, ge=0, le=1, description="share of what was trained in the rows that a session brings; the rest is text")
    scale: Scale = Field(100.0, description="what cosines are multiplied with where they are learned: a constant, or the model's own")

    def recipe(self) -> RecipeConfig:
        """One mean of images and as many prompts."""
        return probe(HeadConfig(average=self.average, train=TRAIN), True, self.scale)


def probe(head: HeadConfig, texts: bool, scale: Scale = "model") -> RecipeConfig:
    """Cross-entropy over scaled products of features and class rows: of images, or half and half of images and class prompts."""
    if not texts:
        return RecipeConfig(tune=head, terms=(FitConfig(rows="labelled", scale=scale),))
    half = {"weight": 0.5, "scale": scale}
    return RecipeConfig(tune=head, terms=(FitConfig(rows="labelled", **half), TextRowsConfig(**half)))
