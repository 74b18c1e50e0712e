"""What becomes of the weights while a session is learned and when it is over."""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

from torch import Tensor, nn

from cl.methods.part import PartConfig
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


class Merge(nn.Module, ABC):
    """Brackets a session: sees the weights where it starts, after every step, and where it closes, and may put others in their place.

    What it needs of earlier sessions is buffers, which outlive a session.
    """

    version: ClassVar[int] = 1  # of what it computes; see cl/store/units.py

    def bound(self) -> dict[str, str | int]:
        """What its tensors mean nothing without, beside their names and shapes: kept under another, they are not gone on with."""
        return {}

    def before(self, at: Site) -> None:
        """Before anything else of a session: put the weights back that training goes on from, where the model that answers has others."""

    def start(self, at: Site) -> None:
        """Tuner and teachers are ready."""

    def step(self, weights: Mapping[str, nn.Parameter]) -> None:
        """The optimizer has just moved the weights."""

    @abstractmethod
    def close(self, at: Site) -> None:
        """The session is learned: put what the model answers with in the place of the weights."""

    def midway(self) -> dict[str, Tensor]:
        """What a half-learned session holds beyond `state_dict()` and what `start` makes anew."""
        return {}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `midway` gave."""
