"""Several processes that learn one session together: one order of rows cut among them, one that writes.

Each rank walks through the same session: what is not of the batch (teachers, random texts, rounds, merges) is computed alike by all, so
that nothing has to be sent but features and gradients. The first rank is the process that asked; the others end with it.
"""

import multiprocessing
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from multiprocessing.reduction import ForkingPickler
from typing import Any

import torch
import torch.distributed as dist
from lightning.fabric.plugins.environments.cluster_environment import ClusterEnvironment
from lightning.pytorch.strategies import DDPStrategy, Strategy
from torch import Tensor, nn
from torch.multiprocessing.reductions import init_reductions

from cl.config import TrainConfig
from cl.errors import LearningError, MethodError
from cl.methods.base import Method

_PATIENCE = timedelta(minutes=10)  # a rank that hears nothing for so long gives up


@dataclass(frozen=True)
class Rank:
    """Which of how many, and the port on 127.0.0.1 where the first one waits for the others."""

    index: int
    count: int
    port: int

    @property
    def first(self) -> bool:
        """Whether this one writes."""
        return self.index == 0

    def strategy(self) -> Strategy:
        """Lightning's data-parallel strategy among these ranks.

        Weights that no loss of a step reaches are looked for: which those are is for the terms to say. Statistics are frozen, so that no
        buffer has to be sent.
        """
        return DDPStrategy(cluster_environment=_Beside(self), broadcast_buffers=False, find_unused_parameters=True, timeout=_PATIENCE)


class _Beside(ClusterEnvironment):
    """Ranks on this machine that are there already."""

    def __init__(self, rank: Rank) -> None:
        super().__init__()
        self.rank = rank

    @property
    def creates_processes_externally(self) -> bool:
        return True

    @property
    def main_address(self) -> str:
        return "127.0.0.1"

    @property
    def main_port(self) -> int:
        return self.rank.port

    @staticmethod
    def detect() -> bool:
        return False

    def world_size(self) -> int:
        return self.rank.count

    def set_world_size(self, size: int) -> None:
        pass

    def global_rank(self) -> int:
        return self.rank.index

    def set_global_rank(self, rank: int) -> None:
        pass

    def local_rank(self) -> int:
        return self.rank.index

    def node_rank(self) -> int:
        return 0


def refuse(method: Method, config: TrainConfig) -> None:
    """Say what of a step several ranks, or chunks, cannot take.

    Raises:
        MethodError: names what it is, and what to do.
    """
    asked = [f"train.{name}: {value}" for name, value in (("devices", config.devices), ("chunk", config.chunk or 1)) if value > 1]
    what = ""
    if asked and not method.steps_apart:
        what = f"{type(method).__name__} takes its steps whole"
    elif config.devices > config.batch_size:
        what = f"train.batch_size: {config.batch_size} is fewer rows than ranks"
    elif config.devices > 1 and config.batch_norm == "trained" and method.clip.batch_norms():
        what = "statistics of batch normalisation that train (train.batch_norm) would be of each rank's rows alone"
    if what:
        raise MethodError(f"{', '.join(asked)}, and {what}; leave {'them' if len(asked) > 1 else 'it'} out")


@contextmanager
def crew(count: int, work: Callable[..., Any], *arguments: Any) -> Iterator[Rank]:
    """This process as the first of `count` ranks; the others run `work(rank, *arguments)` until the block ends.

    Raises:
        LearningError: another rank failed; nothing of the session is kept but its last checkpoint.
    """
    port = _free_port()
    context = multiprocessing.get_context("spawn")
    threads = max(1, torch.get_num_threads() // count)
    # no daemons: those may have no children, and a rank has some where train.workers decode its rows
    others = [context.Process(target=_run, args=(Rank(index, count, port), threads, work, arguments)) for index in range(1, count)]
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        with _by_value():
            for other in others:
                other.start()
        yield Rank(0, count, port)
        _over()
        for index, other in enumerate(others, start=1):
            other.join(_PATIENCE.total_seconds())
            if other.exitcode:
                raise LearningError(f"rank {index} of {count} ended with {other.exitcode}; what it said stands above")
    except RuntimeError as error:
        failed = [index for index, other in enumerate(others, start=1) if not other.is_alive() and other.exitcode]
        if failed:
            raise LearningError(f"rank {failed[0]} of {count} failed; it said why above; or set train.devices: 1") from error
        raise
    finally:
        for other in (each for each in others if each.pid is not None):  # starting one may have failed
            other.kill()
            other.join()
        _over()
        torch.set_num_threads(before)


def _run(rank: Rank, threads: int, work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):  # the first rank decides, keeps what is learned, and ends this one
        signal.signal(number, signal.SIG_IGN)
    torch.set_num_threads(threads)
    work(rank, *arguments)
    _over()


@contextmanager
def _by_value() -> Iterator[None]:
    """Hand tensors to other processes as copies: torch shares them, and every rank would move the same weights."""
    for kind in (Tensor, nn.Parameter):
        ForkingPickler.register(kind, _taken_apart)
    try:
        yield
    finally:
        init_reductions()  # type: ignore[no-untyped-call]


def _taken_apart(tensor: Tensor) -> tuple[Callable[..., Tensor], tuple[Any, ...]]:
    content = tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
    return _put_together, (content, tensor.dtype, tensor.shape, tensor.requires_grad, isinstance(tensor, nn.Parameter))


def _put_together(content: Any, dtype: torch.dtype, shape: torch.Size, gradient: bool, parameter: bool) -> Tensor:
    tensor = torch.from_numpy(content).view(dtype).reshape(shape)
    return nn.Parameter(tensor, gradient) if parameter else tensor.requires_grad_(gradient)


def _over() -> None:
    if dist.is_available() and dist.is_initialized():
        dist.destroy_process_group()


def _free_port() -> int:
    with socket.socket() as asked:
        asked.bind(("127.0.0.1", 0))
        return int(asked.getsockname()[1])
