"""Exemplars held where the model of their own session had them: its features lie beside them, no teacher runs (arXiv:2311.17049)."""

from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.config import Count
from cl.methods.losses import divergence, log_shares, similarities
from cl.methods.stored import Features
from cl.methods.terms.base import Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View


class StoredConfig(TermConfig):
    """Distillation from what sessions' own models made of exemplars, kept by a memory with `store: features` (arXiv:2311.17049)."""

    kind: Literal["stored"] = "stored"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    rows: Count = Field(32, description="exemplars per step, all of one session: cosines of two models mean nothing together")

    def build(self, tuner: Tuner, seed: int) -> "Stored":
        """The distillation."""
        return Stored(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Stored(Term):
    """Image-to-text and text-to-image distributions within exemplars of one session, sessions taking turns.

    Exemplars are shown uncropped, as they were when their features were kept, each with one of its texts.
    """

    version = 2  # all captions of an exemplar take their turns; before, its first one stood for it

    def __init__(self, config: StoredConfig) -> None:
        super().__init__()
        self.config = config
        self._of: list[Int[Tensor, " n"]] = []  # the exemplars of each session

    def begin(self, at: Site) -> None:
        """Which exemplars are whose."""
        features = at.lesson.kept.features if at.lesson.kept else None
        self._of = places(features) if features else []

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`stored`, once there is something."""
        if not self._of:
            return {}
        kept = view.lesson.kept
        assert kept is not None and kept.features is not None
        own = self._of[view.batch.step % len(self._of)]
        drawn = view.draw("stored")
        chosen = own[torch.randperm(len(own), generator=drawn)[: self.config.rows]]
        features, device = kept.features.take(chosen), view.batch.images.device
        which = [int(share * len(each)) for share, each in zip(torch.rand(len(chosen), generator=drawn), features.words, strict=True)]
        words = [each[place] for each, place in zip(features.words, which, strict=True)]
        then = torch.stack([each[place] for each, place in zip(features.texts, which, strict=True)]).to(device)
        transform, reader = view.reader.transform(), view.reader
        pixels = torch.stack([transform(kept.rows.image(row)) for row in chosen.tolist()]).to(view.batch.images)
        images, texts = view.image("stored", pixels), view.text("stored", reader.tokenize(words).to(device))
        logits = similarities(view.scale, images, texts)
        taught = similarities(features.scale[0].to(device), features.images.to(device), then)
        return {"stored": self.config.weight * divergence(logits, log_shares(taught), log_shares(taught.T))}

    def end(self, at: Site) -> None:
        """The memory changes now."""
        self._of = []


def places(features: Features) -> list[Int[Tensor, " n"]]:
    """Where the exemplars of each session stand that have features, sessions in order."""
    there = torch.tensor([bool(words) for words in features.words], dtype=torch.bool)
    sessions = sorted(set(features.session[there].tolist()))
    return [((features.session == session) & there).nonzero()[:, 0] for session in sessions]
