"""What moves, and how features come out of it; one file each, named by kind in the union below."""

from cl.methods.tuners.base import Tuner, TunerConfig
from cl.methods.tuners.whole import WholeConfig

AnyTuner = WholeConfig

__all__ = ["AnyTuner", "Tuner", "TunerConfig"]
