"""CLIP's own objective: cross-entropy over class prompts where rows have labels, contrastive where they have captions."""

from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat
from torch import Tensor

from cl.methods.losses import classification, contrastive, similarities
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class FitConfig(TermConfig):
    """Cross-entropy on labels, contrastive on captions, at the model's own scale or a fixed one (arXiv:2103.00020)."""

    kind: Literal["clip"] = "clip"
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets")
    scale: PositiveFloat | Literal["model"] = Field("model", description="what cosines are multiplied with: the model's own, or a constant")

    def build(self, tuner: Tuner, seed: int) -> "Fit":
        """The objective."""
        return Fit(self)


class Fit(Term):
    """`classify` and/or `contrast`, whichever the batch has rows for; with both, a row does not weigh more for its kind being rare."""

    def __init__(self, config: FitConfig) -> None:
        super().__init__()
        self.config = config

    def needs(self) -> Needs:
        """Rows with a label or a caption."""
        return Needs(rows="supervised")

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """The losses, their shares by how many rows there are of each kind."""
        terms: dict[str, Tensor] = {}
        scale = view.scale if self.config.scale == "model" else torch.tensor(self.config.scale, device=view.images.device)
        if view.some_labelled:
            logits = similarities(scale, view.images[view.labelled], view.classes)
            terms["classify"] = classification(logits, view.targets, self.config.smoothing)
        if view.some_captioned:
            terms["contrast"] = contrastive(view.images[view.captioned], view.captions, scale, view.same_captions)
        return shared(terms, view)


def shared(terms: dict[str, Tensor], view: View) -> dict[str, Tensor]:
    """`classify` and `contrast`, where there are both, by their share of the rows."""
    if len(terms) < 2:
        return terms
    share = view.labelled.sum() / (view.labelled.sum() + view.captioned.sum())
    return {"classify": terms["classify"] * share, "contrast": terms["contrast"] * (1 - share)}
