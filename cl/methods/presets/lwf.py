"""LwF: learning without forgetting on the session's class names, with the losses of the ZSCL code (arXiv:1606.09282, arXiv:2303.06628)."""

from abc import abstractmethod
from typing import Any, Literal

from pydantic import Field, NonNegativeFloat

from cl.config import Count
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.merges.ensemble import EnsembleConfig
from cl.methods.terms.class_texts import BothWaysConfig, ClassTextsConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.l2 import L2Config
from cl.methods.tuners.whole import Part, WholeConfig
from cl.methods.view import Kind


class DistillingConfig(PresetConfig):
    """What LwF and its descendants in the ZSCL code share."""

    part: Part = "whole"  # the logit scale never trains
    temperature: float = Field(2.0, gt=0, description="what logits are divided by before they are compared; above 1: softer")
    image_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each image's distribution over the texts")
    text_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each text's distribution over the batch of images")
    smoothing: float = Field(0.2, ge=0, lt=1, description="label smoothing of the class targets")
    teacher: Kind = Field("session", description=TEACHER)
    ensemble: Count | None = Field(
        None,
        description="end a session with the mean of its start and of every so many steps (the authors: a tenth of them)",
    )
    l2: NonNegativeFloat = Field(0.0, description="weight of the squared distance to the weights that the session began with")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective and what holds back, over the model's weights but the logit scale."""
        return RecipeConfig(
            tune=WholeConfig(part=self.part, scale="frozen"),
            terms=(FitConfig(smoothing=self.smoothing), self.kept(), L2Config(weight=self.l2)),
            merge=EnsembleConfig(every=self.ensemble) if self.ensemble else None,
            drop_last=False,
        )

    @abstractmethod
    def kept(self) -> BothWaysConfig:
        """The term that keeps what a teacher says."""

    def same(self, *more: str) -> dict[str, Any]:
        """Settings that the term has under the same names."""
        return {name: getattr(self, name) for name in ("temperature", "image_weight", "text_weight", "teacher", *more)}


class LwFConfig(DistillingConfig):
    """Distillation over class names from the model before the session, with the losses of the ZSCL code.

    Weights and temperature are theirs (there with learning rate 1e-5 and 1000 steps for ViT-B/16). The teacher is asked about the
    batch as it was cropped for training; theirs about a batch of its own, of other images of the session, which are not cropped.
    """

    name: Literal["lwf"] = "lwf"

    def kept(self) -> ClassTextsConfig:
        """What class names mean."""
        return ClassTextsConfig(**self.same())
