"""m2-Mix: negatives that are mixtures of an image and its text, on the arc between the two (arXiv:2203.03897)."""

from typing import Literal

import numpy as np
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor

from cl.methods.lesson import Pairs
from cl.methods.objectives import mixed
from cl.methods.terms.objective import Objective, ObjectiveConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import View


class M2MixConfig(ObjectiveConfig):
    """Contrastive against mixtures of images and their texts, beside an objective (arXiv:2203.03897)."""

    kind: Literal["m2mix"] = "m2mix"
    weight: NonNegativeFloat = Field(0.1, description="weight (authors: 0.001 to 0.05)")
    scale: PositiveFloat = Field(1 / 0.07, description="what cosines with mixtures are multiplied with")
    concentration: PositiveFloat = Field(0.5, description="a of the Beta(a, a) that the image's share is drawn from, once a step")

    def build(self, tuner: Tuner, seed: int) -> "M2Mix":
        """The term."""
        return M2Mix(self)


class M2Mix(Objective[M2MixConfig]):
    """`mixed`; labels are left to the objective that it stands beside."""

    def contrast(self, pairs: Pairs, view: View) -> dict[str, Float[Tensor, ""]]:
        """`mixed`."""
        draws = np.random.default_rng(view.draw("mixture").initial_seed())
        share = float(draws.beta(self.config.concentration, self.config.concentration))
        return {"mixed": mixed(pairs.images, pairs.texts, share, self.config.scale, pairs.same)}
