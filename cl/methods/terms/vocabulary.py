"""VR-LwF: what a teacher says of the batch's images over random texts, fresh at every step (arXiv:2207.09248)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.config import Count
from cl.data.table import ImageTable
from cl.errors import MethodError, ModelError
from cl.methods.lesson import Reader
from cl.methods.losses import distillation, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.earlier import TEACHER
from cl.methods.tuners.base import Tuner
from cl.methods.view import Kind, View
from cl.models.tokens import Frame
from cl.streams.stream import Session


class VocabularyConfig(TermConfig):
    """Distillation over a replayed random vocabulary (arXiv:2207.09248)."""

    kind: Literal["vocabulary"] = "vocabulary"
    alpha: NonNegativeFloat = Field(1.0, description="weight (the authors use 0.5 to 2)")
    texts: Count = Field(100, le=100_000, description="random texts per step")
    length: int = Field(10, ge=3, le=10_000, description="tokens per random text, start and end included")
    temperature: float = Field(1.0, gt=0, description="what logits are divided by before they are compared; above 1: softer")
    teacher: Kind = Field("session", description=TEACHER)
    strict_official: bool = Field(False, description="never draw the last token id, as the authors' off-by-one does")

    def build(self, tuner: Tuner, seed: int) -> "Vocabulary":
        """The distillation."""
        return Vocabulary(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.alpha == 0


class Vocabulary(Term):
    """Keeps the image-to-text distribution over random texts where the teacher has it.

    Random token sequences stand in for the unknown vocabulary. Both student and teacher encode them, so the gradient reaches the
    text tower through the replayed texts too; each side uses its own logit scale; the images are the batch's own.
    """

    def __init__(self, config: VocabularyConfig) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """A teacher."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """The model's tokenizer lets random texts be made."""
        refuse_texts(tuner.clip, session, f"the term {self.config.kind}", self.config.length)

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`vocabulary`."""
        config, teacher = self.config, view.through(self.config.teacher)
        now, then = replayed(view, teacher, config.texts, config.length, strict_official=config.strict_official)
        target, student = similarities(teacher.scale, teacher.images, then), similarities(view.scale, view.images, now)
        return {"vocabulary": config.alpha * distillation(student, target, config.temperature)}


def replayed(
    view: View, teacher: View, count: int, length: int, *, strict_official: bool = False
) -> tuple[Float[Tensor, "count d"], Float[Tensor, "count d"]]:
    """Random texts of a step, as a view has them and as its teacher does; two terms that ask for the same texts share them."""
    tokens = vocabulary_texts(view.reader, count, length, view.draw("vocabulary"), strict_official=strict_official).to(view.images.device)
    key = f"random {tuple(tokens.shape)} {strict_official}"  # two terms may draw other texts
    return view.text(key, tokens), teacher.text(key, tokens)


def vocabulary_texts(
    reader: Reader, count: int, length: int, source: torch.Generator, *, strict_official: bool = False
) -> Int[Tensor, "count t"]:
    """Random texts that a text tower reads as it reads any other.

    A causal tower looks at nothing behind the end token, so the padding to the full context is left out: same features at
    `length` / 77 of the cost. Any other tower gets it, since there it changes what is computed.

    Raises:
        ModelError: the tokenizer reads no words, or so many do not fit the context.
    """
    return reader.trim(random_texts(count, length, reader.frame(), source, strict_official=strict_official))


def random_texts(
    count: int, length: int, frame: Frame, source: torch.Generator, *, strict_official: bool = False
) -> Int[Tensor, "count context"]:
    """`count` texts of `length - 2` words, as the tokenizer of `frame` would hand them over: with start, end and padding.

    Words are drawn uniformly from all ids but the special ones. The authors' code never draws the last of them; `strict_official`
    repeats that.
    """
    ids = frame.words[: len(frame.words) - strict_official]
    return frame.around(ids[torch.randint(0, len(ids), (count, length - 2), generator=source)])


def refuse_texts(reader: Reader, session: Session, method: str, length: int) -> None:
    """Say before training that no random text can be made for this model.

    Raises:
        MethodError: names the session, the method and what is in the way.
    """
    try:
        vocabulary_texts(reader, 1, length, torch.Generator())
    except ModelError as error:
        raise MethodError(f"session {session.index} ({session.name}): {method} learns on random texts, and {error}") from error
