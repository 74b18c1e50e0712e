"""ZSCL, and LwF-VR as its authors ran it: distillation on texts that stand for all the model knows (arXiv:2303.06628)."""

from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, NonNegativeFloat, PositiveInt
from torch import Tensor

from cl.data.formats import read
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import Batch
from cl.methods.lwf import Distilling, DistillingConfig
from cl.methods.terms.vocabulary import refuse_texts, vocabulary_texts
from cl.models.clip import Clip
from cl.seeds import generator
from cl.streams.stream import Session


class ReferenceConfig(DistillingConfig):
    """What the teacher is asked about; paths are relative to the data folder, or absolute."""

    reference: str | None = Field(None, description="data whose train images the teacher is asked about; default: each batch's own")
    sentences: str | None = Field(
        None, description="data whose train captions are the texts; default: the reference's, random texts where it has none"
    )
    captions: PositiveInt = Field(20_000, description="at most this many of those captions, drawn anew each session")
    texts: PositiveInt = Field(1000, description="random texts per session")
    length: int = Field(12, ge=3, description="tokens per random text, start and end included")

    def located(self, root: Path) -> Self:
        """The same settings with relative paths starting at `root`."""
        paths = {"reference": self.reference, "sentences": self.sentences}
        return self.model_copy(update={name: str(root / path) for name, path in paths.items() if path})


class ZSCLConfig(ReferenceConfig):
    """Distillation over reference texts and images, with an ensemble of weights (arXiv:2303.06628).

    Weights, temperature and ensemble as in the authors' code, where `l2` 0 is called ZSCL*. Without `reference` the teacher is asked
    about each batch as it was cropped for training, which their code never does.
    """

    name: Literal["zscl"] = "zscl"
    teacher: Literal["session", "original"] = "original"
    ensemble: PositiveInt | None = 100
    l2: NonNegativeFloat = 1.0

    def build(self, clip: Clip, seed: int) -> "ZSCL":
        """ZSCL over the clip, which it changes."""
        return ZSCL(clip, seed, self)


class LwFVRZSCLConfig(ReferenceConfig):
    """VR-LwF with the losses of the ZSCL authors, which is not the method of arXiv:2207.09248 (vr_lwf).

    Its images are the batch's own unless `reference` names others: the authors' are other images of the session, not cropped.
    """

    name: Literal["lwf_vr_zscl"] = "lwf_vr_zscl"

    def build(self, clip: Clip, seed: int) -> "ZSCL":
        """LwF-VR over the clip, which it changes."""
        return ZSCL(clip, seed, self)


class ZSCL(Distilling):
    """Keeps similarities of reference images to reference texts: any images, any captions or random token sequences.

    Random texts are drawn once per session and encoded by the teacher alone, unlike in vr_lwf. The two configs differ in the
    teacher, the weight ensemble and the pull towards the start.
    """

    config: ReferenceConfig

    def __init__(self, clip: Clip, seed: int, config: ReferenceConfig) -> None:
        super().__init__(clip, seed, config)
        self._tables: tuple[ImageTable | None, ImageTable | None] | None = None
        self._order = (-1, torch.empty(0, dtype=torch.int64))  # of the reference rows, in an epoch

    def sources(self) -> tuple[str, ...]:
        """Digests of the tables it learns from beside the session, in a fixed order; "" where there is none."""
        return tuple("" if table is None else table.digest() for table in self._reference())

    def check(self, session: Session) -> None:
        """The session and the reference data can be used."""
        super().check(session)
        _, sentences = self._reference()
        if self.config.sentences and sentences is not None and not _captions(sentences):
            raise MethodError(f"{self.config.sentences}: none of its {len(sentences)} rows has a caption; leave method.sentences out")
        if sentences is None or not _captions(sentences):
            refuse_texts(self.clip, session, self.config.called(), self.config.length)

    def begin(self, session: Session) -> ImageTable:
        """As every distillation begins, with a new order of the reference images."""
        self._order = (-1, torch.empty(0, dtype=torch.int64))
        return super().begin(session)

    def reference_texts(self, session: Session) -> Int[Tensor, "k t"]:
        """Captions of the reference data, or random texts."""
        _, sentences = self._reference()
        found = _captions(sentences) if sentences is not None else []
        if found:
            drawn = torch.randperm(len(found), generator=generator(self.seed, "captions", session.index))[: self.config.captions]
            return self.clip.tokenize([found[row] for row in drawn.tolist()])
        source = generator(self.seed, "vocabulary", session.index)
        return vocabulary_texts(self.clip, self.config.texts, self.config.length, source)

    def reference_images(self, batch: Batch) -> Float[Tensor, "n 3 h w"]:
        """As many reference images as a whole batch has, in a new order whenever all have come up; without reference the batch's own."""
        table, _ = self._reference()
        if table is None:
            return batch.images
        size = min(self.full or len(batch.images), len(table))  # a whole batch, also where the session's own is an epoch's short last one
        epoch, place = divmod(batch.step, len(table) // size)
        if epoch != self._order[0]:
            self._order = epoch, torch.randperm(len(table), generator=generator(self.seed, "reference", self.session, epoch))
        rows = self._order[1][place * size : (place + 1) * size].tolist()
        transform = self.clip.transform()
        return torch.stack([transform(table.image(row)) for row in rows]).to(batch.images)

    def _reference(self) -> tuple[ImageTable | None, ImageTable | None]:
        if self._tables is None:
            paths = self.config.reference, self.config.sentences
            images, sentences = (read(Path(path), split="train", check=False) if path else None for path in paths)
            self._tables = images, images if sentences is None else sentences
        return self._tables


def _captions(table: ImageTable) -> list[str]:
    return list(dict.fromkeys(text for texts in table.captions for text in texts))
