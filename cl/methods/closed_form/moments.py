"""Classes that share one covariance, as sums over rows: how far an image is from their means, and how far had it not been among them."""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from cl.methods.features import ClassRows


class Metric(NamedTuple):
    """The inverse of share * scatter + something * identity, by which distances are measured."""

    inverse: Float[Tensor, "d d"]
    share: float


class Moments(nn.Module):
    """Count and feature sum of each class, and the second moment of all features: the same in any order and split of the rows."""

    second: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        self.register_buffer("second", torch.zeros(width, width, dtype=torch.float64))
        self.sums = ClassRows(width + 1)  # the last column counts

    def add(self, names: Sequence[str], features: Float[Tensor, "n d"], sign: int = 1) -> None:
        """Add rows by the names of their classes, or take them out."""
        self.second.add_(features.T @ features, alpha=sign)
        counted = torch.cat([features, torch.ones_like(features[:, :1])], 1)
        (self.sums.add if sign > 0 else self.sums.subtract)(names, counted)
        if sign < 0:
            self.second.copy_((self.second + self.second.T) / 2)

    def weigh(self, names: Sequence[str], features: Float[Tensor, "n d"], weights: Float[Tensor, "n k"]) -> None:
        """Add rows that are of each class in part; `weights` sum to 1 over the classes."""
        self.second.add_(features.T @ features)
        self.sums.add(names, torch.cat([weights.T @ features, weights.sum(0)[:, None]], 1))

    def clear(self) -> None:
        """Forget all rows."""
        self.second.zero_()
        self.sums.leave_out(self.sums.names)

    def sound(self) -> str | None:
        """What is wrong with the sums, as after rows were taken out that never were in them; None: they may be those of rows."""
        counts = dict(zip(self.sums.names, self.sums.rows[:, -1].tolist(), strict=True))
        if fewer := [name for name, count in counts.items() if count < -1e-6]:
            return f"of class {fewer[0]} {counts[fewer[0]]:.3g} rows would be left"
        scatter = self.scatter()
        return None if positive(scatter, float(self.second.trace())) else "what would be left is the scatter of no rows"

    @property
    def count(self) -> float:
        """Rows of all classes."""
        return float(self.sums.rows[:, -1].sum())

    def means(self, names: Sequence[str]) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"], Bool[Tensor, " k"]]:
        """Mean and count of each class, zeros where one was never taught, and which were."""
        rows, known = self.sums.find(names)
        rows = rows.double()
        return rows[:, :-1] / rows[:, -1:].clamp(min=1e-12), rows[:, -1], known

    def scatter(self) -> Float[Tensor, "d d"]:
        """Within classes."""
        every = self.sums.rows.double()
        return self.second.double() - (every[:, :-1].T / every[:, -1]) @ every[:, :-1]

    def within(self, shrinkage: float) -> Metric:
        """Of the covariance within classes, (1 - shrinkage) of it and `shrinkage` of the identity."""
        count = self.count
        share = (1 - shrinkage) / count
        return Metric(inverse(share * self.scatter(), shrinkage), share)

    def flat(self) -> Metric:
        """No covariance at all: nothing is any distance from anything."""
        return Metric(torch.zeros_like(self.second, dtype=torch.float64), 0.0)

    def whole(self, shrinkage: float) -> tuple[Float[Tensor, " d"], Metric]:
        """The mean of all rows, and the metric of their covariance about it, to which `shrinkage` of the identity is added."""
        count = self.count
        mean = self.sums.rows.double()[:, :-1].sum(0) / count
        return mean, Metric(inverse(self.second.double() / count - torch.outer(mean, mean), shrinkage), 1 / count)


def inverse(matrix: Float[Tensor, "d d"], added: float) -> Float[Tensor, "d d"]:
    """Of a symmetric matrix plus `added` times the identity.

    >>> inverse(torch.diag(torch.tensor([1.0, 3.0])), 1.0).diagonal()
    tensor([0.5000, 0.2500])
    """
    identity = torch.eye(len(matrix), dtype=matrix.dtype, device=matrix.device)
    return torch.cholesky_inverse(torch.linalg.cholesky((matrix + matrix.T) / 2 + added * identity))


def positive(matrix: Float[Tensor, "d d"], scale: float) -> bool:
    """Whether no direction of a symmetric matrix is negative by more than rounding; `scale`: of the numbers that it was made of."""
    if not bool(matrix.isfinite().all()):
        return False
    least = float(torch.linalg.eigvalsh((matrix + matrix.T) / 2)[0])
    return least >= -1e-9 * float(matrix.trace()) - 1e-12 * scale


def distances(x: Float[Tensor, "n d"], means: Float[Tensor, "k d"], by: Float[Tensor, "d d"]) -> Float[Tensor, "n k"]:
    """(x - mean)^T by (x - mean) for each row and mean.

    >>> distances(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 0.0], [1.0, 2.0]]), torch.eye(2))
    tensor([[1., 4.]])
    """
    turned = means @ by
    return ((x @ by) * x).sum(1, keepdim=True) - 2 * x @ turned.T + (turned * means).sum(1)


def left_out(
    x: Float[Tensor, "n d"], own: Int[Tensor, " n"], means: Float[Tensor, "k d"], counts: Float[Tensor, " k"], metric: Metric
) -> Float[Tensor, "n k"]:
    """The distances of rows as they were, had each not been among those that means and scatter are of.

    Exact for mean and scatter, by a rank-one update; the number of rows that the metric divides by is held. Infinite in the own
    class's place where that has no other row.

    Args:
        x: rows that are among the classes.
        own: the place of each row's class.
        means: of all classes, the rows among them.
        counts: their rows.
        metric: of their scatter.
    """
    squares = distances(x, means, metric.inverse)
    own, n = own[:, None], counts[own][:, None]
    others = (n - 1).clamp(min=1e-12)
    turned = (x - means[own[:, 0]]) @ metric.inverse
    cross = (x * turned).sum(1, keepdim=True) - turned @ means.T
    q, a = squares.gather(1, own), metric.share * n / others
    rest = 1 - a * q
    squares = squares + a * cross.square() / rest
    return squares.scatter(1, own, torch.where(n > 1, (n / others) ** 2 * q / rest, torch.inf))
