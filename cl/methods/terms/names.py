"""What a teacher says of the batch's images over the class names known so far (LwF, arXiv:1606.09282, as VR-LwF's authors have it)."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import distillation, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.tuners.base import Tuner
from cl.methods.view import Kind, Site, View
from cl.streams.stream import Session


class NamesConfig(TermConfig):
    """Distillation over the names of all classes known so far (arXiv:1606.09282)."""

    kind: Literal["names"] = "names"
    alpha: NonNegativeFloat = Field(1.0, description="weight")
    temperature: float = Field(1.0, gt=0, description="what logits are divided by before they are compared; above 1: softer")
    teacher: Kind = Field("session", description=TEACHER)
    first: bool = Field(True, description="in the first session too")

    def build(self, tuner: Tuner, seed: int) -> "Names":
        """The distillation."""
        return Names(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.alpha == 0


class Names(Term):
    """Keeps the image-to-class distribution where the teacher has it; the student encodes the names with gradient."""

    def __init__(self, config: NamesConfig) -> None:
        super().__init__()
        self.config = config
        self._texts: Tensor | None = None  # the teacher's, for this session

    def needs(self) -> Needs:
        """A teacher."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Some class is known, where the term holds."""
        if self._holds(session) and not session.vocabulary:
            raise MethodError(
                f"session {session.index} ({session.name}): no class is known by now, and the term {self.config.kind} keeps what class "
                "names mean; choose the term vocabulary or reference for captions"
            )

    def _holds(self, session: Session) -> bool:
        return self.config.first or session.index > 1

    def begin(self, at: Site) -> None:
        """Let the teacher encode the names, once."""
        if self._holds(at.session):
            with torch.no_grad():
                self._texts = at.teacher(self.config.teacher).classes(at.lesson.vocabulary)

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`lwf`, where it holds in this session."""
        if self._texts is None:
            return {}
        teacher = view.through(self.config.teacher)
        old = similarities(teacher.scale, teacher.images, self._texts)
        return {
            "lwf": self.config.alpha * distillation(similarities(view.scale, view.images, view.vocabulary), old, self.config.temperature)
        }

    def end(self, at: Site) -> None:
        """Drop the session's texts."""
        self._texts = None
