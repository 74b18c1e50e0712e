"""Exemplars kept between sessions: a uniform sample of all that came by, or an equal share for each class or session.

The same choices, number by number, as Avalanche's ReservoirSamplingBuffer, ClassBalancedBuffer and ExperienceBalancedBuffer make from
the same draws. They are made here since Avalanche keeps what it takes to go on after a restart in private fields.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import pyarrow as pa
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from cl.data.schema import columns
from cl.data.table import ImageTable, concat
from cl.methods.stored import Features, features_in, with_features

Policy = Literal["reservoir", "class_balanced", "session_balanced"]


@dataclass(frozen=True)
class Exemplars:
    """Stored rows; `weights` are the reservoir's random keys (needed to go on sampling), `groups` the class or session of a row.

    `seen` are all groups so far in the order of their arrival: one that the store has no room for still counts when it is shared out.
    """

    rows: ImageTable
    weights: Float[Tensor, " n"]
    groups: Int[Tensor, " n"]
    seen: tuple[int, ...] = ()
    features: Features | None = None  # where they are kept too

    @classmethod
    def none(cls) -> "Exemplars":
        """An empty store."""
        return cls(concat([]), torch.zeros(0), torch.zeros(0, dtype=torch.int64))

    def take(self, order: Sequence[int]) -> "Exemplars":
        """The exemplars at the given positions."""
        index = torch.tensor(order, dtype=torch.int64)
        features = self.features.take(index) if self.features else None
        return Exemplars(self.rows.take(order), self.weights[index], self.groups[index], self.seen, features)


def update(
    kept: Exemplars, new: ImageTable, groups: Sequence[int], *, policy: Policy, capacity: int, seed: int, room: Features | None = None
) -> Exemplars:
    """The store after seeing new rows: at most `capacity` of them, the same for the same seed.

    `reservoir` keeps a uniform sample of all rows ever seen, `class_balanced` and `session_balanced` one for each group so far, each
    of the size that `shares` says. A group may come back: what it had and what it brings are one sample. `room`: for features of
    the new rows, where features are kept.
    """
    every = torch.cat([torch.tensor(groups, dtype=torch.int64), kept.groups])
    pools = torch.zeros_like(every) if policy == "reservoir" else every
    fresh = pools[: len(new)]
    source, drawn = torch.Generator().manual_seed(seed), torch.empty(len(new))
    for pool in dict.fromkeys(fresh.tolist()):  # pool by pool, as Avalanche draws
        drawn[fresh == pool] = torch.rand(int((fresh == pool).sum()), generator=source)
    weights = torch.cat([drawn, kept.weights])
    seen = tuple(dict.fromkeys([*kept.seen, *pools[len(new) :].tolist(), *fresh.tolist()]))
    order: list[int] = []
    for pool, share in zip(seen, shares(capacity, len(seen)), strict=True):
        members = (pools == pool).nonzero().flatten()
        order += members[weights[members].sort(descending=True, stable=True).indices[:share]].tolist()
    had = (kept.features or Features.none(len(kept.rows), room.images.shape[1])) if room else None
    features = room.before(had) if room and had else None
    return Exemplars(concat([new, kept.rows]), weights, every, seen, features).take(order)


def shares(capacity: int, groups: int) -> list[int]:
    """How many rows each group may keep: equally many, the first ones one more where the capacity does not divide.

    >>> shares(20, 3)
    [7, 7, 6]
    """
    each, rest = divmod(capacity, max(groups, 1))
    return [each + (group < rest) for group in range(groups)]


def packed(kept: Exemplars) -> UInt8[Tensor, " bytes"]:
    """The exemplars as one Arrow IPC stream."""
    table = kept.rows.table.append_column("weight", pa.array(kept.weights.numpy())).append_column("group", pa.array(kept.groups.numpy()))
    if kept.features:
        table = with_features(table, kept.features)
    table = table.replace_schema_metadata({"seen": json.dumps(kept.seen)})
    sink = io.BytesIO()
    with pa.ipc.new_stream(sink, table.schema) as writer:
        writer.write_table(table.combine_chunks())
    return torch.frombuffer(bytearray(sink.getvalue()), dtype=torch.uint8)


def unpacked(state: UInt8[Tensor, " bytes"]) -> Exemplars:
    """What `packed` made bytes of.

    Raises:
        pa.ArrowException, KeyError, ValueError: these bytes are no exemplars.
    """
    table = pa.ipc.open_stream(state.cpu().numpy().tobytes()).read_all()
    noted = (table.schema.metadata or {}).get(b"seen", b"[]")  # states of old have none: their groups are those of their rows
    rows = ImageTable(table.select(columns(table)).replace_schema_metadata(None))
    weights, groups = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("weight", "group"))
    return Exemplars(rows, weights, groups, tuple(json.loads(noted)), features_in(table))
