"""Whether new images look unlike those already learned: a two-sample test in the model's own feature space, calibrated on known images."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

Features = Float[np.ndarray, "n d"]


class Drift(NamedTuple):
    """What the test found: `value` above `threshold` is drift.

    `false_alarms` is the share of alarms on further draws of known images alone, to be read against the rate that was `asked` for.
    """

    value: float
    threshold: float
    asked: float
    false_alarms: float
    known: int
    fresh: int

    @property
    def found(self) -> bool:
        """Whether the new images are further off than known ones are among themselves."""
        return self.value > self.threshold


def drift(known: Features, fresh: Features, rate: float = 0.01, *, draws: int = 500, seed: int = 0) -> Drift:
    """Squared maximum mean discrepancy between known and new features against what it is among known ones (arXiv:0805.2368).

    The kernel is Gaussian, its width the median distance of known features. As many known features as there are new ones (at most half)
    are drawn `draws` times and compared with the rest: the threshold is the quantile of these that `rate` alarms exceed. The
    same number of further draws measures how many alarms there really are.

    Raises:
        ValueError: fewer than four known features or two new ones.

    >>> random = np.random.default_rng(0)
    >>> known, like, unlike = random.normal(size=(200, 8)), random.normal(size=(60, 8)), random.normal(0.7, 1, size=(60, 8))
    >>> drift(known, like).found, drift(known, unlike).found
    (False, True)
    """
    if len(known) < 4 or len(fresh) < 2:
        raise ValueError(f"{len(known)} known and {len(fresh)} new images; a comparison needs four and two")
    size, random = min(len(fresh), len(known) // 2), np.random.default_rng(seed)
    everything = np.concatenate([known, fresh]).astype(np.float64)
    squared = _squared_distances(everything)
    width = float(np.median(squared[: len(known), : len(known)][np.triu_indices(len(known), 1)])) or 1.0
    kernel = np.exp(-squared / width)
    among = [_discrepancies(kernel[: len(known), : len(known)], _halves(len(known), size, draws, random)) for _ in range(2)]
    threshold = float(np.sort(among[0])[min(draws - 1, math.ceil((1 - rate) * (draws + 1)) - 1)])
    rest, new = random.permutation(len(known))[: len(known) - size], len(known) + random.permutation(len(fresh))[:size]
    asked = np.zeros((1, len(everything)))
    asked[0, rest], asked[0, new] = 1 / len(rest), -1 / size
    value = float(_discrepancies(kernel, asked)[0])
    return Drift(value, threshold, rate, float((among[1] > threshold).mean()), len(known), len(fresh))


def _squared_distances(rows: Features) -> Float[np.ndarray, "n n"]:
    norms = (rows**2).sum(1)
    return np.maximum(norms[:, None] + norms[None] - 2 * rows @ rows.T, 0.0)


def _halves(count: int, size: int, draws: int, random: np.random.Generator) -> Float[np.ndarray, "k n"]:
    """Weights of `draws` divisions into `size` and the rest."""
    drawn = random.random((draws, count)).argsort(1) < size
    return np.where(drawn, -1 / size, 1 / (count - size))


def _discrepancies(kernel: Float[np.ndarray, "n n"], weights: Float[np.ndarray, "k n"]) -> Float[np.ndarray, " k"]:
    """Squared distance of the two weighted means in the kernel's space."""
    # rounded: equal images are no drift, whatever the last digit says
    return np.asarray(((weights @ kernel) * weights).sum(1).round(12))
