"""What moves, and how features come out of it; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.tuners.base import Tuner, TunerConfig
from cl.methods.tuners.head import HeadConfig
from cl.methods.tuners.lora import LoRAConfig
from cl.methods.tuners.projections import ProjectionsConfig
from cl.methods.tuners.prompts import PromptsConfig
from cl.methods.tuners.whole import WholeConfig

AnyTuner = Annotated[WholeConfig | ProjectionsConfig | LoRAConfig | PromptsConfig | HeadConfig, Field(discriminator="kind")]

__all__ = ["AnyTuner", "Tuner", "TunerConfig"]
