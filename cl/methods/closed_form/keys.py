"""Features of labelled images, kept row by row: capped per class, found again by the image, and the same whatever order they came in."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from cl.data.table import ImageTable, fingerprint

_PRINT = 32  # bytes of an image's fingerprint


class Keys(nn.Module):
    """A row for each image: the class it is of, its fingerprint, its feature, and where that is wanted the feature of its caption.

    Sorted by class and fingerprint. Of a class with too many those with the smallest fingerprints stay, a sample that no order changes:
    the rows of all sessions together would leave the same ones.
    """

    images: Float[Tensor, "n d"]
    texts: Float[Tensor, "n e"]
    owners: Int[Tensor, " n"]
    prints: UInt8[Tensor, "n 32"]

    def __init__(self, width: int, text_width: int = 0) -> None:
        super().__init__()
        self.names: list[str] = []  # of classes that have a row, sorted; `owners` are indices into it
        self.register_buffer("images", torch.zeros(0, width))
        self.register_buffer("texts", torch.zeros(0, text_width))
        self.register_buffer("owners", torch.zeros(0, dtype=torch.int64))
        self.register_buffer("prints", torch.zeros(0, _PRINT, dtype=torch.uint8))

    def __len__(self) -> int:
        return len(self.owners)

    def marks(self) -> list[bytes]:
        """The fingerprint of each row."""
        return _marks(self.prints)

    def of(self) -> list[str]:
        """The class of each row."""
        return [self.names[owner] for owner in self.owners.tolist()]

    def spans(self) -> dict[str, slice]:
        """Where the rows of each class lie."""
        counts, start, places = Counter(self.owners.tolist()), 0, {}
        for owner, name in enumerate(self.names):
            if counts[owner]:  # a state may have lost the last row of a class
                places[name] = slice(start, start + counts[owner])
            start += counts[owner]
        return places

    def welcome(self, names: Sequence[str], prints: UInt8[Tensor, "m 32"], most: int | None) -> list[int]:
        """Which of some rows would stay beside those that are here, at `most` so many to a class; only these need a feature."""
        every = [*self.of(), *names]
        kept = _smallest(every, _marks(torch.cat([self.prints, prints.to(self.prints)])), most)
        return sorted(row - len(self) for row in kept if row >= len(self))

    def add(
        self,
        names: Sequence[str],
        prints: UInt8[Tensor, "m 32"],
        images: Float[Tensor, "m d"],
        texts: Float[Tensor, "m e"],
        most: int | None = None,
    ) -> list[int]:
        """Add rows, `most` so many to a class; returns where those of them that stay lie now, in order of place."""
        had, every = len(self), [*self.of(), *names]
        fresh = [torch.cat([mine, theirs.detach().to(mine)]) for mine, theirs in zip(self._tensors(), (images, texts, prints), strict=True)]
        kept = _smallest(every, _marks(fresh[2]), most)
        self._hold([every[row] for row in kept], [tensor[kept] for tensor in fresh])
        return [place for place, row in enumerate(kept) if row >= had]

    def drop(self, names: Sequence[str], prints: UInt8[Tensor, "m 32"]) -> None:
        """Take out a row for each image named, if its class has one of it."""
        gone = Counter(zip(names, _marks(prints), strict=True))
        every, stay = self.of(), []
        for row, key in enumerate(zip(every, self.marks(), strict=True)):
            if gone[key]:
                gone[key] -= 1
            else:
                stay.append(row)
        self._hold([every[row] for row in stay], [tensor[stay] for tensor in self._tensors()])

    def _tensors(self) -> tuple[Tensor, Tensor, Tensor]:
        return self.images, self.texts, self.prints

    def _hold(self, names: Sequence[str], tensors: Sequence[Tensor]) -> None:
        self.names = sorted(set(names))
        index = {name: place for place, name in enumerate(self.names)}
        self.images, self.texts, self.prints = tensors
        self.owners = torch.tensor([index[name] for name in names], dtype=torch.int64, device=self.owners.device)

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The names as JSON bytes."""
        return torch.frombuffer(bytearray(json.dumps(self.names).encode()), dtype=torch.uint8)

    def set_extra_state(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Restore what `get_extra_state` gave."""
        self.names = json.loads(state.cpu().numpy().tobytes())

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        # a new method has no row yet, a saved one has some: take their number from what is loaded
        for name, mine in list(self._buffers.items()):
            saved = state_dict.get(f"{prefix}{name}")
            if mine is not None and saved is not None and saved.shape[1:] == mine.shape[1:]:
                self._buffers[name] = mine.new_empty(saved.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def without(tensors: Mapping[str, Tensor], wanted: Callable[[bytes], bool]) -> tuple[dict[str, Tensor], int]:
    """Tensors of a state without the rows of some images, told by fingerprint, and how many rows went."""
    fresh, gone = dict(tensors), 0
    for name in (name for name, tensor in tensors.items() if name.endswith(".prints") and tensor.shape[1:] == (_PRINT,)):
        marks, home = _marks(tensors[name]), name.removesuffix("prints")
        stay = [row for row, mark in enumerate(marks) if not wanted(mark)]
        gone += len(marks) - len(stay)
        fresh |= {f"{home}{each}": tensors[f"{home}{each}"][stay].contiguous() for each in ("images", "texts", "owners", "prints")}
    return fresh, gone


def prints_of(rows: ImageTable) -> UInt8[Tensor, "n 32"]:
    """The fingerprint of each row's image: row ids are in no state's name, so nothing that is learned may hang on them."""
    marks = b"".join(fingerprint(image.as_py()) for image in rows.table["image"])
    return torch.frombuffer(bytearray(marks), dtype=torch.uint8).view(-1, _PRINT) if marks else torch.zeros(0, _PRINT, dtype=torch.uint8)


def _marks(prints: UInt8[Tensor, "n 32"]) -> list[bytes]:
    return [row.tobytes() for row in prints.cpu().numpy()]


def _smallest(names: Iterable[str], marks: Sequence[bytes], most: int | None) -> list[int]:
    """Rows by class and mark, the first `most` of each class.

    >>> _smallest(["b", "a", "b", "b"], [b"3", b"9", b"1", b"2"], 2)
    [1, 2, 3]
    """
    every = list(names)
    order, seen, kept = sorted(range(len(every)), key=lambda row: (every[row], marks[row])), Counter[str](), []
    for row in order:
        seen[every[row]] += 1
        if most is None or seen[every[row]] <= most:
            kept.append(row)
    return kept
