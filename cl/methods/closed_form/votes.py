"""How kept images vote for their classes beside zero-shot, as pure functions, and which strength of votes answers kept images best."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

# what is tried where nothing is set; the authors search alpha and beta up to 3 and 7, and glyphs ask for 1,000 and 100
ALPHAS = (0.0, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1000.0, 3000.0, 10000.0)
BETAS = (1.0, 2.0, 5.5, 10.0, 20.0, 50.0, 100.0, 200.0, 500.0)
_BLOCK = 500  # images asked at a time: their affinities with all keys are in memory


def affinities(images: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], beta: float | Tensor) -> Float[Tensor, "b n"]:
    """How strongly each key votes about each image: exp(-beta (1 - x f))."""
    return torch.exp(-beta * (1 - images @ keys.T))


def cached(
    images: Float[Tensor, "b d"], keys: Float[Tensor, "n d"], owners: Int[Tensor, " n"], classes: int, beta: float
) -> Float[Tensor, "b k"]:
    """What the keys of each of so many classes say of each image."""
    votes = affinities(images, keys, beta)
    return votes.new_zeros(len(images), classes).index_add(1, owners, votes)


def scores(images: Float[Tensor, "b d"], features: Float[Tensor, "k m"], scale: Float[Tensor, ""] | float) -> Float[Tensor, "b k"]:
    """Logits, of rows as `Tip.class_features` makes them; each class is computed by itself, so that another one changes no bit of it."""
    width, columns = images.shape[1], []
    for row, count in zip(features, features[:, width + 2].int().tolist(), strict=True):
        keys = row[width + 3 : width + 3 + count * width].view(count, width)
        columns.append(scale * (images @ row[:width]) + row[width] * affinities(images, keys, row[width + 1]).sum(1))
    return torch.stack(columns, 1)


class Kept(NamedTuple):
    """What leave-one-out goes over."""

    images: Float[Tensor, "n d"]  # unit features
    keys: Float[Tensor, "n d"]  # one of each image
    owners: Int[Tensor, " n"]  # their classes, as rows of `texts`
    texts: Float[Tensor, "k d"]


def left_out(kept: Kept, scale: float, alphas: Sequence[float], betas: Sequence[float], asked: Sequence[int]) -> tuple[float, float]:
    """The alpha and beta under which most images are right when asked without their own key; of equals the smallest.

    Exact: without its own key the vote for an image's class is less by that key's, and nothing else changes.

    Args:
        kept: images with their keys.
        scale: of zero-shot's cosines.
        alphas: what is tried.
        betas: likewise.
        asked: which images are asked.
    """
    right = torch.zeros(len(betas), len(alphas), dtype=torch.int64)
    for start in range(0, len(asked), _BLOCK):
        rows = torch.tensor(asked[start : start + _BLOCK], device=kept.keys.device)
        queries, own = kept.images[rows], kept.owners[rows]
        zero_shot, near = scale * queries @ kept.texts.T, queries @ kept.keys.T
        for at, beta in enumerate(betas):
            votes = torch.exp(-beta * (1 - near))
            votes[torch.arange(len(rows), device=rows.device), rows] = 0.0
            cache = torch.zeros_like(zero_shot).index_add_(1, kept.owners, votes)
            right[at] += torch.tensor([int(((zero_shot + alpha * cache).argmax(1) == own).sum()) for alpha in alphas])
    best = (right == right.max()).nonzero().tolist()
    return min((alphas[alpha], betas[beta]) for beta, alpha in best)
