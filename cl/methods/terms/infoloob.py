"""InfoLOOB: contrastive, with the pair itself left out of the softmax, so that what fits already goes on pulling (arXiv:2110.11316)."""

from typing import Annotated, Any, Literal

from jaxtyping import Float
from pydantic import BeforeValidator, Field, PositiveFloat
from torch import Tensor

from cl.explain import told
from cl.methods.lesson import Pairs
from cl.methods.objectives import infoloob
from cl.methods.terms.objective import Objective, ObjectiveConfig, over_prompts
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


def _number(given: Any) -> Any:
    if given == "model":
        raise told("give a number: a scale that trains under this objective only ever grows")
    return given


Fixed = Annotated[PositiveFloat, BeforeValidator(_number)]


class InfoLOOBConfig(ObjectiveConfig):
    """Contrastive against negatives alone, at a fixed scale (InfoLOOB, arXiv:2110.11316)."""

    kind: Literal["infoloob"] = "infoloob"
    scale: Fixed = Field(14.3, description="what cosines are multiplied with: 1 / temperature, fixed")

    def build(self, tuner: Tuner, seed: int) -> "InfoLOOB":
        """The objective."""
        return InfoLOOB(self)


class InfoLOOB(Objective[InfoLOOBConfig]):
    """`contrast`, as large as CLIP's (the paper's form, without the factor 1 / scale of the code), and `classify`."""

    def classify(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        return over_prompts(view, self.config.scale)

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`contrast`."""
        return {"contrast": self.config.scale * infoloob(pairs.images, pairs.texts, self.config.scale, pairs.same)}
