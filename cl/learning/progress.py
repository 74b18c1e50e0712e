"""Who hears how far learning is, while it learns."""

from typing import Any, Protocol

import lightning.pytorch as pl


class Progress(Protocol):
    """Hears how far something is: so many of so many, and of what; of learning steps also what each of them and their round are."""

    def __call__(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """Hear it.

        Args:
            done: so many are done: of learning, steps of this round.
            total: of so many.
            what: the session's name, or of the set that was examined.
            images: what one step sees; 0 where nothing is learned.
            turn: the round, from 0.
            turns: how many rounds there will be; None where nobody knows.
        """


class Teller(pl.Callback):
    """Tells of each step of a round."""

    def __init__(self, progress: Progress, name: str, steps: int, images: int, turn: int) -> None:
        self.progress, self.name, self.steps, self.images, self.turn = progress, name, steps, images, turn

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, *_: Any) -> None:
        """After every batch."""
        self.progress(learner.done, self.steps, self.name, images=self.images, turn=self.turn, turns=learner.method.turns)
