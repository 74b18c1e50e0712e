"""What a step of each method takes beside the least that it can take: the table of methods of `make bench`, and its verdict."""

import copy
import statistics
import time
from collections.abc import Callable, Iterable
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.data.glyphs import build
from cl.data.table import ImageTable
from cl.learning.learner import Learned, learn
from cl.methods import CONFIGS
from cl.methods.base import Batch, Method
from cl.methods.features import encoded
from cl.methods.presets.finetune import FinetuneConfig
from cl.models.clip import Clip
from cl.run_config import parse_method
from cl.streams.stream import EvalSet, Session

LIMIT, TURNS, STEPS, QUICK = 1.1, 3, 6, 40  # steps of a round, and where they take a few milliseconds
# what costs much between sessions and no step anything
BETWEEN: dict[str, dict[str, Any]] = {"ewc": {"samples": 8}, "pseudolabel": {"iterations": 2}}
Build = Callable[[Clip], Method]

# beside the presets, parts that cost a step something and are in none of them
PARTS: dict[str, dict[str, Any]] = {
    "lora": {"tune": "lora"},
    "cloob": {"terms": [{"kind": "cloob", "labels": "pairs"}]},
    "clip + proto_triplet": {"terms": ["clip", "proto_triplet"]},
    "clip + l2 / class_balanced": {"terms": ["clip", "l2"], "memory": "class_balanced"},
    "clip + regress": {"terms": ["clip", "regress"]},
    "clip + anchor": {"terms": ["clip", "anchor"]},
    "clip + counterfactual": {"terms": ["clip", {"kind": "counterfactual", "wrong": "words"}]},
}


class Written(Method):
    """Cross-entropy over stored features with a row of weights for a class, or for a key that votes for one, and nothing else.

    As many texts as images take part where `texts` is set. Without any, and without features, a step of it is what every step pays.
    """

    pixels = False

    def __init__(self, clip: Clip, kind: str) -> None:
        super().__init__(clip, 0)
        self.kind = kind
        nn.Module.requires_grad_(clip, False)
        self.rows = nn.Parameter(torch.zeros(1, 1))

    def trainable(self) -> Iterable[nn.Parameter]:
        """The rows."""
        return (self.rows,)

    def check(self, session: Session) -> None:
        """Any session."""

    def begin(self, session: Session) -> ImageTable:
        """Encode what the steps are over."""
        self.vocabulary = session.vocabulary
        if self.kind != "nothing":
            with torch.no_grad():
                self.images = encoded(self.clip.encode_image, self.clip, session.data)
                self.texts = self.clip.encode_text(self.clip.tokenize([each.prompts[0] for each in session.vocabulary]))
            index = {each.name: place for place, each in enumerate(session.vocabulary)}
            self.owners = torch.tensor([index[label] for label in session.data.labels if label is not None])
            self.rows = nn.Parameter((self.images if self.kind == "keys" else self.texts).clone())
        return session.data

    def losses(self, batch: Batch) -> dict[str, Tensor]:
        """One sum."""
        if self.kind == "nothing":
            return {"loss": self.rows.square().sum()}
        images = self.images[batch.rows]
        if self.kind == "keys":
            votes = torch.exp(-5.5 * (1 - images @ self.rows.T))
            cache = votes.new_zeros(len(images), len(self.texts)).index_add(1, self.owners, votes)
            return {"loss": F.cross_entropy(100 * images @ self.texts.T + cache, batch.labels)}
        loss = F.cross_entropy(100 * images @ self.rows.T, batch.labels)
        if self.kind == "images":
            return {"loss": loss}
        drawn = torch.randperm(len(self.texts))[: len(images)]
        return {"loss": (loss + F.cross_entropy(100 * self.texts[drawn] @ self.rows.T, drawn)) / 2}

    def end(self, session: Session) -> None:
        """Nothing."""


# methods over stored features: floating point operations are no measure of their steps, the same loss written out is
WRITTEN = {"linear_probe": "images", "real_linear": "images and texts", "tip_adapter_f": "keys"}
# methods with a term over all weights, elementwise: no floating point operation of it is counted, the same pull written out is
PULLED = {"ewc"}


class Clock:
    """Processor time of each step but the first of a round, in which operations are counted."""

    def __init__(self) -> None:
        self.took: dict[int, list[float]] = {}
        self.last: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """A step is over."""
        now = time.process_time()
        if self.last and self.last[0] == turn:
            self.took.setdefault(turn, []).append(now - self.last[1])
        self.last = turn, now

    def step(self) -> float:
        """Seconds of a step: the mean over rounds of their lower quartiles, for what else runs on the machine only adds."""
        return statistics.mean(statistics.quantiles(each, n=4)[0] for each in self.took.values())


class Row(NamedTuple):
    """A method's step over fine-tuning's, the least that it can be, and it over that: lower quartile, median, upper quartile."""

    name: str
    step: float
    plain: float
    beyond: tuple[float, float, float]


def session(number: int, domain: str, teaches: str) -> Session:
    """A script in one font, with labels, with captions in place of them, or with neither but the names of its classes."""
    rows = build(["DejaVuSans"])["train"]
    before = rows.where([each == "greek" for each in rows.domains]).classes() if number > 1 else []
    rows = rows.where([each == domain for each in rows.domains])
    vocabulary = tuple(ClassName(name, (name,)) for name in dict.fromkeys([*before, *rows.classes()]))
    exam = EvalSet(domain, "classify", rows.take(range(8)), vocabulary)
    if teaches == "captions":
        return Session(number, domain, rows.without("label"), (exam,), (), ())
    mine = {*rows.classes()}
    places = tuple(place for place, each in enumerate(vocabulary) if each.name in mine)
    for column in ("captions", "label") if teaches == "unlabelled" else ("captions",):
        rows = rows.without(column)
    return Session(number, domain, rows, (exam,), places, vocabulary)


def measured(name: str, clip: Clip) -> Row:
    """A method's second session beside fine-tuning's, in turns."""
    settings = {"name": "recipe", **PARTS[name]} if name in PARTS else {"name": name, **BETWEEN.get(name, {})}
    method = parse_method(settings, "bench")
    teaches = next(kind for kind in ("unlabelled", "labels", "captions") if kind in method.wants())
    work = session(2, "cyrillic", teaches)
    mine = learned(session(1, "greek", teaches), lambda each: method.build(each, 0), clip)
    plainly = partial(FinetuneConfig().build, seed=0)
    fine = work if teaches != "unlabelled" else session(2, "cyrillic", "labels")
    share = 0.0 if name in WRITTEN else flops(mine, work) / flops(plainly(own(clip)), fine)
    ratios, plains, beyond = [], [], []
    for _ in range(TURNS * 3 if name in WRITTEN else TURNS):
        step, whole = paced(mine, work, QUICK if name in WRITTEN else STEPS), paced(plainly(own(clip)), fine)
        if name in WRITTEN:
            least = paced(Written(own(clip), WRITTEN[name]), work, QUICK)
        else:
            nothing = paced(Written(own(clip), "nothing"), work, QUICK)
            least = nothing + share * (whole - nothing) + (pull(clip) if name in PULLED else 0)
        ratios.append(step / whole), plains.append(least / whole), beyond.append(step / least)
    low, middle, high = statistics.quantiles(beyond, n=4)
    return Row(name, statistics.median(ratios), statistics.median(plains), (low, middle, high))


def own(clip: Clip) -> Clip:
    """A copy that may be changed."""
    return copy.deepcopy(clip, {id(clip.tokenizer): clip.tokenizer})


def learned(first: Session, method: Build, clip: Clip) -> Method:
    """A method after a step of a first session."""
    made = method(own(clip))
    _learn(made, first, 1)
    return made


def _learn(method: Method, work: Session, steps: int, clock: Clock | None = None) -> Learned:
    return learn(method, work, TrainConfig(max_steps=steps, batch_size=32, lr=1e-5, device="cpu"), 0, progress=clock)


def _again(method: Method) -> Method:
    return copy.deepcopy(method, {id(method.clip.tokenizer): method.clip.tokenizer})


def paced(method: Method, work: Session, steps: int = STEPS) -> float:
    """Seconds of a step of a copy of it."""
    clock = Clock()
    _learn(_again(method), work, steps, clock)
    return clock.step()


def pull(clip: Clip) -> float:
    """Seconds of a sum over all weights of importance times squared distance, and of its way back into gradients that are there."""
    weights = [nn.Parameter(each.detach().clone()) for each in clip.parameters()]
    anchors, importances = ([torch.rand_like(each) for each in weights] for _ in range(2))
    for each in weights:
        each.grad = torch.zeros_like(each)
    took = []
    for _ in range(STEPS):
        started = time.process_time()
        torch.stack(
            [(one * (now - then) ** 2).sum() for now, then, one in zip(weights, anchors, importances, strict=True)]
        ).sum().backward()
        took.append(time.process_time() - started)
    return statistics.quantiles(took, n=4)[0]


def flops(method: Method, work: Session) -> float:
    """Floating point operations of a step, the mean over its rounds."""
    once, twice = (_learn(_again(method), work, steps) for steps in (1, 2))
    return (twice.flops - once.flops) / (twice.steps - once.steps)


def stepping(clip: Clip) -> list[str]:
    """The presets that descend, and the parts beside them."""
    return [name for name in CONFIGS if name not in ("recipe", "finetune") and takes_steps(name, clip)] + list(PARTS)


def takes_steps(name: str, clip: Clip) -> bool:
    """Whether a method has weights that descend."""
    return bool([*parse_method({"name": name}, "bench").build(own(clip), 0).trainable()])


def verdict(rows: Iterable[Row]) -> str:
    """Which methods take more than they must.

    >>> verdict([Row("a", 1.3, 1.2, (1.0, 1.08, 1.1)), Row("b", 1.5, 1.2, (1.2, 1.25, 1.3))])
    'above 1.1 x its plain cost: b (1.25)'
    >>> verdict([])
    'none is above 1.1 x its plain cost'
    """
    above = [f"{row.name} ({row.beyond[1]:.2f})" for row in rows if row.beyond[1] > LIMIT]
    return f"above {LIMIT} x its plain cost: {', '.join(above)}" if above else f"none is above {LIMIT} x its plain cost"


def told(row: Row) -> tuple[str, ...]:
    """A row of the printed table."""
    low, middle, high = row.beyond
    return row.name, f"{row.step:.2f}", f"{row.plain:.2f}", f"{middle:.2f}", f"{low:.2f} to {high:.2f}"
