"""What arithmetic costs: floating point operations of matrix products and convolutions, forward and backward."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from functools import wraps
from typing import Any, Self, TypeVar

from torch.utils.flop_counter import FlopCounterMode

T = TypeVar("T")
_COUNTING: ContextVar["Flops | None"] = ContextVar("counting", default=None)


class Flops(FlopCounterMode):
    """torch's counter of floating point operations, for the whole alone, so that counting never stops what is counted.

    torch also tells modules apart, by hooks that raise where a weight is given to a module without gradients; and a formula
    raises on shapes that it was not written for: such an operation counts as none.
    """

    def __init__(self) -> None:
        super().__init__(display=False)
        self.mod_tracker: Any = _Whole()
        self.flop_registry = {operation: _forgiving(formula) for operation, formula in self.flop_registry.items()}
        self._more = 0  # of operations that were not gone through
        self._paused = False

    def __enter__(self) -> Self:
        """Count from zero."""
        self._more, self._token = 0, _COUNTING.set(self)
        return super().__enter__()  # type: ignore[no-untyped-call]

    def __exit__(self, *args: Any) -> Any:
        """Count no longer."""
        if self._paused:  # by turns that nobody took to their end
            self.mode.__enter__()  # type: ignore[union-attr]
            self._paused = False
        _COUNTING.reset(self._token)
        return super().__exit__(*args)  # type: ignore[no-untyped-call]

    def get_total_flops(self) -> int:
        """Those counted, and those taken to be like them."""
        return int(super().get_total_flops()) + self._more

    @contextmanager
    def instead(self, flops: int) -> Iterator[None]:
        """Count so many in place of what happens meanwhile."""
        mode: Any = self.mode
        self._more += flops
        mode.__exit__(None, None, None)
        self._paused = True
        try:
            yield
        finally:
            if self._paused:
                mode.__enter__()
                self._paused = False


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


def alike(turns: Iterable[T], sizes: Sequence[int]) -> Iterator[T]:
    """The same turns, of which whoever counts FLOPs around them counts two, and takes the others to cost what the second did, by size.

    The first may compute what all of them share. Going through every operation is slow: so a long loop costs what a short one does.

    >>> import torch
    >>> counted(lambda: [torch.ones(2, 3) @ torch.ones(3, 4) for _ in alike(range(9), [1] * 9)])[1]
    432
    """
    counter, rest = _COUNTING.get(), iter(turns)
    if counter is None or len(sizes) < 3:
        yield from rest
        return
    yield next(rest)
    before = counter.get_total_flops()
    yield next(rest)
    once = counter.get_total_flops() - before
    with counter.instead(once * sum(sizes[2:]) // max(sizes[1], 1)):
        yield from rest
