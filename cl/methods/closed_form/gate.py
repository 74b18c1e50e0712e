"""Whether an image shows a class that was taught: thresholds from what taught images score, and what follows where others compete."""

import math
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, PositiveFloat
from torch import Tensor

from cl.config import Config

DISTANCES = ("mahalanobis", "relative")  # scores that the sums give; the others compare with texts
TEXTS = ("mcm", "energy", "max_cosine")
SHRINKAGE = 1e-3  # of the covariance that distances are measured by


class NoneConfig(Config):
    """How it is told that an image shows none of the classes."""

    score: Literal["mahalanobis", "relative", "mcm", "energy", "max_cosine"] = Field(
        "mahalanobis",
        description="distance to the nearest class mean; less that to the mean of all; or of the cosines with the classes' texts: the "
        "largest softmax (MCM, arXiv:2211.13445), the energy (arXiv:2010.03759), the largest",
    )
    reject: float = Field(0.05, ge=0, le=1, description="share of images of taught classes that may be taken for none of them")
    tau: PositiveFloat = Field(1.0, description="mcm, energy: what cosines are divided by")


NONE = (
    "how it is told that an image shows none of the classes: score mahalanobis, relative, mcm, energy or max_cosine; reject, the share of "
    "images of taught classes that may be lost by it; tau, what cosines are divided by"
)


def text_score(cosines: Float[Tensor, "b k"], score: str, tau: float) -> Float[Tensor, " b"]:
    """How familiar images are by their cosines with classes: more is more familiar.

    >>> text_score(torch.tensor([[0.5, 0.5]]), "mcm", 1.0), text_score(torch.tensor([[0.1, 0.3]]), "max_cosine", 1.0)
    (tensor([0.5000]), tensor([0.3000]))
    """
    if score == "mcm":
        return (cosines / tau).softmax(1).amax(1)
    return tau * (cosines / tau).logsumexp(1) if score == "energy" else cosines.amax(1)


def threshold(known: Float[Tensor, " n"], reject: float) -> float:
    """Below what an image counts as unknown, by how familiar n images of known classes are.

    The k-th smallest, k = floor(reject (n + 1)): of new images of those classes about `reject` fall below it, at most so many where
    the n took no part in what measures them (split conformal). -inf where k is 0, inf where all are to be rejected; NaN without any.

    >>> known = torch.tensor([3.0, 1.0, 2.0, 4.0])
    >>> [threshold(known, reject) for reject in (0, 0.2, 0.5, 1)], threshold(known[:0], 0.5)
    ([-inf, 1.0, 2.0, inf], nan)
    """
    if not len(known):
        return math.nan
    place = math.floor(reject * (len(known) + 1) + 1e-9)
    if place < 1:
        return -math.inf
    return math.inf if place > len(known) else float(known.sort().values[place - 1])


def meet(
    own: Float[Tensor, "b k"], zero_shot: Float[Tensor, "b k"], taught: Bool[Tensor, " k"], known: Bool[Tensor, " b"] | None
) -> Float[Tensor, "b k"]:
    """One ranking of classes that were taught and classes that never were, whose scores have different units.

    Which of the taught ones an image shows, their own scores say; which of the others, zero-shot. Whether it shows a taught one,
    `known` says, or zero-shot where that is None. The best of the taught ones is put where the best zero-shot logit of a taught class
    is; where `known` says otherwise than zero-shot, the best of both sides change places. All taught: `own`; none taught: `zero_shot`.

    >>> own, zero = torch.tensor([[9.0, 8.5, 0.0]]), torch.tensor([[1.0, 3.0, 2.0]])
    >>> some = torch.tensor([True, True, False])
    >>> meet(own, zero, some, None), meet(own, zero, some, torch.tensor([False]))
    (tensor([[3.0000, 2.5000, 2.0000]]), tensor([[1.0000, 0.5000, 2.0000]]))
    """
    if taught.all():
        return own
    if not taught.any():
        return zero_shot
    best, other = zero_shot[:, taught].amax(1, keepdim=True), zero_shot[:, ~taught].amax(1, keepdim=True)
    if known is not None:
        ahead = (best - other).abs().clamp(min=1e-6)  # who is ahead is not left to a tie
        best = other + torch.where(known[:, None], ahead, -ahead)
    return torch.where(taught, own + best - own[:, taught].amax(1, keepdim=True), zero_shot)


def nearest(values: Float[Tensor, "b k"], taught: Bool[Tensor, " k"]) -> Float[Tensor, " b"]:
    """The smallest over taught classes; infinite where none is."""
    return values[:, taught].amin(1) if bool(taught.any()) else values.new_full((len(values),), math.inf)
