"""LwF: learning without forgetting on the session's class names, with the losses of the ZSCL code (arXiv:1606.09282, arXiv:2303.06628)."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import Batch, MethodConfig
from cl.methods.finetune import Finetune, Part, Texts
from cl.methods.losses import classification, distillation, similarities
from cl.methods.tuners.base import Plain, base
from cl.methods.weights import named, running_mean, snapshot, squared_distance
from cl.models.clip import Clip
from cl.streams.stream import Session

_CHUNK = 256  # texts the teacher encodes at a time


class DistillingConfig(MethodConfig):
    """What LwF and its descendants in the ZSCL code share."""

    part: Part = "whole"  # the logit scale never trains
    temperature: float = Field(2.0, gt=0)
    image_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each image's distribution over the texts")
    text_weight: NonNegativeFloat = Field(1.0, description="weight of keeping each text's distribution over the batch of images")
    smoothing: float = Field(0.2, ge=0, lt=1, description="label smoothing of the class targets")
    teacher: Literal["session", "original"] = "session"  # the model as this session found it, or as the stream found it
    ensemble: PositiveInt | None = Field(
        None,
        description="end a session with the mean of its start and of every so many steps (the authors: a tenth of them)",
    )
    l2: NonNegativeFloat = Field(0.0, description="weight of the squared distance to the weights that the session began with")


class LwFConfig(DistillingConfig):
    """Distillation over class names from the model before the session, with the losses of the ZSCL code.

    Weights and temperature are theirs (there with learning rate 1e-5 and 1000 steps for ViT-B/16). The teacher is asked about the
    batch as it was cropped for training; theirs about a batch of its own, of other images of the session, which are not cropped.
    """

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["lwf"] = "lwf"

    def build(self, clip: Clip, seed: int) -> "LwF":
        """LwF over the clip, which it changes."""
        return LwF(clip, seed, self)


class Distilling(Finetune):
    """Fine-tuning that keeps similarities of images to fixed text features where a frozen teacher has them.

    Only the teacher encodes the texts, once per session: the terms reach the student's image tower and never its text tower. One
    logit scale, which does not train, serves both sides. Each image is softmaxed over the texts, and each text over the images.
    """

    drop_last = False

    def __init__(self, clip: Clip, seed: int, config: DistillingConfig) -> None:
        super().__init__(clip, seed, config.part, scale="frozen")
        self.config = config
        # a teacher is no memory: kept out of the module tree, it is neither saved nor trained
        self._teachers: list[Plain] = [base(clip)] if config.teacher == "original" else []
        self._texts = torch.empty(0)
        self._start: Mapping[str, Tensor] = {}
        self._ensemble: WeightEnsemble | None = None

    @abstractmethod
    def reference_texts(self, session: Session) -> Int[Tensor, "k t"]:
        """Tokens of the texts of a session that the teacher is asked about."""

    def reference_images(self, batch: Batch) -> Float[Tensor, "n 3 h w"]:
        """The images of a step that the teacher is asked about: the batch's own."""
        return batch.images

    @property
    def teacher(self) -> Clip:
        """The frozen copy, on the student's device."""
        return self._teachers[0].clip.to(self.clip.device)

    def begin(self, session: Session) -> ImageTable:
        """Freeze the teacher, let it encode the texts, and note the weights where they are needed."""
        data = super().begin(session)
        if self.config.teacher == "session":
            self._teachers = [base(self.clip)]
        tokens = self.reference_texts(session).to(self.clip.device)
        with torch.no_grad():
            self._texts = torch.cat([self.teacher.encode_text(chunk) for chunk in torch.split(tokens, _CHUNK)])
        self._start = snapshot(self._weights()) if self.config.l2 else {}
        self._ensemble = WeightEnsemble(self._weights(), self.config.ensemble) if self.config.ensemble else None
        return data

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms of fine-tuning, plus `keep_images`, `keep_texts` and perhaps `l2`, all weighted."""
        config = self.config
        features = self.encode_image(batch.images)
        terms = self.fit(batch, features)
        images = self.reference_images(batch)
        student = features if images is batch.images else self.encode_image(images)
        with torch.no_grad():
            teacher = self.teacher.encode_image(images)
        scale = self.clip.scale().detach()
        logits, target = (similarities(scale, side, self._texts) for side in (student, teacher))
        terms["keep_images"] = config.image_weight * distillation(logits, target, config.temperature)
        terms["keep_texts"] = config.text_weight * distillation(logits.T, target.T, config.temperature)
        if config.l2:
            terms["l2"] = config.l2 * squared_distance(self._weights(), self._start)
        return terms

    def fit(self, batch: Batch, features: Float[Tensor, "b d"], texts: Texts | None = None) -> dict[str, Float[Tensor, ""]]:
        """The terms of fine-tuning, with the targets of labelled rows smoothed."""
        labelled, captioned = batch.labels >= 0, batch.captioned
        texts = self.texts(batch) if texts is None else texts
        terms = super().fit(batch, features, texts._replace(classes=None))
        if texts.classes is not None:
            logits = similarities(self.clip.scale(), features[labelled], texts.classes)
            share = labelled.sum() / (labelled.sum() + captioned.sum())
            terms = {name: term * (1 - share) for name, term in terms.items()}
            terms["classify"] = share * classification(logits, self.position(batch.labels[labelled]), self.config.smoothing)
        return terms

    def after_step(self) -> None:
        """Offer the weights to the ensemble."""
        if self._ensemble:
            self._ensemble.offer(self._weights())

    def midway(self) -> dict[str, Tensor]:
        """The ensemble so far."""
        return self._ensemble.state() if self._ensemble else {}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """The ensemble as it was."""
        if self._ensemble:
            self._ensemble.restore(tensors)

    def end(self, session: Session) -> None:
        """Go on with the ensemble's mean, and drop what was only for the session."""
        super().end(session)
        if self._ensemble:
            self.clip.load_state_dict(self._ensemble.close(self._weights()), strict=False)
        self._texts, self._start, self._ensemble = torch.empty(0), {}, None
        if self.config.teacher == "session":
            self._teachers = []

    def _weights(self) -> dict[str, nn.Parameter]:
        return named(self.clip, self.trainable())


class LwF(Distilling):
    """Keeps the distribution of the session's images over the session's class names where the previous model has it."""

    def check(self, session: Session) -> None:
        """A session needs class names as well as something to learn from."""
        super().check(session)
        if not session.classes:
            raise MethodError(
                f"session {session.index} ({session.name}): teaches no class, and lwf keeps what class names mean; "
                "choose lwf_vr_zscl or zscl for captions"
            )

    def reference_texts(self, session: Session) -> Int[Tensor, "k t"]:
        """The first prompt of each class of the session."""
        return self.clip.tokenize([self.vocabulary[index].prompts[0] for index in self.candidates])


class WeightEnsemble:
    """The mean of the weights at the start, after the first step, after every `every` more, and at the end (arXiv:2303.06628)."""

    def __init__(self, start: Mapping[str, Tensor], every: int) -> None:
        self.mean = snapshot(start)
        self.every = every
        self.count, self.steps = 1, 0

    def offer(self, weights: Mapping[str, Tensor]) -> None:
        """The weights after one more step; most are passed over."""
        if self.steps % self.every == 0:
            self._take(weights)
        self.steps += 1

    def state(self) -> dict[str, Tensor]:
        """The mean and its two counters, as tensors."""
        return {**self.mean, "counters": torch.tensor([self.count, self.steps])}

    def restore(self, tensors: Mapping[str, Tensor]) -> None:
        """What `state` gave."""
        self.mean = {name: tensors[name].to(mean.device) for name, mean in self.mean.items()}
        self.count, self.steps = tensors["counters"].tolist()

    def close(self, weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The mean, the last weights among them: in the authors' code the last step is always one that counts."""
        if self.steps and (self.steps - 1) % self.every:
            self._take(weights)
        return self.mean

    def _take(self, weights: Mapping[str, Tensor]) -> None:
        self.mean = running_mean(self.mean, weights, self.count)
        self.count += 1
