"""`learn`: a method goes through one session, from wherever an earlier try left it."""

import logging
import time
from collections.abc import Container, Iterable
from typing import NamedTuple

import torch
from lightning.pytorch.loggers import Logger
from torch import nn
from torch.utils.data import DataLoader

from cl.config import TrainConfig
from cl.data.table import ImageTable
from cl.learning.defaults import settled, told
from cl.learning.host import device
from cl.learning.interim import START, Interim, Took
from cl.learning.keeper import Keeper, walk
from cl.learning.loader import Collate, Order, Rows, batches, samples
from cl.learning.module import Learner
from cl.learning.progress import Progress, Teller
from cl.learning.ranks import Rank, crew, refuse
from cl.learning.trainer import Counted, fit
from cl.methods.base import Method
from cl.models.flops import counted
from cl.seeds import derive
from cl.streams.stream import Session

VERSION = 1  # see cl/store/units.py


class Learned(NamedTuple):
    """What learning a session took."""

    steps: int
    samples: int
    seconds: float
    flops: int


def learn(
    method: Method,
    session: Session,
    config: TrainConfig,
    seed: int,
    *,
    logger: Logger | None = None,
    progress: Progress | None = None,
    interim: Interim | None = None,
) -> Learned:
    """Take a method through one session; the method is changed in place. What `interim` holds of it is not learned again.

    Raises:
        MethodError: the method cannot use the session.
        ConfigError: a GPU is asked for, and there is none.
        LearningError: a loss is not finite.
    """
    method.check(session)
    refuse(method, settled(config, method))
    if config.devices == 1:
        return _learn(Rank(0, 1, 0), method, session, config, seed, interim, logger, progress)
    with crew(config.devices, _learn, method, session, config, seed, interim) as rank:
        return _learn(rank, method, session, config, seed, interim, logger, progress)


def _learn(
    rank: Rank,
    method: Method,
    session: Session,
    config: TrainConfig,
    seed: int,
    interim: Interim | None,
    logger: Logger | None = None,
    progress: Progress | None = None,
) -> Learned:
    started = time.perf_counter()
    method.to(device(config.device, rank.index))
    method.chunk = config.chunk
    for line in told(config, method) if rank.first else ():
        logging.getLogger(__name__).info("session %d (%s): %s", session.index, session.name, line)
    config = settled(config, method)
    method.clip.batch_norm = config.batch_norm or "frozen"
    wanted = {*method.trainable()}
    _require(method.parameters(), wanted)
    method.visits = visits(len(session.data), config)
    keeper = Keeper(interim, writes=rank.first) if interim else None
    took = keeper.cursor.past if keeper else START.past
    for turn, data, flops in keeper.rounds(method, session) if keeper else walk(method.rounds(session)):
        count = steps_over(len(data), config) if wanted else 0
        one = Turn(session, data, seed, turn, count, took.steps, rank)
        flops += count * _descend(method, one, config, logger, progress, keeper) if count else 0
        seen = samples(len(data), config.batch_size, count * config.accumulate, bool(config.drop_last)) if count else 0
        took = Took(took.steps + count, took.samples + seen, took.flops + flops)
        if keeper:
            keeper.over(took)
    _require(method.parameters(), {*method.trainable()})
    method.eval()
    if not rank.first:
        return Learned(took.steps, took.samples, 0.0, 0)
    with torch.no_grad():
        _, flops = counted(lambda: method.end(session))
    before = keeper.before if keeper else 0.0
    return Learned(took.steps, took.samples, before + time.perf_counter() - started, took.flops + flops)


def steps_over(rows: int, config: TrainConfig) -> int:
    """Optimizer steps over a table of so many rows."""
    if config.max_steps:
        return config.max_steps
    return max(1, batches(rows, config.batch_size, bool(config.drop_last)) * config.epochs // config.accumulate)


def visits(rows: int, config: TrainConfig) -> float:
    """How often each of so many rows comes up with the same pixels; 0 where each time there are others.

    >>> visits(100, TrainConfig(epochs=3, batch_size=50)), visits(100, TrainConfig(epochs=3, augment=True))
    (3.0, 0.0)
    """
    if config.augment or not rows:
        return 0.0
    return samples(rows, config.batch_size, steps_over(rows, config) * config.accumulate, bool(config.drop_last)) / rows


def _require(parameters: Iterable[nn.Parameter], wanted: Container[nn.Parameter]) -> None:
    """Gradients of some parameters, and of no others."""
    for parameter in parameters:
        parameter.requires_grad_(parameter in wanted)


class Turn(NamedTuple):
    """A round of a session: its table, what its order follows from, how many steps it takes and how many the rounds before it took."""

    session: Session
    data: ImageTable
    seed: int
    turn: int
    steps: int
    before: int
    rank: Rank


def _descend(
    method: Method,
    one: Turn,
    config: TrainConfig,
    logger: Logger | None,
    progress: Progress | None,
    keeper: Keeper | None,
) -> int:
    """Steps over one table, from where its checkpoint left off; returns the FLOPs of each."""
    session, data, seed, turn, steps, before, rank = one
    rows = Rows(
        data,
        method.clip,
        method.vocabulary,
        augment=config.augment,
        pixels=method.pixels,
        seed=derive(seed, "rows", session.index, turn),
        original=config.captions.original,
        beside=method.beside,
    )
    learner = Learner(method, config, steps, before, keeper.cursor.done if keeper else 0)
    counter = Counted(keeper.cursor.flops if keeper and learner.done else None)
    if keeper:
        keeper.counter = counter
    if learner.done == steps:
        return counter.flops * config.accumulate
    first, last = learner.done * config.accumulate, steps * config.accumulate
    drawn = derive(seed, "batches", session.index, turn)
    cut = Order(len(rows), config.batch_size, last, drawn, first, drop_last=bool(config.drop_last), rank=rank.index, ranks=rank.count)
    method.full = cut.batch
    _require({*method.trainable()}, {*method.descending()})
    loader = DataLoader(
        rows,
        batch_sampler=cut,
        num_workers=config.workers,
        collate_fn=Collate(method.clip.tokenize, method.clip.dtype, method.beside),
        generator=torch.Generator(),  # else it would draw a seed from the global one
    )
    told = Teller(progress, session.name, steps, method.full * config.accumulate, turn) if progress else None
    method.train()
    fit(learner, loader, rank, logger, [callback for callback in (counter, keeper, told) if callback])
    return counter.flops * config.accumulate
