"""The loss terms as pure functions, the paper of each in one line."""

from contextlib import AbstractContextManager, nullcontext

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor


def classification(logits: Float[Tensor, "b k"], targets: Int[Tensor, " b"], smoothing: float = 0.0) -> Float[Tensor, ""]:
    """Mean cross-entropy of scaled cosines against class indices 0..k-1."""
    return F.cross_entropy(precise(logits), targets, label_smoothing=smoothing)


def similarities(scale: Float[Tensor, ""] | float, images: Float[Tensor, "n d"], texts: Float[Tensor, "k d"]) -> Float[Tensor, "n k"]:
    """Scaled cosines in at least fp32, multiplied outside autocast: logits near 20 would be 0.125 apart in bf16."""
    with plain(images.device):
        return scale * precise(images) @ precise(texts).T


def contrastive(
    images: Float[Tensor, "n d"],
    texts: Float[Tensor, "n d"],
    scale: Float[Tensor, ""] | float,
    same: Bool[Tensor, "n n"] | None = None,
    smoothing: float = 0.0,
) -> Float[Tensor, ""]:
    """Symmetric cross-entropy of matching pairs, mean of both directions (CLIP, arXiv:2103.00020).

    `same[i, j]` marks texts j that are equal to text i: they are positives too, with the target mass shared
    between them (UniCL, arXiv:2204.03610). Without it only the diagonal is positive. `smoothing` spreads that share of it over all.
    """
    logits = similarities(scale, images, texts)
    target = torch.arange(len(logits), device=logits.device) if same is None else same.to(logits.dtype) / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, target, label_smoothing=smoothing) + F.cross_entropy(logits.T, target, label_smoothing=smoothing)) / 2


def pair_losses(
    images: Float[Tensor, "n d"], texts: Float[Tensor, "n d"], scale: Float[Tensor, ""] | float, same: Bool[Tensor, "n n"]
) -> Float[Tensor, " n"]:
    """The n summands whose mean is `contrastive`: each pair's cross-entropy among the texts and among the images, halved."""
    logits = similarities(scale, images, texts)
    share = same.to(logits.dtype) / same.sum(-1, keepdim=True)
    return (F.cross_entropy(logits, share, reduction="none") + F.cross_entropy(logits.T, share, reduction="none")) / 2


def triplet(distances: Float[Tensor, "n c"], targets: Int[Tensor, " n"], margin: Float[Tensor, ""] | float) -> Float[Tensor, ""]:
    """The mean over rows of how much nearer than `margin` the nearest wrong column comes to the right one.

    It is the proto-triplet loss of SuSana Distancia. A row is 0 where it is near enough to its own, or where there is no other column.
    """
    own = distances.gather(1, targets[:, None])[:, 0]
    if distances.shape[1] == 1:
        return 0.0 * own.sum()
    others = distances.scatter(1, targets[:, None], torch.inf).amin(1)
    return F.relu(own - others + margin).mean()


def apart(rows: Float[Tensor, "n d"], columns: Float[Tensor, "c d"]) -> Float[Tensor, "n c"]:
    """Euclidean distances, sqrt(squared distance + 1e-6): a gradient where two are equal, of 0 and not of 0 / 0."""
    with plain(rows.device):
        one, other = precise(rows), precise(columns)
        squared = one.square().sum(1)[:, None] + other.square().sum(1)[None] - 2 * one @ other.T
        return (squared.clamp_min(0) + 1e-6).sqrt()


def outweighed(
    images: Float[Tensor, "n d"], right: Float[Tensor, "n d"], wrong: Float[Tensor, "n d"], scale: Float[Tensor, ""] | float
) -> Float[Tensor, ""]:
    """The mean cross-entropy of each image between its caption and a wrong one (Teaching CLIP to Count, arXiv:2302.12066).

    The scale gets no gradient: it would grow or shrink with how hard the wrong captions are.
    """
    scale = scale.detach() if isinstance(scale, Tensor) else scale
    with plain(images.device):
        more = (precise(images) * (precise(wrong) - precise(right))).sum(-1)
        return F.softplus(scale * more).mean()


def distillation(student: Float[Tensor, "b k"], teacher: Float[Tensor, "b k"], temperature: float = 1.0) -> Float[Tensor, ""]:
    """T^2 times the mean over rows of KL(softmax(teacher/T) || softmax(student/T)) (LwF, arXiv:1606.09282).

    Zero exactly when the rows agree up to a constant; no gradient reaches the teacher. Computed in at least fp32,
    since bf16 logits near 20 are 0.125 apart.
    """
    target = F.log_softmax(precise(teacher).detach() / temperature, dim=-1)
    return temperature**2 * F.kl_div(F.log_softmax(precise(student) / temperature, dim=-1), target, reduction="batchmean", log_target=True)


def divergence(logits: Float[Tensor, "n m"], rows: Float[Tensor, "n m"], columns: Float[Tensor, "m n"]) -> Float[Tensor, ""]:
    """KL of each row's softmax, and of each column's, from log-probabilities: the mean of both ways (MobileCLIP, arXiv:2311.17049).

    `rows` and `columns` are a teacher's, or the logarithm of the mean over teachers; no gradient reaches them.
    """
    return (_from(logits, rows) + _from(logits.T, columns)) / 2


def _from(logits: Tensor, target: Tensor) -> Tensor:
    return F.kl_div(log_shares(logits), target.detach(), reduction="batchmean", log_target=True)


def log_shares(logits: Float[Tensor, "n m"]) -> Float[Tensor, "n m"]:
    """The logarithm of each row's softmax, in at least fp32."""
    return F.log_softmax(precise(logits), -1)


def alignment(
    student: Float[Tensor, "n n"],
    teacher: Float[Tensor, "n n"],
    same: Bool[Tensor, "n n"] | None = None,
    *,
    mask_diagonal: bool = False,
) -> Float[Tensor, ""]:
    """Mod-X's alignment of plain cosines, images by row and texts by column (ICML 2023, arXiv:2305.07437).

    The sum over rows of KL(softmax(teacher) || softmax(student)), and the same over columns, halved: no temperature, no logit
    scale. A row whose pair the teacher does not rank first is left out, in each direction on its own; ties count as first.
    `same[i, j]` marks equal texts, any of which is the right answer. `mask_diagonal` leaves the pairs themselves out of the rows.
    """
    student, teacher = precise(student), precise(teacher).detach()
    if mask_diagonal and len(student) == 1:
        return 0.0 * student.sum()
    own = torch.eye(len(student), dtype=torch.bool, device=student.device)
    right = own if same is None else same
    total = student.new_zeros(())
    for now, then, answers in ((student, teacher, right), (student.T, teacher.T, right.T)):
        kept = kept_rows(then, answers)
        if mask_diagonal:
            now, then = (matrix[~own].view(len(own), -1) for matrix in (now, then))
        rows = F.kl_div(F.log_softmax(now, -1), F.log_softmax(then, -1), reduction="none", log_target=True).sum(-1)
        total = total + (rows * kept).sum()
    return total / 2


def kept_rows(similarity: Float[Tensor, "n m"], right: Bool[Tensor, "n m"]) -> Bool[Tensor, " n"]:
    """Whether a right answer is the most similar of its row, ties included."""
    return torch.where(right, similarity, -torch.inf).amax(-1) >= similarity.amax(-1)


def plain(device: torch.device) -> AbstractContextManager[object]:
    """Outside autocast, where there is any."""
    return torch.autocast(device.type, enabled=False) if torch.is_autocast_enabled(device.type) else nullcontext()


def mode(device: str) -> tuple[bool, str, torch.dtype, bool]:
    """Under what something is computed: whether for a gradient, on what kind of device, and in which precision there under autocast."""
    return torch.is_grad_enabled(), device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)


def precise(values: Tensor) -> Tensor:
    """The values in at least fp32: sums and exponentials are no place for half precision.

    >>> precise(torch.ones((), dtype=torch.bfloat16)).dtype, precise(torch.ones((), dtype=torch.float64)).dtype
    (torch.float32, torch.float64)
    """
    return values if values.dtype == torch.float64 else values.float()


def regression(now: Float[Tensor, "n d"], then: Float[Tensor, "n d"]) -> Float[Tensor, ""]:
    """The mean of 1 - cosine to where unit rows were: half their mean squared distance, and its gradient. No gradient reaches `then`."""
    return (1 - (precise(now) * precise(then).detach()).sum(-1)).mean()
