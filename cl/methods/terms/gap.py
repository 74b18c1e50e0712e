"""The gap between images and texts closed: what matches near, everything else spread out (arXiv:2405.18570)."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.methods.lesson import Pairs
from cl.methods.objectives import distance, uniformity
from cl.methods.terms.objective import Objective, ObjectiveConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class GapConfig(ObjectiveConfig):
    """Alignment of pairs and uniformity of images and of texts, beside an objective (arXiv:2405.18570)."""

    kind: Literal["gap"] = "gap"
    align: NonNegativeFloat = Field(1.0, description="weight of the squared distance of pairs")
    uniform: NonNegativeFloat = Field(1.0, description="weight of the uniformity of images and of texts, their mean")
    cross: NonNegativeFloat = Field(0.0, description="weight of the uniformity of images among the texts of others")

    def build(self, tuner: Tuner, seed: int) -> "Gap":
        """The term."""
        return Gap(self)

    def absent(self) -> bool:
        """Whether all its weights are 0."""
        return self.weight == 0 or not (self.align or self.uniform or self.cross)


class Gap(Objective[GapConfig]):
    """`align`, `uniform` and `cross`, those that weigh anything; labels are left to the objective that it stands beside."""

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """The parts."""
        config, losses = self.config, {}
        if config.align:
            losses["align"] = config.align * distance(pairs.images, pairs.texts)
        if config.uniform:
            images, texts = (uniformity(each, each, pairs.same) for each in (pairs.images, pairs.texts))
            losses["uniform"] = config.uniform * (images + texts) / 2
        if config.cross:
            losses["cross"] = config.cross * uniformity(pairs.images, pairs.texts, pairs.same)
        return losses
