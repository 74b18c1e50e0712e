"""What every part of a recipe has in common, whatever the part is, and its settings."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, ClassVar, Self, get_args, get_type_hints

from pydantic import Field
from torch import Tensor, nn

from cl.config import Config, Overlay

SEATS = (
    "tune",
    "memory",
    "merge",
    "rounds",
)  # fields of a recipe that hold one part or none; a new one is a field in compose's two classes


class PartConfig(Config):
    """Settings of a part; each kind adds `kind: Literal[...]`, its knobs, and `build`."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions")  # what a session must have some of where this part takes part

    train: Overlay = Field({}, description="training settings that this part wants otherwise")
    later: Overlay = Field({}, description="the same, from the second session on")

    @classmethod
    def called(cls) -> str:
        """Its kind."""
        return str(cls.model_fields["kind"].default)

    @classmethod
    def makes(cls) -> "type[Part]":
        """What its `build` says that it gives."""
        return get_type_hints(getattr(cls, "build"))["return"]  # noqa: B009 - what it takes differs from room to room

    def wants(self) -> tuple[str, ...]:
        """What a session must have some of, for this part as it is set."""
        return self.learns

    def absent(self) -> bool:
        """Whether it weighs nothing, so that it is left out to the bit."""
        return False

    def located(self, root: Path) -> Self:
        """The same settings with relative paths of data starting at `root`."""
        return self

    def spelled(self) -> dict[str, Any]:
        """Its kind, and what is not at its default; training settings are told with those of the session."""
        return {"kind": self.called()} | self.changed("kind", "train", "later")


def members(annotation: Any) -> Iterator[type[PartConfig]]:
    """The parts that a union is of, in its order."""
    if isinstance(annotation, type) and issubclass(annotation, PartConfig):
        yield annotation
    for part in get_args(annotation):
        yield from members(part)


class Part(nn.Module):
    """Its buffers, parameters and extra state outlive a session."""

    version: ClassVar[int] = 1  # of what it computes; see cl/store/units.py

    def bound(self) -> dict[str, str | int]:
        """What its tensors mean nothing without, beside their names and shapes: kept under another, they are not gone on with."""
        return {}

    def midway(self) -> dict[str, Tensor]:
        """What a half-learned session holds beyond `state_dict()` and what its begin makes anew."""
        return {}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `midway` gave."""
