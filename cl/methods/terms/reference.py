"""ZSCL: what a teacher says of reference images over reference texts that stand for all the model knows (arXiv:2303.06628)."""

from pathlib import Path
from typing import Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor

from cl.config import Config, Count
from cl.data.formats import read
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.terms.base import Needs, Term, refuse_still
from cl.methods.terms.class_texts import CHUNK, BothWaysConfig, both_ways
from cl.methods.terms.vocabulary import refuse_texts, vocabulary_texts
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.seeds import generator
from cl.streams.stream import Session


class AskedConfig(Config):
    """What the teacher is asked about; paths are relative to the data folder, or absolute."""

    reference: str | None = Field(None, description="data whose train images the teacher is asked about; default: each batch's own")
    sentences: str | None = Field(
        None, description="data whose train captions are the texts; default: the reference's, random texts where it has none"
    )
    captions: Count = Field(20_000, description="at most this many of those captions, drawn anew each session")
    texts: Count = Field(1000, le=100_000, description="random texts per session")
    length: int = Field(12, ge=3, le=10_000, description="tokens per random text, start and end included")


class ReferenceConfig(AskedConfig, BothWaysConfig):
    """Distillation over any images and any texts, which the teacher alone encodes (arXiv:2303.06628)."""

    kind: Literal["reference"] = "reference"

    def build(self, tuner: Tuner, seed: int) -> "Reference":
        """The distillation."""
        return Reference(self, seed)

    def located(self, root: Path) -> Self:
        """The same settings with relative paths starting at `root`."""
        return self.model_copy(update=rooted(root, reference=self.reference, sentences=self.sentences))


class Reference(Term):
    """Keeps similarities of reference images to reference texts where the teacher has them.

    The texts, captions or random token sequences, are drawn once per session and encoded by the teacher alone.
    """

    def __init__(self, config: ReferenceConfig, seed: int) -> None:
        super().__init__()
        self.config, self.seed = config, seed
        self._tables: tuple[ImageTable | None, ImageTable | None] | None = None
        self._texts = torch.empty(0)  # the teacher's, for this session
        self._order = (-1, torch.empty(0, dtype=torch.int64))  # of the reference rows, in an epoch

    def needs(self) -> Needs:
        """A teacher."""
        return Needs(teachers=frozenset({self.config.teacher}))

    def sources(self) -> tuple[str, ...]:
        """Of reference and sentences; "" where there is none."""
        return tuple("" if table is None else table.digest() for table in self._read())

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Images move, and the reference data can be used, or random texts be made."""
        refuse_still(tuner, session, self.config.kind, "compares images with texts that are the teacher's")
        _, sentences = self._read()
        if self.config.sentences and sentences is not None and not _captions(sentences):
            raise MethodError(f"{self.config.sentences}: none of its {len(sentences)} rows has a caption; leave sentences out")
        if sentences is None or not _captions(sentences):
            refuse_texts(tuner.clip, session, f"the term {self.config.kind}", self.config.length)

    def begin(self, at: Site) -> None:
        """Let the teacher encode the texts, once; the images get a new order."""
        self._order = (-1, torch.empty(0, dtype=torch.int64))
        teacher = at.teacher(self.config.teacher)
        tokens = self.drawn(at.tuner, at.session.index).to(at.tuner.clip.device)
        with torch.no_grad():
            self._texts = torch.cat([teacher.text(chunk) for chunk in torch.split(tokens, CHUNK)])

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`keep_images` and `keep_texts`."""
        teacher, pixels = view.through(self.config.teacher), self.pixels(view)
        images, taught = (side.images if pixels is None else side.image("reference", pixels) for side in (view, teacher))
        return both_ways(self.config, view.scale, images, taught, self._texts)

    def end(self, at: Site) -> None:
        """Drop the session's texts."""
        self._texts = torch.empty(0)

    def drawn(self, tuner: Tuner, session: int) -> Int[Tensor, "k t"]:
        """Captions of the reference data, or random texts, for a session."""
        _, sentences = self._read()
        captions = _captions(sentences) if sentences is not None else []
        if captions:
            order = torch.randperm(len(captions), generator=generator(self.seed, "captions", session))[: self.config.captions]
            return tuner.clip.tokenize([captions[row] for row in order.tolist()])
        return vocabulary_texts(tuner.clip, self.config.texts, self.config.length, generator(self.seed, "vocabulary", session))

    def pixels(self, view: View) -> Float[Tensor, "n 3 h w"] | None:
        """As many reference images as a whole batch has, in a new order whenever all have come up; None: the batch's own are asked."""
        table, _ = self._read()
        if table is None:
            return None
        size = min(view.full, len(table))  # a whole batch, also where the session's own is an epoch's short last one
        epoch, place = divmod(view.batch.step, len(table) // size)
        if epoch != self._order[0]:
            self._order = epoch, torch.randperm(len(table), generator=generator(self.seed, "reference", view.lesson.session, epoch))
        rows = self._order[1][place * size : (place + 1) * size].tolist()
        transform = view.reader.transform()
        return torch.stack([transform(table.image(row)) for row in rows]).to(view.batch.images)

    def _read(self) -> tuple[ImageTable | None, ImageTable | None]:
        if self._tables is None:
            paths = self.config.reference, self.config.sentences
            images, sentences = (read(Path(path), split="train", check=False) if path else None for path in paths)
            self._tables = images, images if sentences is None else sentences
        return self._tables


def rooted(root: Path, **paths: str | None) -> dict[str, str]:
    """The paths that are given, each starting at `root` unless it is absolute."""
    return {name: str(root / path) for name, path in paths.items() if path}


def _captions(table: ImageTable) -> list[str]:
    return list(dict.fromkeys(text for texts in table.captions for text in texts))
