"""Methods without a step: the clip stays as it came, and heads beside it are sums over rows, the other family beside recipes."""

from cl.methods.closed_form.gda import GDAConfig
from cl.methods.closed_form.judging import Judging, familiarity, shares_or_none
from cl.methods.closed_form.presets import NCMConfig, RAILConfig, RanPACConfig, SLDAConfig
from cl.methods.closed_form.ridge import RidgeConfig
from cl.methods.closed_form.sums import Sums, SumsConfig
from cl.methods.closed_form.zero_shot import ZeroShotConfig

__all__ = [
    "GDAConfig",
    "Judging",
    "NCMConfig",
    "RAILConfig",
    "RanPACConfig",
    "RidgeConfig",
    "SLDAConfig",
    "Sums",
    "SumsConfig",
    "ZeroShotConfig",
    "familiarity",
    "shares_or_none",
]
