"""The one LightningModule: it descends on whatever a method returns."""

import math
from collections.abc import Mapping
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.errors import LearningError
from cl.learning.defaults import settled
from cl.methods.base import Batch, Method
from cl.methods.losses import precise

LOG_EVERY = 10  # steps; a value read back from the device is a wait


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
        loss = self._summed(terms)
        if not torch.isfinite(loss):
            values = ", ".join(f"{name} {float(term.detach()):g}" for name, term in terms.items())
            raise LearningError(
                f"step {self.done} of {self.steps}: the loss is not finite ({values}); lower train.lr or use precision 32-true"
            )
        if self.logger and self.done % LOG_EVERY == 0 and index % self.config.accumulate == 0:
            values_now = {f"train/{name}": float(term.detach()) for name, term in terms.items()}
            values_now |= {"train/loss": float(loss.detach()), "train/scale": float(self.method.clip.scale().detach())}
            self.logger.log_metrics(values_now | {"train/lr": self.rate()}, step=self.before + self.done)
        return loss

    def _summed(self, terms: Mapping[str, Tensor]) -> Tensor:
        loss = torch.stack([precise(term) for term in terms.values()]).sum() if terms else torch.zeros((), device=self.device)
        if not loss.requires_grad:  # no row of the step is any term's: still a step, whose gradient is zero
            loss = loss + 0.0 * torch.stack([precise(weight).sum() for weight in self.method.descending()]).sum()
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
        weights = [p for p in self.method.descending()]
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
