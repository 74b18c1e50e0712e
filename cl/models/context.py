"""Longer captions for a CLIP that was pretrained on short ones: positions are stretched behind those that were trained well (Long-CLIP)."""

import copy
from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from cl.errors import ModelError
from cl.models.prompted import text_tower

KEPT = 20  # positions that stay: captions that CLIP was pretrained on seldom reach beyond (arXiv:2403.15378, section 3.1)


def stretched(positions: Float[Tensor, "c w"], length: int, kept: int = KEPT) -> Float[Tensor, "l w"]:
    """Position embeddings for a longer context: the first `kept` as they are, the others spread over what is left, linearly.

    Position t >= kept is the old one at kept + (t - kept) (c - kept) / (l - kept), beyond the last by the line through the last two. So
    texts of up to kept + 1 tokens, start and end counted, keep their features to the bit. 77 positions become 248, four for each of
    the last 57 (arXiv:2403.15378).

    >>> stretched(torch.tensor([[0.0], [1.0], [2.0], [4.0]]), 6, kept=2).flatten().tolist()
    [0.0, 1.0, 2.0, 3.0, 4.0, 5.0]
    """
    own = positions.double()
    behind = torch.arange(length - kept, dtype=torch.float64, device=own.device) * (len(own) - kept) / (length - kept) + kept
    below = behind.floor().clamp(max=len(own) - 2)
    part, low = (behind - below)[:, None], below.long()
    return torch.cat([own[:kept], own[low] * (1 - part) + own[low + 1] * part]).to(positions.dtype)


def longer(called: str, model_cfg: Mapping[str, Any], model: nn.Module, length: int) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The settings and the weights that a model, `called` so, has with a longer context.

    Raises:
        ModelError: its text tower has no positions of its own to stretch, too few, or more than are asked for.
    """
    tower = text_tower(model)
    if tower is None:
        raise ModelError(
            f"{called}: context {length} needs open_clip's causal text transformer, whose positions can be stretched, and this model has "
            "another text tower; leave model.context out, or choose a model such as ViT-B-32"
        )
    own = len(tower.positions)
    if length < own:
        raise ModelError(f"{called}: context {length} is less than the {own} tokens that it reads; leave model.context out, or give more")
    if own < KEPT + 2 and length > own:
        few = f"it has {own} positions, of which the first {KEPT} stay, and more than one has to be left to stretch"
        raise ModelError(f"{called}: context {length} cannot be had: {few}; leave model.context out, or choose a model such as ViT-B-32")
    settings, weights = copy.deepcopy(dict(model_cfg)), dict(model.state_dict())
    settings["text_cfg"]["context_length"] = length
    name = next(name for name, parameter in model.named_parameters() if parameter is tower.positions)
    weights[name] = stretched(weights[name], length)
    return settings, weights
