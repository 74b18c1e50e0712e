"""A caption outweighs a wrong one beside it: another number, words exchanged, or whatever a column says (arXiv:2302.12066)."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.data.wording import another_number, exchanged
from cl.errors import MethodError
from cl.methods.base import What
from cl.methods.losses import outweighed
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.objective import Scale
from cl.methods.tuners.base import Tuner
from cl.methods.view import View
from cl.streams.stream import Session

_MAKES = {"numbers": another_number, "words": exchanged}
_LACKS = {
    "column": "has no column counterfactuals with captions that are wrong; add it, or set wrong: numbers or words",
    "numbers": "has no caption with a number from two to ten; leave the term out, or set wrong: words",
    "words": "has no caption with two words to exchange; leave the term out",
}


class CounterfactualConfig(TermConfig):
    """Each image's caption against a wrong one of its own: a number or words changed, or from a column (arXiv:2302.12066)."""

    learns: ClassVar[tuple[str, ...]] = ("captions",)

    kind: Literal["counterfactual"] = "counterfactual"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    wrong: Literal["column", "numbers", "words"] = Field(
        "column", description="the column counterfactuals; or made of the caption: another number from two to ten, two words exchanged"
    )
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, without gradient, or a constant")

    def build(self, tuner: Tuner, seed: int) -> "Counterfactual":
        """The term."""
        return Counterfactual(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Counterfactual(Term):
    """Cross-entropy between the two, over rows that have a wrong caption; it is no negative of other images.

    At a scale of 1, as in the published code, it is nearly flat: the model's own is what makes numbers learned.
    """

    def __init__(self, config: CounterfactualConfig) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """A wrong caption beside each right one."""
        return Needs(beside=frozenset({self._wrong}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Some caption has a wrong one."""
        make = _MAKES.get(self.config.wrong)
        if make is None:
            some = any(wrong and right for wrong, right in zip(rows.counterfactuals, rows.captions, strict=True))
        else:
            some = any(make(text, 0) for texts in rows.captions for text in texts)
        if not some:
            raise MethodError(f"session {session.index} ({session.name}): the term counterfactual: it {_LACKS[self.config.wrong]}")

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`counterfactual`."""
        there = view.there(self._wrong)
        if not there.any():
            return {"counterfactual": 0.0 * view.images.sum()}
        scale = view.scale if self.config.scale == "model" else self.config.scale
        right = view.captions[there[view.captioned]]
        return {"counterfactual": self.config.weight * outweighed(view.images[there], right, view.beside(self._wrong), scale)}

    @property
    def _wrong(self) -> What:
        named: dict[str, What] = {"column": "wrong:column", "numbers": "wrong:numbers", "words": "wrong:words"}
        return named[self.config.wrong]
