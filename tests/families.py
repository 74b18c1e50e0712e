"""One small model with random weights of each family that open_clip has, built from its own settings and without a download."""

from pathlib import Path
from typing import Any

import timm
import tokenizers
import transformers
from timm.models import eva, fastvit, vision_transformer

from cl.models.clip import Clip, build

_TEXT = {"context_length": 24, "vocab_size": 49408, "width": 32, "heads": 2, "layers": 2}
_VISION = {"image_size": 32, "patch_size": 8, "width": 32, "head_width": 16, "layers": 2}
_COLOURS = ["red", "green", "blue", "yellow", "purple", "orange", "white", "black"]
_WORDS = ["a", *_COLOURS, "square", "number", "paint", "sample", "patch", *(str(digit) for digit in range(10))]


@timm.models.register_model
def small_mobileclip(pretrained: bool = False, **settings: Any) -> Any:
    """MobileCLIP's image tower with one block a stage."""
    size = {"layers": (1, 1, 1, 1), "embed_dims": (16, 16, 32, 32), "mlp_ratios": (2, 2, 2, 2)}
    mixers = {"token_mixers": ("repmixer", "repmixer", "repmixer", "attention"), "lkc_use_act": True}
    return fastvit._create_fastvit("fastvit_mci1", pretrained=False, **{**size, **mixers, **settings})


@timm.models.register_model
def small_eva(pretrained: bool = False, **settings: Any) -> Any:
    """EVA02-CLIP's image tower with two layers."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "ref_feat_shape": (4, 4)}
    kind = {"qkv_fused": False, "swiglu_mlp": True, "scale_mlp": True, "scale_attn_inner": True, "use_rot_pos_emb": True}
    return eva._create_eva("eva02_base_patch16_clip_224", pretrained=False, **{**size, **kind, **settings})


@timm.models.register_model
def small_siglip(pretrained: bool = False, **settings: Any) -> Any:
    """SigLIP's image tower with two layers: no class token, pooled by attention."""
    size = {"img_size": 32, "patch_size": 8, "embed_dim": 32, "depth": 2, "num_heads": 2, "class_token": False, "global_pool": "map"}
    return vision_transformer._create_vision_transformer("vit_base_patch16_siglip_224", pretrained=False, **{**size, **settings})


def _timm(name: str, pool: str, proj: str | None, size: int = 32) -> dict[str, Any]:
    return {"image_size": size, "timm_model_name": name, "timm_pool": pool, "timm_proj": proj}


_CLIP = {"embed_dim": 32, "vision_cfg": _VISION, "text_cfg": _TEXT}
_MIXED = {**_VISION, "attentional_pool": True, "attn_pooler_heads": 2, "output_tokens": True}

FAMILIES: dict[str, dict[str, Any]] = {
    "ViT": _CLIP,
    "RN": _CLIP | {"vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8, "patch_size": None}},
    "ConvNeXt": _CLIP | {"vision_cfg": _timm("test_convnext", "", "linear")},
    "EVA": _CLIP | {"vision_cfg": _timm("small_eva", "token", None), "custom_text": True},
    "MobileCLIP": _CLIP
    | {"vision_cfg": _timm("small_mobileclip", "avg", None, 64), "text_cfg": _TEXT | {"no_causal_mask": True}, "custom_text": True},
    "SigLIP": _CLIP
    | {
        "init_logit_scale": 4.7666,  # 117.5, where the released models stand
        "init_logit_bias": -10,
        "custom_text": True,
        "vision_cfg": _timm("small_siglip", "map", "none"),
        "text_cfg": _TEXT | {"no_causal_mask": True, "proj_bias": True, "pool_type": "last", "vocab_size": 40},
    },
    "CoCa": _CLIP
    | {
        "custom_text": True,
        "vision_cfg": _MIXED,
        "text_cfg": _TEXT | {"embed_cls": True, "output_tokens": True},
        "multimodal_cfg": {k: v for k, v in _TEXT.items() if k != "vocab_size"} | {"attn_pooler_heads": 2},
    },
    "HF text tower": _CLIP | {"text_cfg": {"context_length": 24, "hf_proj_type": "mlp", "hf_pooler_type": "mean_pooler"}},
}


def family(name: str, folder: Path) -> Clip:
    """The small model of a family; `folder` is for the files that its tokenizer and its text tower are read from."""
    settings = FAMILIES[name]
    folder.mkdir(exist_ok=True)
    if name == "SigLIP":
        _reader(folder, [], ["</s>"], pad="</s>")
        settings = settings | {"text_cfg": settings["text_cfg"] | {"hf_tokenizer_name": str(folder)}}
    if name == "HF text tower":
        _reader(folder, ["<s>"], ["</s>"], pad="<pad>")
        roberta = transformers.RobertaConfig(
            vocab_size=40, hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=32, max_position_embeddings=28
        )
        roberta.save_pretrained(folder)
        settings = settings | {"text_cfg": settings["text_cfg"] | {"hf_model_name": str(folder), "hf_tokenizer_name": str(folder)}}
    return build(settings)


def _reader(folder: Path, before: list[str], after: list[str], pad: str) -> None:
    """Files of a Hugging Face tokenizer as RoBERTa's (ids 0, 1, 2: start, padding, end) or T5's (no start; its padding is its end)."""
    words = {word: index for index, word in enumerate(["<s>", "<pad>", "</s>", "<unk>", *_WORDS])}
    core = tokenizers.Tokenizer(tokenizers.models.WordLevel(words, unk_token="<unk>"))
    core.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    core.post_processor = tokenizers.processors.TemplateProcessing(
        single=" ".join([*before, "$A", *after]), special_tokens=[(word, words[word]) for word in (*before, *after)]
    )
    special = {"pad_token": pad, "eos_token": "</s>", "unk_token": "<unk>"} | ({"bos_token": "<s>"} if before else {})
    transformers.PreTrainedTokenizerFast(tokenizer_object=core, **special).save_pretrained(folder)
