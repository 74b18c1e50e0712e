"""EWC: weights that mattered to earlier sessions are held back by the Fisher diagonal (arXiv:1612.00796)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor, nn

from cl.data.table import ImageTable
from cl.methods.base import Batch, MethodConfig
from cl.methods.finetune import Finetune, Part, supervised
from cl.methods.losses import classification
from cl.methods.weights import named, snapshot, squared_distance
from cl.models.clip import Clip
from cl.models.flops import counted
from cl.seeds import generator
from cl.streams.stream import Session

_PAIRS = 16  # captions that compete for an image when its importance is estimated


class EWCConfig(MethodConfig):
    """Fine-tuning with a pull to the old weights, each by its importance (arXiv:1612.00796)."""

    name: Literal["ewc"] = "ewc"
    part: Part = "whole"
    weight: NonNegativeFloat = Field(1000.0, description="lambda, the strength of the hold; its scale depends on model and data: search it")
    decay: float = Field(1.0, ge=0, le=1, description="share of the importance so far that a session keeps; below 1: online EWC")
    samples: PositiveInt | None = Field(256, description="rows of a session, drawn at random, that tell the importance; null: all")

    def build(self, clip: Clip, seed: int) -> "EWC":
        """EWC over the clip, which it changes."""
        return EWC(clip, seed, self)


class EWC(Finetune):
    """Fine-tuning plus lambda/2 times the squared distance to the last session's weights, weighted by importance.

    The importance is the diagonal of the empirical Fisher information, summed over sessions; one anchor, the latest weights, holds
    for all of them (arXiv:1712.03847). With a decay below 1 it is online EWC (arXiv:1805.06370).
    """

    importance: Tensor

    def __init__(self, clip: Clip, seed: int, config: EWCConfig) -> None:
        super().__init__(clip, seed, config.part)
        self.config = config
        # one vector over all trainable values: the anchor needs no storage, since a session begins where the last one ended
        self.register_buffer("importance", torch.cat([torch.zeros_like(each).flatten() for each in self.trainable()]).detach())
        self.bound = {"part": config.part}  # towers may be of one size
        self._anchor: dict[str, Tensor] = {}

    def begin(self, session: Session) -> ImageTable:
        """Drop the anchor here, if anything was learned before."""
        data = super().begin(session)
        self._anchor = snapshot(self._weights()) if self.importance.any() else {}
        return data

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms of fine-tuning, plus `hold` from the second session on."""
        terms = super().losses(batch)
        if self._anchor:
            terms["hold"] = self.config.weight / 2 * squared_distance(self._weights(), self._anchor, self.importances())
        return terms

    def end(self, session: Session) -> None:
        """Add the importance of the weights to this session."""
        super().end(session)
        self._anchor = {}
        data, samples = supervised(session), self.config.samples
        rows = torch.randperm(len(data), generator=generator(self.seed, "importance", session.index))[:samples]
        self.importance.mul_(self.config.decay).add_(torch.cat([each.flatten() for each in self._fisher(data.take(rows.tolist()))]))

    def finish(self, session: Session) -> int:
        """`end`, and the FLOPs of its first samples times how often those are repeated."""
        self.end(session)
        data = supervised(session)
        asked = range(len(data))[: self.config.samples]
        some = asked[:_PAIRS]
        return counted(lambda: self._fisher(data.take(some)))[1] * len(asked) // len(some)

    def _fisher(self, data: ImageTable) -> list[Tensor]:
        with torch.enable_grad():
            return fisher_diagonal(self._sample_losses(data), list(self._weights().values()))

    def importances(self) -> dict[str, Float[Tensor, "..."]]:
        """The importance of each trainable weight, by name, as views of `importance`."""
        weights = self._weights()
        parts = torch.split(self.importance, [each.numel() for each in weights.values()])
        return {name: part.view_as(each) for (name, each), part in zip(weights.items(), parts, strict=True)}

    def _weights(self) -> dict[str, nn.Parameter]:
        return named(self.clip, self.trainable())

    def _sample_losses(self, data: ImageTable) -> Iterator[Float[Tensor, ""]]:
        """The loss of each labelled row among the session's classes, and of each captioned row among its neighbours."""
        index = {known.name: position for position, known in enumerate(self.vocabulary)}
        labelled = [(row, index[label]) for row, label in enumerate(data.labels) if label is not None]
        texts = self.candidate_features() if labelled else torch.empty(0)
        for row, label in labelled:
            logits = self.clip.scale() * self._features(data, [row]) @ texts.T
            yield classification(logits, self.position(torch.tensor([label], device=self.clip.device)))
        captioned = [row for row, captions in enumerate(data.captions) if captions]
        for start in range(0, len(captioned), _PAIRS):
            rows = captioned[start : start + _PAIRS]
            tokens = self.clip.tokenize([data.captions[row][0] for row in rows]).to(self.clip.device)
            same = (tokens[:, None] == tokens[None]).all(-1)
            yield from pair_losses(self._features(data, rows), self.encode_text(tokens), self.clip.scale(), same)

    def _features(self, data: ImageTable, rows: Sequence[int]) -> Float[Tensor, "b d"]:
        transform = self.clip.transform()
        return self.encode_image(torch.stack([transform(data.image(row)) for row in rows]).to(self.clip.logit_scale))


def fisher_diagonal(losses: Iterable[Float[Tensor, ""]], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Mean over samples of the squared gradient of each sample's loss, shaped like the parameters (zeros where none flows).

    With negative log-likelihoods of the true labels it is the diagonal of the empirical Fisher information.
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    count = 0
    for loss in losses:
        count += 1
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for each, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                each.addcmul_(gradient, gradient)
    return [each / max(count, 1) for each in total]


def pair_losses(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""], same: Bool[Tensor, "n n"]
) -> Float[Tensor, " n"]:
    """The n summands whose mean is `contrastive`: each pair's cross-entropy among the texts and among the images, halved."""
    logits = scale * images @ texts.T
    share = same.to(logits.dtype) / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, share, reduction="none") + F.cross_entropy(logits.T, share, reduction="none")) / 2
