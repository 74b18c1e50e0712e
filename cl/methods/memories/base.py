"""What of earlier data is kept, and how it comes back among the rows of a session."""

from abc import ABC, abstractmethod
from typing import ClassVar

from torch import nn

from cl.data.table import ImageTable
from cl.methods.part import PartConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Lesson
from cl.streams.stream import Session


class MemoryConfig(PartConfig):
    """Settings of a memory; a subclass adds `kind: Literal[...]` and its knobs."""

    def build(self, tuner: Tuner, seed: int) -> "Memory":
        """An empty memory."""
        raise NotImplementedError


class Memory(nn.Module, ABC):
    """Keeps something of every session and mixes it into the next; its buffers and extra state outlive a session."""

    version: ClassVar[int] = 1  # of what it computes; see cl/store/units.py

    def bound(self) -> dict[str, str | int]:
        """What its tensors mean nothing without, beside their names and shapes: kept under another, they are not gone on with."""
        return {}

    @abstractmethod
    def mix(self, lesson: Lesson) -> Lesson:
        """The lesson with what is kept among its rows."""

    @abstractmethod
    def store(self, session: Session, rows: ImageTable, lesson: Lesson) -> None:
        """Keep something of a session that was just learned; `rows` are its own that taught."""
