"""A session half learned: what the step loop holds, kept on disk every so often, so that a killed session goes on where it was."""

import logging
import shutil
import time
from collections.abc import Iterator, Mapping
from itertools import count
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from cl.data.table import ImageTable
from cl.disk.files import new_folder, read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.methods.base import Method
from cl.methods.persist import memory, restore
from cl.models.flops import counted
from cl.release import made_with
from cl.signals import Held
from cl.streams.stream import Session
from cl.text import some


class Took(NamedTuple):
    """What whole rounds of a session took."""

    steps: int
    samples: int
    flops: int


class Cursor(NamedTuple):
    """How far a session is: its round, steps of all of that round, FLOPs of its first batch; seconds; and what the rounds before took."""

    turn: int
    done: int
    steps: int
    flops: int
    seconds: float
    past: Took


START = Cursor(0, 0, 0, 0, 0.0, Took(0, 0, 0))


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


class Interim:
    """The place of one session's checkpoint.

    No state of a random generator is kept, because there is none: batches, crops, captions and random texts are functions of
    (seed, session, round, step), so the cursor alone says what comes next. Tensors are named memory/... (the method's), midway/...
    (what it holds beside), optimizer/..., and round/... (memory and midway as the round found them, from the second on: what it
    learns from follows from them).
    """

    def __init__(self, folder: Path, every: float) -> None:
        self.folder = folder
        self.every = every  # seconds; 0: nothing is written

    def cursor(self) -> Cursor | None:
        """How far the session is by what was kept; None if nothing was, or nothing that it goes on from."""
        try:
            return self._noted()[0]
        except (StoreError, TypeError, KeyError):
            return None

    def read(self) -> "tuple[Cursor, dict[str, Tensor]] | None":
        """What was kept; None if nothing was, or nothing whole: then the session starts over."""
        if not self.folder.exists():
            return None
        try:
            cursor, digest = self._noted()
            if sha256(self.folder / "interim.safetensors") != digest:
                raise StoreError(f"{self.folder / 'interim.safetensors'}: damaged, it is not what was written")
            return cursor, read_tensors(self.folder / "interim.safetensors")
        except (StoreError, OSError, TypeError, KeyError) as error:
            logging.getLogger(__name__).warning("the session starts over: its checkpoint cannot be used (%s)", error)
            return None

    def write(self, cursor: Cursor, tensors: Mapping[str, Tensor]) -> None:
        """Keep it, whole or not at all.

        Raises:
            StoreError: the place cannot be written.
        """
        with new_folder(self.folder) as folder:
            digest = write_tensors(_copied(tensors), folder / "interim.safetensors")
            write_json(sealed({**cursor._asdict(), "sha256": digest, "made_with": made_with()}), folder / "cursor.json")

    def _noted(self) -> tuple[Cursor, str]:
        """The cursor, and the digest of the tensors it belongs to; half a session by one library and half by another is refused."""
        file = self.folder / "cursor.json"
        noted = unsealed(read_json(file), str(file), (*Cursor._fields, "sha256"))
        was, now = noted.get("made_with", {}), made_with()
        if was != now:
            changed = [f"{name} {was.get(name, 'of an unknown version')}" for name in {**now, **was} if was.get(name) != now.get(name)]
            raise StoreError(f"{file}: kept by {some(changed)}, which is another here")
        return Cursor(**{name: noted[name] for name in Cursor._fields} | {"past": Took(*noted["past"])}), noted["sha256"]

    def clear(self) -> None:
        """The session is learned: drop it, and what a write left behind that was killed."""
        shutil.rmtree(self.folder, ignore_errors=True)
        for part in self.folder.parent.glob(f".{self.folder.name}.*.part"):
            shutil.rmtree(part, ignore_errors=True)


class Keeper(pl.Callback):
    """Keeps a session every so often and when it is interrupted, and puts back what was kept before; one for all of its rounds.

    A signal that comes within a step waits until the step is over and kept.
    """

    def __init__(self, interim: Interim, *, writes: bool = True) -> None:
        self.interim, self.writes = interim, writes
        found = interim.read()
        self.cursor, self.saved = found or (START, {})
        self.before = self.cursor.seconds  # that earlier tries took
        self.round: dict[str, Tensor] = part(self.saved, "round")
        self.started = self.written = time.perf_counter()
        self.whole = False  # between two steps, not within one
        self.flops: Any = lambda: 0  # of the first batch of this round
        self.held = Held()

    def rounds(self, method: Method, session: Session) -> Iterator[Round]:
        """What is left of a session; rounds that were over are walked through, not learned."""
        rounds, first = walk(method.rounds(session)), self.cursor.turn
        for turn in count():
            if turn == first and self.round:
                put_back(method, self.round, str(self.interim.folder))
            elif turn > first:
                self.cursor, self.saved = self.cursor._replace(turn=turn, done=0), {}
                self.round = _copied(_held_by(method))
            found = next(rounds, None)
            if found is None:
                return
            if turn == first and self.saved:
                put_back(method, self.saved, str(self.interim.folder))
            if turn >= first:
                yield found

    def over(self, took: Took) -> None:
        """A round is learned: so much have all of them taken so far."""
        self.cursor = self.cursor._replace(past=took)

    def on_train_start(self, trainer: pl.Trainer, learner: Any) -> None:
        """The optimizer's moments come back; the weights did before."""
        _put_moments_back(trainer.optimizers[0], part(self.saved, "optimizer"))
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
        self.cursor = self.cursor._replace(done=learner.done, steps=learner.steps, flops=self.flops(), seconds=spent)
        tensors = _held_by(learner.method) | _named("optimizer", _moments(trainer.optimizers[0])) | _named("round", self.round)
        self.interim.write(self.cursor, tensors)
        self.written = time.perf_counter()


def put_back(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    """The weights and whatever else the method had in the middle of the session, after its `begin`.

    Raises:
        StoreError: it was kept by another method or model.
    """
    restore(method, part(tensors, "memory"), source)
    method.resume(part(tensors, "midway"))


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors named name/..., without it."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def _held_by(method: Method) -> dict[str, Tensor]:
    return _named("memory", memory(method)) | _named("midway", method.midway())


def _named(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def _copied(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, own in state.items() for name, value in own.items() if isinstance(value, Tensor)}


def _put_moments_back(optimizer: torch.optim.Optimizer, moments: Mapping[str, Tensor]) -> None:
    if not moments:
        return
    tree = optimizer.state_dict()
    tree["state"] = {}
    for name, value in moments.items():
        index, _, kind = name.partition("/")
        tree["state"].setdefault(int(index), {})[kind] = value
    optimizer.load_state_dict(tree)
