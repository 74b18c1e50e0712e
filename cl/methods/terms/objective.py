"""What objectives have in common: which rows they see, as which pairs, and what each kind of row weighs."""

from abc import abstractmethod
from typing import ClassVar, Generic, Literal, TypeVar

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.lesson import Pairs
from cl.methods.losses import classification, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import View
from cl.streams.stream import Session

Scale = PositiveFloat | Literal["model"]


class ObjectiveConfig(TermConfig):
    """Settings of what compares the images of a batch with its texts."""

    teaches: ClassVar[bool] = True

    labels: Literal["classify", "pairs"] = Field(
        "classify",
        description="classify: rows with a label by cross-entropy over class prompts (gap and m2mix leave them to other terms), where all "
        "but clip want captioned rows too; pairs: as pairs with their class's prompt, among captioned rows",
    )
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")

    alone: ClassVar[bool] = False  # whether labels are enough where they are classified

    def wants(self) -> tuple[str, ...]:
        """Captions, where labels are left to other terms."""
        return self.learns if self.alone or self.labels == "pairs" else ("captions",)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


C = TypeVar("C", bound=ObjectiveConfig)


class Objective(Term, Generic[C]):
    """A subclass is the maths over pairs, and over class prompts if it takes labels that way.

    With `labels: pairs` all rows are one batch of pairs. Otherwise labelled and captioned rows are apart, and where a batch has both,
    each kind weighs as its share of the rows: a row does not weigh more for its kind being rare.
    """

    def __init__(self, config: C) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """Rows with a label or a caption."""
        return Needs(rows="supervised")

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """There are captions, where only they would be seen."""
        if self.config.wants() == ("captions",) and not any(rows.captions):
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a caption, and the term "
                f"{self.config.called()} compares images with captions; with labels: pairs it takes the prompt of a row's class for one"
            )

    @abstractmethod
    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """Named losses over pairs."""

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """Named losses over labelled rows and class prompts; none from what leaves them to other terms."""
        return {}

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """The losses, weighted."""
        if self.config.labels == "pairs":
            return weighted(self.contrast(view.pairs, view), self.config.weight) if view.some_paired else {}
        classify = self.classify(view) if view.some_labelled else {}
        captioned = self.needs().rows != "labelled" and view.some_captioned
        contrast = self.contrast(view.captioned_pairs, view) if captioned else {}
        if view.some_labelled and captioned:
            share = view.labelled.sum() / (view.labelled.sum() + view.captioned.sum())
            classify, contrast = weighted(classify, share), weighted(contrast, 1 - share)
        return weighted(classify | contrast, self.config.weight)


def weighted(losses: dict[str, Tensor], weight: Tensor | float) -> dict[str, Tensor]:
    """Each times the weight."""
    return losses if isinstance(weight, float) and weight == 1 else {name: loss * weight for name, loss in losses.items()}


def over_prompts(view: View, scale: Float[Tensor, ""] | float, smoothing: float = 0.0) -> dict[str, Float[Tensor, ""]]:
    """`classify`: the cross-entropy of labelled rows over the prompts of the classes that compete.

    Where a lesson has groups of rows, that of each, weighted, under the name of the group.
    """
    logits = similarities(scale, view.labelled_images, view.classes)
    if view.lesson.groups is None:
        return {"classify": classification(logits, view.targets, smoothing)}
    places, losses = view.lesson.groups.to(logits.device)[view.batch.rows[view.labelled]], {}
    for place, (name, weight) in enumerate(view.lesson.group_weights.items()):
        if (mine := places == place).any():
            losses[name] = weight * classification(logits[mine], view.targets[mine], smoothing)
    return losses
