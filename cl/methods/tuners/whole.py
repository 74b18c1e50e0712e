"""The weights of the model itself: all of them, or those of one tower."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import Field
from torch import nn

from cl.methods.tuners.base import Tower, Tuner, TunerConfig
from cl.methods.weights import named
from cl.models.clip import Clip

Part = Annotated[Literal["whole", "image", "text"], Field(description="which towers train: both, or one of them")]
Scale = Literal["trained", "frozen"]


class WholeConfig(TunerConfig):
    """The model's own weights descend, or one tower's."""

    kind: Literal["whole"] = "whole"
    part: Part = "whole"  # with any part, the logit scale too
    scale: Scale = Field("trained", description="the logit scale (ZSCL's comparison: frozen)")

    def build(self, clip: Clip, seed: int) -> "Whole":
        """The clip's own weights."""
        return Whole(clip, self.part, self.scale)


class Whole(Tuner):
    """The chosen towers, and the logit scale unless it is frozen."""

    def __init__(self, clip: Clip, part: Part = "whole", scale: Scale = "trained") -> None:
        super().__init__(clip)
        self.part, self.trained = part, scale == "trained"
        other: dict[Part, frozenset[Tower]] = {"whole": frozenset(), "image": frozenset({"text"}), "text": frozenset({"image"})}
        self.fixed = other[part]

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The clip's parameters that descend, under their names in the clip."""
        return self._moving(self.part)

    def of(self, tower: Tower) -> Mapping[str, nn.Parameter]:
        """Those of a tower; the logit scale is part of both."""
        return self._moving(tower)

    def _moving(self, part: Part) -> Mapping[str, nn.Parameter]:
        frozen = None if self.trained else self.clip.logit_scale
        return named(self.clip, (each for each in self.clip.part(part) if each is not frozen))
