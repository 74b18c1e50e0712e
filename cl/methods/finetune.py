"""Plain fine-tuning of the whole model: what forgetting looks like when nothing is done against it."""

from collections.abc import Iterable
from typing import Literal, NamedTuple

from jaxtyping import Float, Int
from torch import Tensor, nn

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import Batch, Method
from cl.methods.losses import classification, contrastive, similarities
from cl.methods.view import equal
from cl.models.clip import Clip
from cl.streams.stream import Session

Part = Literal["whole", "image", "text"]
Scale = Literal["trained", "frozen"]


class Texts(NamedTuple):
    """Text features a batch is fitted to: of the candidate classes where it has labels, of the captions of its captioned rows."""

    classes: Float[Tensor, "k d"] | None
    captions: Float[Tensor, "m d"] | None


def supervised(session: Session) -> ImageTable:
    """The rows of a session that have a label or a caption."""
    data = session.data
    return data.where([label is not None or bool(texts) for label, texts in zip(data.labels, data.captions, strict=True)])


class Finetune(Method):
    """Cross-entropy over the session's class prompts where rows have labels, contrastive where they have captions."""

    def __init__(self, clip: Clip, seed: int, part: Part = "whole", smoothing: float = 0.0, scale: Scale = "trained") -> None:
        super().__init__(clip, seed)
        self.part, self.smoothing, self.scale = part, smoothing, scale

    def trainable(self) -> Iterable[nn.Parameter]:
        """The chosen towers, and the logit scale unless it is frozen."""
        frozen = self.clip.logit_scale if self.scale == "frozen" else None
        return (parameter for parameter in self.clip.part(self.part) if parameter is not frozen)

    def check(self, session: Session) -> None:
        """A session needs at least one labelled or captioned row."""
        if not len(supervised(session)):
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a label or a caption to learn from; "
                "give it supervision: labels or captions, or choose a method for unlabelled images"
            )

    def begin(self, session: Session) -> ImageTable:
        """The rows that have a label or a caption."""
        super().begin(session)
        return supervised(session)

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`classify` and/or `contrast`, whichever the batch has rows for."""
        return self.fit(batch, self.encode_image(batch.images))

    def texts(self, batch: Batch) -> Texts:
        """What the batch is fitted to, encoded with gradient."""
        return Texts(
            self.candidate_features() if (batch.labels >= 0).any() else None,
            self.encode_text(batch.texts[batch.captioned]) if batch.captioned.any() else None,
        )

    def fit(self, batch: Batch, features: Float[Tensor, "b d"], texts: Texts | None = None) -> dict[str, Float[Tensor, ""]]:
        """The same, for image features, and perhaps text features, that are already there."""
        texts = self.texts(batch) if texts is None else texts
        terms = {}
        labelled, captioned = batch.labels >= 0, batch.captioned
        if texts.classes is not None:
            logits = similarities(self.clip.scale(), features[labelled], texts.classes)
            terms["classify"] = classification(logits, self.position(batch.labels[labelled]), self.smoothing)
        if texts.captions is not None:
            terms["contrast"] = contrastive(features[captioned], texts.captions, self.clip.scale(), equal(batch.texts[captioned]))
        if len(terms) == 2:  # a row must not weigh more for its kind being rare
            share = labelled.sum() / (labelled.sum() + captioned.sum())
            terms = {"classify": terms["classify"] * share, "contrast": terms["contrast"] * (1 - share)}
        return terms

    def candidate_features(self) -> Float[Tensor, "k d"]:
        """Text features of the candidate classes, with gradient: the student encodes them every step."""
        return self.encode_text(self.candidate_tokens())

    def candidate_tokens(self) -> Int[Tensor, "k t"]:
        """Tokens of the candidate classes, first prompt each."""
        prompts = [self.vocabulary[index].prompts[0] for index in self.candidates]
        return self.clip.tokenize(prompts).to(self.clip.device)
