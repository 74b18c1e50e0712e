"""VR-LwF: learning without forgetting on a replayed random vocabulary (arXiv:2207.09248)."""

import copy
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, NonNegativeInt
from torch import Tensor, nn

from cl.data.table import ImageTable
from cl.errors import MethodError, ModelError
from cl.methods.base import Batch, MethodConfig
from cl.methods.finetune import Finetune, Part
from cl.methods.losses import distillation, similarities
from cl.models.clip import Clip
from cl.models.prompted import text_tower
from cl.models.tokens import Frame
from cl.seeds import generator
from cl.streams.stream import Session


class VRLwFConfig(MethodConfig):
    """Distillation over a replayed random vocabulary, fresh at every step (arXiv:2207.09248).

    Defaults as in the authors' code, but for alpha: their program's is 0.5, and their scripts for EuroSAT give the whole model 2 and
    one tower 1.
    """

    name: Literal["vr_lwf"] = "vr_lwf"
    part: Part = "whole"
    alpha: NonNegativeFloat = Field(1.0, description="weight of the distillation terms (the authors use 0.5 to 2)")
    texts: NonNegativeInt = Field(
        100, description="random texts per step; 0: only class names, from the first session on (the authors' LwF)"
    )
    length: int = Field(10, ge=3, description="tokens per random text, start and end included")
    temperature: float = Field(1.0, gt=0)
    teacher: Literal["session", "original"] = "session"  # the model as this session found it, or as the stream found it
    lwf: bool = Field(False, description="from the second session on, distil over the class names seen so far as well")
    strict_official: bool = Field(False, description="never draw the last token id, as the authors' off-by-one does")

    def build(self, clip: Clip, seed: int) -> "VRLwF":
        """VR-LwF over the clip, which it changes."""
        return VRLwF(clip, seed, self.part, self)


class VRLwF(Finetune):
    """Fine-tuning that keeps the image-to-text distribution over random texts where the teacher has it.

    Random token sequences stand in for the unknown vocabulary. Both student and teacher encode them, so the gradient reaches the
    text tower through the replayed texts too; each side uses its own logit scale; the images are the batch's own.
    """

    def __init__(self, clip: Clip, seed: int, part: Part, config: VRLwFConfig) -> None:
        super().__init__(clip, seed, part)
        self.config = config
        # a teacher is no memory: kept out of the module tree, it is neither saved nor trained
        self._teachers: list[Clip] = [frozen_copy(clip)] if config.teacher == "original" else []
        self._teacher_classes: Tensor | None = None

    def check(self, session: Session) -> None:
        """A session has something to learn from, and the model's tokenizer lets random texts be made."""
        super().check(session)
        if self.config.texts:
            refuse_texts(self.clip, session, self.config.called(), self.config.length)

    def begin(self, session: Session) -> ImageTable:
        """Freeze the teacher and encode, once, the class names it is asked about."""
        data = super().begin(session)
        if self.config.teacher == "session":
            self._teachers = [frozen_copy(self.clip)]
        if not self.config.texts or (self.config.lwf and session.index > 1):
            with torch.no_grad():
                self._teacher_classes = self.teacher.encode_text(self._class_tokens())
        return data

    @property
    def teacher(self) -> Clip:
        """The frozen copy, on the student's device."""
        return self._teachers[0].to(self.clip.device)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms of fine-tuning, plus `vocabulary` and/or `lwf`, both weighted by alpha."""
        config = self.config
        student, replayed = self.encode_image(batch.images), None
        with torch.no_grad():
            teacher = self.teacher.encode_image(batch.images)
        if config.texts:
            source = generator(self.seed, "vocabulary", self.session, batch.step)
            texts = vocabulary_texts(self.clip, config.texts, config.length, source, strict_official=config.strict_official)
            texts = texts.to(self.clip.device)
            with torch.no_grad():
                target = similarities(self.teacher.scale(), teacher, self.teacher.encode_text(texts))
            replayed = similarities(self.clip.scale(), student, self.clip.encode_text(texts)), target
        terms = self.fit(batch, student)
        if replayed:
            terms["vocabulary"] = config.alpha * distillation(*replayed, config.temperature)
        if self._teacher_classes is not None:
            names = similarities(self.clip.scale(), student, self.clip.encode_text(self._class_tokens()))
            old = similarities(self.teacher.scale(), teacher, self._teacher_classes)
            terms["lwf"] = config.alpha * distillation(names, old, config.temperature)
        return terms

    def end(self, session: Session) -> None:
        """Drop the session's teacher."""
        super().end(session)
        self._teacher_classes = None
        if self.config.teacher == "session":
            self._teachers = []

    def _class_tokens(self) -> Int[Tensor, "k t"]:
        return self.clip.tokenize([known.prompts[0] for known in self.vocabulary]).to(self.clip.device)


def frozen_copy(clip: Clip) -> Clip:
    """A copy in eval mode that shares no storage with the original and never gets a gradient."""
    teacher = copy.deepcopy(clip, {id(clip.tokenizer): clip.tokenizer}).eval()  # a tokenizer is only read, and large
    nn.Module.requires_grad_(teacher, False)
    return teacher


def vocabulary_texts(
    clip: Clip, count: int, length: int, source: torch.Generator, *, strict_official: bool = False
) -> Int[Tensor, "count t"]:
    """Random texts that the clip's text tower reads as it reads any other.

    A causal tower looks at nothing behind the end token, so the padding to the full context is left out: same features at
    `length` / 77 of the cost. Any other tower gets it, since there it changes what is computed.

    Raises:
        ModelError: the tokenizer reads no words, or so many do not fit the context.
    """
    texts = random_texts(count, length, clip.frame(), source, strict_official=strict_official)
    tower = text_tower(clip.model)
    return texts if tower is None else tower.trim(texts)


def random_texts(
    count: int, length: int, frame: Frame, source: torch.Generator, *, strict_official: bool = False
) -> Int[Tensor, "count context"]:
    """`count` texts of `length - 2` words, as the tokenizer of `frame` would hand them over: with start, end and padding.

    Words are drawn uniformly from all ids but the special ones. The authors' code never draws the last of them; `strict_official`
    repeats that.
    """
    ids = frame.words[: len(frame.words) - strict_official]
    return frame.around(ids[torch.randint(0, len(ids), (count, length - 2), generator=source)])


def refuse_texts(clip: Clip, session: Session, method: str, length: int) -> None:
    """Say before training that no random text can be made for this model.

    Raises:
        MethodError: names the session, the method and what is in the way.
    """
    try:
        vocabulary_texts(clip, 1, length, torch.Generator())
    except ModelError as error:
        raise MethodError(f"session {session.index} ({session.name}): {method} learns on random texts, and {error}") from error
