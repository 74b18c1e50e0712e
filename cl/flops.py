"""What arithmetic costs: floating point operations of matrix products and convolutions, forward and backward."""

from collections.abc import Callable
from typing import TypeVar

from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


def counted(work: Callable[[], T]) -> tuple[T, int]:
    """What `work` gives, and the FLOPs it took. Counting is slow where operations are small.

    >>> import torch
    >>> counted(lambda: torch.ones(2, 3) @ torch.ones(3, 4))[1]
    48
    """
    with FlopCounterMode(display=False) as counter:
        result = work()
    return result, int(counter.get_total_flops())
