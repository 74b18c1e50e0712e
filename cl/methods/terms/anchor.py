"""Queries held to what an earlier model finds for them: their similarities to vectors that it made of earlier sessions."""

from typing import Annotated, Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, UInt8
from pydantic import BeforeValidator, Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor

from cl.config import Count
from cl.data.table import ImageTable, fingerprint
from cl.explain import told
from cl.methods.losses import distillation, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.earlier import CHUNK, EARLIER, Taught
from cl.methods.terms.vocabulary import refuse_texts, replayed
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.streams.stream import Session


def _lasting(given: Any) -> Any:
    if given == "session":
        raise told("vectors of several sessions are compared, so one model has to make them all: give original, or a model by its name")
    return given


class AnchorConfig(TermConfig):
    """Similarities of images and texts to an earlier model's vectors of earlier sessions, held where that model has them."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")

    kind: Literal["anchor"] = "anchor"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    teacher: Annotated[str, BeforeValidator(_lasting)] = Field("original", description=EARLIER)
    rows: Count = Field(500, le=500_000, description="images of earlier sessions whose vector is kept, and that of their text; no image is")
    texts: NonNegativeInt = Field(100, le=100_000, description="random texts per step that are held too")
    length: int = Field(10, ge=3, le=10_000, description="tokens per random text, start and end included")

    def build(self, tuner: Tuner, seed: int) -> "Anchor":
        """The term, with no vector yet."""
        return Anchor(self, int(tuner.clip.model_cfg["embed_dim"]))

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Anchor(Term):
    """The mean over kinds of queries (images, texts of the batch, random texts) of the divergence from what the earlier model finds.

    Both sides have the earlier model's scale, or the student could lower the divergence by its own. Which vectors are kept is decided by
    the hash of each image, so that neither the order of sessions nor how rows are split among them matters.
    """

    marks: UInt8[Tensor, "rows 32"]  # the fingerprint of each image; zeros where there is none
    images: Float[Tensor, "rows d"]
    words: Float[Tensor, "rows d"]  # zeros where the image has no text

    def __init__(self, config: AnchorConfig, width: int) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("marks", torch.zeros(config.rows, 32, dtype=torch.uint8))
        self.register_buffer("images", torch.zeros(config.rows, width))
        self.register_buffer("words", torch.zeros(config.rows, width))
        self._taught: Taught | None = None
        self._vectors = torch.empty(0)  # those that there are

    def needs(self) -> Needs:
        """The earlier model."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def bound(self) -> dict[str, str | int]:
        """Whose vectors they are."""
        return {"teacher": self.config.teacher}

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """The model's tokenizer lets random texts be made."""
        if self.config.texts:
            refuse_texts(tuner.clip, session, f"the term {self.config.kind}", self.config.length)

    def begin(self, at: Site) -> None:
        """What the earlier model makes of the session, once there are vectors."""
        both = torch.cat([self.images[self._there], self.words])
        self._vectors = both[both.any(1)]
        self._taught = Taught.of(self.config.teacher, at) if len(self._vectors) else None

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`anchor`, from the second session on."""
        if self._taught is None:
            return {}
        teacher = view.through(self.config.teacher)
        queries = [(view.images, self._taught.of_images(view)), self._taught.of_texts(view)]
        if self.config.texts:
            queries.append(replayed(view, teacher, self.config.texts, self.config.length))
        each = [held(now, then, self._vectors, teacher.scale) for now, then in filter(None, queries)]
        return {"anchor": self.config.weight * torch.stack(each).mean()}

    def end(self, at: Site) -> None:
        """Keep the vectors of some of what the session taught."""
        rows = at.lesson.taught()
        old = [mark for each in self.marks if any(mark := bytes(each.tolist()))]
        new = {fingerprint(image.as_py()): place for place, image in enumerate(rows.table["image"])}
        stay = sorted({*old, *new})[: self.config.rows]
        fresh = [mark for mark in stay if mark not in set(old)]
        made = _made(at, self.config.teacher, rows.take([new[mark] for mark in fresh]))
        known = {mark: place for place, mark in enumerate(old)} | {mark: len(old) + place for place, mark in enumerate(fresh)}
        order = [known[mark] for mark in stay]
        there = self._there
        for kept, more in zip((self.images, self.words), made, strict=True):
            chosen = torch.cat([kept[there], more.to(kept)])[order]
            kept.zero_()[: len(stay)] = chosen
        self.marks.zero_()[: len(stay)] = torch.tensor([list(mark) for mark in stay], dtype=torch.uint8).reshape(len(stay), 32)
        self._taught, self._vectors = None, torch.empty(0)

    @property
    def _there(self) -> Bool[Tensor, " rows"]:
        return (self.marks != 0).any(1)


def held(
    now: Float[Tensor, "n d"], then: Float[Tensor, "n d"], vectors: Float[Tensor, "m d"], scale: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """The mean over queries of the divergence of what they find among vectors from what they found then, both at one scale."""
    return distillation(similarities(scale, now, vectors), similarities(scale, then, vectors))


def _made(at: Site, model: str, rows: ImageTable) -> tuple[Float[Tensor, "n d"], Float[Tensor, "n d"]]:
    """An earlier model's features of images and of their texts: the first caption, or the class's prompt; zeros where there is neither."""
    width = int(at.tuner.clip.model_cfg["embed_dim"])
    images, words = [torch.zeros(0, width)], [torch.zeros(0, width)]
    with torch.no_grad():
        for view in at.views(rows, CHUNK) if len(rows) else ():
            then = view.through(model)
            images.append(then.images)
            words.append(torch.zeros_like(then.images))
            if view.some_labelled:
                words[-1][view.labelled] = then.classes[view.targets].to(words[-1])
            if view.some_captioned:
                words[-1][view.captioned] = then.captions.to(words[-1])
    return torch.cat([each.to(images[-1]) for each in images]), torch.cat([each.to(words[-1]) for each in words])
