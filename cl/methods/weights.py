"""Weights as named tensors, and the running statistics beside them: between two models, the mean of many, how far one is from another."""

import hashlib
import json
from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from cl.errors import ModelError
from cl.text import some

Weights = Mapping[str, Tensor]


def named(module: nn.Module, parameters: Iterable[nn.Parameter]) -> dict[str, nn.Parameter]:
    """The given parameters under their names in the module, in the module's order."""
    wanted = {id(parameter) for parameter in parameters}
    return {name: parameter for name, parameter in module.named_parameters() if id(parameter) in wanted}


def snapshot(weights: Weights) -> dict[str, Tensor]:
    """The same values, without gradient and in storage of their own."""
    return {name: tensor.detach().clone() for name, tensor in weights.items()}


def signature(weights: Weights) -> str:
    """A digest of their names and shapes, in order."""
    told = json.dumps([[name, list(each.shape)] for name, each in weights.items()])
    return hashlib.sha256(told.encode()).hexdigest()[:16]


def running(module: nn.Module) -> dict[str, Tensor]:
    """Tensors of a module's state that are no weights: running statistics, and how often they were updated."""
    weights = dict(module.named_parameters())
    return {name: value for name, value in module.state_dict().items() if name not in weights}


def beside(weights: Iterable[str], statistics: Iterable[str]) -> frozenset[str]:
    """The names of statistics of modules that some of the weights are of.

    >>> sorted(beside(["norm.weight"], ["norm.running_mean", "other.running_mean"]))
    ['norm.running_mean']
    """
    homes = {name.rpartition(".")[0] for name in weights}
    return frozenset(name for name in statistics if name.rpartition(".")[0] in homes)


def put(into: Weights, values: Weights) -> None:
    """Write values into the tensors of the same names, where those are."""
    with torch.no_grad():
        for name, tensor in into.items():
            tensor.copy_(values[name])


def interpolate(a: Weights, b: Weights, t: float) -> dict[str, Tensor]:
    """(1 - t) a + t b in new storage: a for t = 0 and b for t = 1, to the bit (WiSE-FT, arXiv:2109.01903).

    Tensors that hold no fractions (counters) are b's.

    Raises:
        ModelError: the two differ in names or shapes.

    >>> interpolate({"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([2.0, 1.0])}, 0.25)
    {'w': tensor([1.2500, 2.5000])}
    """
    _alike(a, b)
    return {name: _between(a[name].detach(), b[name].detach(), t) for name in a}


def running_mean(mean: Weights, new: Weights, count: int) -> dict[str, Tensor]:
    """The mean of count + 1 weights, from the mean of `count` and one more (weight ensemble, arXiv:2303.06628).

    >>> running_mean({"w": torch.tensor([1.0])}, {"w": torch.tensor([4.0])}, 2)
    {'w': tensor([2.])}
    """
    return interpolate(mean, new, 1 / (count + 1))


def squared_distance(now: Weights, anchor: Weights, importance: Weights | None = None) -> Float[Tensor, ""]:
    """Sum over all values of importance * (now - anchor)^2, importance 1 where none is given; only `now` gets a gradient.

    Without importance it is ZSCL's weight consolidation (arXiv:2303.06628), with the Fisher diagonal twice EWC's penalty
    (arXiv:1612.00796). A sum, not a mean: it grows with the model.

    Raises:
        ModelError: names or shapes differ.

    >>> squared_distance({"w": torch.tensor([1.0, 3.0])}, {"w": torch.tensor([0.0, 1.0])}, {"w": torch.tensor([2.0, 0.5])})
    tensor(4.)
    """
    _alike(now, anchor)
    if importance is None:
        return torch.stack([F.mse_loss(now[name], anchor[name].detach(), reduction="sum") for name in now]).sum()
    _alike(now, importance)
    moves = [F.mse_loss(now[name], anchor[name].detach(), reduction="none") * importance[name].detach() for name in now]
    return torch.stack([moved.sum() for moved in moves]).sum()


def _between(a: Tensor, b: Tensor, t: float) -> Tensor:
    if t in (0, 1) or not a.is_floating_point():
        return (a if t == 0 and a.is_floating_point() else b).clone()
    return torch.lerp(a, b, t)


def _alike(a: Weights, b: Weights) -> None:
    odd = sorted(set(a) ^ set(b)) or [name for name in a if a[name].shape != b[name].shape]
    if odd:
        raise ModelError(f"weights of two different models ({len(odd)} names or shapes differ: {some(odd)}); give two of one model")
