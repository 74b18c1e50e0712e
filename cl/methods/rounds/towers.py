"""The image tower first, then the text tower, aligned with it again: retrieval among images with texts that still find them."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Literal

from pydantic import Field

from cl.methods.features import encoded
from cl.methods.lesson import Lesson
from cl.methods.rounds.base import Rounds, RoundsConfig, answering
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site


class TowersConfig(RoundsConfig):
    """Two rounds: the image tower learns, then the text tower is aligned with it again (arXiv:2409.01936).

    Terms that neither list names are asked in both. Crops of `train.augment` are of the first round: the second one's features are
    computed once.
    """

    kind: Literal["towers"] = "towers"
    image: tuple[str, ...] = Field(("identity",), description="kinds of terms that only the round of the image tower asks")
    text: tuple[str, ...] = Field(("clip",), description="kinds of terms that only the round of the text tower asks")

    def build(self, tuner: Tuner, seed: int) -> "Towers":
        """The rounds."""
        return Towers(self)


class Towers(Rounds):
    """Each has an optimizer of its own, and goes on from the weights that the one before left; the logit scale trains in both."""

    def __init__(self, config: TowersConfig) -> None:
        super().__init__()
        self.config = config

    def count(self) -> int:
        """Two."""
        return 2

    def lessons(self, first: Lesson, at: Site) -> Iterator[Lesson]:
        """The same rows twice, the second time with the features of images that no longer move."""
        yield replace(first, tower="image", silent=frozenset(self.config.text))
        with answering(at.tuner):
            features = encoded(at.tuner.image, at.tuner.clip, first.data)
        yield replace(first, tower="text", silent=frozenset(self.config.image), features=features)
