"""Is a step of replay as fast as in Avalanche's loop with its ReplayPlugin, however many classes were seen?

    python bench/replay.py [--classes 160] [--batch 16] [--turns 7] [--steps 12]

The shipped model learns a session of eight glyphs with exemplars of all classes before. Avalanche's plugin takes as many exemplars as rows
of the session into each step: `--batch 16` is 16 images a step here and 32 there, and both are measured here. Avalanche trains the
image tower with a linear head over all classes (no text tower, the least it can do), or the whole CLIP, which encodes all names.
All are measured in turns in one process and one thread; a step is the processor time from one to the next, the median of a turn, and
the quartiles over turns.
"""

import argparse
import copy
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from rich.console import Console
from torch import Tensor, nn

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.data.glyphs import build
from cl.data.table import ImageTable
from cl.learning.learner import learn
from cl.methods.buffer import update
from cl.methods.memories.exemplars import Rehearsal
from cl.methods.presets.replay import ReplayConfig
from cl.methods.recipe import Candidates, Recipe
from cl.models.clip import Clip, ModelConfig, load
from cl.streams.avalanche import to_avalanche
from cl.streams.stream import EvalSet, Session, Stream
from flows.console import table

NEW = 8  # classes of the session that is measured
FONTS = ["DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "DejaVuSans-Bold"]


def sessions(classes: int) -> tuple[Session, Session]:
    """All classes but eight, then those."""
    rows = build(FONTS)["train"]
    rows = rows.where([domain in ("cyrillic", "greek", "armenian") for domain in rows.domains])
    chosen = rows.classes()[:classes]
    known = tuple(ClassName(name, (name,)) for name in chosen)
    old = session(1, rows, known[:-NEW], known[:-NEW], tuple(range(classes - NEW)))
    return old, session(2, rows, known[-NEW:], known, tuple(range(classes - NEW, classes)))


def session(index: int, rows: ImageTable, taught: tuple[ClassName, ...], known: tuple[ClassName, ...], indices: tuple[int, ...]) -> Session:
    """Four images of each class."""
    names = {each.name for each in taught}
    own = rows.where([label in names for label in rows.labels]).without("captions")
    return Session(index, f"session {index}", own, (EvalSet(f"set {index}", "classify", own.take(range(4)), taught),), indices, known)


class Clock:
    """Moments of this process, and the median time between them: one thread, so that who else computes meanwhile does not count."""

    def __init__(self) -> None:
        self.moments: list[float] = []

    def tick(self, *_: Any, **__: Any) -> None:
        """Now."""
        self.moments.append(time.process_time())

    def median(self) -> float:
        """Milliseconds from one to the next."""
        return 1000 * statistics.median(after - before for before, after in zip(self.moments, self.moments[1:], strict=False))


def ours(clip: Clip, taught: tuple[Session, Session], candidates: Candidates, batch: int, steps: int) -> float:
    """Milliseconds a step."""
    old, new = taught
    method = ReplayConfig(candidates=candidates).build(copy.deepcopy(clip, {id(clip.tokenizer): clip.tokenizer}), 0)
    assert isinstance(method, Recipe)
    assert isinstance(method.memory, Rehearsal)
    kept = update(method.memory.exemplars, old.data, [0] * len(old.data), policy="reservoir", capacity=500, seed=0)
    method.memory.exemplars = kept
    clock, losses = Clock(), method.losses

    def timed(given: Any) -> dict[str, Tensor]:
        clock.tick()
        return losses(given)

    method.losses = timed  # type: ignore[method-assign]
    learn(method, new, TrainConfig(max_steps=steps, batch_size=batch, lr=1e-5, device="cpu"), 0)
    return clock.median()


class Head(nn.Module):
    """The image tower and a linear layer over all classes."""

    def __init__(self, clip: Clip, names: list[str]) -> None:
        super().__init__()
        self.clip = clip
        with torch.no_grad():
            self.rows = nn.Parameter(clip.encode_text(clip.tokenize(names)))

    def forward(self, images: Tensor) -> Tensor:
        """Scaled cosines with the rows."""
        return self.clip.scale() * self.clip.encode_image(images) @ self.rows.T


class Names(nn.Module):
    """The whole CLIP, which encodes the names of all classes."""

    def __init__(self, clip: Clip, names: list[str]) -> None:
        super().__init__()
        self.clip, self.tokens = clip, clip.tokenize(names)

    def forward(self, images: Tensor) -> Tensor:
        """Scaled cosines with the names."""
        return self.clip.scale() * self.clip.encode_image(images) @ self.clip.encode_text(self.tokens).T


def avalanche(clip: Clip, taught: tuple[Session, Session], kind: Callable[[Clip, list[str]], nn.Module], batch: int, steps: int) -> float:
    """Milliseconds a step of its loop with its plugin, over the same rows."""
    from avalanche.core import SupervisedPlugin
    from avalanche.training.plugins import ReplayPlugin
    from avalanche.training.storage_policy import ReservoirSamplingBuffer
    from avalanche.training.supervised import Naive

    clock = Clock()

    class Ticks(SupervisedPlugin):  # type: ignore[misc]
        def before_training_iteration(self, *args: Any, **others: Any) -> None:
            clock.tick()

    mine = copy.deepcopy(clip, {id(clip.tokenizer): clip.tokenizer})
    model = kind(mine, [each.prompts[0] for each in taught[1].vocabulary])
    store = ReservoirSamplingBuffer(500)
    first, second = to_avalanche(Stream("glyphs", taught), clip.transform()).train_stream
    store.update_from_dataset(first.dataset)
    loop = Naive(
        model=model,
        optimizer=torch.optim.AdamW((each for each in model.parameters() if each.requires_grad), lr=1e-5, fused=True),
        criterion=nn.CrossEntropyLoss(),
        train_mb_size=batch,
        train_epochs=1,
        device="cpu",
        evaluator=None,
        plugins=[ReplayPlugin(500, storage_policy=store), Ticks()],
    )
    loop.train_epochs = max(1, -(-steps * batch // max(len(first.dataset), len(second.dataset))))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it calls what it has deprecated
        loop.train(second)
    return clock.median()


def main() -> None:
    """Measure and print."""
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, default in (("classes", 160), ("batch", 16), ("turns", 7), ("steps", 12)):
        asked.add_argument(f"--{name}", type=int, default=default)
    given = asked.parse_args()
    torch.set_num_threads(1)
    clip, taught, batch, steps = load(ModelConfig(name="glyph_base")), sessions(given.classes), given.batch, given.steps
    sides: dict[str, Callable[[], float]] = {
        f"avalanche, image tower and head: {batch} + {batch} images": lambda: avalanche(clip, taught, Head, batch, steps),
        f"avalanche, all names encoded: {batch} + {batch} images": lambda: avalanche(clip, taught, Names, batch, steps),
        f"candidates: lesson, {batch} images": lambda: ours(clip, taught, "lesson", batch, steps),
        f"candidates: batch, {batch} images": lambda: ours(clip, taught, "batch", batch, steps),
        f"candidates: lesson, {2 * batch} images": lambda: ours(clip, taught, "lesson", 2 * batch, steps),
        f"candidates: batch, {2 * batch} images": lambda: ours(clip, taught, "batch", 2 * batch, steps),
    }
    told: dict[str, list[float]] = {name: [] for name in sides}
    for _ in range(given.turns):
        for name, side in sides.items():
            told[name].append(side())
    first = told[next(iter(sides))]
    rows = []
    for name, times in told.items():
        ratios = [mine / theirs for mine, theirs in zip(times, first, strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        rows.append((name, f"{min(times):.0f}", f"{statistics.median(times):.0f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"))
    columns = ["what", "least ms", "median ms", "times the first", "quartiles"]
    Console(file=sys.stdout, width=120).print(table(f"a step at {given.classes} seen classes, {given.turns} turns", columns, rows))


if __name__ == "__main__":
    main()
