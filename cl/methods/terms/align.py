"""Mod-X: the off-diagonal of the contrastive matrix stays where a teacher has it (ICML 2023, arXiv:2305.07437)."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.methods.losses import alignment, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.tuners.base import Tuner
from cl.methods.view import Kind, View

OFFICIAL_PAIRS = 280  # the batch, over all devices, at which the authors chose alpha


class AlignConfig(TermConfig):
    """Rows of in-batch similarities held where a teacher has them, if it was right (arXiv:2305.07437)."""

    kind: Literal["align"] = "align"
    alpha: NonNegativeFloat = Field(20.0, description="weight of the alignment at 280 pairs per batch")
    fixed_alpha: bool = Field(False, description="use alpha as it is; otherwise alpha x 280 / pairs, since the term sums over rows")
    mask_diagonal: bool = Field(False, description="align only what is off the diagonal; the authors' code aligns whole rows")
    teacher: Kind = Field("session", description=TEACHER)

    def build(self, tuner: Tuner, seed: int) -> "Align":
        """The alignment."""
        return Align(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.alpha == 0


class Align(Term):
    """A row that the teacher gets wrong is left alone. A labelled image is paired with its class prompt."""

    version = 2  # a caption may be the prompt of a class; before, the two never counted as the same text

    def __init__(self, config: AlignConfig) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """A teacher, and rows that make pairs."""
        return Needs(rows="supervised", teachers=frozenset({self.config.teacher}))

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`align`, where any row has a label or a caption."""
        if not view.some_paired:
            return {}
        config = self.config
        now, old = view.pairs, view.through(config.teacher).pairs
        alpha = config.alpha if config.fixed_alpha else config.alpha * OFFICIAL_PAIRS / len(now.images)
        student, teacher = similarities(1.0, now.images, now.texts), similarities(1.0, old.images, old.texts)
        return {"align": alpha * alignment(student, teacher, now.same, mask_diagonal=config.mask_diagonal)}
