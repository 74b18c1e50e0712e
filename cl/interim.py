"""A session half learned: what the step loop holds, kept on disk every so often, so that a killed session goes on where it was."""

import logging
import shutil
import time
from pathlib import Path
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from torch import Tensor

from cl.checkpoint import memory, new_folder, read_json, read_tensors, restore, sha256, write_json, write_tensors
from cl.errors import StoreError
from cl.methods.base import Method


class Cursor(NamedTuple):
    """How far a session is: optimizer steps taken, seconds they took, FLOPs of the first batch."""

    done: int
    seconds: float
    flops: int


class Saved(NamedTuple):
    """A half-learned session as it was kept; the tensors are named memory/..., midway/... and optimizer/..."""

    cursor: Cursor
    tensors: dict[str, Tensor]

    def part(self, name: str) -> dict[str, Tensor]:
        """The tensors of one of them."""
        return {key.removeprefix(f"{name}/"): tensor for key, tensor in self.tensors.items() if key.startswith(f"{name}/")}


class Interim:
    """The place of one session's checkpoint. Batches, crops and random texts are functions of the step: there is no generator to keep."""

    def __init__(self, folder: Path, every: float) -> None:
        self.folder = folder
        self.every = every  # seconds

    def read(self) -> Saved | None:
        """What was kept; None if nothing was, or nothing whole: then the session starts over."""
        try:
            noted = read_json(self.folder / "cursor.json")
            if sha256(self.folder / "interim.safetensors") != noted.pop("sha256"):
                raise StoreError(f"{self.folder}: damaged")
            return Saved(Cursor(**noted), read_tensors(self.folder / "interim.safetensors"))
        except (StoreError, OSError, TypeError, KeyError, AttributeError) as error:
            if self.folder.exists():
                logging.getLogger(__name__).warning("the session starts over: its checkpoint cannot be used (%s)", error)
            return None

    def write(self, method: Method, optimizer: torch.optim.Optimizer, cursor: Cursor) -> None:
        """Keep it, whole or not at all.

        Raises:
            StoreError: the place cannot be written.
        """
        tensors = {f"memory/{name}": tensor for name, tensor in memory(method).items()}
        tensors |= {f"midway/{name}": tensor for name, tensor in method.midway().items()}
        tensors |= {f"optimizer/{name}": tensor for name, tensor in _moments(optimizer).items()}
        with new_folder(self.folder) as folder:
            kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
            digest = write_tensors(kept, folder / "interim.safetensors")
            write_json({**cursor._asdict(), "sha256": digest}, folder / "cursor.json")

    def clear(self) -> None:
        """The session is learned: drop it."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Keeper(pl.Callback):
    """Keeps a session every so often, and where it is interrupted between two steps; puts back what was kept before."""

    def __init__(self, interim: Interim, saved: Saved | None, flops: Any) -> None:
        self.interim, self.saved, self.flops = interim, saved, flops
        self.seconds = saved.cursor.seconds if saved else 0.0
        self.started = self.written = time.perf_counter()
        self.whole = False  # between two steps, not within one

    def on_train_start(self, trainer: pl.Trainer, learner: pl.LightningModule) -> None:
        """The optimizer's moments come back; the weights did before."""
        if self.saved:
            _put_back(trainer.optimizers[0], self.saved.part("optimizer"))
            self.saved = None  # twice the model's size

    def on_train_batch_start(self, trainer: pl.Trainer, learner: Any, batch: Any, index: int) -> None:
        """Something is under way."""
        self.whole = False

    def on_train_batch_end(self, trainer: pl.Trainer, learner: Any, outputs: Any, batch: Any, index: int) -> None:
        """A step is over, if its batch was the last that it accumulates."""
        self.whole = (index + 1) % trainer.accumulate_grad_batches == 0
        if self.whole and learner.done < learner.steps and time.perf_counter() - self.written > self.interim.every > 0:
            self.keep(trainer, learner)

    def on_exception(self, trainer: pl.Trainer, learner: Any, error: BaseException) -> None:
        """An interruption between two steps loses none of them."""
        if self.whole and self.interim.every and isinstance(error, KeyboardInterrupt | SystemExit):
            self.keep(trainer, learner)

    def keep(self, trainer: pl.Trainer, learner: Any) -> None:
        """Write it down."""
        spent = self.seconds + time.perf_counter() - self.started
        self.interim.write(learner.method, trainer.optimizers[0], Cursor(learner.done, spent, self.flops()))
        self.written = time.perf_counter()


def put_back(method: Method, saved: Saved, source: str) -> None:
    """The weights and whatever else the method had in the middle of the session, after its `begin`.

    Raises:
        StoreError: it was kept by another method or model.
    """
    restore(method, saved.part("memory"), source)
    method.resume(saved.part("midway"))


def _moments(optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    state = optimizer.state_dict()["state"]
    return {f"{index}/{name}": value for index, own in state.items() for name, value in own.items() if isinstance(value, Tensor)}


def _put_back(optimizer: torch.optim.Optimizer, moments: dict[str, Tensor]) -> None:
    tree = optimizer.state_dict()
    tree["state"] = {}
    for name, value in moments.items():
        index, _, kind = name.partition("/")
        tree["state"].setdefault(int(index), {})[kind] = value
    optimizer.load_state_dict(tree)
