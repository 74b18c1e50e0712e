"""A session half learned, as named tensors: what a method and its optimizer hold between two steps, and how it is put back."""

from collections.abc import Mapping

import torch
from torch import Tensor

from cl.methods.base import Method
from cl.methods.persist import memory, restore


def put_back(method: Method, tensors: Mapping[str, Tensor], source: str) -> None:
    """The weights and whatever else the method had in the middle of the session, after its `begin`.

    Raises:
        StoreError: it was kept by another method or model.
    """
    restore(method, part(tensors, "memory"), source)
    method.resume(part(tensors, "midway"))


def part(tensors: Mapping[str, Tensor], name: str) -> dict[str, Tensor]:
    """The tensors named name/..., without it."""
    return {key.removeprefix(f"{name}/"): tensor for key, tensor in tensors.items() if key.startswith(f"{name}/")}


def held_by(method: Method) -> dict[str, Tensor]:
    """All that a method holds in the middle of a session."""
    return named("memory", memory(method)) | named("midway", method.midway())


def named(name: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors as name/..."""
    return {f"{name}/{key}": tensor for key, tensor in tensors.items()}


def moments(method: Method, optimizer: torch.optim.Optimizer) -> dict[str, Tensor]:
    """What the optimizer knows of each weight, by the weight's name."""
    names = {id(weight): name for name, weight in method.named_parameters()}
    return {
        f"{names[id(weight)]}/{kind}": value
        for weight, own in optimizer.state.items()
        for kind, value in own.items()
        if isinstance(value, Tensor)
    }


def put_moments_back(method: Method, optimizer: torch.optim.Optimizer, kept: Mapping[str, Tensor]) -> None:
    """What `moments` gave, into a fresh optimizer over the same weights."""
    if not kept:
        return
    names = {id(weight): name for name, weight in method.named_parameters()}
    order = [names[id(weight)] for group in optimizer.param_groups for weight in group["params"]]
    tree = optimizer.state_dict()
    tree["state"] = {index: part(kept, name) for index, name in enumerate(order) if part(kept, name)}
    optimizer.load_state_dict(tree)
