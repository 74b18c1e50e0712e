"""What a session's own model made of exemplars, kept beside them: a teacher of which nothing but its answers is in memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor


@dataclass(frozen=True)
class Features:
    """What the model of its own session made of each exemplar, uncropped, and of its texts: all captions, or its class's prompt.

    Half precision is enough: at a scale of 100 the divergence from what is exact is 1e-7. Rows of session 0 have none.
    """

    images: Float16[Tensor, "n d"]
    texts: tuple[Float16[Tensor, "k d"], ...]
    words: tuple[tuple[str, ...], ...]
    scale: Float[Tensor, " n"]
    session: Int[Tensor, " n"]  # counts from 1; cosines of two sessions' models mean nothing together

    @classmethod
    def none(cls, rows: int, width: int, session: int = 0) -> "Features":
        """Room for so many."""
        empty = torch.zeros(rows, width, dtype=torch.float16)
        return cls(empty, (empty[:0],) * rows, ((),) * rows, torch.zeros(rows), torch.full((rows,), session, dtype=torch.int64))

    def take(self, index: Int[Tensor, " k"]) -> "Features":
        """Those at the given positions."""
        texts, words = tuple(self.texts[place] for place in index.tolist()), tuple(self.words[place] for place in index.tolist())
        return Features(self.images[index], texts, words, self.scale[index], self.session[index])

    def before(self, others: "Features") -> "Features":
        """These, then others."""
        images, scale, session = (
            torch.cat(pair) for pair in ((self.images, others.images), (self.scale, others.scale), (self.session, others.session))
        )
        return Features(images, self.texts + others.texts, self.words + others.words, scale, session)

    def put(
        self, places: Sequence[int], words: Sequence[Sequence[str]], made: Sequence[tuple[Tensor, Sequence[Tensor], Tensor]]
    ) -> "Features":
        """With these in some places: chunks of features of images, of the texts of each, and scales."""
        if not places:
            return self
        index, told, texts = torch.tensor(places, dtype=torch.int64), list(self.words), list(self.texts)
        images, scale = self.images.clone(), self.scale.clone()
        encoded = [each for _, chunk, _ in made for each in chunk]
        for place, word, text in zip(places, words, encoded, strict=True):
            told[place], texts[place] = tuple(word), text.to(images)
        images[index] = torch.cat([each for each, _, _ in made]).to(images)
        scale[index] = torch.cat([each for _, _, each in made]).to(scale)
        return Features(images, tuple(texts), tuple(told), scale, self.session)


def with_features(table: pa.Table, features: Features) -> pa.Table:
    """The table with a column for each."""
    flat = pa.array(features.images.reshape(-1).numpy())
    columns: dict[str, pa.Array] = {"image_feature": pa.FixedSizeListArray.from_arrays(flat, features.images.shape[1])}
    columns["text_feature"] = pa.array([each.reshape(-1).numpy() for each in features.texts], pa.list_(pa.float16()))
    columns |= {"words": pa.array(features.words, pa.list_(pa.string())), "scale": pa.array(features.scale.numpy())}
    columns["session"] = pa.array(features.session.numpy())
    for name, column in columns.items():
        table = table.append_column(name, column)
    return table


def features_in(table: pa.Table) -> Features | None:
    """What `with_features` put into a table, if there is any; or what it did when an exemplar had one text."""
    if "image_feature" not in table.column_names:
        return None
    column = table["image_feature"]
    width = column.type.list_size
    images = _values(column.combine_chunks().flatten()).reshape(-1, width)
    words = tuple((each,) if isinstance(each, str) and each else tuple(each or ()) for each in table["words"].to_pylist())
    cells = table["text_feature"].combine_chunks()
    texts = tuple(_values(cells[row].values)[: len(each) * width].reshape(-1, width) for row, each in enumerate(words))
    scale, session = (torch.from_numpy(table[name].to_numpy().copy()) for name in ("scale", "session"))
    return Features(images, texts, words, scale, session)


def _values(flat: pa.Array) -> Tensor:
    return torch.from_numpy(flat.to_numpy(zero_copy_only=False).copy())
