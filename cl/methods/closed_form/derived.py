"""What follows from tensors that now and then change, computed once for each change and never saved."""

from collections.abc import Callable, Sequence
from typing import Any, TypeVar

from torch import Tensor

T = TypeVar("T")


class Derived:
    """A memory of what was computed from tensors: asked again after one of them was changed or replaced, it computes anew."""

    def __init__(self) -> None:
        self._of: list[tuple[Tensor, int]] = []
        self._made: dict[str, Any] = {}

    def of(self, tensors: Sequence[Tensor], what: str, make: Callable[[], T]) -> T:
        """What `make` gives, by the name of what it is."""
        now = [(tensor, tensor._version) for tensor in tensors]
        if len(now) != len(self._of) or any(a is not b or v != w for (a, v), (b, w) in zip(now, self._of, strict=True)):
            self._of, self._made = now, {}
        if what not in self._made:
            self._made[what] = make()
        made: T = self._made[what]
        return made

    def __deepcopy__(self, memo: dict[int, Any]) -> "Derived":
        return Derived()  # the versions of copied tensors count anew
