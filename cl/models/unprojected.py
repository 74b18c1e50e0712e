"""What an image tower says before the projection that texts are compared in: wider than a feature, and of it in the same pass."""

from typing import Any

import torch
from jaxtyping import Float
from open_clip.timm_model import TimmModel
from open_clip.transformer import VisionTransformer
from torch import Tensor

from cl.errors import ModelError
from cl.models.clip import Clip, unit


def both(clip: Clip, images: Float[Tensor, "b 3 h w"]) -> tuple[Float[Tensor, "b d"], Float[Tensor, "b w"]]:
    """The features of images, and the pooled tokens that they are projections of, both of length 1.

    Raises:
        ModelError: this image tower pools and projects in one.
    """
    visual: Any = clip.model.visual
    if isinstance(visual, VisionTransformer):
        wide, _ = visual._pool(visual.transformer(visual._embeds(images)))
        return unit(wide if visual.proj is None else wide @ visual.proj), unit(wide)
    wide = visual.trunk(images) if isinstance(visual, TimmModel) else None
    if wide is None or wide.ndim != 2:
        raise ModelError(
            f"unprojected features need an image tower that projects what it has pooled, and this model's ({type(visual).__name__}) does "
            "not; choose features projected"
        )
    return unit(visual.head(wide)), unit(wide)


def width(clip: Clip) -> int:
    """The width of unprojected features.

    Raises:
        ModelError: as `both`.
    """
    size = clip.preprocess_cfg["size"]
    shape = (size, size) if isinstance(size, int) else tuple(size)
    with torch.no_grad():
        return int(both(clip, torch.zeros(1, 3, *shape, dtype=clip.dtype, device=clip.device))[1].shape[1])
