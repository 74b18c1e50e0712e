"""The methods: their typed union is the registry, and a new one is a file here plus its name in this union."""

from typing import Annotated, get_args

from pydantic import Field

from cl.methods.base import Batch, Method, MethodConfig
from cl.methods.closed_form import GDAConfig, NCMConfig, RAILConfig, RanPACConfig, RidgeConfig, SLDAConfig, TipConfig, ZeroShotConfig
from cl.methods.compose import RecipeConfig, kinds
from cl.methods.part import SEATS
from cl.methods.presets.cpe_clip import CPEClipConfig
from cl.methods.presets.ewc import EWCConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.linear_probe import LinearProbeConfig, RealLinearConfig
from cl.methods.presets.long_clip import LongCLIPConfig
from cl.methods.presets.lwf import LwFConfig
from cl.methods.presets.mod_x import ModXConfig
from cl.methods.presets.pseudolabel import PseudolabelConfig
from cl.methods.presets.replay import ReplayConfig
from cl.methods.presets.retrieve_then_align import RetrieveThenAlignConfig
from cl.methods.presets.tip_adapter import CapSAdapterConfig, TipAdapterConfig, TipAdapterFConfig
from cl.methods.presets.vr_lwf import VRLwFConfig
from cl.methods.presets.wise_ft import WiSEFTConfig
from cl.methods.presets.zscl import LwFVRZSCLConfig, ZSCLConfig

AnyMethodConfig = Annotated[
    ZeroShotConfig
    | FinetuneConfig
    | ReplayConfig
    | VRLwFConfig
    | ModXConfig
    | LwFConfig
    | LwFVRZSCLConfig
    | ZSCLConfig
    | EWCConfig
    | WiSEFTConfig
    | LongCLIPConfig
    | LinearProbeConfig
    | RealLinearConfig
    | RidgeConfig
    | RanPACConfig
    | RAILConfig
    | GDAConfig
    | NCMConfig
    | SLDAConfig
    | TipConfig
    | TipAdapterConfig
    | TipAdapterFConfig
    | CapSAdapterConfig
    | CPEClipConfig
    | PseudolabelConfig
    | RetrieveThenAlignConfig
    | RecipeConfig,
    Field(discriminator="name"),
]

CONFIGS: dict[str, type[MethodConfig]] = {config.model_fields["name"].default: config for config in get_args(get_args(AnyMethodConfig)[0])}

PARTS = {seat: kinds(seat) for seat in ("terms", *SEATS) if seat in RecipeConfig.model_fields}  # of recipes, by field and kind

__all__ = ["CONFIGS", "PARTS", "AnyMethodConfig", "Batch", "Method", "MethodConfig"]
