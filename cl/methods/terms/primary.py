"""What a picture mostly shows against the first sentence of its caption (Long-CLIP's primary component matching, arXiv:2403.15378)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.config import Count
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.lesson import equal
from cl.methods.losses import contrastive
from cl.methods.terms.base import Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.streams.stream import Session

ROWS, CHUNK = 4096, 256  # images that the components are of, and how many are encoded at a time


class PrimaryConfig(TermConfig):
    """Contrast of images, cut to their main components, with the first sentence of a caption, beside one with all of it (arXiv:2403.15378).

    The components are those of the session's images as the session found the model: the authors take each batch's own, which makes a row
    depend on the others, is no cut at all in batches of up to one more than `components`, and has no gradient where images are equal.
    """

    learns: ClassVar[tuple[str, ...]] = ("captions",)

    kind: Literal["primary"] = "primary"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    components: Count = Field(32, description="how many of an image feature are kept beside the mean")
    smoothing: float = Field(0.1, ge=0, lt=1, description="label smoothing of what belongs together")

    def build(self, tuner: Tuner, seed: int) -> "Primary":
        """The contrast."""
        return Primary(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Primary(Term):
    """`primary`, over captioned rows."""

    def __init__(self, config: PrimaryConfig) -> None:
        super().__init__()
        self.config = config
        self._space: tuple[Tensor, Tensor] | None = None  # mean and components, for this session

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """There are captions."""
        if not any(rows.captions):
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a caption, and the term "
                f"{self.config.kind} compares images with the first sentences of captions; give it captions, or leave the term out"
            )

    def begin(self, at: Site) -> None:
        """Find the components of the session's captioned images."""
        rows = at.lesson.data.where([bool(texts) for texts in at.lesson.data.captions])
        step = -(-len(rows) // ROWS)
        with torch.no_grad():
            features = torch.cat([view.images for view in at.views(rows.take(range(0, len(rows), step)), CHUNK)])
        self._space = components(features, self.config.components)

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`primary`, where any row has a caption."""
        if not view.some_captioned or self._space is None:
            return {}
        tokens = view.reader.tokenize(_sentences(view)).to(view.batch.texts.device)
        mean, basis = (each.to(view.images.device) for each in self._space)
        images, texts = projected(view.images[view.captioned], mean, basis), view.text("primary", tokens)
        loss = contrastive(images, texts, view.scale, view.same_captions | equal(tokens), self.config.smoothing)
        return {"primary": self.config.weight * loss}

    def end(self, at: Site) -> None:
        """Drop the components."""
        self._space = None


def components(features: Float[Tensor, "n d"], count: int) -> tuple[Float[Tensor, " d"], Float[Tensor, "k d"]]:
    """The mean of features, and the directions in which they differ most, at most `count` and at unit length."""
    mean = features.mean(0)
    return mean, torch.linalg.svd(features - mean, full_matrices=False).Vh[:count]


def projected(features: Float[Tensor, "n d"], mean: Float[Tensor, " d"], basis: Float[Tensor, "k d"]) -> Float[Tensor, "n d"]:
    """What of features lies in the mean and these directions; of less than unit length."""
    return mean + (features - mean) @ basis.T @ basis


def sentence(text: str) -> str:
    """The first sentence: all before the first ". ".

    >>> sentence("A dog. It runs at 3.5 m/s."), sentence("a cat")
    ('A dog', 'a cat')
    """
    return text.partition(". ")[0]


def _sentences(view: View) -> list[str]:
    """The first sentence of the caption that each captioned row was drawn with."""
    places = view.captioned.nonzero()[:, 0]
    captions = view.lesson.data.index["captions"].take(view.batch.rows[places].tolist()).to_pylist()  # of these rows, not of all each step
    told = []
    for place, own in zip(places.tolist(), captions, strict=True):
        drawn = 0
        if len(own) > 1:
            given = view.reader.tokenize(own).to(view.batch.texts.device)
            drawn = int(equal(view.batch.texts[place : place + 1], given)[0].int().argmax())
        told.append(sentence(own[drawn]))
    return told
