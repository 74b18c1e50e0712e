"""CLOOB: InfoLOOB of what images and texts retrieve from the batch (arXiv:2110.11316)."""

from typing import Literal

from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.methods.lesson import Pairs
from cl.methods.objectives import cloob
from cl.methods.terms.infoloob import Fixed
from cl.methods.terms.objective import Objective, ObjectiveConfig, over_prompts
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class CLOOBConfig(ObjectiveConfig):
    """InfoLOOB over what images and texts retrieve from the batch, as Hopfield networks do (arXiv:2110.11316)."""

    kind: Literal["cloob"] = "cloob"
    scale: Fixed = Field(14.3, description="what cosines are multiplied with: 1 / temperature, fixed (authors: 30 on CC)")
    beta: NonNegativeFloat = Field(14.3, description="inverse temperature of the retrieval (authors: 8 on CC)")

    def build(self, tuner: Tuner, seed: int) -> "CLOOB":
        """The objective."""
        return CLOOB(self)


class CLOOB(Objective[CLOOBConfig]):
    """`contrast`, as large as the paper has it, without the factor 1 / scale of the code, and `classify`."""

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        return over_prompts(view, self.config.scale)

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`contrast`."""
        scale, beta = self.config.scale, self.config.beta
        return {"contrast": scale * cloob(pairs.images, pairs.texts, scale, beta, pairs.same)}
