"""Rounds on what the model itself says about images without a label: FPL, IFPL and GRIP (arXiv:2306.01669)."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar, Literal

import numpy as np
import torch
from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.config import Count
from cl.data.classes import ClassName
from cl.data.table import ImageTable, concat
from cl.errors import MethodError
from cl.methods.features import encoded
from cl.methods.lesson import Lesson
from cl.methods.prompts import worded
from cl.methods.rounds import picks as picking
from cl.methods.rounds.base import Rounds, RoundsConfig, answering
from cl.methods.rounds.picks import (
    RULES,
    Paradigm,
    Pick,
    Rule,
    Weighting,
    as_rounds,
    as_tensors,
    kept,
    mismatch,
    paradigm_of,
    pseudolabelled,
    schedule,
    table,
    weights,
)
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site
from cl.models.zero_shot import class_features
from cl.seeds import generator
from cl.streams.stream import Session


class PseudolabelsConfig(RoundsConfig):
    """Each round teaches the labelled rows, and the others that the model is surest of for each class (arXiv:2306.01669)."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "unlabelled")

    kind: Literal["pseudolabels"] = "pseudolabels"
    paradigm: Literal["auto", "ssl", "trzsl", "ul"] = Field("auto", description="auto: as each session's labels say")
    strategy: Literal["none", "fpl", "ifpl", "grip"] = Field(
        "grip", description="one round, several, or several on ever more images; none: the labelled rows alone"
    )
    k: Count = Field(16, description="images per class in fpl and ifpl; grip takes ever more")
    iterations: Count = Field(10, le=1000, description="rounds of ifpl and grip")
    selector: Rule = "topk_per_class"
    weighting: Weighting = Field(
        "official_iterative",
        description="balanced, as it was meant: labelled rows weigh more in every round, by which many rounds overfit them; "
        "official_iterative, as in the authors' code: in ifpl and grip the ratio is upside down",
    )
    root: bool = Field(False, description="weigh by the square root of the balanced ratio, as with prompts of both towers")
    hold_out: float = Field(
        0.0, ge=0, lt=1, description="share of labelled rows, and of pseudolabels where k is 10 or more, that does not teach"
    )
    restart: Literal["same_init", "warm", "mixer"] = Field(
        "same_init",
        description="what a round begins with: the session's first weights; the last round's; those, with what mixes prompts drawn anew",
    )
    template: str | None = Field(None, description="of what the first round asks with, such as 'a photo of a {}'; default: the stream's")
    first_texts: Literal["template", "official"] = Field(
        "template", description="what the first round asks with; official: 'a photo of a {}daisy', as the authors' code does"
    )

    def wants(self) -> tuple[str, ...]:
        """Labels or none, unless the strategy leaves rows without out, or the paradigm says which."""
        labels = self.strategy == "none" or self.paradigm in ("ssl", "trzsl")
        return ("labels",) if labels else ("unlabelled",) if self.paradigm == "ul" else self.learns

    def build(self, tuner: Tuner, seed: int) -> "Pseudolabels":
        """The rounds, before any session."""
        return Pseudolabels(self, seed)


@dataclass(frozen=True)
class Pool:
    """A session as pseudolabelling sees it; rows are positions in its table, `columns` the classes a pseudolabel may be."""

    data: ImageTable  # exemplars of earlier sessions last
    labelled: list[int]
    unlabelled: list[int]
    exemplars: list[int]
    columns: tuple[int, ...]
    paradigm: Paradigm
    ks: list[int]
    features: Float[Tensor, "n d"] | None  # of every row, where image features are computed once


class Pseudolabels(Rounds):
    """Each round scores all unlabelled rows anew, the first with the clip under whatever is tuned.

    `picked` tells what every round of the session took: for reports, not for learning.
    """

    version = picking.VERSION

    def __init__(self, config: PseudolabelsConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed, self.bare = config, seed, config.strategy != "none"
        self.picked: list[list[Pick]] = []
        self._turns = 1

    def check(self, session: Session) -> None:
        """A session needs class names, unlabelled rows, and labels where the paradigm wants them."""
        whose = f"session {session.index} ({session.name})"
        if not session.classes:
            raise MethodError(f"{whose}: teaches no class, and pseudolabels need class names: choose them for streams that classify")
        if not self.bare:
            return
        labels = session.data.labels
        if None not in labels:
            labelled = f"all {len(labels)} rows have a label and pseudolabels are for rows without"
            instead = "set strategy (method.strategy, in a recipe method.rounds.strategy) to none"
            raise MethodError(f"{whose}: {labelled}; teach some of them unlabelled, or {instead}")
        if told := mismatch(session, self.config.paradigm):
            raise MethodError(f"{whose}: {told}")

    def count(self) -> int:
        """As the strategy has it."""
        return self._turns

    def lessons(self, first: Lesson, at: Site) -> Iterator[Lesson]:
        """The labelled rows, then the picked ones under the label they were picked for, then exemplars."""
        start = {name: weight.detach().clone() for name, weight in at.tuner.weights().items()}
        pool = self._pool(first, at)
        ks = pool.ks or [0]
        self.picked, self._turns = [], len(ks)
        for turn, k in enumerate(ks):
            picks = self._pick(pool, first, at, k, zero_shot=turn == 0) if pool.ks else []
            if turn:
                self._restart(at, start, turn)
            held_out = self.config.hold_out if k >= 10 else 0.0
            taught = kept(len(picks), held_out, generator(self.seed, "held out", first.session, turn))
            yield self._lesson(pool, first, [picks[row] for row in taught])

    def midway(self) -> dict[str, Tensor]:
        """What each round so far has picked: [n, 3] of row, class and probability, and how many of them are each round's."""
        return as_tensors(self.picked)

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """The rounds' picks as they were."""
        self.picked = as_rounds(tensors)

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """By round and class: images picked, the least sure of them, those that other classes picked too, and the share picked rightly."""
        index = {known.name: place for place, known in enumerate(session.vocabulary)}
        known = [index.get(truth.get(row, ""), -1) for row in session.data.ids]
        return table(self.picked, session.vocabulary, session.classes, known if truth else None)

    def _pool(self, first: Lesson, at: Site) -> Pool:
        config, session = self.config, at.session
        own, labels = len(session.data), session.data.labels
        old = [] if first.own is None else range(first.own, len(first.data))
        data = concat([session.data, first.data.take(old)]) if old else session.data
        unlabelled = [row for row in range(own) if labels[row] is None]
        rows = [row for row in range(own) if labels[row] is not None]
        rows = [rows[row] for row in kept(len(rows), config.hold_out, generator(self.seed, "held out", session.index))]
        taught, paradigm = set(labels), paradigm_of(session)
        unseen = tuple(index for index in session.classes if first.vocabulary[index].name not in taught)
        columns = unseen if paradigm == "trzsl" else first.candidates
        if config.strategy == "none":
            ks = []
        else:
            ks = schedule(config.strategy, len(unlabelled), len(columns), k=config.k, iterations=config.iterations)
        if at.cached:
            with answering(at.tuner):
                at.tuner.know(data)
        return Pool(data, rows, unlabelled, [*range(own, len(data))], columns, paradigm, ks, at.tuner.known if at.cached else None)

    def _pick(self, pool: Pool, first: Lesson, at: Site, k: int, *, zero_shot: bool) -> list[Pick]:
        tuner, classes = at.tuner, [first.vocabulary[index] for index in pool.columns]
        with answering(tuner):
            if pool.features is not None:
                images = pool.features[pool.unlabelled]
            else:
                encode = tuner.clip.encode_image if zero_shot else tuner.image
                images = encoded(encode, tuner.clip, pool.data.take(pool.unlabelled))
            texts = self._first(tuner, classes) if zero_shot else tuner.answers(classes)
            scale = tuner.clip.scale() if zero_shot else tuner.scale()
            # in double precision: many a probability near one would be equal to one, and its rank lost
            probabilities = (scale * images @ texts.T).double().softmax(-1).cpu().numpy()
        picks = RULES[self.config.selector](np.asarray(probabilities), k)
        self.picked.append([Pick(pool.unlabelled[pick.row], pool.columns[pick.label], pick.probability) for pick in picks])
        return self.picked[-1]

    def _first(self, tuner: Tuner, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        template = self.config.template
        asked = classes if template is None else worded(classes, template)
        if self.config.first_texts == "official":
            start = template or "a photo of a {}"
            asked = [ClassName(known.name, (start + worded([known], "{}")[0].prompts[0],)) for known in classes]
        return class_features(tuner.clip.encode_text, tuner.tokens, asked)

    def _restart(self, at: Site, start: Mapping[str, Tensor], turn: int) -> None:
        new = start if self.config.restart == "same_init" else {}
        if self.config.restart == "mixer":
            new = at.tuner.redrawn(at.session.index, turn)
        with torch.no_grad():
            for name, weight in at.tuner.weights().items():
                if name in new:
                    weight.copy_(new[name])

    def _lesson(self, pool: Pool, first: Lesson, picks: list[Pick]) -> Lesson:
        rows = [*pool.labelled, *(pick.row for pick in picks), *pool.exemplars]
        groups = torch.zeros(len(rows), dtype=torch.int64)
        groups[len(pool.labelled) : len(pool.labelled) + len(picks)] = 1
        iterative = self.config.strategy in ("ifpl", "grip")
        counts = len(pool.labelled) + len(pool.exemplars), len(picks)
        labelled, pseudo = weights(*counts, pool.paradigm, multimodal=self.config.root, iterative=iterative, rule=self.config.weighting)
        parts = [pool.data.take(pool.labelled), pseudolabelled(pool.data, picks, first.vocabulary), pool.data.take(pool.exemplars)]
        return replace(
            first,
            data=concat(parts),
            own=None if first.own is None else len(pool.labelled) + len(picks),
            groups=groups,
            group_weights={"labelled": labelled, "pseudo": pseudo},
            features=None if pool.features is None else pool.features[torch.tensor(rows, device=pool.features.device)],
        )
