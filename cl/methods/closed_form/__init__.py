"""Methods that learn from one pass over rows: the clip stays as it came, and heads stand beside it, the other family beside recipes."""

from cl.methods.closed_form.gda import GDAConfig
from cl.methods.closed_form.judging import Judging, familiarity, shares_or_none
from cl.methods.closed_form.presets import NCMConfig, RAILConfig, RanPACConfig, SLDAConfig
from cl.methods.closed_form.ridge import RidgeConfig
from cl.methods.closed_form.sums import Sums, SumsConfig
from cl.methods.closed_form.tip import Tip, TipConfig
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
    "Tip",
    "TipConfig",
    "ZeroShotConfig",
    "familiarity",
    "shares_or_none",
]
