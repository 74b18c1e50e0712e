"""What of earlier data is kept; one file each, named by kind in the union below."""

from typing import Annotated

from pydantic import Field

from cl.methods.memories.base import Memory, MemoryConfig
from cl.methods.memories.exemplars import ClassBalancedConfig, ReservoirConfig, SessionBalancedConfig

AnyMemory = Annotated[ReservoirConfig | ClassBalancedConfig | SessionBalancedConfig, Field(discriminator="kind")]

__all__ = ["AnyMemory", "Memory", "MemoryConfig"]
