"""What methods share that leave the clip as it came and learn something beside it."""

from collections.abc import Sequence
from typing import Self

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import Batch, Method
from cl.methods.features import FeatureCache
from cl.models.clip import Clip
from cl.models.zero_shot import class_features
from cl.streams.stream import Session


class Frozen(Method):
    """A method that never changes the clip and learns from labelled rows.

    With `pixels` false, image features are computed once per session and looked up by row.
    """

    def __init__(self, clip: Clip, seed: int) -> None:
        super().__init__(clip, seed)
        nn.Module.requires_grad_(clip, False)
        self._cache = FeatureCache()
        self._features: Tensor | None = None  # of the rows being learned from

    def train(self, mode: bool = True) -> Self:
        """Change the mode of everything but the clip: patch dropout would blur what does not learn anyway."""
        super().train(mode)
        self.clip.eval()
        return self

    def check(self, session: Session) -> None:
        """A session needs at least one labelled row."""
        if not len(labelled(session)):
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a label, and this method learns from "
                "labels alone; give it labels, or choose a method for captions or unlabelled images"
            )

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows."""
        super().begin(session)
        data = labelled(session)
        if not self.pixels:
            self._features = self._cache.images(self.encode_image, self.clip, data)
        return data

    def end(self, session: Session) -> None:
        """Forget the session's features."""
        self._features = None
        self._cache.clear()

    def features_of(self, batch: Batch) -> Float[Tensor, "b d"]:
        """Image features of a batch, looked up where they were computed before."""
        return self.encode_image(batch.images) if self._features is None else self._features[batch.rows]

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Mean text feature of each class's prompts."""
        return class_features(self.encode_text, self.tokens, classes)

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """Token ids where the clip is."""
        return self.clip.tokenize(texts).to(self.clip.device)

    def labels_of(self, data: ImageTable) -> Int[Tensor, " n"]:
        """Vocabulary index of every row's label, where the clip is; -1 where a row has none."""
        index = {known.name: position for position, known in enumerate(self.vocabulary)}
        return torch.tensor([-1 if label is None else index[label] for label in data.labels], device=self.clip.device)


def labelled(session: Session) -> ImageTable:
    """The rows of a session that have a label."""
    return session.data.where([label is not None for label in session.data.labels])
