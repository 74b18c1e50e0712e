"""The one LightningModule, the rows in their order, and `learn`, which takes a method through one session."""

import logging
import math
import time
from typing import Any, NamedTuple

import lightning.pytorch as pl
import torch
from lightning.pytorch.loggers import Logger
from torch import Tensor
from torch.utils.data import DataLoader

from cl.config import TrainConfig
from cl.data.table import ImageTable
from cl.errors import LearningError
from cl.learning.defaults import choices, settled
from cl.learning.host import device, quiet
from cl.learning.interim import START, Interim, Keeper, Took, walk
from cl.learning.loader import Collate, Order, Rows, batches, samples
from cl.learning.progress import Progress, Teller
from cl.learning.ranks import Rank, crew, refuse
from cl.methods import gather
from cl.methods.base import Batch, Method
from cl.methods.losses import precise
from cl.models.flops import Flops, counted
from cl.seeds import derive
from cl.streams.stream import Session

VERSION = 1  # see cl/store/units.py

_LOG_EVERY = 10  # steps; a value read back from the device is a wait


class Learned(NamedTuple):
    """What learning a session took."""

    steps: int
    samples: int
    seconds: float
    flops: int


class Learner(pl.LightningModule):
    """Descends on whatever terms a method returns; the same for every method."""

    def __init__(self, method: Method, config: TrainConfig, steps: int, before: int = 0, done: int = 0) -> None:
        super().__init__()
        self.method = method
        self.config = settled(config, method)
        self.steps = steps
        self.before = before  # steps of the session's earlier rounds: on a chart the rounds follow each other
        self.done = done

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The sum of the method's terms.

        Raises:
            LearningError: a term is not finite; nothing has been changed by this step.
        """
        terms = self.method.losses(batch)
        loss = torch.stack([precise(term) for term in terms.values()]).sum()
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
            raise LearningError(
                f"step {self.done} of {self.steps}: the loss is not finite ({values}); lower train.lr or use precision 32-true"
            )
        if self.logger and self.done % _LOG_EVERY == 0 and index % self.config.accumulate == 0:
            values_now = {f"train/{name}": float(term.detach()) for name, term in terms.items()}
            values_now |= {"train/loss": float(loss.detach()), "train/scale": float(self.method.clip.scale().detach())}
            self.logger.log_metrics(values_now | {"train/lr": self.rate()}, step=self.before + self.done)
        return loss

    def rate(self) -> float:
        """The learning rate of the step to come: linear warm-up, then cosine to zero or constant; or what is listed per epoch."""
        listed = self.config.lr_epochs
        if listed:
            return self.method.rate * listed[min(self.done * self.config.epochs // self.steps, len(listed) - 1)]
        return self.method.rate * self.top * schedule(self.done, self.steps, self.config)

    @property
    def top(self) -> float:
        """The learning rate that the schedule is a share of."""
        assert self.config.lr is not None  # settled
        return self.config.lr

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """A new optimizer each session; gains, biases and the logit scale do not decay unless that is asked for."""
        config = self.config
        weights = [p for p in self.method.trainable()]
        groups = [
            {"params": [p for p in weights if p.ndim >= 2], "weight_decay": config.weight_decay},
            {"params": [p for p in weights if p.ndim < 2], "weight_decay": config.weight_decay if config.decay_all else 0.0},
        ]
        if config.optimizer == "sgd":
            return torch.optim.SGD(groups, lr=self.top, momentum=config.momentum)
        fused = config.precision == "32-true"  # four times as fast; Lightning does not clip for it under autocast
        return torch.optim.AdamW(groups, lr=self.top, betas=config.betas, eps=config.eps, fused=fused)

    def on_before_optimizer_step(self, optimizer: torch.optim.Optimizer) -> None:
        """Gradients are whole: the method may edit them, then Lightning clips."""
        self.method.before_step()

    def optimizer_step(self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Any = None) -> None:
        """One step at the scheduled rate, then the logit scale back into its bounds, then the method's own edit."""
        for group in optimizer.param_groups:
            group["lr"] = self.rate()
        optimizer.step(closure=optimizer_closure)
        scale = self.method.clip.logit_scale
        if scale.requires_grad:  # what is frozen stays as it is
            with torch.no_grad():  # clamping inside the graph would kill the gradient at the bound
                scale.clamp_(0.0, math.log(self.config.max_logit_scale or math.inf))
        self.method.after_step()
        self.done += 1


def schedule(step: int, steps: int, config: TrainConfig) -> float:
    """Share of the top learning rate at a step, 0..1.

    >>> [round(schedule(s, 4, TrainConfig(warmup=0.5)), 3) for s in range(4)]
    [0.5, 1.0, 1.0, 0.5]
    """
    if config.schedule == "cosine_epochs":
        return _by_epoch(step * config.epochs // steps, config)
    warm = int(config.warmup * steps)
    if step < warm:
        return (step + 1) / warm
    if config.schedule == "constant":
        return 1.0
    return 0.5 * (1 + math.cos(math.pi * (step - warm) / max(1, steps - warm)))


def _by_epoch(epoch: int, config: TrainConfig) -> float:
    warm = round(config.warmup * config.epochs)
    if epoch < warm:
        return epoch / warm
    return 0.5 * (1 + math.cos(math.pi * (epoch - warm) / max(1, config.epochs - warm)))


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
    for choice in choices(config, method):
        if choice.why and rank.first:
            logging.getLogger(__name__).info("session %d (%s): %s", session.index, session.name, choice)
    config = settled(config, method)
    method.clip.batch_norm = config.batch_norm or "frozen"
    wanted = {id(parameter) for parameter in method.trainable()}
    for parameter in method.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    keeper = Keeper(interim, writes=rank.first) if interim else None
    took = keeper.cursor.past if keeper else START.past
    for turn, data, flops in keeper.rounds(method, session) if keeper else walk(method.rounds(session)):
        count = steps_over(len(data), config) if wanted else 0
        lesson = Lesson(session, data, seed, turn, count, took.steps, rank)
        flops += count * _descend(method, lesson, config, logger, progress, keeper) if count else 0
        seen = samples(len(data), config.batch_size, count * config.accumulate, bool(config.drop_last)) if count else 0
        took = Took(took.steps + count, took.samples + seen, took.flops + flops)
        if keeper:
            keeper.over(took)
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


class Lesson(NamedTuple):
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
    lesson: Lesson,
    config: TrainConfig,
    logger: Logger | None,
    progress: Progress | None,
    keeper: Keeper | None,
) -> int:
    """Steps over one table, from where its checkpoint left off; returns the FLOPs of each."""
    session, data, seed, turn, steps, before, rank = lesson
    rows = Rows(
        data, method.clip, method.vocabulary, augment=config.augment, pixels=method.pixels, seed=derive(seed, "rows", session.index, turn)
    )
    learner = Learner(method, config, steps, before, keeper.cursor.done if keeper else 0)
    counter = Counted(keeper.cursor.flops if keeper and learner.done else None)
    if keeper:
        keeper.flops = lambda: counter.flops
    if learner.done == steps:
        return counter.flops * config.accumulate
    first, last = learner.done * config.accumulate, steps * config.accumulate
    drawn = derive(seed, "batches", session.index, turn)
    cut = Order(len(rows), config.batch_size, last, drawn, first, drop_last=bool(config.drop_last), rank=rank.index, ranks=rank.count)
    method.full = cut.batch
    loader = DataLoader(
        rows,
        batch_sampler=cut,
        num_workers=config.workers,
        collate_fn=Collate(method.clip.tokenize, method.clip.dtype),
        generator=torch.Generator(),  # else it would draw a seed from the global one
    )
    told = Teller(progress, session.name, steps, method.full * config.accumulate, turn) if progress else None
    with quiet():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if method.clip.device.type == "cuda" else "cpu",
            devices=rank.count,
            strategy=rank.strategy() if rank.count > 1 else "auto",
            precision=config.precision,
            gradient_clip_val=config.clip_grad,
            accumulate_grad_batches=config.accumulate,
            logger=logger or False,
            callbacks=[callback for callback in (counter, keeper, told) if callback],
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=False,
            log_every_n_steps=_LOG_EVERY,
        )
        method.train()
        trainer.fit(learner, loader)
        # it and its parts name each other in circles: else weights, moments and pixels stay until the collector comes by, sessions later
        vars(trainer).clear()
    return counter.flops * config.accumulate


class Counted(pl.Callback):
    """Counts the floating point operations of the first batch: those of matrix products and convolutions, both ways."""

    def __init__(self, known: int | None = None) -> None:
        self.counter: Any = Flops()
        self.wanted = known is None
        self.counting = False
        self.flops = known or 0

    def on_train_batch_start(self, trainer: pl.Trainer, learner: pl.LightningModule, batch: Any, index: int) -> None:
        """Count the first batch only: counting is slow."""
        if index == 0 and self.wanted:
            self.counting = True
            self.counter.__enter__()

    def on_train_batch_end(self, trainer: pl.Trainer, learner: pl.LightningModule, outputs: Any, batch: Any, index: int) -> None:
        """Enough."""
        self._stop()

    def on_exception(self, trainer: pl.Trainer, learner: pl.LightningModule, error: BaseException) -> None:
        """Left on, it would count whatever this thread does next."""
        self._stop()

    def _stop(self) -> None:
        if self.counting:
            self.counting = False
            self.counter.__exit__(None, None, None)
            self.flops = gather.total(int(self.counter.get_total_flops()))
