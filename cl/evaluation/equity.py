"""Who gains when a model is tuned: the weak classes or the strong ones (arXiv:2306.01669, the Robin Hood effect)."""

import math
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Accuracies = Float[np.ndarray, " c"]


class Equity(NamedTuple):
    """How accuracies 0..1 of single classes moved; `rich` and `poor` are mean changes of classes above and below the first mean.

    A class counts as rich when its first accuracy is at least the mean; without a poor class `poor` and `robin_hood` are nan.
    """

    mean: tuple[float, float]
    rich: float
    poor: float
    robin_hood: float
    gini: tuple[float, float]
    spread: tuple[float, float]  # standard deviation over classes
    worst_tenth: tuple[float, float]


def equity(before: Accuracies, after: Accuracies) -> Equity:
    """Compares the same classes before and after; above zero, `robin_hood` says that the poor gained more than the rich.

    Noise alone makes it so too, since what was low by chance rises by chance: read it against a control, such as a linear probe.

    >>> found = equity(np.array([0.9, 0.8, 0.3, 0.2]), np.array([0.85, 0.82, 0.5, 0.45]))
    >>> round(found.rich, 3), round(found.poor, 3), round(found.robin_hood, 2)
    (-0.015, 0.225, 0.24)
    """
    before, after = np.asarray(before, dtype=np.float64), np.asarray(after, dtype=np.float64)
    rich = before >= before.mean()
    change = after - before
    gained = float(change[rich].mean()), float(change[~rich].mean()) if (~rich).any() else math.nan
    return Equity(
        mean=(float(before.mean()), float(after.mean())),
        rich=gained[0],
        poor=gained[1],
        robin_hood=gained[1] - gained[0],
        gini=(gini(before), gini(after)),
        spread=(float(before.std()), float(after.std())),
        worst_tenth=(worst_tenth(before), worst_tenth(after)),
    )


def gini(values: Accuracies) -> float:
    """Mean absolute difference of all pairs over twice the mean: 0 where all are equal, 1 - 1/c where one has everything.

    >>> gini(np.array([1.0, 0.0, 0.0, 0.0])), gini(np.zeros(3))
    (0.75, 0.0)
    """
    total = float(values.sum())
    return float(np.abs(values[:, None] - values[None]).sum()) / (2 * len(values) * total) if total else 0.0


def worst_tenth(values: Accuracies) -> float:
    """Mean of the lowest tenth of the classes, of one class at least.

    >>> worst_tenth(np.array([0.5, 0.1, 0.9]))
    0.1
    """
    return float(np.sort(values)[: math.ceil(len(values) / 10)].mean())


def harmonic_mean(seen: float, unseen: float) -> float:
    """2su / (s + u): high only where both are; 0 where either is.

    >>> round(harmonic_mean(0.8, 0.4), 4), harmonic_mean(0.8, 0.0), harmonic_mean(0.0, 0.0)
    (0.5333, 0.0, 0.0)
    """
    return 2 * seen * unseen / (seen + unseen) if seen + unseen else 0.0


def per_class(hits: Bool[np.ndarray, " n"], targets: Int[np.ndarray, " n"], classes: int) -> Accuracies:
    """Share of hits among the samples of each class; nan for a class without samples.

    >>> per_class(np.array([True, False, True]), np.array([0, 0, 1]), 3).tolist()
    [0.5, 1.0, nan]
    """
    counts = np.bincount(targets, minlength=classes)
    with np.errstate(invalid="ignore"):
        return np.bincount(targets, weights=hits, minlength=classes) / counts
