"""Rehearsal: fine-tuning on the session's rows together with exemplars of earlier ones."""

from typing import Literal

from pydantic import PositiveInt

from cl.data.table import ImageTable, concat
from cl.methods import buffer
from cl.methods.base import MethodConfig
from cl.methods.buffer import Memory, Policy, update
from cl.methods.finetune import Finetune, Part, supervised
from cl.models.clip import Clip
from cl.seeds import derive
from cl.streams.stream import Session


class ReplayConfig(MethodConfig):
    """Fine-tuning on the session and kept images: `capacity` of them in all, chosen by `policy`."""

    name: Literal["replay"] = "replay"
    part: Part = "whole"
    capacity: PositiveInt = 500
    policy: Policy = "reservoir"
    repeat: PositiveInt = 1  # how often each exemplar stands among the rows of a session

    def build(self, clip: Clip, seed: int) -> "Replay":
        """Rehearsal over the clip, which it changes."""
        return Replay(clip, seed, self.part, self)


class Replay(Finetune):
    """Learns new rows and exemplars in one shuffled mix (ER, arXiv:1902.10486)."""

    parts = (buffer,)

    def __init__(self, clip: Clip, seed: int, part: Part, config: ReplayConfig) -> None:
        super().__init__(clip, seed, part)
        self.config = config
        self.memory = Memory()
        self.bound = {"policy": config.policy}  # a row's group is a class under one and a session under the others

    def begin(self, session: Session) -> ImageTable:
        """The session's rows and the exemplars; the classes of both are candidates."""
        data = super().begin(session)
        kept = self.memory.exemplars.rows
        index = {known.name: position for position, known in enumerate(self.vocabulary)}
        old = {index[label] for label in kept.labels if label is not None}
        self.candidates = tuple(sorted(old | set(self.candidates)))
        return concat([data, *[kept] * self.config.repeat])

    def end(self, session: Session) -> None:
        """Offer the session's rows to the store."""
        new = supervised(session)
        index = {known.name: position for position, known in enumerate(self.vocabulary)}
        by_class = self.config.policy == "class_balanced"
        groups = [index.get(label or "", -1) if by_class else session.index - 1 for label in new.labels]
        self.memory.exemplars = update(
            self.memory.exemplars,
            new,
            groups,
            policy=self.config.policy,
            capacity=self.config.capacity,
            seed=derive(self.seed, "buffer", session.index),
        )
