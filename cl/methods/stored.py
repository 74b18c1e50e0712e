"""What a session's own model made of exemplars, kept beside them: a teacher of which nothing but its answers is in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What the model of its own session made of each exemplar, uncropped, and of its text: the first caption, or its class's prompt.

    Half precision is enough: at a scale of 100 the divergence from what is exact is 1e-7. Rows of session 0 have none.
    """

    images: Float16[Tensor, "n d"]
    texts: Float16[Tensor, "n d"]
    words: tuple[str, ...]
    scale: Float[Tensor, " n"]
    session: Int[Tensor, " n"]  # counts from 1; cosines of two sessions' models mean nothing together

    @classmethod
    def none(cls, rows: int, width: int, session: int = 0) -> "Features":
        """Room for so many."""
        empty = torch.zeros(rows, width, dtype=torch.float16)
        return cls(empty, empty.clone(), ("",) * rows, torch.zeros(rows), torch.full((rows,), session, dtype=torch.int64))

    def take(self, index: Int[Tensor, " k"]) -> "Features":
        """Those at the given positions."""
        words = tuple(self.words[place] for place in index.tolist())
        return Features(self.images[index], self.texts[index], words, self.scale[index], self.session[index])

    def before(self, others: "Features") -> "Features":
        """These, then others."""
        both = [torch.cat(pair) for pair in zip(self._tensors(), others._tensors(), strict=True)]
        return Features(both[0], both[1], self.words + others.words, both[2], both[3])

    def put(self, places: Sequence[int], words: Sequence[str], made: Sequence[tuple[Tensor, Tensor, Tensor]]) -> "Features":
        """With these in some places: chunks of features of images, of texts, and scales."""
        index, told = torch.tensor(places, dtype=torch.int64), list(self.words)
        fresh = [each.clone() for each in (self.images, self.texts, self.scale)]
        for place, word in zip(places, words, strict=True):
            told[place] = word
        for tensor, chunks in zip(fresh, zip(*made, strict=True), strict=False):
            tensor[index] = torch.cat(chunks).to(tensor)
        return Features(fresh[0], fresh[1], tuple(told), fresh[2], self.session)

    def _tensors(self) -> tuple[Tensor, ...]:
        return self.images, self.texts, self.scale, self.session


def with_features(table: pa.Table, features: Features) -> pa.Table:
    """The table with a column for each."""
    columns: dict[str, pa.Array] = {}
    for name, tensor in (("image_feature", features.images), ("text_feature", features.texts)):
        columns[name] = pa.FixedSizeListArray.from_arrays(pa.array(tensor.reshape(-1).numpy()), tensor.shape[1])
    columns |= {"words": pa.array(features.words, pa.string()), "scale": pa.array(features.scale.numpy())}
    columns["session"] = pa.array(features.session.numpy())
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def features_in(table: pa.Table) -> Features | None:
    """What `with_features` put into a table, if there is any."""
    if "image_feature" not in table.column_names:
        return None
    images, texts = (_rows_of(table[name]) for name in ("image_feature", "text_feature"))
    scale, session = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("scale", "session"))
    return Features(images, texts, tuple(table["words"].to_pylist()), scale, session)


def _rows_of(column: pa.ChunkedArray) -> Tensor:
    flat = column.combine_chunks().flatten().to_numpy(zero_copy_only=False).copy()
    return torch.from_numpy(flat).reshape(-1, column.type.list_size)
