"""A table of tensors that grows row by row and is loaded at whatever length it was saved."""

from collections.abc import Mapping
from typing import Any

import torch
from jaxtyping import Bool, Int
from torch import Tensor, nn


class Growing(nn.Module):
    """Named columns of one length, as buffers; `prints` says which image each row is of (`prints` of `cl.methods.closed_form.taught`)."""

    prints: Tensor

    def __init__(self, **empty: Tensor) -> None:
        super().__init__()
        for name, column in {"prints": torch.zeros(0, dtype=torch.int64), **empty}.items():
            self.register_buffer(name, column)

    def __len__(self) -> int:
        return len(self.prints)

    def append(self, columns: Mapping[str, Tensor]) -> None:
        """Put rows behind those that are there."""
        for name, column in self.named_buffers(recurse=False):
            setattr(self, name, torch.cat([column, columns[name].to(column)]))

    def keep(self, rows: Bool[Tensor, " n"] | Int[Tensor, " k"]) -> None:
        """Leave these rows, in this order."""
        for name, column in self.named_buffers(recurse=False):
            setattr(self, name, column[rows.to(column.device)])

    def keep_until(self, rows: Bool[Tensor, " n"]) -> None:
        """Leave what stands before the first of these rows."""
        places = rows.nonzero()[:, 0].tolist()
        self.keep(torch.arange(places[0] if places else len(self)))

    def drop(self, prints: Int[Tensor, " k"]) -> None:
        """Take out one row for each of these prints, the first that has it; of a print that no row has, nothing."""
        places: dict[int, list[int]] = {}
        for place, value in enumerate(self.prints.tolist()):
            places.setdefault(value, []).append(place)
        gone = {places[value].pop(0) for value in prints.tolist() if places.get(value)}
        self.keep(torch.tensor([place not in gone for place in range(len(self))], dtype=torch.bool))

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        for name, column in self.named_buffers(recurse=False):
            saved = state_dict.get(f"{prefix}{name}")
            if saved is not None and saved.shape[1:] == column.shape[1:]:
                setattr(self, name, column.new_empty(saved.shape))
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Notes(Growing):
    """What was found of rows with each left out: its class (`named`), how familiar it was, inf where nobody knows, and bits of a head."""

    classes: Tensor
    familiar: Tensor
    right: Tensor

    def __init__(self) -> None:
        super().__init__(
            classes=torch.zeros(0, dtype=torch.int64),
            familiar=torch.zeros(0, dtype=torch.float64),
            right=torch.zeros(0, dtype=torch.int64),
        )


class Kept(Growing):
    """Features of some rows, and of which class each is (`named`)."""

    classes: Tensor
    features: Tensor

    def __init__(self, width: int) -> None:
        super().__init__(classes=torch.zeros(0, dtype=torch.int64), features=torch.zeros(0, width, dtype=torch.float64))
