"""What becomes of the weights while a session is learned and when it is over; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.merges.ensemble import EnsembleConfig
from cl.methods.merges.interpolate import InterpolateConfig

AnyMerge = Annotated[InterpolateConfig | EnsembleConfig, Field(discriminator="kind")]

__all__ = ["AnyMerge", "Merge", "MergeConfig"]
