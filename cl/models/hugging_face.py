"""A CLIP in the layout that Hugging Face's `transformers` reads; written without it."""

import json
from pathlib import Path
from typing import Any

import open_clip
from open_clip import CLIP
from open_clip.transformer import QuickGELU, ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from cl.disk.tensors import save_tensors
from cl.errors import ModelError
from cl.models.clip import Clip
from cl.models.prompted import text_tower
from cl.text import some

_BLOCK = {
    "attn.out_proj": "self_attn.out_proj",
    "ln_1": "layer_norm1",
    "ln_2": "layer_norm2",
    "mlp.c_fc": "mlp.fc1",
    "mlp.c_proj": "mlp.fc2",
}
_VISION = {
    "class_embedding": "vision_model.embeddings.class_embedding",
    "positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "ln_pre.weight": "vision_model.pre_layrnorm.weight",  # their spelling
    "ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "ln_post.weight": "vision_model.post_layernorm.weight",
    "ln_post.bias": "vision_model.post_layernorm.bias",
    "proj": "visual_projection.weight",
}
_REST = {
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "logit_scale": "logit_scale",
}
_NAMES = {f"visual.{name}": other for name, other in _VISION.items()} | _REST
_TRANSPOSED = ("visual.proj", "text_projection")  # open_clip multiplies from the right, a Linear from the left
_RESAMPLE = {"bilinear": 2, "bicubic": 3}  # numbers of Pillow


def write(clip: Clip, folder: Path) -> None:
    """Fill an existing folder that `CLIPModel`, `CLIPProcessor` and `CLIPTokenizer` of `transformers` read with `from_pretrained`.

    Features of the same pixels and tokens are those of the clip to rounding. Its image processor resizes with another library
    than open_clip, so that pixels may differ by a step of 1/255.

    Raises:
        ModelError: the architecture has no counterpart there; says which part has none.
    """
    texts = {"config.json": settings(clip), "preprocessor_config.json": preprocessing(clip), **_tokenizer(clip)}
    save_tensors(weights(clip), folder / "model.safetensors", {"format": "pt"})
    for name, value in texts.items():
        (folder / name).write_text(json.dumps(value, indent=1, ensure_ascii=False), encoding="utf-8")
    merges = [" ".join(pair) for pair in clip.tokenizer.bpe_ranks]  # in their order
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", encoding="utf-8")


def weights(clip: Clip) -> dict[str, Tensor]:
    """The weights under the names of `transformers`, fp32: attention split into query, key and value, projections transposed.

    Raises:
        ModelError: a tensor has no counterpart.
    """
    check(clip)
    tensors: dict[str, Tensor] = {}
    strange = []
    for name, tensor in clip.model.state_dict().items():
        value = tensor.detach().cpu().float()
        if ".resblocks." in name:
            renamed = _in_block(name, value)
        elif name in _NAMES:
            renamed = {_NAMES[name]: value.T if name in _TRANSPOSED else value.reshape(()) if name == "logit_scale" else value}
        else:
            renamed = {}
        if not renamed:
            strange.append(name)
        tensors |= renamed
    if strange:
        raise _unfit(f"it has {some(strange)}")
    return {name: tensor.contiguous().clone() for name, tensor in tensors.items()}


def settings(clip: Clip) -> dict[str, Any]:
    """What stands in `config.json`.

    Raises:
        ModelError: the architecture has no counterpart.
    """
    check(clip)
    tower = text_tower(clip.model)
    assert tower is not None
    visual, width = clip.model.visual, int(clip.model_cfg["embed_dim"])
    text = _sizes(tower.blocks, width) | {
        "model_type": "clip_text_model",
        "vocab_size": tower.embedding.num_embeddings,
        "max_position_embeddings": len(tower.positions),
        # where a caption ends its feature is read: the default ids would silently be those of another vocabulary
        "bos_token_id": clip.sot,
        "eos_token_id": clip.eot,
        "pad_token_id": clip.eot,
    }
    vision = _sizes(visual.transformer.resblocks, width) | {
        "model_type": "clip_vision_model",
        "image_size": visual.image_size[0],
        "patch_size": visual.patch_size[0],
        "num_channels": 3,
    }
    return {
        "architectures": ["CLIPModel"],
        "model_type": "clip",
        "dtype": "float32",
        "projection_dim": width,
        "logit_scale_init_value": float(clip.logit_scale.detach()),
        "text_config": text,
        "vision_config": vision,
    }


def preprocessing(clip: Clip) -> dict[str, Any]:
    """What stands in `preprocessor_config.json`.

    Raises:
        ModelError: images are made to fit in a way that its image processor does not know.
    """
    cfg, side = clip.preprocess_cfg, clip.model.visual.image_size[0]
    if cfg["resize_mode"] not in ("shortest", "squash"):
        raise _unfit(f"its images are resized by {cfg['resize_mode']!r}, not 'shortest' or 'squash'")
    shortest = cfg["resize_mode"] == "shortest"
    return {
        "image_processor_type": "CLIPImageProcessor",
        "do_convert_rgb": True,
        "do_resize": True,
        "size": {"shortest_edge": side} if shortest else {"height": side, "width": side},
        "resample": _RESAMPLE.get(cfg["interpolation"], 3),
        "do_center_crop": shortest,
        "crop_size": {"height": side, "width": side},
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(cfg["mean"]),
        "image_std": list(cfg["std"]),
    }


def check(clip: Clip) -> None:
    """Say which part of a model has no counterpart in `CLIPModel`.

    Raises:
        ModelError: there is such a part.
    """
    model = clip.model
    visual, tower = model.visual, text_tower(model)
    if not isinstance(visual, VisionTransformer):
        raise _unfit(f"its image tower is a {type(visual).__name__}, not open_clip's vision transformer")
    if not isinstance(model, CLIP) or tower is None:
        raise _unfit("its text tower is not CLIP's causal transformer")
    if visual.pool_type != "tok" or visual.attn_pool is not None or visual.final_ln_after_pool or isinstance(visual.ln_pre, nn.Identity):
        raise _unfit("its image tower pools or normalises in another way")
    if visual.proj is None or not isinstance(tower.projection, Tensor):
        raise _unfit("one of its towers ends in another projection")
    if len({visual.image_size[0], visual.image_size[1]}) > 1 or len(set(visual.patch_size)) > 1:
        raise _unfit(f"its images of {visual.image_size} pixels, or its patches, are not square")
    own = isinstance(clip.tokenizer, open_clip.SimpleTokenizer) and not clip.model_cfg["text_cfg"].get("tokenizer_kwargs")
    if not own or tower.embedding.num_embeddings != len(clip.tokenizer.encoder) or (tower.pool == "eos" and tower.eos != clip.eot):
        raise _unfit("its tokenizer is not CLIP's own")


def _sizes(blocks: nn.ModuleList, projection: int) -> dict[str, Any]:
    first = blocks[0]
    if not isinstance(first, ResidualAttentionBlock) or not isinstance(first.attn, nn.MultiheadAttention):
        raise _unfit("its layers attend in another way")
    quick, plain = isinstance(first.mlp.gelu, QuickGELU), isinstance(first.mlp.gelu, nn.GELU) and first.mlp.gelu.approximate == "none"
    if not (quick or plain):
        raise _unfit(f"its activation is {type(first.mlp.gelu).__name__}")
    return {
        "hidden_size": first.attn.embed_dim,
        "intermediate_size": first.mlp.c_fc.out_features,
        "num_hidden_layers": len(blocks),
        "num_attention_heads": first.attn.num_heads,
        "hidden_act": "quick_gelu" if quick else "gelu",
        "layer_norm_eps": first.ln_1.eps,
        "projection_dim": projection,
        "attention_dropout": 0.0,
    }


def _in_block(name: str, value: Tensor) -> dict[str, Tensor]:
    """A tensor of layer i; attention's input projection becomes three."""
    tower, _, rest = name.partition("transformer.resblocks.")
    index, _, part = rest.partition(".")
    home = f"{'vision' if tower == 'visual.' else 'text'}_model.encoder.layers.{index}"
    if part.startswith("attn.in_proj_"):
        kind = part.removeprefix("attn.in_proj_")
        return {f"{home}.self_attn.{each}_proj.{kind}": third for each, third in zip("qkv", value.chunk(3), strict=True)}
    module, _, kind = part.rpartition(".")
    return {f"{home}.{_BLOCK[module]}.{kind}": value} if module in _BLOCK else {}


def _tokenizer(clip: Clip) -> dict[str, Any]:
    start, end = "<|startoftext|>", "<|endoftext|>"  # open_clip spells them otherwise
    special = {"bos_token": start, "eos_token": end, "unk_token": end, "pad_token": end}
    spelt = {clip.sot: start, clip.eot: end}
    return {
        "vocab.json": {spelt.get(index, token): index for token, index in clip.tokenizer.encoder.items()},
        "special_tokens_map.json": special,
        "tokenizer_config.json": {"tokenizer_class": "CLIPTokenizer", "model_max_length": clip.context_length, **special},
    }


def _unfit(why: str) -> ModelError:
    return ModelError(f"this model has no Hugging Face layout: {why}; use the open_clip layout, which holds any model")
