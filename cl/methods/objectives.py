"""Objectives over matching images and texts beside CLIP's own, as pure functions: what each pulls together and pushes apart.

`same[i, j]` marks texts j that say of image i what its own does (equal words, one class, one sample): they are no negatives. It is
symmetric and true on the diagonal; without it only the diagonal is. Everything is computed in at least fp32, outside autocast.
"""

import math

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float
from torch import Tensor

from cl.methods.losses import precise, similarities

_STRAIGHT = 1e-4  # sine of an angle below which an arc is as good as its chord
_BISECTIONS = 60


def infoloob(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""] | float, same: Bool[Tensor, "n n"] | None = None
) -> Float[Tensor, ""]:
    """InfoLOOB, both directions added: the softmax runs over negatives alone, so that what is learned already still pulls.

    A direction is 1 / scale times the mean over rows of log-sum-exp over negatives minus the mean over positives, of scaled
    cosines (CLOOB, arXiv:2110.11316, whose code has the factor and whose paper has not). A row without negatives adds nothing.
    """
    right = own(images) if same is None else same
    return _leave_one_out(images, texts, scale, right) + _leave_one_out(texts, images, scale, right)


def cloob(
    images: Float[Tensor, "n d"],
    texts: Float[Tensor, "n d"],
    scale: Float[Tensor, ""] | float,
    beta: float,
    same: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """InfoLOOB of what images and texts retrieve from the batch, as continuous Hopfield networks do (CLOOB, arXiv:2110.11316).

    Both retrieve from the batch's images, and are compared; both retrieve from its texts, and are compared. The two are added.
    `beta` is the inverse temperature of the retrieval: at 0 everything retrieves the mean, and there is no gradient.
    """
    right = own(images) if same is None else same
    total = images.new_zeros(())
    for one, other in ((images, texts), (texts, images)):
        total = total + _leave_one_out(retrieved(one, one, beta), retrieved(other, one, beta), scale, right)
    return total


def retrieved(queries: Float[Tensor, "n d"], memory: Float[Tensor, "m d"], beta: float) -> Float[Tensor, "n d"]:
    """One step of a continuous Hopfield network: the mean of the memory, by softmax of beta x cosine, at unit length."""
    shares = similarities(beta, queries, memory).softmax(-1)
    return F.normalize(similarities(1.0, shares, memory.T), dim=-1)


def _leave_one_out(
    rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"], scale: Float[Tensor, ""] | float, same: Bool[Tensor, "n n"]
) -> Float[Tensor, ""]:
    logits = similarities(scale, rows, columns)
    alone = same.all(-1)  # no negatives: the row is left out, its softmax over nothing never made
    negatives = logits.masked_fill(same & ~alone[:, None], -torch.inf).logsumexp(-1)
    positives = (logits * same).sum(-1) / same.sum(-1)
    return torch.where(alone, 0.0, negatives - positives).mean() / scale


def siglip(
    images: Float[Tensor, "n d"],
    texts: Float[Tensor, "n d"],
    scale: Float[Tensor, ""] | float,
    bias: Float[Tensor, ""] | float,
    same: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """Each image with each text, whether they belong together: the sum of logistic losses over the n pairs (arXiv:2303.15343)."""
    sign = (own(images) if same is None else same) * 2 - 1
    return -F.logsigmoid(sign * (similarities(scale, images, texts) + bias)).sum() / len(images)


def siglip_bias(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""] | float, same: Bool[Tensor, "n n"] | None = None
) -> Float[Tensor, ""]:
    """The bias that minimises `siglip` of a batch: the expected number of pairs that belong together is the one there is.

    Of a batch without negatives it is the bias that gives half of a pair away, since the minimiser is infinite.
    """
    logits, right = similarities(scale, images, texts).detach(), own(images) if same is None else same
    count, pairs = min(float(right.sum()), right.numel() - 0.5), right.numel()
    odds = math.log(count / (pairs - count))
    low, high = odds - logits.max(), odds - logits.min()
    for _ in range(_BISECTIONS):
        middle = (low + high) / 2
        few = (logits + middle).sigmoid().sum() < count
        low, high = torch.where(few, middle, low), torch.where(few, high, middle)
    return (low + high) / 2


def distance(images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The mean squared distance of matching unit vectors, 0 to 4 (alignment, arXiv:2005.10242)."""
    return (2 - 2 * (precise(images) * precise(texts)).sum(-1)).mean()


def uniformity(rows: Float[Tensor, "n d"], columns: Float[Tensor, "n d"], same: Bool[Tensor, "n n"] | None = None) -> Float[Tensor, ""]:
    """Log of the mean of exp(-2 x squared distance) over what does not match, -8 to 0: low where it lies far apart (arXiv:2005.10242).

    Of images with images or texts with texts it is the uniformity of one modality, of images with texts that across both
    (arXiv:2405.18570). Where everything matches it is 0.
    """
    apart = ~(own(rows) if same is None else same)
    near = similarities(4.0, rows, columns)[apart] - 4.0  # -2 |a - b|^2 of unit vectors, without the rounding of a distance
    return near.logsumexp(0) - math.log(len(near)) if len(near) else 0.0 * (rows.sum() + columns.sum())


def mixed(
    images: Float[Tensor, "n d"],
    texts: Float[Tensor, "n d"],
    share: float,
    scale: Float[Tensor, ""] | float,
    same: Bool[Tensor, "n n"] | None = None,
) -> Float[Tensor, ""]:
    """Cross-entropy of pairs against mixtures of an image and its text, both directions added (m2-Mix, arXiv:2203.03897).

    A mixture lies on the arc between the two, `share` of it the image. Pairs themselves stay unmixed; what is `same` is no negative.
    """
    mixtures, pairs = geodesic(images, texts, share), own(images)
    matching = similarities(scale, images, texts).diagonal()
    total, target = matching.new_zeros(()), torch.arange(len(images), device=images.device)
    for rows in (images, texts):
        logits = torch.where(pairs, matching[:, None], similarities(scale, rows, mixtures))
        if same is not None:
            logits = logits.masked_fill(same & ~pairs, -torch.inf)
        total = total + F.cross_entropy(logits, target)
    return total


def geodesic(one: Float[Tensor, "n d"], other: Float[Tensor, "n d"], share: float) -> Float[Tensor, "n d"]:
    """The point on the arc from each unit vector of `other` to that of `one`, `share` of the way; on the chord where they are one."""
    one, other = precise(one), precise(other)
    # not acos of the cosine, which is NaN for most vectors that are equal but for rounding
    angle = 2 * torch.atan2((one - other).norm(dim=-1, keepdim=True), (one + other).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    straight = sine < _STRAIGHT
    whole = torch.where(straight, 1.0, sine)
    parts = (torch.where(straight, part, (part * angle).sin() / whole) for part in (share, 1 - share))
    return next(parts) * one + next(parts) * other


def own(rows: Float[Tensor, "n d"]) -> Bool[Tensor, "n n"]:
    """That each text is its own image's alone."""
    return torch.eye(len(rows), dtype=torch.bool, device=rows.device)


def gates(
    fits: Float[Tensor, "3 n"], means: Float[Tensor, "3"], sample: float, pair: float
) -> tuple[Float[Tensor, " n"], Float[Tensor, " n"], Float[Tensor, " n"]]:
    """How much each row, its caption and its second text weigh, by cosines and their running means (ALIP, arXiv:2308.08428).

    `fits`: of caption and second text, image and caption, image and second text. A row whose two texts fit better than on average weighs
    1, and so do both of them; another less, and each of its texts by how well it fits, which may be more than 1.
    """
    texts, first, second = (fits - means[:, None]).unbind()
    rows = (sample * texts).exp().clamp_max(1)
    doubtful = rows < 1
    return rows, *(torch.where(doubtful, (pair * each).exp(), 1.0) for each in (first, second))  # type: ignore[return-value]
