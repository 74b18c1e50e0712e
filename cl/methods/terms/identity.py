"""Images of one class, or of one thing, near each other and apart from all others: no text takes part (arXiv:2303.11855)."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import contrastive
from cl.methods.terms.base import Needs, Term, TermConfig, refuse_still
from cl.methods.terms.objective import Scale
from cl.methods.tuners.base import Tuner
from cl.methods.view import View
from cl.streams.stream import Session


class IdentityConfig(TermConfig):
    """Contrast of two images of one class, or of one thing, among those of others (arXiv:2303.11855)."""

    teaches: ClassVar[bool] = True

    kind: Literal["identity"] = "identity"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    by: Literal["label", "identity"] = Field("label", description="what two images have in common: their class, or the column identity")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of the targets")
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, or a constant")

    def wants(self) -> tuple[str, ...]:
        """Labels, unless a column says which one each image shows."""
        return ("labels",) if self.by == "label" else super().wants()

    def build(self, tuner: Tuner, seed: int) -> "Identity":
        """The objective."""
        return Identity(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Identity(Term):
    """Each image with another of its own among the others' others; those that are of one share the target.

    The other is another row, drawn for each epoch, or a second crop where there is none. It moves images away from their texts: beside
    it stands what holds those, or teaches them.
    """

    def __init__(self, config: IdentityConfig) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """Another image beside each."""
        return Needs(beside=frozenset({self._partner}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """There is something to tell images apart by, and images move."""
        whose = f"session {session.index} ({session.name})"
        refuse_still(tuner, session, self.config.kind, "compares images with images")
        if self.config.by == "label" and not rows.classes():
            raise MethodError(
                f"{whose}: none of its {len(session.data)} rows has a label, and the term identity compares images of one class; give it "
                "labels, or by: identity and a column identity"
            )
        if self.config.by == "identity" and not any(rows.identities):
            raise MethodError(
                f"{whose}: has no column identity that says which one each image shows, and the term identity compares those; add it, or "
                "leave by at label"
            )

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`identity`."""
        there = view.there(self._partner)
        if not there.any():
            return {"identity": 0.0 * view.images.sum()}
        names = view.batch.labels if self.config.by == "label" else view.lesson.identities.to(there.device)[view.batch.rows]
        one = names[there]
        scale = view.scale if self.config.scale == "model" else self.config.scale
        images, others = view.images[there], view.beside(self._partner)
        return {"identity": self.config.weight * contrastive(images, others, scale, one[:, None] == one[None], self.config.smoothing)}

    @property
    def _partner(self) -> Literal["partner:label", "partner:identity"]:
        return "partner:label" if self.config.by == "label" else "partner:identity"
