"""Classes of rows without a label: a mixture of Gaussians with one covariance, by expectation maximisation, held by rows that have one."""

import math
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from jaxtyping import Float
from torch import Tensor

from cl.methods.closed_form.moments import Moments, distances, inverse

VERSION = 1  # see cl/store/units.py
_EPS = 1e-3  # added to the covariance, times the identity
_STEPS = 100
_GAIN = 1e-6  # of the mean log-likelihood, below which it is over


class Mixture(NamedTuple):
    """Share and mean of each class, their covariance, and what the log-likelihood of all rows is under them."""

    shares: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariance: Float[Tensor, "d d"]
    likelihood: float


class Held(NamedTuple):
    """Rows whose class is known, as sums: they take part in means and covariance, and no step gives them to another class."""

    counts: Float[Tensor, " k"]
    sums: Float[Tensor, "k d"]
    second: Float[Tensor, "d d"]  # their second moment; of classes beside the k, about their own means
    rows: float  # of all classes

    @classmethod
    def of(cls, moments: Moments, names: Sequence[str]) -> Self:
        """What sums know of these classes, and of their covariance by all others."""
        means, counts, _ = moments.means(names)
        return cls(counts, means * counts[:, None], moments.scatter() + (means.T * counts) @ means, moments.count)

    def likelihood(self, means: Float[Tensor, "k d"], by: Float[Tensor, "d d"], constant: float) -> float:
        """Their log-likelihood, but for the shares of the classes."""
        cross = means.T @ self.sums
        scatter = self.second - cross - cross.T + (means.T * self.counts) @ means
        return -(self.rows * constant + float((by * scatter).sum())) / 2


def maximised(
    x: Float[Tensor, "n d"],
    second: Float[Tensor, "d d"],
    weights: Float[Tensor, "n k"],
    eps: float = _EPS,
    held: Held | None = None,
    equal: bool = False,
) -> tuple[Mixture, Float[Tensor, "n k"]]:
    """The mixture under which weighted rows are likeliest, and the weights that follow from it.

    Args:
        x: rows.
        second: their second moment, which no weight changes.
        weights: how much of a row is of each class; rows of sum 1.
        eps: added to the covariance, times the identity; without it no further step lowers the likelihood.
        held: rows beside them whose class is known.
        equal: every class is as frequent as any other; else its share is that of its rows.
    """
    counts, sums, every, rows = weights.sum(0), weights.T @ x, second, float(len(x))
    shares = torch.full_like(counts, 1 / len(counts)) if equal else counts / len(x)
    if held is not None:
        counts, sums, every, rows = counts + held.counts, sums + held.sums, every + held.second, rows + held.rows
    means = sums / counts.clamp(min=1e-12)[:, None]
    covariance = (every - (means.T * counts) @ means) / rows
    by = inverse(covariance, eps)
    covariance = covariance + eps * torch.eye(len(second), dtype=second.dtype, device=second.device)
    constant = x.shape[1] * math.log(2 * math.pi) + float(torch.logdet(covariance))
    joint = shares.clamp(min=1e-300).log() - (distances(x, means, by) + constant) / 2
    likelihood = float(joint.logsumexp(1).sum()) + (held.likelihood(means, by, constant) if held else 0.0)
    return Mixture(shares, means, covariance, likelihood), joint.softmax(1)


def assigned(x: Float[Tensor, "n d"], start: Float[Tensor, "n k"], held: Held | None = None) -> Float[Tensor, "n k"]:
    """How much of each row is of each of some classes that are equally frequent, from a first guess until the likelihood hardly grows."""
    second, weights, before = x.T @ x, start, -math.inf
    for _ in range(_STEPS):
        mixture, weights = maximised(x, second, weights, held=held, equal=True)
        if mixture.likelihood - before < _GAIN * len(x):
            break
        before = mixture.likelihood
    return weights
