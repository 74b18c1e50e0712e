"""Closed forms under the names and settings of their papers; each is spelled as the method that it is, and shares what that has learned."""

from typing import Any, Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat

from cl.config import Count
from cl.methods.closed_form.gda import GDAConfig, GDASettings, Share
from cl.methods.closed_form.ridge import RidgeConfig, RidgeSettings

_ALPHA, _PRECISION, _SHRINKAGE = (GDASettings.model_fields[name].description for name in ("alpha", "precision", "shrinkage"))
_PENALTY, _PROJECTION = (RidgeSettings.model_fields[name].description for name in ("penalty", "projection"))


class NCMConfig(GDASettings):
    """Nearest class mean: the cosine with each class's mean feature, the honest floor beside zero-shot (SimpleCIL, arXiv:2303.07338)."""

    name: Literal["ncm"] = "ncm"
    alpha: Literal["auto", "alone"] | NonNegativeFloat = Field("alone", description=_ALPHA)
    precision: Literal["pooled", "identity"] = Field("identity", description=_PRECISION)

    def spelled(self) -> dict[str, Any]:
        """As `gda` with these settings."""
        return GDAConfig(**self.model_dump(exclude={"name"})).spelled()


class SLDAConfig(GDASettings):
    """Streaming linear discriminant analysis (Deep SLDA, arXiv:1909.01520), with its covariance as that of all rows at once would be.

    The authors' code updates it by a recursion that is another in another order of the rows, and lets each new class's first row add to
    the scatter within classes.
    """

    name: Literal["slda"] = "slda"
    alpha: Literal["auto", "alone"] | NonNegativeFloat = Field("alone", description=_ALPHA)
    shrinkage: Literal["ks"] | Share = Field(1e-4, description=_SHRINKAGE)

    def spelled(self) -> dict[str, Any]:
        """As `gda` with these settings."""
        return GDAConfig(**self.model_dump(exclude={"name"})).spelled()


class RanPACConfig(RidgeSettings):
    """Ridge regression on 10,000 random features (RanPAC without its adapter of the first session, arXiv:2307.02251).

    The penalty is chosen on folds of all rows, where the authors choose it anew on a fifth of each session.
    """

    name: Literal["ranpac"] = "ranpac"
    projection: Count | None = Field(10_000, le=50_000, description=_PROJECTION)

    def spelled(self) -> dict[str, Any]:
        """As `ridge` with these settings."""
        return RidgeConfig(**self.model_dump(exclude={"name"})).spelled()


class RAILConfig(RidgeSettings):
    """Ridge regression on 15,000 random features with a set penalty (primal RAIL, arXiv:2406.18868): for untaught classes the gate.

    Its penalty of 0.1 is over features of the length that its own layer gives them, which is 0.0205 over ours where features have 512
    values. Its recursion is what sums are, and its mixture with zero-shot lost to the gate.
    """

    name: Literal["rail"] = "rail"
    projection: Count | None = Field(15_000, le=50_000, description=_PROJECTION)
    penalty: Literal["auto"] | PositiveFloat = Field(0.0205, description=_PENALTY)

    def spelled(self) -> dict[str, Any]:
        """As `ridge` with these settings."""
        return RidgeConfig(**self.model_dump(exclude={"name"})).spelled()
