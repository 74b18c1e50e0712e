"""Rehearsal: exemplars of earlier sessions stand among the rows of a session (ER, arXiv:1902.10486)."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import torch
from jaxtyping import UInt8
from pydantic import Field
from torch import Tensor

from cl.config import Count
from cl.data.table import ImageTable, concat
from cl.methods.buffer import Exemplars, Policy, packed, unpacked, update
from cl.methods.lesson import Lesson
from cl.methods.memories.base import Memory, MemoryConfig
from cl.methods.stored import Features
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site
from cl.seeds import derive

CHUNK = 64  # rows encoded at a time


class ExemplarsConfig(MemoryConfig):
    """How many images are kept, and how often each comes back; a subclass says which."""

    kind: Policy = "reservoir"
    capacity: Count = Field(500, description="images kept at most")
    repeat: Count = Field(1, le=1000, description="how often each exemplar stands among the rows of a session")
    store: Literal["none", "features"] = Field(
        "none", description="features: beside each image what its own session's model made of it and of its text, for the term stored alone"
    )

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
        return replace(lesson, data=data, candidates=tuple(sorted(old | set(lesson.candidates))), own=len(lesson.data), kept=self.exemplars)

    def store(self, at: Site, rows: ImageTable) -> None:
        """Offer the session's rows to the store."""
        session, index = at.session, positions(at.lesson)
        by_class = self.config.kind == "class_balanced"
        groups = [index.get(label or "", -1) if by_class else session.index - 1 for label in rows.labels]
        drawn = derive(self.seed, "buffer", session.index)
        width = int(at.tuner.clip.model_cfg["embed_dim"])
        room = Features.none(len(rows), width, session.index) if self.config.store == "features" else None
        policy, capacity = self.config.kind, self.config.capacity
        self.exemplars = filled(at, update(self.exemplars, rows, groups, policy=policy, capacity=capacity, seed=drawn, room=room))

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The exemplars, so that they are saved and loaded with the weights."""
        return packed(self.exemplars)

    def set_extra_state(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Restore what `get_extra_state` gave."""
        self.exemplars = unpacked(state)


def filled(at: Site, kept: Exemplars) -> Exemplars:
    """With what the model makes now of the session's rows that have no features yet and a text: captions, or a label."""
    features = kept.features
    if features is None:
        return kept
    blank = [not words and session == at.session.index for words, session in zip(features.words, features.session.tolist(), strict=True)]
    pairs = zip(kept.rows.labels, kept.rows.captions, blank, strict=True)
    new = [place for place, (label, texts, empty) in enumerate(pairs) if empty and (label is not None or texts)]
    own, index = kept.rows.take(new), positions(at.lesson)
    classes = [at.lesson.vocabulary[index[label]].prompts[0] if label is not None else "" for label in own.labels]
    words = [texts or [prompt] for texts, prompt in zip(own.captions, classes, strict=True)]
    return replace(kept, features=features.put(new, words, list(_made(at, own, words))))


def _made(at: Site, rows: ImageTable, words: Sequence[Sequence[str]]) -> Iterator[tuple[Tensor, Sequence[Tensor], Tensor]]:
    with torch.no_grad():
        for number, view in enumerate(at.views(rows, CHUNK)):
            own = words[number * CHUNK : (number + 1) * CHUNK]
            texts = view.text("stored", at.tuner.tokens([text for each in own for text in each]))
            yield view.images, torch.split(texts.cpu(), [len(each) for each in own]), view.scale.expand(len(own))


def positions(lesson: Lesson) -> dict[str, int]:
    """Where each class that is known by now stands in the vocabulary, by name."""
    return {known.name: place for place, known in enumerate(lesson.vocabulary)}
