"""The inputs of worked numbers: features as plain formulas, so that anybody can compute them again."""

import torch
from torch import Tensor


def features(rows: int, width: int, start: int = 0) -> Tensor:
    """Rows of length 1 along sin(7 (i + start) + j + (i + start) j)."""
    return torch.nn.functional.normalize(raw(rows, width, start), dim=1)


def raw(rows: int, width: int, start: int = 0) -> Tensor:
    """The same, not of length 1."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None] + start, torch.arange(width, dtype=torch.float64)
    return torch.sin(7 * i + j + i * j)


def texts(classes: int, width: int) -> Tensor:
    """Rows of length 1 along cos(3 c + 2 j + c j)."""
    c, j = torch.arange(classes, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)
    return torch.nn.functional.normalize(torch.cos(3 * c + 2 * j + c * j), dim=1)


def labels(*counts: int) -> list[str]:
    """So many rows of class 0, so many of class 1, ..."""
    return [str(label) for label, count in enumerate(counts) for _ in range(count)]
