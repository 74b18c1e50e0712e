"""Exemplars kept between sessions, chosen by Avalanche's storage policies."""

import io
import warnings
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any, Literal

import pyarrow as pa
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.data import Dataset

from cl.data import SCHEMA, ImageTable, concat

Policy = Literal["reservoir", "class_balanced", "session_balanced"]


@dataclass(frozen=True)
class Exemplars:
    """Stored rows; `weights` are the reservoir's random keys (needed to go on sampling), `groups` the class or session of a row."""

    rows: ImageTable
    weights: Float[Tensor, " n"]
    groups: Int[Tensor, " n"]

    @classmethod
    def none(cls) -> "Exemplars":
        """An empty store."""
        return cls(concat([]), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def take(self, order: Sequence[int]) -> "Exemplars":
        """The exemplars at the given positions."""
        index = torch.tensor(order, dtype=torch.int64)
        return Exemplars(self.rows.take(order), self.weights[index], self.groups[index])


def update(kept: Exemplars, new: ImageTable, groups: Sequence[int], *, policy: Policy, capacity: int, seed: int) -> Exemplars:
    """The store after seeing new rows: at most `capacity` of them, the same for the same seed.

    `reservoir` keeps a uniform sample of all rows ever seen, `class_balanced` and `session_balanced` an equal share for each
    group so far (Avalanche's ReservoirSamplingBuffer, ClassBalancedBuffer, ExperienceBalancedBuffer).
    """
    both = concat([kept.rows, new])
    targets = kept.groups.tolist() + list(groups)
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # avalanche pulls in a QP solver that complains at import
        torch.manual_seed(seed)  # avalanche draws from the global generator
        from avalanche.benchmarks.utils import as_classification_dataset

        rows = as_classification_dataset(_Positions(targets))
        buffer = _restored(kept, rows, policy, capacity)
        fresh = rows.subset(range(len(kept.rows), len(both)))
        if policy == "session_balanced":
            buffer.post_adapt(None, SimpleNamespace(dataset=fresh))
        else:
            buffer.update_from_dataset(fresh)
    parts = list(buffer.buffer_groups.values()) if policy != "reservoir" else [buffer]
    order = [int(row) for part in parts for row, *_ in part.buffer]
    weights = torch.cat([part._buffer_weights for part in parts] or [torch.zeros(0)])
    return Exemplars(both.take(order), weights, torch.tensor([targets[row] for row in order], dtype=torch.int64))


def _restored(kept: Exemplars, rows: Any, policy: Policy, capacity: int) -> Any:
    from avalanche.training.storage_policy import ClassBalancedBuffer, ExperienceBalancedBuffer, ReservoirSamplingBuffer

    def reservoir(positions: Sequence[int], size: int) -> Any:
        part = ReservoirSamplingBuffer(size)
        part.buffer = rows.subset(positions)
        part._buffer_weights = kept.weights[torch.tensor(positions, dtype=torch.int64)]
        return part

    if policy == "reservoir":
        return reservoir(range(len(kept.rows)), capacity)
    members: dict[int, list[int]] = defaultdict(list)
    for position, group in enumerate(kept.groups.tolist()):
        members[group].append(position)
    buffer = ClassBalancedBuffer(capacity) if policy == "class_balanced" else ExperienceBalancedBuffer(capacity)
    buffer.buffer_groups = {group: reservoir(positions, len(positions)) for group, positions in sorted(members.items())}
    if policy == "class_balanced":
        buffer.seen_classes = set(members)
    else:
        buffer._num_exps = len(members)
    return buffer


class Memory(nn.Module):
    """Holds exemplars as extra state of a method, so that they are saved and loaded with its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.exemplars = Exemplars.none()

    def get_extra_state(self) -> UInt8[Tensor, " bytes"]:
        """The exemplars as one Arrow IPC stream."""
        kept = self.exemplars
        table = kept.rows.table.append_column("weight", pa.array(kept.weights.numpy())).append_column(
            "group", pa.array(kept.groups.numpy())
        )
        sink = io.BytesIO()
        with pa.ipc.new_stream(sink, table.schema) as writer:
            writer.write_table(table.combine_chunks())
        return torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8)

    def set_extra_state(self, state: UInt8[Tensor, " bytes"]) -> None:
        """Restore what `get_extra_state` gave."""
        table = pa.ipc.open_stream(state.cpu().numpy().tobytes()).read_all()
        rows = ImageTable(table.select(SCHEMA.names))
        weights, groups = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("weight", "group"))
        self.exemplars = Exemplars(rows, weights, groups)


class _Positions(Dataset[tuple[int, int]]):
    """Row positions in place of images: Avalanche chooses among them without decoding one."""

    def __init__(self, targets: Sequence[int]) -> None:
        self.targets = list(targets)

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, row: int) -> tuple[int, int]:
        return row, self.targets[row]
