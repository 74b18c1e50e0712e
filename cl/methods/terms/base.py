"""Something minimised: what teaches and what holds back are one type, and each sees a step through a view alone."""

from abc import ABC, abstractmethod
from typing import ClassVar, Literal, NamedTuple

from jaxtyping import Float
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import What
from cl.methods.part import Part, PartConfig
from cl.methods.tuners.base import Tower, Tuner
from cl.methods.view import Site, View
from cl.streams.stream import Session

Rows = Literal["supervised", "labelled", "captioned", "any"]


class Needs(NamedTuple):
    """What a term cannot do without.

    `rows`: those of a session that it learns from; what only holds back takes what comes. `teachers`: each a `Kind`, or a model by name.
    `beside`: what rows of a batch are to have beside them, where there is such a thing.
    """

    rows: Rows | None = None
    teachers: frozenset[str] = frozenset()
    beside: frozenset[What] = frozenset()


class TermConfig(PartConfig):
    """Settings of a term; a subclass adds `kind: Literal[...]` and its knobs."""

    teaches: ClassVar[bool] = False  # whether it may stand alone

    def build(self, tuner: Tuner, seed: int) -> "Term":
        """The term, for what the tuner moves."""
        raise NotImplementedError


class Term(Part, ABC):
    """Adds named losses to a step. Holds no other module: what it asks of teachers and weights it asks of the view.

    Its parameters descend with the tuner's; its buffers and extra state outlive a session.
    """

    def needs(self) -> Needs:
        """What it cannot do without."""
        return Needs()

    def sources(self) -> tuple[str, ...]:
        """Digests of the tables that it learns from beside its sessions."""
        return ()

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Say before anything is trained that a session cannot be used; `rows` are those that will teach.

        Raises:
            MethodError: names the session, what it lacks and what to do.
        """

    def begin(self, at: Site) -> None:
        """A session begins."""

    @abstractmethod
    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """Named losses of one step, already weighted."""

    def end(self, at: Site) -> None:
        """The session is learned: drop what was only for it, keep what must be kept."""


def refuse_still(tuner: Tuner, session: Session, kind: str, does: str, tower: Tower = "image") -> None:
    """Raise where a term has only images to move, or only texts, and none moves: it would be a constant.

    Raises:
        MethodError: the tower is not tuned.
    """
    if tower in tuner.fixed:
        whose = f"session {session.index} ({session.name})"
        raise MethodError(f"{whose}: the term {kind} {does}, and the {tower} tower is not tuned; tune it as well, or leave the term out")
