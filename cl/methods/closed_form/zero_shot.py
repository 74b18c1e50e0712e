"""Frozen zero-shot: the model as it came, and the row every other method is read against."""

from typing import ClassVar, Literal, Self

from pydantic import Field, model_validator

from cl.explain import told
from cl.methods.base import MethodConfig
from cl.methods.closed_form.base import ClosedForm
from cl.methods.closed_form.gate import DISTANCES, NoneConfig
from cl.methods.closed_form.judging import Judging
from cl.methods.rows import teaching
from cl.models.clip import Clip
from cl.streams.stream import Session


class ZeroShotConfig(MethodConfig):
    """The frozen model as it came: what every other method is read against."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")

    name: Literal["zero_shot"] = "zero_shot"
    none: NoneConfig | None = Field(None, description="keep a few features of each class, to tell which images show none of the classes")

    @model_validator(mode="after")
    def _of_texts(self) -> Self:
        if self.none and self.none.score in DISTANCES:
            raise told(
                f"none.score {self.none.score} is a distance to class means, which zero_shot has none of; choose mcm, energy or max_cosine"
            )
        return self

    def build(self, clip: Clip, seed: int) -> ClosedForm:
        """Frozen zero-shot over the clip."""
        return ZeroShot(clip, seed) if self.none is None else ZeroShotOrNone(clip, seed, self.none)


class ZeroShot(ClosedForm):
    """Learns nothing and forgets nothing (CLIP, arXiv:2103.00020)."""


class ZeroShotOrNone(Judging):
    """The same, beside the features of a few labelled images of each class: what is less like the classes than those shows none."""

    def end(self, session: Session) -> None:
        """Keep some of the session's labelled rows."""
        rows = teaching(session, "labelled")
        if len(rows):
            self.remember(self.read(rows))
