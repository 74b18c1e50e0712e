"""What arithmetic costs: floating point operations of matrix products and convolutions, forward and backward."""

from collections.abc import Callable
from functools import wraps
from typing import Any, TypeVar

from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")


class Flops(FlopCounterMode):
    """torch's counter of floating point operations, for the whole alone, so that counting never stops what is counted.

    torch also tells modules apart, by hooks that raise where a weight is given to a module without gradients; and a formula
    raises on shapes that it was not written for: such an operation counts as none.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _Whole()
        self.flop_registry = {operation: _forgiving(formula) for operation, formula in self.flop_registry.items()}


class _Whole:
    """In place of torch's tracker of modules: everything belongs to the whole."""

    parents = frozenset({"Global"})

    def __enter__(self) -> None: ...

    def __exit__(self, *_: object) -> None: ...


def _forgiving(formula: Callable[..., Any]) -> Callable[..., int]:
    @wraps(formula)
    def count(*args: Any, **kwargs: Any) -> int:
        try:
            return int(formula(*args, **kwargs))
        except Exception:  # a report's column is not worth a session
            return 0

    return count


def counted(work: Callable[[], T]) -> tuple[T, int]:
    """What `work` gives, and the FLOPs it took. Counting is slow where operations are small.

    >>> import torch
    >>> counted(lambda: torch.ones(2, 3) @ torch.ones(3, 4))[1]
    48
    """
    with Flops() as counter:
        result = work()
    return result, int(counter.get_total_flops())
