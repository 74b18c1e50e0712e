"""The methods: their typed union is the registry, and a new one is a file here plus its name in this union."""

from typing import Annotated, get_args

from pydantic import Field

from cl.methods.base import Batch, Method, MethodConfig
from cl.methods.finetune import FinetuneConfig
from cl.methods.replay import ReplayConfig
from cl.methods.vr_lwf import VRLwFConfig
from cl.methods.zero_shot import ZeroShotConfig

AnyMethodConfig = Annotated[ZeroShotConfig | FinetuneConfig | ReplayConfig | VRLwFConfig, Field(discriminator="name")]

CONFIGS: dict[str, type[MethodConfig]] = {config.model_fields["name"].default: config for config in get_args(get_args(AnyMethodConfig)[0])}

__all__ = ["CONFIGS", "AnyMethodConfig", "Batch", "Method", "MethodConfig"]
