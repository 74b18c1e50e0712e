"""ZSCL, and LwF-VR as its authors ran it: distillation on texts that stand for all the model knows (arXiv:2303.06628)."""

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat

from cl.config import Count
from cl.methods.presets.lwf import DistillingConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.terms.reference import AskedConfig, ReferenceConfig, rooted
from cl.methods.view import Kind


class AskingConfig(AskedConfig, DistillingConfig):
    """What the ZSCL code asks of a teacher, and what about."""

    def located(self, root: Path) -> Self:
        """The same settings with relative paths starting at `root`."""
        return super().located(root).model_copy(update=rooted(root, reference=self.reference, sentences=self.sentences))

    def kept(self) -> ReferenceConfig:
        """What is said of reference images over reference texts."""
        return ReferenceConfig(**self.same(*AskedConfig.model_fields))


class ZSCLConfig(AskingConfig):
    """Distillation over reference texts and images, with an ensemble of weights (arXiv:2303.06628).

    Weights, temperature and ensemble as in the authors' code, where `l2` 0 is called ZSCL*. Without `reference` the teacher is asked
    about each batch as it was cropped for training, which their code never does.
    """

    name: Literal["zscl"] = "zscl"
    teacher: Kind = Field("original", description=TEACHER)
    ensemble: Count | None = Field(100, description="steps between the weights that are averaged; null: none are")
    l2: NonNegativeFloat = 1.0


class LwFVRZSCLConfig(AskingConfig):
    """VR-LwF with the losses of the ZSCL authors, which is not the method of arXiv:2207.09248 (vr_lwf).

    Its images are the batch's own unless `reference` names others: the authors' are other images of the session, not cropped.
    """

    name: Literal["lwf_vr_zscl"] = "lwf_vr_zscl"
