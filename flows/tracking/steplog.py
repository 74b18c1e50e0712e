"""A Lightning logger that writes MLflow metrics in batches: one at every step makes a small model several times slower."""

import logging
import re
import time
from argparse import Namespace
from collections.abc import Mapping
from typing import Any

from lightning.pytorch.loggers import Logger
from mlflow import MlflowClient
from mlflow.entities import Metric
from mlflow.exceptions import MlflowException

STEPS = "batch"  # instead of Lightning's "train": charts stand in the order of their names, and a session's curves come first
_BATCH = 1000  # the most that MLflow takes in one request
_SECONDS = 5.0  # a chart that is watched lags behind by no more than this
_AWAY = 60.0  # seconds until a server that did not answer is asked again: each time it may keep the training waiting


class StepLogger(Logger):
    """Step metrics of one MLflow run. A tracking server that is away costs points on a chart, never a training.

    `reached` names the last step of each metric that the run has from an earlier try; what comes up to there is known already.
    """

    def __init__(self, client: MlflowClient, run_id: str, reached: Mapping[str, int] | None = None) -> None:
        super().__init__()
        self.client = client
        self.run_id = run_id
        self.reached = reached or {}
        self.waiting: list[Metric] = []
        self.full = _BATCH
        self.next = time.monotonic() + _SECONDS

    @property
    def name(self) -> str:
        """Who keeps the metrics."""
        return "mlflow"

    @property
    def version(self) -> str:
        """The run that they belong to."""
        return self.run_id

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any, **kwargs: Any) -> None:
        """Nothing: the stream's run holds the whole config."""

    def log_metrics(self, metrics: Mapping[str, float], step: int | None = None) -> None:
        """Keep metrics for the next batch, which leaves when it is full or five seconds old; later where the server is away."""
        now, step = int(time.time() * 1000), step or 0
        named = {re.sub(r"^train/", f"{STEPS}/", name): value for name, value in metrics.items()}
        self.waiting += [Metric(name, float(value), now, step) for name, value in named.items() if step > self.reached.get(name, -1)]
        if len(self.waiting) >= self.full or time.monotonic() > self.next:
            self.flush()

    def flush(self) -> None:
        """Write what waits; what cannot be written now waits for the next time."""
        self.full, self.next = _BATCH, time.monotonic() + _SECONDS
        try:
            while self.waiting:
                self.client.log_batch(self.run_id, metrics=self.waiting[:_BATCH])
                del self.waiting[:_BATCH]
        except MlflowException as error:
            self.full, self.next = len(self.waiting) + _BATCH, time.monotonic() + _AWAY
            logging.getLogger(__name__).warning("%d step metrics could not be written yet: %s", len(self.waiting), error)

    def save(self) -> None:
        """Write what waits."""
        self.flush()

    def finalize(self, status: str) -> None:
        """Write what waits; Lightning calls this at the end of a fit, whichever way it ends."""
        self.flush()
