"""What all ranks hold, on every rank, in one order; gradients go back to where a feature came from. The only place that knows of ranks.

Every rank computes the whole loss from gathered features: the backward of the gather sums as many equal gradients as there are ranks, and
data parallelism divides by that number, so that losses and gradients are those of one rank that sees the whole batch. Sums over few
ranks in another order change the last digits only.
"""

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor


def together() -> bool:
    """Whether there are other ranks."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def total(own: int) -> int:
    """The sum of a number over all ranks; alone it is the number."""
    if not together():
        return own
    return sum(counts(own, torch.device("cuda" if dist.get_backend() == "nccl" else "cpu")))


def counts(own: int, device: torch.device) -> list[int]:
    """How many rows each rank has."""
    return [int(each) for each in _all(torch.tensor([own], device=device))]


def rows(own: Int[Tensor, "n t"], sizes: Sequence[int], fill: int = 0) -> Int[Tensor, "N t"]:
    """Whole numbers of all ranks, rank after rank; shorter rows are filled up."""
    width = max(counts(own.shape[1], own.device))
    padded = F.pad(own, (0, width - own.shape[1], 0, max(sizes) - len(own)), value=fill)
    return torch.cat([each[:size] for each, size in zip(_all(padded), sizes, strict=True)])


def features(own: Float[Tensor, "n d"], sizes: Sequence[int]) -> Float[Tensor, "N d"]:
    """Features of all ranks, rank after rank, with gradient to where each came from.

    A rank that has none hands over some all the same: they take part in its graph and weigh nothing.
    """
    size = sizes[dist.get_rank()]
    padded = F.pad(own[:size], (0, 0, 0, max(sizes) - size)) + 0 * own.sum()
    everything = _Gather.apply(padded)
    return torch.cat([each[:size] for each, size in zip(everything, sizes, strict=True)])


class _Gather(torch.autograd.Function):
    """All ranks' tensors, stacked; its backward sums over ranks what each of them wants of this one's."""

    @staticmethod
    def forward(ctx: Any, own: Tensor) -> Tensor:
        return torch.stack(_all(own.contiguous()))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> Tensor:
        whole = gradients[0].contiguous()
        dist.all_reduce(whole, group=_group())
        return whole[dist.get_rank()]


def _all(own: Tensor) -> list[Tensor]:
    every = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(every, own, group=_group())
    return every


_groups: dict[Any, Any] = {}


def _group() -> Any:
    """A group of its own: gradients that are averaged meanwhile go through another, and neither waits for the other's turn."""
    whole = dist.group.WORLD
    if whole not in _groups:
        _groups.clear()
        _groups[whole] = dist.new_group()
    return _groups[whole]
