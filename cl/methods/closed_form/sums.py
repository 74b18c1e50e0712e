"""Heads of sums: what sessions add up to is what all of their rows at once would be, in any order, and rows can be taken out again."""

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field
from torch import Tensor

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import MethodConfig
from cl.methods.closed_form.derived import Derived
from cl.methods.closed_form.gate import DISTANCES, NONE, SHRINKAGE, NoneConfig, meet, nearest, text_score, threshold
from cl.methods.closed_form.growing import Notes
from cl.methods.closed_form.judging import Judged, Judging, Looked, by_texts
from cl.methods.closed_form.moments import Metric, Moments, distances, left_out
from cl.methods.closed_form.taught import Taught, named
from cl.methods.persist import memory
from cl.methods.rows import labelled, teaching
from cl.models.clip import Clip
from cl.models.unprojected import width as unprojected
from cl.streams.stream import Session

BLOCK = 1024  # rows at a time: wide random features, or distances to thousands of means, of all rows at once may not fit


class SumsConfig(MethodConfig):
    """Settings of a head of sums, which learns from labels alone."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    mixed: Literal["gate", "zero_shot"] = Field(
        "gate",
        description="where taught and untaught classes compete, whether an image shows a taught one: its distance says, or zero-shot",
    )
    none: NoneConfig = Field(NoneConfig(), description=NONE)
    features: Literal["projected", "unprojected"] = Field(
        "projected", description="what sums are of: features as texts are compared with, or the wider ones before the tower's projection"
    )


class Columns(NamedTuple):
    """What `class_features` holds of each class, taken apart."""

    text: Float[Tensor, "k p"]
    own: Float[Tensor, "k w"]
    turned: Float[Tensor, "k d"]  # mean times the inverse covariance
    length: Float[Tensor, " k"]  # times the mean
    taught: Bool[Tensor, " k"]
    least: float


class Sums(Judging):
    """Keeps count and sum of each class's features and their second moment; a subclass says what more, and how classes are scored.

    Of each row that was not its class's only one it notes, once its session is added, how familiar it was with itself left out:
    what is less familiar than all but a few of those shows no class that was taught. Notes are as of the session that made them.
    """

    version = 2
    younger: ClassVar[tuple[str, ...]] = ("notes", "kept")
    moments: Moments

    def __init__(self, clip: Clip, seed: int, config: SumsConfig) -> None:
        super().__init__(clip, seed, config.none)
        self.mixed, self.unprojected = config.mixed, config.features == "unprojected"
        self.width = unprojected(clip) if self.unprojected else int(clip.model_cfg["embed_dim"])
        self.bound |= {"features": config.features} if self.unprojected else {}
        self.notes = Notes()
        self.derived = Derived()

    def bounds(self) -> dict[str, dict[str, str | int]]:
        """As every method's, and each of what younger states hold beside, so that a state without it is gone on with."""
        beside = {part: {"kind": type(self).__name__, **self.bound, **self.meaning()} for part in self.younger if hasattr(self, part)}
        return super().bounds() | beside

    def meaning(self) -> dict[str, str | int]:
        """What notes mean nothing without."""
        return {"score": self.none.score}

    @abstractmethod
    def head(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k w"], Bool[Tensor, " k"]]:
        """What scores each class, and which of them were taught."""

    @abstractmethod
    def score(self, looked: Looked, zero_shot: Float[Tensor, "b k"], own: Float[Tensor, "k w"]) -> Float[Tensor, "b k"]:
        """The logits of taught classes."""

    def check(self, session: Session) -> None:
        """A session needs at least one labelled row."""
        labelled(session)

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows."""
        super().begin(session)
        return teaching(session, "labelled")

    def end(self, session: Session) -> None:
        """Add the session's labelled rows to what is kept, then note how familiar each is."""
        self.teach(self.read(teaching(session, "labelled")), session.vocabulary)

    def teach(self, taught: Taught, vocabulary: Sequence[ClassName]) -> None:
        """The same of rows that were read."""
        self.add(taught)
        self.remember(taught)
        self.note(taught, vocabulary)

    def add(self, taught: Taught) -> None:
        """Add rows."""
        for block in taught.blocks(BLOCK):
            self.change(block, 1)

    def subtract(self, taught: Taught) -> None:
        """Take rows out that were added; a class of which nothing is left is one never taught.

        What was noted since the first of them goes too, since they took part in it (`cl.store.subtract.renote` notes it again). Features
        of others that were kept stay.

        Raises:
            MethodError: they cannot have been among the rows that were added; nothing has changed.
        """
        before = {name: tensor.clone() for name, tensor in memory(self).items()}
        try:
            for block in taught.blocks(BLOCK):
                self.change(block, -1)
            if wrong := self.wrong():
                raise MethodError(f"{type(self).__name__}: these rows were not learned as they are now: {wrong}; nothing was taken out")
        except MethodError:
            self.load_state_dict(before, strict=False)
            raise
        self.notes.keep_until(torch.isin(self.notes.prints, taught.prints))
        if self.none.score not in DISTANCES:
            self.kept.drop(taught.prints)

    def wrong(self) -> str | None:
        """What tells that rows were taken out which never were in the sums."""
        return self.moments.sound()

    def change(self, taught: Taught, sign: int) -> None:
        """Add some rows, or take them out."""
        self.moments.add(taught.names, taught.wide, sign)

    def note(self, taught: Taught, vocabulary: Sequence[ClassName]) -> None:
        """Keep how familiar each of the rows is with itself left out; of those that are the only ones of their class, only that they were.

        Rows stand in the order in which they were noted: whatever stands behind a row was found while that row was in the sums.
        """
        places = {name: place for place, name in enumerate(self.moments.sums.names)}
        text = self.compared(vocabulary)
        if not text and self.none.score not in DISTANCES:
            return
        for block in taught.blocks(BLOCK):
            counts = self.moments.means(block.names)[1]
            rows = block.take((counts > 1).nonzero()[:, 0].tolist())
            own = torch.tensor([places[name] for name in rows.names], dtype=torch.int64, device=block.wide.device)
            familiar, right = torch.full_like(counts, torch.inf), torch.zeros_like(counts, dtype=torch.int64)
            if len(own):
                familiar[counts > 1] = self.left_out(rows, own) if self.none.score in DISTANCES else torch.inf
                right[counts > 1] = self.right(rows, text).to(right)
            classes = torch.tensor([named(name) for name in block.names], dtype=torch.int64)
            self.notes.append({"prints": block.prints, "classes": classes, "familiar": familiar, "right": right})

    def left_out(self, block: Taught, own: Tensor) -> Float[Tensor, " n"]:
        """How familiar rows are with themselves left out; `own`: the place of each row's class."""
        means, counts, _ = self.moments.means(self.moments.sums.names)
        squares = left_out(block.wide, own, means, counts, self.metric()).amin(1)
        if self.none.score == "relative":
            mean, metric = self.whole()
            count = counts.new_full((1,), self.moments.count)
            squares = squares - left_out(block.wide, torch.zeros_like(own), mean[None], count, metric)[:, 0]
        return -squares

    def compared(self, vocabulary: Sequence[ClassName]) -> dict[str, Tensor]:
        """The text features of taught classes by name, where a subclass compares with them what it would answer with a row left out."""
        return {}

    def right(self, rows: Taught, text: Mapping[str, Tensor]) -> Int[Tensor, " n"]:
        """Bits about each row with itself left out, by which a subclass chooses its settings."""
        return torch.zeros(len(rows.names), dtype=torch.int64)

    def metric(self) -> Metric:
        """By which distances to class means are measured."""
        return self.derived.of(self._sums(), "metric", lambda: self.moments.within(SHRINKAGE))

    def whole(self) -> tuple[Tensor, Metric]:
        """The mean of all rows, and by what distances to it are measured."""
        return self.derived.of(self._sums(), "whole", lambda: self.moments.whole(SHRINKAGE))

    def _sums(self) -> list[Tensor]:
        return [self.moments.second, self.moments.sums.rows]

    def least(self, classes: Sequence[ClassName], text: Float[Tensor, "k p"]) -> float:
        """How familiar an image has to be to show one of the classes; NaN where nothing tells it."""
        if self.none.score not in DISTANCES:
            return super().least(classes, text)
        return threshold(self.notes.familiar[self.notes.familiar.isfinite()], self.none.reject)

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k m"]:
        """Per class what `Columns` lists, the last of it the same for all of them."""
        text = self.texts(classes)
        own, taught = self.head(classes)
        means, _, known = self.moments.means([each.name for each in classes])
        turned = means @ self.metric().inverse if bool(known.any()) else torch.zeros_like(means)
        least = text.new_full((len(text),), self.least(classes, text))
        last = torch.stack([(turned * means).sum(1), taught.double(), least], 1)
        return torch.cat([text, own, turned, last], 1)

    def judge(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Judged:
        """Logits of taught and untaught classes in one ranking, and which images are familiar."""
        return self.ranked(self.look(images), features)

    def ranked(self, looked: Looked, features: Float[Tensor, "k m"]) -> Judged:
        """The same of features of images."""
        columns = self._columns(features)
        cosines = looked.unit @ columns.text.T
        zero_shot = self.clip.scale() * cosines
        known = None
        if not math.isnan(columns.least):
            by_text = self.none.score not in DISTANCES
            familiar = text_score(cosines, self.none.score, self.none.tau) if by_text else self._near(looked.wide, columns, self.none.score)
            known = familiar >= columns.least
        own = self.score(looked, zero_shot, columns.own)
        return Judged(meet(own, zero_shot, columns.taught, known if self.mixed == "gate" else None), known)

    def familiarities(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> dict[str, Float[Tensor, " b"]]:
        """How familiar images are by every score there is."""
        columns, looked = self._columns(features), self.look(images)
        told = by_texts(looked.unit @ columns.text.T)
        return told | {score: self._near(looked.wide, columns, score) for score in DISTANCES if bool(columns.taught.any())}

    def _near(self, x: Float[Tensor, "b d"], columns: Columns, score: str) -> Float[Tensor, " b"]:
        """How near images are to the nearest mean of a taught class."""
        squares = ((x @ self.metric().inverse) * x).sum(1) + nearest(columns.length - 2 * x @ columns.turned.T, columns.taught)
        if score == "relative":
            mean, metric = self.whole()
            squares = squares - distances(x, mean[None], metric.inverse)[:, 0]
        return -squares

    def _columns(self, features: Float[Tensor, "k m"]) -> Columns:
        width, wide = int(self.clip.model_cfg["embed_dim"]), len(self.moments.second)
        sizes = [width, features.shape[1] - width - wide - 3, wide, 1, 1, 1]
        text, own, turned, length, taught, least = torch.split(features, sizes, 1)
        return Columns(text, own, turned, length[:, 0], taught[:, 0] > 0, float(least[0, 0]))

    def untaught(self, classes: Sequence[ClassName]) -> list[str]:
        """The names that nothing is known of by which an image could be told to show none of the classes."""
        if self.none.score not in DISTANCES:
            return super().untaught(classes)
        known = set(self.moments.sums.names)
        return [each.name for each in classes if each.name not in known]
