"""What becomes of the weights while a session is learned and when it is over; one file each, named by kind in the union below."""

from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.merges.interpolate import InterpolateConfig

AnyMerge = InterpolateConfig

__all__ = ["AnyMerge", "Merge", "MergeConfig"]
