"""What a teacher says of the batch's images over the lesson's class names, both ways (LwF, arXiv:1606.09282, as in the code of ZSCL)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import distillation, similarities
from cl.methods.terms.base import Needs, Term, TermConfig, refuse_still
from cl.methods.terms.earlier import TEACHER
from cl.methods.tuners.base import Tuner
from cl.methods.view import Kind, Site, View
from cl.streams.stream import Session

CHUNK = 256  # texts a teacher encodes at a time


class BothWaysConfig(TermConfig):
    """How similarities to fixed texts are held."""

    temperature: float = Field(2.0, gt=0, description="what logits are divided by before they are compared; above 1: softer")
    image_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each image's distribution over the texts")
    text_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each text's distribution over the images")
    teacher: Kind = Field("session", description=TEACHER)

    def absent(self) -> bool:
        """Whether both weights are 0."""
        return self.image_weight == self.text_weight == 0


class ClassTextsConfig(BothWaysConfig):
    """Distillation over the class names of a session, which the teacher alone encodes (arXiv:1606.09282, arXiv:2303.06628)."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["class_texts"] = "class_texts"

    def build(self, tuner: Tuner, seed: int) -> "ClassTexts":
        """The distillation."""
        return ClassTexts(self)


class ClassTexts(Term):
    """Keeps similarities of the batch's images to fixed features of class names where the teacher has them."""

    def __init__(self, config: ClassTextsConfig) -> None:
        super().__init__()
        self.config = config
        self._texts = torch.empty(0)  # the teacher's, for this session

    def needs(self) -> Needs:
        """A teacher."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """A session needs class names, and images that move: the texts are the teacher's."""
        refuse_still(tuner, session, self.config.kind, "compares images with texts that are the teacher's")
        if not session.classes:
            raise MethodError(
                f"session {session.index} ({session.name}): teaches no class, and the term {self.config.kind} keeps what class names mean; "
                "choose the term reference, or the method lwf_vr_zscl or zscl, for captions"
            )

    def begin(self, at: Site) -> None:
        """Let the teacher encode the names, once."""
        teacher, names = at.teacher(self.config.teacher), at.lesson.names
        with torch.no_grad():
            self._texts = torch.cat([teacher.classes(names[start : start + CHUNK]) for start in range(0, len(names), CHUNK)])

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`keep_images` and `keep_texts`."""
        return both_ways(self.config, view.scale, view.images, view.through(self.config.teacher).images, self._texts)

    def end(self, at: Site) -> None:
        """Drop the session's texts."""
        self._texts = torch.empty(0)


def both_ways(
    config: BothWaysConfig,
    scale: Float[Tensor, ""],
    images: Float[Tensor, "n d"],
    taught: Float[Tensor, "n d"],
    texts: Float[Tensor, "k d"],
) -> dict[str, Float[Tensor, ""]]:
    """Each image softmaxed over the texts, and each text over the images, held where the teacher's images `taught` have them.

    One scale serves both sides, and gets no gradient; the texts are fixed. What weighs nothing is left out.
    """
    student, teacher = (similarities(scale.detach(), side, texts) for side in (images, taught))
    kept = {}
    if config.image_weight:
        kept["keep_images"] = config.image_weight * distillation(student, teacher, config.temperature)
    if config.text_weight:
        kept["keep_texts"] = config.text_weight * distillation(student.T, teacher.T, config.temperature)
    return kept
