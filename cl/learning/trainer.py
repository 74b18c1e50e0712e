"""Lightning's Trainer, made in one place: without anything that we do ourselves, and gone when it is done."""

from collections.abc import Sequence
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.loggers import Logger
from torch.utils.data import DataLoader

from cl.learning.host import quiet
from cl.learning.module import LOG_EVERY, Learner
from cl.learning.ranks import Rank
from cl.methods import gather
from cl.models.flops import Flops


def fit(learner: Learner, loader: DataLoader[Any], rank: Rank, logger: Logger | None, callbacks: Sequence[pl.Callback]) -> None:
    """Every batch of the loader, once; checkpoints, order and progress are ours."""
    config = learner.config
    with quiet():
        trainer = pl.Trainer(
            max_epochs=1,
            accelerator="gpu" if learner.method.clip.device.type == "cuda" else "cpu",
            devices=rank.count,
            strategy=rank.strategy() if rank.count > 1 else "auto",
            precision=config.precision,
            gradient_clip_val=config.clip_grad,
            accumulate_grad_batches=config.accumulate,
            logger=logger or False,
            callbacks=list(callbacks),
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            num_sanity_val_steps=0,
            use_distributed_sampler=False,
            inference_mode=False,
            log_every_n_steps=LOG_EVERY,
        )
        trainer.fit(learner, loader)
        # it and its parts name each other in circles: else weights, moments and pixels stay until the collector comes by, sessions later
        vars(trainer).clear()


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
