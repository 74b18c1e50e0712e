"""Features held to those of an earlier model, so that an index it made is still found by new queries (arXiv:2003.11942, for two towers)."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.methods.losses import regression
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.earlier import EARLIER, Taught
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View


class RegressConfig(TermConfig):
    """Features of both towers held to those of the model that made an index (arXiv:2003.11942)."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")

    kind: Literal["regress"] = "regress"
    weight: NonNegativeFloat = Field(10.0, description="10 kept the index and the new learning, 40 all of the index")
    teacher: str = Field("original", description=f"{EARLIER}; session: as this session found it, by which drift adds up unseen")

    def build(self, tuner: Tuner, seed: int) -> "Regress":
        """The term."""
        return Regress(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Regress(Term):
    """Half the mean of 1 - cosine over images, and half of that over texts: the caption of a row, or the prompt of its class."""

    def __init__(self, config: RegressConfig) -> None:
        super().__init__()
        self.config = config
        self._taught: Taught | None = None

    def needs(self) -> Needs:
        """The earlier model."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def begin(self, at: Site) -> None:
        """What the earlier model makes of it."""
        self._taught = Taught.of(self.config.teacher, at)

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`regress`."""
        assert self._taught is not None
        loss, texts = regression(view.images, self._taught.of_images(view)), self._taught.of_texts(view)
        if texts:
            loss = loss + regression(*texts)
        return {"regress": self.config.weight / 2 * loss}

    def end(self, at: Site) -> None:
        """Drop the session's features."""
        self._taught = None
