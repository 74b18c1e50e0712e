"""What becomes of the weights while a session is learned and when it is over."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import nn

from cl.methods.part import Part, PartConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site


class MergeConfig(PartConfig):
    """Settings of a merge; a subclass adds `kind: Literal[...]` and its knobs."""

    def build(self, tuner: Tuner, seed: int) -> "Merge":
        """The merge, before any session; the tuner is over the base model.

        Raises:
            MethodError: what the tuner moves cannot be merged so; says what can.
        """
        raise NotImplementedError

    def scales(self) -> bool:
        """Whether it does no more than scale the way from the base model, which any tuner can do exactly."""
        return False

    def spans(self) -> bool:
        """Whether it takes means over weights of several sessions, which must be the same weights."""
        return False


class Merge(Part, ABC):
    """Brackets a session: sees the weights where it starts, after every step, and where it closes, and may put others in their place.

    What it needs of earlier sessions is buffers, which outlive a session.
    """

    along: ClassVar[bool] = False  # looks on at every step: no rounds that begin again from the same weights

    def before(self, at: Site) -> None:
        """Before anything else of a session: put the weights back that training goes on from, where the model that answers has others."""

    def start(self, at: Site) -> None:
        """Tuner and teachers are ready."""

    def step(self, weights: Mapping[str, nn.Parameter]) -> None:
        """The optimizer has just moved the weights."""

    @abstractmethod
    def close(self, at: Site) -> None:
        """The session is learned: put what the model answers with in the place of the weights."""
