"""What of earlier data is kept, and how it comes back among the rows of a session."""

from abc import ABC, abstractmethod

from cl.data.table import ImageTable
from cl.methods.lesson import Lesson
from cl.methods.part import Part, PartConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site


class MemoryConfig(PartConfig):
    """Settings of a memory; a subclass adds `kind: Literal[...]` and its knobs."""

    def build(self, tuner: Tuner, seed: int) -> "Memory":
        """An empty memory."""
        raise NotImplementedError


class Memory(Part, ABC):
    """Keeps something of every session and mixes it into the next; its buffers and extra state outlive a session."""

    @abstractmethod
    def mix(self, lesson: Lesson) -> Lesson:
        """The lesson with what is kept among its rows."""

    @abstractmethod
    def store(self, at: Site, rows: ImageTable) -> None:
        """Keep something of a session that was just learned; `rows` are its own that taught."""
