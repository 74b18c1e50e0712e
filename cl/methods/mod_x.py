"""Mod-X: continual pretraining that aligns the off-diagonal of the contrastive matrix (ICML 2023, arXiv:2305.07437)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.methods.base import Batch, MethodConfig
from cl.methods.finetune import Finetune, Texts, equal
from cl.methods.losses import alignment, similarities
from cl.methods.vr_lwf import frozen_copy
from cl.models.clip import Clip
from cl.streams.stream import Session

OFFICIAL_PAIRS = 280  # the batch, over all devices, at which the authors chose alpha


class ModXConfig(MethodConfig):
    """Fine-tuning that aligns in-batch similarities with the model before, where that was right (arXiv:2305.07437).

    Defaults as in the authors' five-session script.
    """

    name: Literal["mod_x"] = "mod_x"
    alpha: NonNegativeFloat = Field(20.0, description="weight of the alignment at 280 pairs per batch")
    fixed_alpha: bool = Field(False, description="use alpha as it is; otherwise alpha x 280 / pairs, since the term sums over rows")
    mask_diagonal: bool = Field(False, description="align only what is off the diagonal; the authors' code aligns whole rows")

    def build(self, clip: Clip, seed: int) -> "ModX":
        """Mod-X over the clip, which it changes."""
        return ModX(clip, seed, self)


class ModX(Finetune):
    """Contrastive learning that keeps each row of in-batch similarities where the teacher, if it was right, has it.

    The teacher is the model as this session found it. A row that the teacher gets wrong is left alone. A labelled image is paired
    with its class prompt.
    """

    def __init__(self, clip: Clip, seed: int, config: ModXConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        self._teachers: list[Clip] = []  # no memory, as in vr_lwf

    def begin(self, session: Session) -> ImageTable:
        """Freeze the teacher."""
        data = super().begin(session)
        self._teachers = [frozen_copy(self.clip)]
        return data

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """The terms of fine-tuning, plus `align`, weighted by alpha."""
        config, teacher = self.config, self._teachers[0].to(self.clip.device)
        features, texts = self.encode_image(batch.images), self.texts(batch)
        terms = self.fit(batch, features, texts)
        with torch.no_grad():
            old = Texts(
                teacher.encode_text(self.candidate_tokens()) if texts.classes is not None else None,
                teacher.encode_text(batch.texts[batch.captioned]) if texts.captions is not None else None,
            )
            before = self._similarity(batch, teacher.encode_image(batch.images), old)
        now = self._similarity(batch, features, texts)
        alpha = config.alpha if config.fixed_alpha else config.alpha * OFFICIAL_PAIRS / len(now)
        terms["align"] = alpha * alignment(now, before, self._same(batch), mask_diagonal=config.mask_diagonal)
        return terms

    def end(self, session: Session) -> None:
        """Drop the teacher."""
        super().end(session)
        self._teachers = []

    def _similarity(self, batch: Batch, images: Float[Tensor, "b d"], texts: Texts) -> Float[Tensor, "n n"]:
        """Cosines of every pair's image with every pair's text: labelled rows first, then captioned ones."""
        labelled = batch.labels >= 0
        rows, columns = [], []
        if texts.classes is not None:
            rows.append(images[labelled])
            columns.append(texts.classes[self.position(batch.labels[labelled])])
        if texts.captions is not None:
            rows.append(images[batch.captioned])
            columns.append(texts.captions)
        return similarities(1.0, torch.cat(rows), torch.cat(columns))

    def _same(self, batch: Batch) -> Bool[Tensor, "n n"]:
        labels, captions = batch.labels[batch.labels >= 0], batch.texts[batch.captioned]
        same = torch.zeros(len(labels) + len(captions), len(labels) + len(captions), dtype=torch.bool, device=labels.device)
        same[: len(labels), : len(labels)] = labels[:, None] == labels[None]
        same[len(labels) :, len(labels) :] = equal(captions)
        return same
