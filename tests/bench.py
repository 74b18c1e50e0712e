"""`make bench`: speed as ratios, both sides measured in turns in one run; median and quartiles over the turns."""

import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.loggers import Logger, MLFlowLogger
from mlflow import MlflowClient
from rich.console import Console

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.data.glyphs import build
from cl.learning.learner import Learned, learn
from cl.methods.base import MethodConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.vocabulary import vocabulary_texts
from cl.methods.tuners.whole import Whole
from cl.models import prompted
from cl.models.clip import Clip, ModelConfig, load
from cl.run_config import parse_method
from cl.streams.stream import EvalSet, Session
from flows.console import table
from flows.settings import begin
from flows.tracking.steplog import StepLogger
from tests import make

TURNS = 7
Timed = Callable[[], object]

# what descends, each against plain fine-tuning on the same rows, and what their arithmetic alone would make of it
LABELLED: dict[str, dict[str, Any]] = {
    "vr_lwf": {"name": "vr_lwf"},
    "lora": {"name": "recipe", "tune": "lora"},
    "cloob": {"name": "recipe", "terms": [{"kind": "cloob", "labels": "pairs"}]},
    "proto_triplet beside clip": {"name": "recipe", "terms": ["clip", "proto_triplet"]},
    "retrieve_then_align, both rounds": {"name": "retrieve_then_align"},
    "replay + l2": {"name": "recipe", "terms": ["clip", "l2"], "memory": "class_balanced"},
}
FROZEN: dict[str, dict[str, Any]] = {"real_linear": {"name": "real_linear"}, "tip_adapter_f": {"name": "tip_adapter_f"}}
CAPTIONED: dict[str, dict[str, Any]] = {
    "long_clip": {"name": "long_clip"},
    "counterfactual beside clip": {"name": "recipe", "terms": ["clip", {"kind": "counterfactual", "wrong": "words"}]},
}


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


def session(captions: bool = False) -> Session:
    """Greek in one font, as the demo learns it, or with its captions in place of labels."""
    rows = build(["DejaVuSans"])["train"]
    rows = rows.where([domain == "greek" for domain in rows.domains])
    classes = tuple(ClassName(name, (name,)) for name in rows.classes())
    exam = EvalSet("greek", "classify", rows.take(range(8)), classes)
    if captions:
        return Session(1, "greek", rows.without("label"), (exam,), (), ())
    return Session(1, "greek", rows.without("captions"), (exam,), tuple(range(len(classes))), classes)


def against_finetuning(clip: Clip, methods: Mapping[str, Mapping[str, Any]], work: Session, config: TrainConfig) -> list[tuple[str, ...]]:
    """Each method's session of so many steps in units of fine-tuning's: by the clock, and by floating point operations."""

    def learned(method: MethodConfig) -> Learned:
        return learn(method.build(clip, 0), work, config, 0)

    plain = FinetuneConfig()
    once = learned(plain).flops
    rows: list[tuple[str, ...]] = []
    for name, given in methods.items():
        method = parse_method(dict(given), "bench")
        low, middle, high = ratio(partial(learned, method), partial(learned, plain))
        rows.append((f"{name} / finetune", f"{middle:.2f}", f"{low:.2f} to {high:.2f}", f"{learned(method).flops / once:.2f}"))
    return rows


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
    torch.manual_seed(0)
    clip = load(ModelConfig(name="glyph_base"))
    work = session()
    names = [known.prompts[0] for known in work.vocabulary]
    short = vocabulary_texts(clip, 100, 10, torch.Generator().manual_seed(0))
    long = make.padded(clip, short)
    config = TrainConfig(max_steps=6, batch_size=32, lr=1e-5, device="cpu")
    rows: list[tuple[str, ...]] = []

    def row(what: str, one: Timed, other: Timed) -> None:
        low, middle, high = ratio(one, other)
        rows.append((what, f"{middle:.2f}", f"{low:.2f} to {high:.2f}", ""))

    row(
        "class names at one length / in groups of like length",
        lambda: ungrouped(clip, names),
        lambda: clip.encode_text(clip.tokenize(names)),
    )
    row(f"100 random texts padded to {long.shape[1]} / at their 10 tokens", lambda: clip.encode_text(long), lambda: clip.encode_text(short))
    for methods, over in ((LABELLED, work), (FROZEN, work), (CAPTIONED, session(captions=True))):
        rows += against_finetuning(clip, methods, over, config)
    with tempfile.TemporaryDirectory() as folder:
        ours, plain = loggers(Path(folder))
        fast = TrainConfig(max_steps=20, batch_size=8, lr=1e-5, device="cpu")
        row("training logged by us / not logged", lambda: logged(clip, work, 20, ours), lambda: logged(clip, work, 20, None))
        row(
            "training logged at every step by MLFlowLogger / not logged",
            lambda: learn(EveryStep(clip, plain), work, fast, 0),
            lambda: logged(clip, work, 20, None),
        )
    Console(file=sys.stdout, width=110).print(
        table(f"time ratios, {TURNS} paired turns", ["what", "median", "quartiles", "arithmetic"], rows)
    )


if __name__ == "__main__":
    main()
