"""Forward passes with prompt tokens inside the towers: an own loop over open_clip's layers, so that nothing is patched."""

from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import torch
from jaxtyping import Float, Int
from open_clip import CLIP
from open_clip.transformer import TextTransformer, VisionTransformer
from torch import Tensor, nn

from cl.errors import ModelError

TextMode = Literal["replace", "accumulate", "accumulate_same"]
VisionMode = Literal["accumulate", "replace"]
Place = Literal["after_patches", "after_class"]


@dataclass(frozen=True)
class TextPrompts:
    """Prompt tokens behind the start token; `layers[i]` enters at layer i, deeper layers let the tokens flow on.

    At layer 0 the prompts get positions 1..length and the caption moves back by length; no later layer adds a position.
    replace: each layer puts its prompts into the same slots (CPE-CLIP; CoOp is depth 1).
    accumulate: each layer puts its prompts behind what became of the earlier ones.
    accumulate_same: each layer sees the raw prompts of all layers up to it.
    """

    layers: Float[Tensor, "depth length width"]
    mode: TextMode = "replace"


@dataclass(frozen=True)
class VisionPrompts:
    """Prompt tokens among the patches; `layers[i]` enters at layer i. They carry no position; those of layer 0 pass ln_pre.

    accumulate: each layer adds its tokens to the earlier ones (CPE-CLIP: after_patches). replace: each layer puts its tokens
    in place of the earlier ones. VPT (arXiv:2203.12119) is after_class, shallow with depth 1, deep with replace.
    """

    layers: Float[Tensor, "depth length width"]
    mode: VisionMode = "accumulate"
    place: Place = "after_patches"


class TextTower(NamedTuple):
    """The parts of an open_clip text transformer, wherever the model keeps them. Causal and without a class token."""

    embedding: nn.Embedding
    positions: Float[Tensor, "context width"]
    blocks: nn.ModuleList
    norm: nn.Module
    projection: nn.Module | Tensor | None
    pool: str
    eos: int

    def end(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, " b"]:
        """Where each caption ends, which is where its feature is read: the first highest id, or the first `eos`."""
        return (tokens if self.pool == "argmax" else (tokens == self.eos).int()).argmax(-1)

    def trim(self, tokens: Int[Tensor, "b t"]) -> Int[Tensor, "b s"]:
        """The columns up to the last caption's end; features stay as they are, since a causal tower looks at nothing behind it."""
        return tokens[:, : int(self.end(tokens).max()) + 1] if len(tokens) else tokens


def text_tower(model: nn.Module) -> TextTower | None:
    """The text tower of a model, or None where attention is not causal or the feature is not read at the caption's end.

    Such towers (SigLIP, CoCa, Hugging Face encoders) can neither be trimmed nor prompted here.
    """
    text: Any = model if isinstance(model, CLIP) else model.text  # CLIP holds the parts of its text tower itself
    if isinstance(model, CLIP):
        pool, eos, plain = text.text_pool_type, text.text_eos_id, True
    elif isinstance(text, TextTransformer):
        pool, eos, plain = text.pool_type, text.eos_id, text.cls_emb is None
    else:
        return None
    if text.attn_mask is None or not plain or pool not in ("argmax", "eos"):
        return None
    blocks = text.transformer.resblocks
    return TextTower(text.token_embedding, text.positional_embedding, blocks, text.ln_final, text.text_projection, pool, eos)


def text_features(tower: TextTower, tokens: Int[Tensor, "b t"], prompts: TextPrompts | None = None) -> Float[Tensor, "b d"]:
    """Projected features at the end of each caption, not normalised; without prompts open_clip's own, at any length.

    Many captions go through the tower in groups of like length, each cut to its longest.

    Raises:
        ModelError: caption and prompts do not fit the context, or the prompts do not fit the tower.
    """
    groups = by_length(tower.end(tokens) + 1, tokens.shape[1])
    if len(groups) == 1:
        return _text_features(tower, tokens, prompts)
    features = torch.cat([_text_features(tower, tower.trim(tokens[group]), prompts) for group in groups])
    return features[torch.cat(groups).argsort()]


def by_length(lengths: Int[Tensor, " b"], width: int, smallest: int = 32, most: int = 4) -> list[Int[Tensor, " g"]]:
    """Rows in up to `most` groups of rising length, or in one where cutting each group to its longest saves less than a fifth.

    >>> [group.tolist() for group in by_length(torch.tensor([9, 2, 9, 3]), 9, smallest=2)]
    [[1, 3], [0, 2]]
    """
    every = torch.arange(len(lengths), device=lengths.device)
    parts = min(most, len(lengths) // smallest)
    if parts < 2:
        return [every]
    groups = list(lengths.argsort(stable=True).chunk(parts))
    cost = sum(len(group) * longest for group, longest in zip(groups, [int(lengths[group[-1]]) for group in groups], strict=True))
    return groups if cost < 0.8 * len(lengths) * width else [every]


def _text_features(tower: TextTower, tokens: Int[Tensor, "b t"], prompts: TextPrompts | None) -> Float[Tensor, "b d"]:
    x = tower.embedding(tokens)
    layers: tuple[Tensor, ...] = ()
    if prompts is not None:
        layers = _checked(prompts.layers, len(tower.blocks), x.shape[-1], "text")
        if tokens.shape[1] + len(layers[0]) > len(tower.positions):
            tokens = tower.trim(tokens)
            x = tower.embedding(tokens)
        x = _insert(x, layers[0], 1)
    if x.shape[1] > len(tower.positions):
        asked = f"{tokens.shape[1]} tokens and {x.shape[1] - tokens.shape[1]} prompt tokens"
        raise ModelError(f"a caption of {asked} does not fit the context of {len(tower.positions)}; cut it, or use fewer prompt tokens")
    x = x + tower.positions[: x.shape[1]].to(x.dtype)
    inserted = x.shape[1] - tokens.shape[1]
    mask = _causal(x)
    for index, block in enumerate(tower.blocks):
        if prompts is not None and 0 < index < len(layers):
            x, inserted = _next_text(x, layers, index, inserted, prompts.mode)
            mask = _causal(x)
        x = block(x, attn_mask=mask)
    rows = torch.arange(len(x), device=x.device)
    x = tower.norm(x)[rows, tower.end(tokens) + inserted]
    if tower.projection is None:
        return x
    return tower.projection(x) if isinstance(tower.projection, nn.Module) else x @ tower.projection


def _next_text(x: Tensor, layers: tuple[Tensor, ...], index: int, inserted: int, mode: TextMode) -> tuple[Tensor, int]:
    head, slots, rest = x[:, :1], x[:, 1 : 1 + inserted], x[:, 1 + inserted :]
    if mode == "replace":
        new = _batched(layers[index], x)
    elif mode == "accumulate":
        new = torch.cat([slots, _batched(layers[index], x)], 1)
    else:
        new = _batched(torch.cat(layers[: index + 1]), x)
    return torch.cat([head, new, rest], 1), new.shape[1]


def image_features(visual: VisionTransformer, images: Float[Tensor, "b 3 h w"], prompts: VisionPrompts) -> Float[Tensor, "b d"]:
    """Projected image features, not normalised. Whatever pools tokens pools class and patches, never prompts.

    Raises:
        ModelError: the prompts do not fit the tower.
    """
    # ln_pre works token by token, so the prompts may pass it apart from the patches; patch dropout never drops a prompt
    x = visual._embeds(images)
    layers = _checked(prompts.layers, len(visual.transformer.resblocks), x.shape[-1], "image")
    start = 1 if prompts.place == "after_class" else x.shape[1]
    inserted = 0
    for index, block in enumerate(visual.transformer.resblocks):
        if index < len(layers):
            new = visual.ln_pre(layers[0].to(x.dtype)) if index == 0 else layers[index]
            if prompts.mode == "replace":
                x, inserted = torch.cat([x[:, :start], x[:, start + inserted :]], 1), 0
            x, inserted = _insert(x, new, start + inserted), inserted + len(new)
        x = block(x)
    pooled, _ = visual._pool(torch.cat([x[:, :start], x[:, start + inserted :]], 1))
    return pooled if visual.proj is None else pooled @ visual.proj


def _insert(x: Float[Tensor, "b t w"], new: Float[Tensor, "l w"], at: int) -> Float[Tensor, "b s w"]:
    return torch.cat([x[:, :at], _batched(new, x), x[:, at:]], 1)


def _batched(new: Float[Tensor, "l w"], x: Float[Tensor, "b t w"]) -> Float[Tensor, "b l w"]:
    # prompts stay fp32; what is cast is the copy that enters a tower of lower precision
    return new.to(x.dtype).expand(len(x), -1, -1)


def _causal(x: Float[Tensor, "b t w"]) -> Float[Tensor, "t t"]:
    # open_clip's own mask stops at the context length, which accumulated prompts may pass
    size = x.shape[1]
    return torch.full((size, size), float("-inf"), dtype=x.dtype, device=x.device).triu_(1)


def _checked(layers: Tensor, depth: int, width: int, tower: str) -> tuple[Tensor, ...]:
    if layers.ndim != 3 or not 1 <= len(layers) <= depth or layers.shape[-1] != width:
        raise ModelError(f"{tower} prompts of shape {tuple(layers.shape)} do not fit the tower; expected (1 to {depth}, length, {width})")
    return tuple(layers.unbind())
