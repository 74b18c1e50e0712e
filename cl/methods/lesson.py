"""What a round teaches, and how what it is made of is put together: rows, classes that compete, pairs, and a rank's part of a step."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal, NamedTuple, Protocol

import pyarrow as pa
import torch
from jaxtyping import Bool, Float, Int
from PIL import Image
from torch import Tensor

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.methods.base import Batch, What
from cl.methods.buffer import Exemplars
from cl.models.clip import Clip
from cl.models.tokens import Frame


@dataclass(frozen=True)
class Lesson:
    """What a round teaches: its rows, the classes known by then, and those of them that compete."""

    session: int  # counts from 1
    data: ImageTable
    vocabulary: tuple[ClassName, ...]
    candidates: tuple[int, ...]  # indices into the vocabulary
    own: int | None = None  # how many of the rows, the first ones, are the session's own and no exemplars; None: all
    kept: Exemplars | None = None  # what a memory brought
    by_batch: bool = False  # whether in a step only those of them compete that its batch shows
    groups: Int[Tensor, " rows"] | None = None  # where each row stands in `group_weights`; None: all are one
    group_weights: Mapping[str, float] = field(default_factory=dict)  # of groups of rows, by name: the loss of each is a mean of its own
    features: Float[Tensor, "rows d"] | None = None  # of the images, where they were computed before
    tower: Literal["image", "text"] | None = None  # the one that learns; None: all that is tuned
    silent: frozenset[str] = frozenset()  # kinds of terms that are not asked

    @cached_property
    def names(self) -> tuple[ClassName, ...]:
        """The classes that compete, in order."""
        return tuple(self.vocabulary[index] for index in self.candidates)

    @cached_property
    def places(self) -> Int[Tensor, " vocabulary"]:
        """Where each class of the vocabulary stands among those that compete; -1 where it does not."""
        return placed(self.candidates, len(self.vocabulary))

    def silences(self, term: str) -> bool:
        """Whether a term is not asked, by the name it has in a recipe: its kind, and a number where there are two of a kind."""
        return any(term == kind or (term.startswith(kind) and term[len(kind) :].isdigit()) for kind in self.silent)

    def taught(self) -> ImageTable:
        """The session's own rows."""
        return self.data if self.own is None else self.data.take(range(self.own))

    @cached_property
    def samples(self) -> Int[Tensor, " rows"]:
        """A number for each row, equal where it is the same sample: a memory may give a row more than once."""
        return _numbered(self.data.index["id"])

    @cached_property
    def identities(self) -> Int[Tensor, " rows"]:
        """A number for each row, equal where images show the same one; -1 where that is not told."""
        return _numbered(pa.chunked_array([pa.array(self.data.identities, pa.string())]))


def _numbered(names: pa.ChunkedArray) -> Int[Tensor, " rows"]:
    numbers = names.combine_chunks().dictionary_encode().indices.fill_null(-1)
    return torch.from_numpy(numbers.to_numpy().astype("int64"))


class Reader(Protocol):
    """What makes token ids of words and pixels of images, without any weight."""

    def tokenize(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """Token ids of texts."""

    def trim(self, tokens: Int[Tensor, "n t"]) -> Int[Tensor, "n s"]:
        """The same, without padding that nothing looks at."""

    def frame(self) -> Frame:
        """What stands around words, and which ids are words."""

    def transform(self) -> Callable[[Image.Image], Float[Tensor, "3 h w"]]:
        """Image to pixels, uncropped."""


class Pairs(NamedTuple):
    """Images with the text of each. `same[i, j]`: text j says of image i what its own does (equal words, one class, one sample)."""

    images: Float[Tensor, "n d"]
    texts: Float[Tensor, "n d"]
    same: Bool[Tensor, "n n"]


class Share(NamedTuple):
    """What part of a step this rank has: the whole batch without its pixels, and how many images, captions and others each rank brings."""

    whole: Batch
    images: list[int]
    captions: list[int]
    beside: Mapping[What, list[int]]


def placed(competing: Sequence[int], size: int) -> Int[Tensor, " size"]:
    """Where each of so many classes stands among some of them; -1 where it does not.

    >>> placed([3, 1], 4).tolist()
    [-1, 1, -1, 0]
    """
    places = torch.full((size,), -1)
    places[list(competing)] = torch.arange(len(competing))
    return places


def equal(texts: Int[Tensor, "n t"], others: Int[Tensor, "m s"] | None = None) -> Bool[Tensor, "n m"]:
    """Which texts are the same as which others, or as which of themselves. Padding at the end may differ: a text has its end in it."""
    others = texts if others is None else others
    width = min(texts.shape[1], others.shape[1])
    return (texts[:, None, :width] == others[None, :, :width]).all(-1)


def plain_batch(clip: Clip, table: ImageTable, lesson: Lesson, rows: Iterable[int]) -> Batch:
    """Rows as a batch, uncropped, each with its first caption; `rows` are their positions in the lesson's table."""
    transform, index = clip.transform(), {known.name: place for place, known in enumerate(lesson.vocabulary)}
    texts = [captions[0] if captions else "" for captions in table.captions]
    device = clip.device
    return Batch(
        torch.stack([transform(table.image(row)) for row in range(len(table))]).to(clip.logit_scale),
        torch.tensor([-1 if label is None else index[label] for label in table.labels], device=device),
        clip.tokenize(texts).to(device),
        torch.tensor([bool(text) for text in texts], device=device),
        torch.tensor(list(rows), device=device),
        0,
    )
