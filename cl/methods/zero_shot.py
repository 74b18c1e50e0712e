"""Frozen zero-shot: the model as it came, and the row every other method is read against."""

from collections.abc import Iterable
from typing import ClassVar, Literal

from jaxtyping import Float
from torch import Tensor, nn

from cl.methods.base import Batch, Method, MethodConfig
from cl.models.clip import Clip


class ZeroShotConfig(MethodConfig):
    """The frozen model as it came: what every other method is read against."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")

    name: Literal["zero_shot"] = "zero_shot"

    def build(self, clip: Clip, seed: int) -> "ZeroShot":
        """Frozen zero-shot over the clip."""
        return ZeroShot(clip, seed)


class ZeroShot(Method):
    """Learns nothing and forgets nothing (CLIP, arXiv:2103.00020)."""

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """No term at all."""
        return {}

    def trainable(self) -> Iterable[nn.Parameter]:
        """No parameter at all."""
        return ()
