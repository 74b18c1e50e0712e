"""A pull towards the weights that the session began with (weight consolidation of ZSCL, arXiv:2303.06628)."""

from collections.abc import Mapping
from typing import Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.methods.terms.base import Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.methods.weights import snapshot, squared_distance


class L2Config(TermConfig):
    """The squared distance to the weights that the session began with, summed over all that descend (arXiv:2303.06628)."""

    kind: Literal["l2"] = "l2"
    weight: NonNegativeFloat = Field(1.0, description="weight; the sum grows with the model")

    def build(self, tuner: Tuner, seed: int) -> "L2":
        """The pull."""
        return L2(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class L2(Term):
    """Holds every weight alike, important or not."""

    def __init__(self, config: L2Config) -> None:
        super().__init__()
        self.config = config
        self._start: Mapping[str, Tensor] = {}

    def begin(self, at: Site) -> None:
        """Note the weights."""
        self._start = snapshot(at.tuner.weights())

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`l2`."""
        return {"l2": self.config.weight * squared_distance(view.weights, self._start)}

    def end(self, at: Site) -> None:
        """Drop them."""
        self._start = {}
