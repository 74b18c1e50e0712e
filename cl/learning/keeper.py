"""Keeps a session on disk every so often, so that one that is killed goes on where it was."""

import time
from collections.abc import Iterator
from itertools import count
from typing import Any, NamedTuple

import lightning.pytorch as pl
from torch import Tensor

from cl.data.table import ImageTable
from cl.learning.half import held_by, moments, named, part, put_back, put_moments_back
from cl.learning.interim import START, Interim, Took, copied
from cl.learning.trainer import Counted
from cl.methods.base import Method
from cl.models.flops import counted
from cl.signals import Held
from cl.streams.stream import Session


class Round(NamedTuple):
    """One round of a session: its number, the rows to learn from, and the FLOPs it took to find them."""

    turn: int
    table: ImageTable
    flops: int


def walk(tables: Iterator[ImageTable]) -> Iterator[Round]:
    """The rounds of a session one after the other, each found only when it is asked for."""
    for turn in count():
        table, flops = counted(lambda: next(tables, None))
        if table is None:
            return
        yield Round(turn, table, flops)


class Keeper(pl.Callback):
    """Keeps a session every so often and when it is interrupted, and puts back what was kept before; one for all of its rounds.

    A signal that comes within a step waits until the step is over and kept.
    """

    def __init__(self, interim: Interim, *, writes: bool = True) -> None:
        self.interim, self.writes = interim, writes
        kept = interim.read()
        self.cursor, self.saved = kept or (START, {})
        self.before = self.cursor.seconds  # that earlier tries took
        self.round: dict[str, Tensor] = part(self.saved, "round")
        self.started = self.written = time.perf_counter()
        self.whole = False  # between two steps, not within one
        self.counter: Counted | None = None  # of this round
        self.held = Held()

    def rounds(self, method: Method, session: Session) -> Iterator[Round]:
        """What is left of a session; rounds that were over are walked through, not learned."""
        rounds, first = walk(method.rounds(session)), self.cursor.turn
        for turn in count():
            if turn == first and self.round:
                put_back(method, self.round, str(self.interim.folder))
            elif turn > first:
                self.cursor, self.saved = self.cursor._replace(turn=turn, done=0), {}
                self.round = copied(held_by(method))
            lesson = next(rounds, None)
            if lesson is None:
                return
            if turn == first and self.saved:
                put_back(method, self.saved, str(self.interim.folder))
            if turn >= first:
                yield lesson

    def over(self, took: Took) -> None:
        """A round is learned: so much have all of them taken so far."""
        self.cursor = self.cursor._replace(past=took)

    def on_train_start(self, trainer: pl.Trainer, learner: Any) -> None:
        """The optimizer's moments come back; the weights did before."""
        put_moments_back(learner.method, trainer.optimizers[0], part(self.saved, "optimizer"))
        self.saved = {}  # twice the model's size
        self.whole = False
        self.held.install()

    def on_train_batch_start(self, trainer: pl.Trainer, learner: Any, batch: Any, index: int) -> None:
        """Something is under way."""
        self.whole = False
        self.held.hold()

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """A step is over, if its batch was the last that it accumulates."""
        self.whole = (index + 1) % trainer.accumulate_grad_batches == 0
        if not self.whole:
            return
        due = learner.done < learner.steps and time.perf_counter() - self.written > self.interim.every
        if due or self.held.came is not None:
            self.keep(trainer, learner)
        self.held.release()
        self.held.deliver()

    def on_train_end(self, trainer: pl.Trainer, learner: Any) -> None:
        """Signals go where they went before."""
        self.held.remove()

    def on_exception(self, trainer: pl.Trainer, learner: Any, error: BaseException) -> None:
        """An interruption between two steps loses none of them."""
        if self.whole and not isinstance(error, Exception) and self.cursor.done != learner.done:
            self.keep(trainer, learner)
        self.held.remove()

    def keep(self, trainer: pl.Trainer, learner: Any) -> None:
        """Write it down."""
        if not self.interim.every or not self.writes:
            return
        for logger in trainer.loggers:
            logger.save()  # steps up to here are not taken again, so nobody would tell of them
        spent = self.before + time.perf_counter() - self.started
        flops = self.counter.flops if self.counter else 0
        self.cursor = self.cursor._replace(done=learner.done, steps=learner.steps, flops=flops, seconds=spent)
        tensors = held_by(learner.method) | named("optimizer", moments(learner.method, trainer.optimizers[0])) | named("round", self.round)
        self.interim.write(self.cursor, tensors)
        self.written = time.perf_counter()
