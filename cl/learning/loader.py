"""A session's rows in a fixed order: what a step sees follows from (seed, session, step) alone."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from cl.config import Augment
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.learning.beside import makers
from cl.methods.base import Batch, Beside, What
from cl.models.clip import Clip
from cl.seeds import derive, generator

VERSION = 1  # see cl/store/units.py

_DECODED_BYTES = 1 << 30  # rows are decoded once as long as this holds them all


class Item(NamedTuple):
    """One row made ready: pixels, vocabulary index or -1, one caption or "", and the step it is for."""

    image: Tensor
    label: int
    text: str
    row: int
    step: int
    beside: tuple[Tensor | str | None, ...] = ()


class Rows(Dataset[Item]):
    """Decoded rows of a session. An item is addressed by (row, epoch, step); row and epoch decide its crop and its caption."""

    def __init__(
        self,
        data: ImageTable,
        clip: Clip,
        vocabulary: Sequence[ClassName],
        *,
        augment: Augment = False,
        pixels: bool = True,
        seed: int = 0,
        original: float | None = None,
        beside: Sequence[What] = (),
    ) -> None:
        self.data, self.vocabulary, self.seed, self.augment, self.pixels = data, vocabulary, seed, augment, pixels
        index = {known.name: position for position, known in enumerate(vocabulary)}
        self.labels = [index[label] if label is not None else -1 for label in data.labels]
        self.captions, self.rewrites, self.original = data.captions, data.rewrites, original
        self.transform, self.crop = clip.transform(augment), clip.transform(augment or True)
        self._decoded: dict[int, Tensor] = {}
        self._makers = makers(self, beside)

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, address: tuple[int, int, int]) -> Item:
        row, epoch, step = address
        if row < 0:  # stands in where a rank has no row of a step
            return self[(~row, epoch, step)]._replace(row=-1)
        text = self._text(row, epoch)
        beside = tuple(make(row, epoch, text) for make in self._makers)
        return Item(self.pixels_of(row, epoch), self.labels[row], text, row, step, beside)

    def _text(self, row: int, epoch: int) -> str:
        """One of a row's captions; those in other words are captions like any, or have a share of their own."""
        texts, others = self.captions[row], [text for text in self.rewrites[row] if len(text.split()) > 1]
        if not texts:
            return ""
        if self.original is None or not others:
            texts = texts + others
        elif derive(self.seed, "original", row, epoch) >= self.original * 2**63:
            texts = others
        return texts[derive(self.seed, "caption", row, epoch) % len(texts)]

    def cropped(self, row: int, epoch: int) -> Tensor:
        """A random crop of a row's image beside the one that the epoch shows."""
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "second crop", row, epoch))
            return self.crop(self.data.image(row))

    def pixels_of(self, row: int, epoch: int) -> Tensor:
        """The image of a row as an epoch shows it; nothing where features were computed before."""
        if not self.pixels:
            return torch.empty(0)
        if self.augment:
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(derive(self.seed, "crop", row, epoch))
                return self.transform(self.data.image(row))
        if row in self._decoded:
            return self._decoded[row]
        image = self.transform(self.data.image(row))
        if (len(self._decoded) + 1) * image.nbytes <= _DECODED_BYTES:
            self._decoded[row] = image
        return image


class Collate:
    """Items to a Batch: images stacked, in the model's dtype; captions tokenized together and cut to the longest."""

    def __init__(
        self, tokenize: Callable[[Sequence[str]], Tensor], dtype: torch.dtype = torch.float32, beside: Sequence[What] = ()
    ) -> None:
        self.tokenize, self.dtype, self.beside = tokenize, dtype, beside

    def __call__(self, items: Sequence[Item]) -> Batch:
        """One batch of the given items."""
        return Batch(
            torch.stack([item.image for item in items]).to(self.dtype),
            torch.tensor([item.label for item in items]),
            self.tokenize([item.text for item in items]),
            torch.tensor([bool(item.text) for item in items]),
            torch.tensor([item.row for item in items]),
            items[0].step,
            {what: self._beside(what, items, place) for place, what in enumerate(self.beside)},
        )

    def _beside(self, what: What, items: Sequence[Item], place: int) -> Beside:
        cells = [item.beside[place] if item.row >= 0 else None for item in items]
        there = torch.tensor([cell is not None for cell in cells])
        if what.startswith("partner"):
            images = [cell for cell in cells if isinstance(cell, Tensor)]
            return Beside(torch.stack(images or [items[0].image])[: len(images)].to(self.dtype), there)
        texts = [cell for cell in cells if isinstance(cell, str)]
        return Beside(self.tokenize(texts or [""])[: len(texts)], there)


class Order(Sampler[list[tuple[int, int, int]]]):
    """The batches of a session from a step on: a new permutation each epoch, fixed by the seed alone; of each batch a rank's own part."""

    def __init__(
        self, rows: int, batch: int, steps: int, seed: int, start: int = 0, *, drop_last: bool = True, rank: int = 0, ranks: int = 1
    ) -> None:
        self.rank, self.ranks = rank, ranks
        self.rows, self.batch, self.steps, self.seed, self.start = rows, min(batch, rows), steps, seed, start
        self.per_epoch = batches(rows, batch, drop_last)

    def __len__(self) -> int:
        return self.steps - self.start

    def __iter__(self) -> Iterator[list[tuple[int, int, int]]]:
        last, order = -1, torch.empty(0, dtype=torch.int64)
        for step in range(self.start, self.steps):
            epoch, place = divmod(step, self.per_epoch)
            if epoch != last:
                last, order = epoch, torch.randperm(self.rows, generator=generator(self.seed, "order", epoch))
            yield [(row, epoch, step) for row in self._own(order[place * self.batch : (place + 1) * self.batch].tolist())]

    def _own(self, rows: list[int]) -> list[int]:
        first, last = (len(rows) * place // self.ranks for place in (self.rank, self.rank + 1))
        return rows[first:last] or [~rows[0]]


def batches(rows: int, batch: int, drop_last: bool) -> int:
    """How many batches an epoch has; fewer rows than a batch are one.

    >>> batches(130, 64, True), batches(130, 64, False), batches(5, 64, True)
    (2, 3, 1)
    """
    return max(1, rows // batch) if drop_last else -(-rows // batch)


def samples(rows: int, batch: int, count: int, drop_last: bool) -> int:
    """How many rows the first `count` batches of a session hold.

    >>> samples(130, 64, 4, True), samples(130, 64, 4, False)
    (256, 194)
    """
    epochs, over = divmod(count, batches(rows, batch, drop_last))
    whole = min(batch, rows)
    return epochs * (rows if not drop_last else batches(rows, batch, True) * whole) + over * whole
