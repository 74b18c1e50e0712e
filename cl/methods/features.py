"""What is computed from a frozen tower: image features, once per table, and rows of numbers by class name that outlive a session."""

import functools
import json
from collections.abc import Callable, Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.models.clip import Clip
from cl.text import plural, some

_NOTHING = 1e-9  # of a class's sum before: what is left where no row is left; a single row leaves at least its share

EncodeImage = Callable[[Float[Tensor, "b 3 h w"]], Float[Tensor, "b d"]]


def pixels(clip: Clip, data: ImageTable, size: int = 256) -> Iterator[Float[Tensor, "b 3 h w"]]:
    """The images of a table in row order, `size` at a time, as the clip wants them and where it is."""
    transform = clip.transform()

    def ready(rows: range) -> Tensor:
        return torch.stack([transform(data.image(row)) for row in rows])

    # FLOPs are counted on the thread that asks: to go through the many small operations here, none a product, took longer than the encoder
    with ThreadPoolExecutor(1) as pool:
        for start in range(0, len(data), size):
            yield pool.submit(ready, range(start, min(start + size, len(data)))).result().to(clip.device, clip.dtype)


def encoded(encode: EncodeImage, clip: Clip, data: ImageTable) -> Float[Tensor, "n d"]:
    """Features of every row, without gradient."""
    with torch.no_grad():
        return torch.cat([encode(images) for images in pixels(clip, data)])


class FeatureCache:
    """Image features of one table, computed again only when the weights, the preprocessing or the table change.

    Exact as long as nothing that trains reaches them: prompts or weights in the image tower would make them stale at the next
    step, so those are refused.
    """

    def __init__(self) -> None:
        self._key: tuple[str, str] | None = None
        self._features = torch.empty(0)

    def images(self, encode: EncodeImage, clip: Clip, data: ImageTable) -> Float[Tensor, "n d"]:
        """Row i: the features of row i of the table.

        Raises:
            MethodError: a gradient flows from the features into something that trains.
        """
        with torch.enable_grad():
            if encode(next(pixels(clip, data, 1))).requires_grad:
                raise MethodError(
                    "image features cannot be computed once and kept: the image tower trains or has prompts that do, so they change "
                    "with every step; leave the cache off"
                )
        key = (clip.digest(), data.digest())
        if key != self._key:
            self._key, self._features = key, encoded(encode, clip, data)
        return self._features

    def clear(self) -> None:
        """Forget the features."""
        self._key, self._features = None, torch.empty(0)


@functools.lru_cache(maxsize=8)
def _places(asked: tuple[str, ...], names: tuple[str, ...]) -> Int[Tensor, " k"]:
    """Where names stand among others, behind their end where they do not; a step asks for the same ones as the step before."""
    index = {name: place for place, name in enumerate(names)}
    return torch.tensor([index.get(name, len(names)) for name in asked], dtype=torch.int64)


class ClassRows(nn.Module):
    """One row of numbers per class, found by name: grows as classes arrive, is saved and loaded at whatever size it has."""

    def __init__(self, width: int, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.names: list[str] = []
        self.rows = nn.Parameter(torch.zeros(0, width, dtype=dtype), requires_grad=False)

    def grow(self, names: Sequence[str], values: Float[Tensor, "k width"] | None = None) -> None:
        """Append the classes not there yet, with their row of `values` or zeros; the others keep what they have."""
        new = [position for position, name in enumerate(names) if name not in set(self.names)]
        if not new:
            return
        given = self.rows.new_zeros(len(names), self.rows.shape[1]) if values is None else values.detach().to(self.rows)
        self.names += [names[position] for position in new]
        self.rows = nn.Parameter(torch.cat([self.rows.detach(), given[new]]), requires_grad=self.rows.requires_grad)

    def places(self, names: Sequence[str]) -> Int[Tensor, " k"]:
        """Which row is of which class, a number behind the last where there is none."""
        return _places(tuple(names), tuple(self.names)).to(self.rows.device)

    def find(self, names: Sequence[str]) -> tuple[Float[Tensor, "k width"], Bool[Tensor, " k"]]:
        """The rows of classes, zeros where one is not known, and which are known."""
        places = self.places(names)
        known = places < len(self.names)
        rows = self.rows if bool(known.all()) else torch.cat([self.rows, self.rows.new_zeros(1, self.rows.shape[1])])
        return rows.index_select(0, places), known  # a quicker way back than by brackets

    def add(self, names: Sequence[str], values: Float[Tensor, "n width"]) -> None:
        """Add each value to the row of the class it is named for; classes not there yet start at zero."""
        self.grow(list(dict.fromkeys(names)))
        index = {name: position for position, name in enumerate(self.names)}
        at = torch.tensor([index[name] for name in names], device=self.rows.device, dtype=torch.int64)
        with torch.no_grad():
            self.rows.index_add_(0, at, values.to(self.rows))

    def subtract(self, names: Sequence[str], values: Float[Tensor, "n width"]) -> None:
        """Take values out of the rows that they were added to; a class of which nothing is left is not known any more.

        Raises:
            MethodError: nothing of a class was ever added.
        """
        if strange := sorted(set(names) - set(self.names)):
            raise MethodError(f"{plural(len(strange), 'class was', 'classes were')} never taught here ({some(strange)}), so nothing can go")
        before = dict(zip(self.names, self.rows.detach().norm(dim=1).tolist(), strict=True))
        self.add(names, -values)
        after = self.rows.detach().norm(dim=1).tolist()
        self.leave_out([name for at, name in enumerate(self.names) if name in names and after[at] <= _NOTHING * max(before[name], 1.0)])

    def leave_out(self, names: Collection[str]) -> None:
        """Know some classes no more."""
        stay = [at for at, name in enumerate(self.names) if name not in names]
        if len(stay) < len(self.names):
            self.rows = nn.Parameter(self.rows.detach()[stay], requires_grad=self.rows.requires_grad)
            self.names = [self.names[at] for at in stay]

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The names as JSON bytes."""
        return torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Restore what `get_extra_state` gave."""
        self.names = json.loads(state.cpu().numpy().tobytes())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # a new method has no class yet, a saved one has some: take the size from what is loaded
        saved = state_dict.get(f"{prefix}rows")
        if saved is not None and saved.shape[1:] == self.rows.shape[1:]:
            self.rows = nn.Parameter(self.rows.new_empty(saved.shape), requires_grad=self.rows.requires_grad)
        super()._load_from_state_dict(state_dict, prefix, *rest)
