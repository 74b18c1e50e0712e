"""What a model's configuration may say: open_clip's settings of shape, by name, and nothing that runs or fetches anything."""

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl.errors import ModelError

# what open_clip 3.3 knows, and each of these is a number, a choice by name, or a switch; what another release adds is looked at first
_ATTENTION = "block_type qk_norm scaled_cosine_attn scale_heads scale_attn_inner scale_attn scale_fc act_kwargs norm_kwargs"
_TEXT = f"""context_length vocab_size width heads layers mlp_ratio ls_init_value embed_cls pad_id eos_id no_causal_mask final_ln_after_pool
    pool_type proj_bias proj_type output_tokens hf_tokenizer_name tokenizer_mode tokenizer_kwargs hf_model_name hf_model_pretrained
    hf_proj_type hf_pooler_type {_ATTENTION}"""
_VISION = f"""layers width head_width mlp_ratio patch_size image_size ls_init_value patch_dropout attentional_pool attn_pooler_queries
    attn_pooler_heads no_ln_pre pos_embed_type final_ln_after_pool pool_type output_tokens timm_model_name timm_model_pretrained timm_pool
    timm_proj timm_proj_bias timm_drop timm_drop_path {_ATTENTION}"""
_MODEL = """embed_dim quick_gelu custom_text init_logit_scale init_logit_bias nonscalar_logit_scale pad_id
    vision_cfg text_cfg multimodal_cfg"""
_GROUPS = {"vision_cfg": _VISION, "text_cfg": _TEXT, "multimodal_cfg": f"{_TEXT} dim_head n_queries attn_pooler_heads"}
# of all that Hugging Face's tokenizers take, those that say how texts are read: others name files, repositories and code
TOKENIZER = frozenset(["clean", "strip_sep_token", "language", "reduction_mask", "additional_special_tokens"])
_NUMBERS = {"act_kwargs", "norm_kwargs"}
_TIMM = r"[A-Za-z0-9_.-]+"  # a name of timm's own list; with a colon it would be a folder or a repository


def check(model_cfg: Mapping[str, Any]) -> None:
    """Raise where a configuration asks for anything but a shape.

    Raises:
        ModelError: names the setting by its path.
    """
    _only(model_cfg, _MODEL.split(), "model_cfg")
    for group, names in _GROUPS.items():
        if group in model_cfg or group != "multimodal_cfg":
            _only(model_cfg.get(group), names.split(), f"model_cfg.{group}")
            _plain(model_cfg[group], f"model_cfg.{group}")
    name = model_cfg.get("vision_cfg", {}).get("timm_model_name")
    if name and not re.fullmatch(_TIMM, str(name)):
        raise ModelError(
            f"model_cfg.vision_cfg.timm_model_name is {name!r:.80}, expected the name of a timm model; give one without a path"
        )


def check_code(file: Path) -> None:
    """Raise where a Hugging Face file of settings brings Python of its own along, which transformers would ask to run.

    Raises:
        ModelError: it does, or is no JSON.
    """
    try:
        settings = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
    except (OSError, ValueError, RecursionError) as error:
        raise ModelError(f"{file}: not readable as JSON ({error}); write the model again") from error
    attention = [settings.get(name) for name in ("attn_implementation", "_attn_implementation")] if isinstance(settings, dict) else []
    if not isinstance(settings, dict) or "auto_map" in settings or any("/" in str(name) for name in attention):
        told = "it names code of its own (auto_map or a kernel), and nothing that comes with a model is run"
        raise ModelError(f"{file}: {told}; use a model that transformers knows by itself")


def _only(group: Any, names: list[str], path: str) -> None:
    if not isinstance(group, Mapping):
        raise ModelError(f"{path} is {group!r:.80}, expected a group of settings as open_clip writes it")
    odd = sorted(str(name) for name in group if name not in names)
    if odd:
        raise ModelError(f"{path}.{odd[0]:.80} is not a setting of a model's shape, and no other is read; take it out of the configuration")


def _plain(group: Mapping[str, Any], path: str) -> None:
    for name, value in group.items():
        if name == "tokenizer_kwargs" or name in _NUMBERS:
            _only(value or {}, [*TOKENIZER] if name == "tokenizer_kwargs" else list(value or {}), f"{path}.{name}")
            _plain(value or {}, f"{path}.{name}")
        elif not all(isinstance(each, str | int | float | None) for each in (value if isinstance(value, list | tuple) else [value])):
            raise ModelError(
                f"{path}.{name} is {value!r:.80}, expected a number, a word or a list of them; take it out of the configuration"
            )
