"""Labelled rows as sums see them: which class, which features, which image."""

import hashlib
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import torch
from jaxtyping import Float, Int
from torch import Tensor

from cl.data.table import ImageTable


class Taught(NamedTuple):
    """Rows by the names of their classes; `wide` is what a head is a sum of, `unit` what texts are compared with."""

    names: list[str]
    wide: Float[Tensor, "n d"]
    unit: Float[Tensor, "n p"]
    prints: Int[Tensor, " n"]

    def blocks(self, size: int) -> Iterator["Taught"]:
        """The same rows, some at a time."""
        for start in range(0, len(self.names), size):
            yield self.take(slice(start, start + size))

    def take(self, rows: slice | Sequence[int]) -> "Taught":
        """Some of the rows."""
        names = self.names[rows] if isinstance(rows, slice) else [self.names[row] for row in rows]
        at = rows if isinstance(rows, slice) else torch.tensor(rows, dtype=torch.int64, device=self.wide.device)
        return Taught(names, self.wide[at], self.unit[at], self.prints[at.to(self.prints.device) if isinstance(at, Tensor) else at])


def labels(rows: ImageTable) -> list[str]:
    """The class of every row, by name; the rows are labelled."""
    return [str(name) for name in rows.labels]


def prints(rows: ImageTable) -> Int[Tensor, " n"]:
    """63 bits of each image's SHA-256: an image is the same whatever its row is called, and wherever it stands."""
    return torch.tensor([_print(image.as_py()) for image in rows.table["image"]], dtype=torch.int64)


def named(name: str) -> int:
    """63 bits that stand for a class's name."""
    return _print(name.encode())


def _print(content: bytes) -> int:
    return int.from_bytes(hashlib.sha256(content).digest()[:8]) >> 1
