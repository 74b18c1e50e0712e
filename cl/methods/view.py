"""One step as its terms see it: each tensor is computed once, when it is first asked for, by whichever encoder the view is of."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import cached_property
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.methods import gather
from cl.methods.base import Batch, Beside, What
from cl.methods.lesson import Lesson, Pairs, Reader, Share, equal, placed
from cl.methods.losses import mode
from cl.methods.tuners.base import Tuner
from cl.seeds import generator
from cl.streams.stream import Session

VERSION = 1  # see cl/store/units.py

_LASTING = ("classes", "vocabulary", "scale")  # of a view: the same for every batch
Kind = Literal["session", "original"]  # a teacher: the model as this session found it, or the base model; any other is a model by name


class View:
    """A batch under a lesson, as one encoder sees it.

    What is asked later than the step began is computed as it would have been then: under the same grad mode and autocast. `full` is how
    many rows a whole batch has, which the last of an epoch may not have. A view `after` another, of the same lesson and no step later,
    takes over what does not depend on the batch. With a `chunk`, what has a gradient is encoded so many at a time and a second time on the
    way back: the same numbers, with the activations of one chunk in memory.
    """

    def __init__(
        self,
        batch: Batch,
        lesson: Lesson,
        encoder: Tuner,
        seed: int,
        *,
        full: int = 0,
        teacher: Callable[[str], Tuner] | None = None,
        after: "View | None" = None,
        chunk: int | None = None,
        share: "Share | None" = None,
    ) -> None:
        self.batch, self.lesson, self.seed, self.full = share.whole if share else batch, lesson, seed, full or len(batch.labels)
        self._encoder, self._teacher, self._chunk, self._own, self._share = encoder, teacher, chunk, batch, share
        self._known: dict[Any, Any] = {key: after._known[key] for key in _LASTING if key in after._known} if after else {}
        self._mode = mode(batch.images.device.type)

    @property
    def images(self) -> Float[Tensor, "b d"]:
        """Image features of the batch."""
        return self._once("images", self._images)

    @property
    def captions(self) -> Float[Tensor, "m d"]:
        """Text features of the captioned rows' captions."""
        return self._once("captions", self._captions)

    @cached_property
    def competing(self) -> tuple[int, ...]:
        """The classes that compete in this step, as indices into the vocabulary."""
        return tuple(sorted(set(self.batch.labels[self.labelled].tolist()))) if self.lesson.by_batch else self.lesson.candidates

    @cached_property
    def names(self) -> tuple[ClassName, ...]:
        """The same by name, in order."""
        return tuple(self.lesson.vocabulary[index] for index in self.competing) if self.lesson.by_batch else self.lesson.names

    @property
    def classes(self) -> Float[Tensor, "k d"]:
        """Text features of the classes that compete."""
        return self._once("classes", lambda: self._named(self.names))

    @property
    def vocabulary(self) -> Float[Tensor, "v d"]:
        """Text features of every class known by now."""
        return self._once("vocabulary", lambda: self._named(self.lesson.vocabulary))

    @property
    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with: exp(logit_scale), unless the tuner has a constant of its own."""
        return self._once("scale", self._encoder.scale)

    def text(self, key: str, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Features of other texts, encoded once per key."""
        return self._once(("text", key), lambda: self._chunks(self._encoder.text, tokens))

    def image(self, key: str, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Features of other images, encoded once per key."""
        return self._once(("image", key), lambda: self._chunks(self._encoder.image, pixels))

    def there(self, what: What) -> Bool[Tensor, " b"]:
        """Which rows have such a thing beside them."""
        return self.batch.beside[what].there

    def beside(self, what: What) -> Float[Tensor, "m d"]:
        """Features of what stands beside those rows; at least one of them is `there`."""
        return self._once(("beside", what), lambda: self._beside(what))

    @cached_property
    def labelled(self) -> Bool[Tensor, " b"]:
        """Rows that have a label."""
        return self.batch.labels >= 0

    @property
    def captioned(self) -> Bool[Tensor, " b"]:
        """Rows that have a caption."""
        return self.batch.captioned

    @cached_property
    def labels(self) -> int:
        """How many rows have a label."""
        return int(self.labelled.sum())

    @property
    def some_labelled(self) -> bool:
        """Whether any row has a label."""
        return self.labels > 0

    @property
    def labelled_images(self) -> Float[Tensor, "l d"]:
        """Image features of the labelled rows."""
        return self.images if self.labels == len(self.batch.labels) else self.images[self.labelled]

    @cached_property
    def some_captioned(self) -> bool:
        """Whether any row has a caption."""
        return bool(self.captioned.any())

    @property
    def some_paired(self) -> bool:
        """Whether any row has either: a step that something else asks for may have neither."""
        return self.some_labelled or self.some_captioned

    @cached_property
    def targets(self) -> Int[Tensor, " l"]:
        """Where the label of each labelled row stands among the classes that compete; -1 where it does not."""
        labels = self.batch.labels
        return self.places.to(labels.device)[labels if self.labels == len(labels) else labels[self.labelled]]

    @cached_property
    def places(self) -> Int[Tensor, " vocabulary"]:
        """Where each class of the vocabulary stands among those that compete, -1 where it does not; on the CPU."""
        return placed(self.competing, len(self.lesson.vocabulary)) if self.lesson.by_batch else self.lesson.places

    @cached_property
    def same_captions(self) -> Bool[Tensor, "m m"]:
        """Which captions of the captioned rows are equal, or of one sample."""
        return equal(self.batch.texts[self.captioned]) | self.alike(self.captioned.nonzero()[:, 0])

    @property
    def captioned_pairs(self) -> Pairs:
        """The captioned rows, each with its caption."""
        return Pairs(self.images[self.captioned], self.captions, self.same_captions)

    @cached_property
    def pairs(self) -> Pairs:
        """The batch as one: labelled rows with the prompt of their class first, then captioned ones with their caption; `some_paired`."""
        images, texts = ([self.labelled_images], [self.classes[self.targets]]) if self.some_labelled else ([], [])
        if self.some_captioned:
            images.append(self.images[self.captioned])
            texts.append(self.captions)
        return Pairs(torch.cat(images), torch.cat(texts), self.same_pairs)

    @cached_property
    def same_pairs(self) -> Bool[Tensor, "n n"]:
        """What is the same among `pairs`."""
        labelled, captioned = self.labelled.nonzero()[:, 0], self.captioned.nonzero()[:, 0]
        rows = torch.cat([labelled, captioned])
        same, labels = self.alike(rows), self.batch.labels[rows]
        same |= (labels[:, None] == labels[None]) & (labels >= 0)
        if len(captioned):
            same[len(labelled) :, len(labelled) :] |= self.same_captions
        if len(labelled) and len(captioned):
            prompts = self._encoder.tokens([each.prompts[0] for each in self.names])[self.targets]
            same[: len(labelled), len(labelled) :] |= (crossed := equal(prompts, self.batch.texts[captioned]))
            same[len(labelled) :, : len(labelled)] |= crossed.T
        return same

    def alike(self, rows: Int[Tensor, " n"]) -> Bool[Tensor, "n n"]:
        """Which rows are of one sample."""
        samples = self.lesson.samples.to(rows.device)[self.batch.rows[rows]]
        return samples[:, None] == samples[None]

    @property
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What moves, by name."""
        return self._encoder.weights()

    @property
    def reader(self) -> Reader:
        """What reads texts and images."""
        return self._encoder.clip

    def draw(self, what: str, *counter: int) -> torch.Generator:
        """A source of random numbers of this step, which no other use shares."""
        return generator(self.seed, what, self.lesson.session, self.batch.step, *counter)

    def through(self, kind: str) -> "View":
        """The same step as a frozen teacher sees it; no gradient reaches it."""
        return self._once(("teacher", kind), lambda: self._taught(kind))

    def _taught(self, kind: str) -> "View":
        assert self._teacher is not None, "a term asks for a teacher that it did not say it needs"
        with torch.no_grad():
            return View(self._own, self.lesson, self._teacher(kind), self.seed, full=self.full, share=self._share)

    def gathered(self) -> "View":
        """The same step over the rows of all ranks, in the order of one rank that has them all; alone it is this view.

        Images and captions are encoded where they lie. What is not of the batch is computed alike on every rank.
        """
        if not gather.together():
            return self
        own, device = self._own, self._own.labels.device
        sizes = gather.counts(int((own.rows >= 0).sum()), device)
        real = own.rows >= 0
        labels, captioned, places = (gather.rows(each[real, None].long(), sizes)[:, 0] for each in (own.labels, own.captioned, own.rows))
        texts = gather.rows(own.texts[real], sizes, self.reader.frame().pad)  # so filled up equal ones are equal
        brought = {what: gather.counts(len(each.values), device) for what, each in own.beside.items()}
        beside = {what: self._together(each, sizes, brought[what]) for what, each in own.beside.items()}
        whole = Batch(own.images, labels, texts, captioned.bool(), places, own.step, beside)
        share = Share(whole, sizes, gather.counts(int(own.captioned[real].sum()), device), brought)
        return View(own, self.lesson, self._encoder, self.seed, full=self.full, teacher=self._teacher, chunk=self._chunk, share=share)

    def _together(self, beside: Beside, sizes: list[int], brought: list[int]) -> Beside:
        """What stands beside rows of all ranks; images stay where they lie."""
        there = gather.rows(beside.there[self._own.rows >= 0, None].long(), sizes)[:, 0].bool()
        image = beside.values.is_floating_point()
        return Beside(beside.values if image else gather.rows(beside.values, brought, self.reader.frame().pad), there)

    def _images(self) -> Float[Tensor, "b d"]:
        known = self._encoder.known
        if known is not None and not self._own.images.numel():  # rows come without pixels where their features were computed before
            return known[self.batch.rows]
        return self._encoded(self._encoder.image, self._own.images)

    def _captions(self) -> Float[Tensor, "m d"]:
        tokens = self._own.texts[self._own.captioned]
        if self._share is None:
            return self._chunks(self._encoder.text, tokens)
        features = self._chunks(self._encoder.text, tokens if len(tokens) else self._own.texts[:1])
        return gather.features(features, self._share.captions)

    def _beside(self, what: What) -> Float[Tensor, "m d"]:
        values = self._own.beside[what].values
        image = values.is_floating_point()
        encode, stand_in = (self._encoder.image, self._own.images[:1]) if image else (self._encoder.text, self._own.texts[:1])
        if self._share is None:
            return self._chunks(encode, values)
        return gather.features(self._chunks(encode, values if len(values) else stand_in), self._share.beside[what])

    def _encoded(self, encode: Callable[..., Tensor], *own: Tensor) -> Tensor:
        features = self._chunks(encode, *own)
        return features if self._share is None else gather.features(features, self._share.images)

    def _named(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        if not self._apart(len(names)):
            return self._encoder.classes(names)
        parts = [names[start : start + self._chunk] for start in range(0, len(names), self._chunk)]  # type: ignore[operator, arg-type]
        return torch.cat([checkpoint(self._encoder.classes, part, use_reentrant=False) for part in parts])

    def _chunks(self, encode: Callable[..., Tensor], *whole: Tensor) -> Tensor:
        if not self._apart(len(whole[0])):
            return encode(*whole)
        parts = zip(*(each.split(self._chunk) for each in whole), strict=True)  # type: ignore[no-untyped-call]
        return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])

    def _apart(self, size: int) -> bool:
        return bool(self._chunk) and size > (self._chunk or 0) and torch.is_grad_enabled()

    def _once(self, key: Any, make: Callable[[], Any]) -> Any:
        if key not in self._known:
            gradient, device, dtype, cast = self._mode
            if mode(device) == self._mode:
                return self._known.setdefault(key, make())
            with torch.set_grad_enabled(gradient), torch.autocast(device, dtype, enabled=cast):
                self._known[key] = make()
        return self._known[key]


class Site(NamedTuple):
    """What a part gets to know where a session begins and ends."""

    tuner: Tuner
    session: Session
    lesson: Lesson
    seed: int
    teacher: Callable[[str], Tuner]
    views: Callable[[ImageTable, int], Iterable[View]]  # rows in order, so many at a time, uncropped
    cached: bool = False  # whether image features are computed once
    visits: float = 0.0  # how often a row comes up in the lesson with the same pixels; 0: not known
