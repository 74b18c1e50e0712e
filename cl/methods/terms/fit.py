"""CLIP's own objective: cross-entropy over class prompts where rows have labels, contrastive where they have captions."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.methods.losses import contrastive
from cl.methods.terms.objective import Objective, ObjectiveConfig, Scale, over_prompts
from cl.methods.tuners.base import Tuner
from cl.methods.view import Pairs, View


class FitConfig(ObjectiveConfig):
    """Cross-entropy on labels, contrastive on captions, at the model's own scale or a fixed one (arXiv:2103.00020)."""

    alone: ClassVar[bool] = True

    kind: Literal["clip"] = "clip"
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets")
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, or a constant (14.3 forgot less)")

    def build(self, tuner: Tuner, seed: int) -> "Fit":
        """The objective."""
        return Fit(self)


class Fit(Objective[FitConfig]):
    """`classify` and/or `contrast`, whichever the batch has rows for."""

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        return over_prompts(view, self._scale(view), self.config.smoothing)

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`contrast`."""
        return {"contrast": contrastive(pairs.images, pairs.texts, self._scale(view), pairs.same)}

    def _scale(self, view: View) -> Tensor | float:
        return view.scale if self.config.scale == "model" else self.config.scale
