"""A method that takes no step and leaves the clip as it came."""

from collections.abc import Iterable
from typing import Self

from jaxtyping import Float
from torch import Tensor, nn

from cl.methods.base import Batch, Method
from cl.models.clip import Clip


class ClosedForm(Method):
    """No gradient and no loss: what is learned, if anything is, comes of one pass over a session's rows."""

    pixels = False

    def __init__(self, clip: Clip, seed: int) -> None:
        super().__init__(clip, seed)
        nn.Module.requires_grad_(clip, False)

    def train(self, mode: bool = True) -> Self:
        """Change the mode of everything but the clip: patch dropout would blur what does not learn anyway."""
        super().train(mode)
        self.clip.eval()
        return self

    def trainable(self) -> Iterable[nn.Parameter]:
        """No parameter at all."""
        return ()

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """No term at all."""
        return {}
