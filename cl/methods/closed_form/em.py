"""Classes of rows without a label: a mixture of Gaussians with one covariance, by expectation maximisation from what zero-shot says."""

import math
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor

from cl.methods.closed_form.moments import distances, inverse

_EPS = 1e-3  # added to the covariance, times the identity
_STEPS = 100
_GAIN = 1e-6  # of the mean log-likelihood, below which it is over


class Mixture(NamedTuple):
    """Share and mean of each class, their covariance, and what the rows' log-likelihood is under them."""

    shares: Float[Tensor, " k"]
    means: Float[Tensor, "k d"]
    covariance: Float[Tensor, "d d"]
    likelihood: float


def maximised(
    x: Float[Tensor, "n d"], second: Float[Tensor, "d d"], weights: Float[Tensor, "n k"], eps: float = _EPS
) -> tuple[Mixture, Float[Tensor, "n k"]]:
    """The mixture under which weighted rows are likeliest, and the weights that follow from it.

    Args:
        x: rows.
        second: their second moment, which no weight changes.
        weights: how much of a row is of each class; rows of sum 1.
        eps: added to the covariance, times the identity; without it no further step lowers the likelihood.
    """
    counts = weights.sum(0)
    means = weights.T @ x / counts.clamp(min=1e-12)[:, None]
    covariance = (second - (means.T * counts) @ means) / len(x)
    by = inverse(covariance, eps)
    covariance = covariance + eps * torch.eye(len(second), dtype=second.dtype, device=second.device)
    shares = counts / len(x)
    constant = x.shape[1] * math.log(2 * math.pi) + float(torch.logdet(covariance))
    joint = shares.clamp(min=1e-300).log() - (distances(x, means, by) + constant) / 2
    return Mixture(shares, means, covariance, float(joint.logsumexp(1).sum())), joint.softmax(1)


def assigned(x: Float[Tensor, "n d"], start: Float[Tensor, "n k"]) -> Float[Tensor, "n k"]:
    """How much of each row is of each class, from a first guess on until the likelihood hardly grows."""
    second, weights, before = x.T @ x, start, -math.inf
    for _ in range(_STEPS):
        mixture, weights = maximised(x, second, weights)
        if mixture.likelihood - before < _GAIN * len(x):
            break
        before = mixture.likelihood
    return weights
