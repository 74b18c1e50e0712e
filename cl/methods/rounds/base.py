"""How often a session is learned from, and what each time teaches; most recipes do it once."""

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from cl.methods.lesson import Lesson
from cl.methods.part import Part, PartConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site
from cl.streams.stream import Session


class RoundsConfig(PartConfig):
    """Settings of rounds; a subclass adds `kind: Literal[...]` and its knobs."""

    def build(self, tuner: Tuner, seed: int) -> "Rounds":
        """The rounds, before any session."""
        raise NotImplementedError


class Rounds(Part, ABC):
    """Makes the lessons of a session, each learned with a new optimizer."""

    bare: bool = False  # whether a session of which no row teaches by itself can be learned

    def check(self, session: Session) -> None:
        """Say before anything is trained that a session cannot be used.

        Raises:
            MethodError: names the session, what it lacks and what to do.
        """

    @abstractmethod
    def lessons(self, first: Lesson, at: Site) -> Iterator[Lesson]:
        """One lesson after the other; what comes after a `yield` happens once that lesson is learned."""

    def count(self) -> int | None:
        """How many there are in this session, as far as that is known once the first begins."""
        return None

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """Rows of a table about the session just learned; `truth`: withheld labels by sample id, to judge by."""
        return []


@contextmanager
def answering(tuner: Tuner) -> Iterator[None]:
    """In the block the tuner answers, and does not learn."""
    modules: tuple[nn.Module, ...] = tuner, tuner.clip
    modes = [module.training for module in modules]
    try:
        for module in modules:
            module.eval()
        with torch.no_grad():
            yield
    finally:
        for module, mode in zip(modules, modes, strict=True):
            module.train(mode)
