"""SigLIP: whether an image and a text belong together, asked of each two alone (arXiv:2303.15343)."""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field
from torch import Tensor, nn

from cl.methods.lesson import Pairs
from cl.methods.objectives import siglip, siglip_bias
from cl.methods.terms.objective import Objective, ObjectiveConfig, Scale, over_prompts
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class SigLIPConfig(ObjectiveConfig):
    """A logistic loss for each image with each text of the batch, with a bias that trains (arXiv:2303.15343)."""

    kind: Literal["siglip"] = "siglip"
    scale: Scale = Field(14.3, description="what cosines are multiplied with: a constant, or the model's own")
    bias: float | Literal["first_batch"] = Field(
        "first_batch", description="where the bias begins: what fits the first batch best, or a number (authors, from nothing: -10)"
    )

    def build(self, tuner: Tuner, seed: int) -> "SigLIP":
        """The objective."""
        return SigLIP(self)


class SigLIP(Objective[SigLIPConfig]):
    """`contrast` and `classify`. The bias trains from the first batch that has negatives on, and stays for later sessions.

    It is the objective's, not the model's: what is classified or retrieved is ranked, and a constant ranks nothing.
    """

    chosen: Bool[Tensor, ""]  # whether the bias is more than a stand-in

    def __init__(self, config: SigLIPConfig) -> None:
        super().__init__(config)
        self.bias = nn.Parameter(torch.tensor(0.0 if config.bias == "first_batch" else config.bias))
        self.register_buffer("chosen", torch.tensor(config.bias != "first_batch"))

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        return over_prompts(view, self._scale(view))

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`contrast`."""
        scale = self._scale(view)
        if not self.chosen:
            with torch.no_grad():
                self.bias.copy_(siglip_bias(pairs.images, pairs.texts, scale, pairs.same))
                self.chosen.copy_(~pairs.same.all())
        return {"contrast": siglip(pairs.images, pairs.texts, scale, self.bias, pairs.same)}

    def _scale(self, view: View) -> Tensor | float:
        return view.scale if self.config.scale == "model" else self.config.scale
