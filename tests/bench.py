"""`make bench`: speed as ratios, both sides measured in turns in one run; and which methods' steps take longer than they must."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger
from mlflow import MlflowClient
from rich.console import Console

from cl.config import TrainConfig
from cl.learning.host import keep_memory
from cl.learning.learner import learn
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.vocabulary import vocabulary_texts
from cl.methods.tuners.whole import Whole
from cl.models import prompted
from cl.models.clip import Clip, ModelConfig, load
from cl.streams.stream import Session
from flows.console import table
from flows.settings import begin
from flows.tracking.steplog import StepLogger
from tests import make, steps

TURNS = 7
Timed = Callable[[], object]


def ratio(one: Timed, other: Timed) -> tuple[float, float, float]:
    """How many times as long as `other` `one` takes: lower quartile, median, upper quartile over paired turns."""
    one(), other()
    ratios = [seconds(one) / seconds(other) for _ in range(TURNS)]
    low, middle, high = statistics.quantiles(ratios, n=4)
    return low, middle, high


def seconds(what: Timed) -> float:
    """Wall time of one call."""
    started = time.perf_counter()
    what()
    return time.perf_counter() - started


def logged(clip: Clip, work: Session, steps: int, logger: Logger | None) -> None:
    """Some steps of fine-tuning."""
    learn(FinetuneConfig().build(clip, 0), work, TrainConfig(max_steps=steps, batch_size=8, lr=1e-5, device="cpu"), 0, logger=logger)


def ungrouped(clip: Clip, names: list[str]) -> torch.Tensor:
    """All captions at the length of the longest."""
    tower = prompted.text_tower(clip.model)
    assert tower is not None
    return prompted._text_features(tower, clip.tokenize(names), None)


def loggers(folder: Path) -> tuple[Logger, Logger]:
    """Ours, and Lightning's own at every step, over two fresh databases."""
    uri = f"sqlite:///{folder / 'ours.db'}"
    client = MlflowClient(uri)
    run = client.create_run(client.create_experiment("bench"))
    return StepLogger(client, run.info.run_id), MLFlowLogger("bench", tracking_uri=f"sqlite:///{folder / 'plain.db'}")


class EveryStep(Recipe):
    """Fine-tuning that hands Lightning's logger a value at every step, as `self.log` does by default."""

    def __init__(self, clip: Clip, logger: Logger) -> None:
        tuner = Whole(clip)
        super().__init__(clip, 0, tuner=tuner, terms={"clip": FitConfig().build(tuner, 0)})
        self.told, self.logger = 0, logger

    def after_step(self) -> None:
        """One metric."""
        self.told += 1
        self.logger.log_metrics({"train/loss": 1.0}, self.told)


def main() -> None:
    """Measure and print."""
    begin(writes=False)
    keep_memory()  # as runs do: a third of what a pull on all weights takes is pages that are fetched anew
    torch.manual_seed(0)
    clip = load(ModelConfig(name="glyph_base"))
    work = steps.session(1, "greek", "labels")
    names = [known.prompts[0] for known in work.vocabulary]
    short = vocabulary_texts(clip, 100, 10, torch.Generator().manual_seed(0))
    long = make.padded(clip, short)
    rows: list[tuple[str, ...]] = []

    def row(what: str, one: Timed, other: Timed) -> None:
        low, middle, high = ratio(one, other)
        rows.append((what, f"{middle:.2f}", f"{low:.2f} to {high:.2f}"))

    row(
        "class names at one length / in groups of like length",
        lambda: ungrouped(clip, names),
        lambda: clip.encode_text(clip.tokenize(names)),
    )
    row(f"100 random texts padded to {long.shape[1]} / at their 10 tokens", lambda: clip.encode_text(long), lambda: clip.encode_text(short))
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = loggers(Path(folder))
        fast = TrainConfig(max_steps=20, batch_size=8, lr=1e-5, device="cpu")
        row("training logged by us / not logged", lambda: logged(clip, work, 20, ours), lambda: logged(clip, work, 20, None))
        row(
            "training logged at every step by MLFlowLogger / not logged",
            lambda: learn(EveryStep(clip, plain), work, fast, 0),
            lambda: logged(clip, work, 20, None),
        )
    console = Console(file=sys.stdout, width=110)
    console.print(table(f"time ratios, {TURNS} paired turns", ["what", "median", "quartiles"], rows))
    found = [steps.measured(name, clip) for name in steps.stepping(clip)]
    title = f"processor time of a step over fine-tuning's, and over the least it can be; {steps.TURNS} paired turns"
    console.print(table(title, ["method", "step", "plain cost", "beyond it", "quartiles"], [steps.told(row) for row in found]))
    console.print(steps.verdict(found))


if __name__ == "__main__":
    main()
