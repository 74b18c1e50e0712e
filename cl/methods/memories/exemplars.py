"""Rehearsal: exemplars of earlier sessions stand among the rows of a session (ER, arXiv:1902.10486)."""

from dataclasses import replace
from typing import Literal

from jaxtyping import UInt8
from pydantic import PositiveInt
from torch import Tensor

from cl.data.table import ImageTable, concat
from cl.methods.buffer import Exemplars, Policy, packed, unpacked, update
from cl.methods.memories.base import Memory, MemoryConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Lesson
from cl.seeds import derive
from cl.streams.stream import Session


class ExemplarsConfig(MemoryConfig):
    """How many images are kept, and how often each comes back; a subclass says which."""

    kind: Policy = "reservoir"
    capacity: PositiveInt = 500
    repeat: PositiveInt = 1  # how often each exemplar stands among the rows of a session

    def build(self, tuner: Tuner, seed: int) -> "Rehearsal":
        """An empty memory."""
        return Rehearsal(self, seed)


class ReservoirConfig(ExemplarsConfig):
    """A uniform sample of all rows that ever taught."""

    kind: Literal["reservoir"] = "reservoir"


class ClassBalancedConfig(ExemplarsConfig):
    """A uniform sample of the rows of each class, all of one size."""

    kind: Literal["class_balanced"] = "class_balanced"


class SessionBalancedConfig(ExemplarsConfig):
    """A uniform sample of the rows of each session, all of one size."""

    kind: Literal["session_balanced"] = "session_balanced"


CHOSEN: dict[str, type[ExemplarsConfig]] = {
    "reservoir": ReservoirConfig,
    "class_balanced": ClassBalancedConfig,
    "session_balanced": SessionBalancedConfig,
}


class Rehearsal(Memory):
    """Rows of the session and exemplars are one shuffled mix, and the classes of both compete."""

    def __init__(self, config: ExemplarsConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self.exemplars = Exemplars.none()

    def bound(self) -> dict[str, str | int]:
        """A row's group is a class under one policy and a session under the others."""
        return {"policy": self.config.kind}

    def mix(self, lesson: Lesson) -> Lesson:
        """The session's own rows come first."""
        kept, index = self.exemplars.rows, positions(lesson)
        old = {index[label] for label in kept.labels if label is not None}
        data = concat([lesson.data, *[kept] * self.config.repeat])
        return replace(lesson, data=data, candidates=tuple(sorted(old | set(lesson.candidates))), own=len(lesson.data))

    def store(self, session: Session, rows: ImageTable, lesson: Lesson) -> None:
        """Offer the session's rows to the store."""
        index = positions(lesson)
        by_class = self.config.kind == "class_balanced"
        groups = [index.get(label or "", -1) if by_class else session.index - 1 for label in rows.labels]
        drawn = derive(self.seed, "buffer", session.index)
        self.exemplars = update(self.exemplars, rows, groups, policy=self.config.kind, capacity=self.config.capacity, seed=drawn)

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The exemplars, so that they are saved and loaded with the weights."""
        return packed(self.exemplars)

    def set_extra_state(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Restore what `get_extra_state` gave."""
        self.exemplars = unpacked(state)


def positions(lesson: Lesson) -> dict[str, int]:
    """Where each class that is known by now stands in the vocabulary, by name."""
    return {known.name: place for place, known in enumerate(lesson.vocabulary)}
