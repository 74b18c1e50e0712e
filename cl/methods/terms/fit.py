"""CLIP's own objective: cross-entropy over class prompts where rows have labels, contrastive where they have captions."""

from typing import ClassVar, Literal

from jaxtyping import Float
from pydantic import Field
from torch import Tensor

from cl.methods.lesson import Pairs
from cl.methods.losses import contrastive
from cl.methods.terms.base import Needs
from cl.methods.terms.objective import Objective, ObjectiveConfig, Scale, over_prompts
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class FitConfig(ObjectiveConfig):
    """Cross-entropy on labels, contrastive on captions, at the model's own scale or a fixed one (arXiv:2103.00020)."""

    alone: ClassVar[bool] = True

    kind: Literal["clip"] = "clip"
    rows: Literal["supervised", "labelled"] = Field("supervised", description="labelled: captions do not teach")
    smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of the class targets")
    pair_smoothing: float = Field(0.0, ge=0, lt=1, description="label smoothing of what belongs together among pairs")
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, or a constant (14.3 forgot less)")

    def wants(self) -> tuple[str, ...]:
        """Labels, where captions do not teach."""
        return ("labels",) if self.rows == "labelled" else super().wants()

    def build(self, tuner: Tuner, seed: int) -> "Fit":
        """The objective."""
        return Fit(self)


class Fit(Objective[FitConfig]):
    """`classify` and/or `contrast`, whichever the batch has rows for."""

    def needs(self) -> Needs:
        """Rows with a label, or with a caption where those teach."""
        return Needs(rows=self.config.rows)

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        return over_prompts(view, self._scale(view), self.config.smoothing)

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`contrast`."""
        return {"contrast": contrastive(pairs.images, pairs.texts, self._scale(view), pairs.same, self.config.pair_smoothing)}

    def _scale(self, view: View) -> Tensor | float:
        return view.scale if self.config.scale == "model" else self.config.scale
