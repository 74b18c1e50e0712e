"""Class prompts as rows beside images: each is classified as the class that it names (REAL-Linear, arXiv:2401.12425)."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import classification, similarities
from cl.methods.terms.base import Term, TermConfig, refuse_still
from cl.methods.terms.objective import Scale
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.streams.stream import Session

CHUNK = 256  # texts encoded at a time


class TextRowsConfig(TermConfig):
    """Class prompts among the rows of a step, as many as it has labelled ones, so that a row of a head stays near its texts."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["text_rows"] = "text_rows"
    weight: NonNegativeFloat = Field(1.0, description="as much as clip's: images and prompts have one mean")
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, or a constant")

    def build(self, tuner: Tuner, seed: int) -> "TextRows":
        """The rows."""
        return TextRows(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class TextRows(Term):
    """Draws prompts of the classes that compete, all of which come up equally often, and takes the mean cross-entropy over them."""

    def __init__(self, config: TextRowsConfig) -> None:
        super().__init__()
        self.config = config
        self._prompts: list[str] = []
        self._owners: Int[Tensor, " n"] = torch.zeros(0, dtype=torch.int64)  # their classes, as indices into the vocabulary
        self._known: Float[Tensor, "n d"] | None = None  # their features, where nothing moves those
        self._places: Int[Tensor, " vocabulary"] | None = None  # where the classes that compete stand
        self._columns = self._allowed = self._owners  # where the class of each prompt does, and which prompts may be drawn

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """A session needs labels: there are as many prompts in a step as rows that have one. And texts move, or rows of a head do."""
        if not tuner.grows:
            refuse_still(tuner, session, self.config.kind, "classifies class prompts", "text")
        if not any(label is not None for label in rows.labels):
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a label, and the term "
                f"{self.config.kind} puts a class prompt beside each that has; leave it out for captions"
            )

    def begin(self, at: Site) -> None:
        """List the prompts, and encode them where the text tower stays as it is."""
        owned = [(prompt, index) for index in at.lesson.candidates for prompt in at.lesson.vocabulary[index].prompts]
        self._prompts = [prompt for prompt, _ in owned]
        self._owners = torch.tensor([index for _, index in owned])
        if "text" in at.tuner.fixed:
            tokens = at.tuner.tokens(self._prompts).split(CHUNK)  # type: ignore[no-untyped-call]
            with torch.no_grad():
                self._known = torch.cat([at.tuner.text(each) for each in tokens])

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`text_rows`, where any row has a label."""
        if view.places is not self._places:  # else as in the step before
            self._places = view.places
            self._columns = self._places[self._owners]
            self._allowed = (self._columns >= 0).nonzero()[:, 0]
        if not view.some_labelled or not len(self._allowed):
            return {}
        rows = self._allowed[_dealt(len(self._allowed), view.labels, view.draw("text_rows"))]
        if self._known is None:
            texts = view.text("text_rows", view.reader.tokenize([self._prompts[row] for row in rows.tolist()]).to(view.batch.labels.device))
        else:
            texts = self._known[rows.to(self._known.device)]
        targets = self._columns[rows].to(texts.device)
        scale = view.scale if self.config.scale == "model" else self.config.scale
        return {"text_rows": self.config.weight * classification(similarities(scale, texts, view.classes), targets)}

    def end(self, at: Site) -> None:
        """Drop the session's texts."""
        self._prompts, self._owners, self._known, self._places = [], torch.zeros(0, dtype=torch.int64), None, None


def _dealt(size: int, count: int, source: torch.Generator) -> Int[Tensor, " count"]:
    """So many of `size` at random, each as often as any other but for one: with fewer prompts than rows some come up again."""
    whole = torch.cat([torch.randperm(size, generator=source) for _ in range(-(-count // size))])
    return whole[:count]
