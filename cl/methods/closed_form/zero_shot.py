"""Frozen zero-shot: the model as it came, and the row every other method is read against."""

from typing import ClassVar, Literal

from cl.methods.base import MethodConfig
from cl.methods.closed_form.base import ClosedForm
from cl.models.clip import Clip


class ZeroShotConfig(MethodConfig):
    """The frozen model as it came: what every other method is read against."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")

    name: Literal["zero_shot"] = "zero_shot"

    def build(self, clip: Clip, seed: int) -> "ZeroShot":
        """Frozen zero-shot over the clip."""
        return ZeroShot(clip, seed)


class ZeroShot(ClosedForm):
    """Learns nothing and forgets nothing (CLIP, arXiv:2103.00020)."""
