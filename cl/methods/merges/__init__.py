"""What becomes of the weights while a session is learned and when it is over; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.merges.base import Merge, MergeConfig
from cl.methods.merges.ensemble import EnsembleConfig
from cl.methods.merges.interpolate import InterpolateConfig
from cl.methods.merges.magmax import MagMaxConfig
from cl.methods.merges.mean import MeanConfig
from cl.methods.merges.ties import TIESConfig

AnyMerge = Annotated[InterpolateConfig | EnsembleConfig | MeanConfig | TIESConfig | MagMaxConfig, Field(discriminator="kind")]

__all__ = ["AnyMerge", "Merge", "MergeConfig"]
