"""ALIP: a caption that does not fit its image, or a second text that does not, weighs less (arXiv:2308.08428)."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.base import What
from cl.methods.lesson import equal
from cl.methods.losses import pair_losses, precise
from cl.methods.objectives import gates
from cl.methods.terms.base import Needs, Term, TermConfig
from cl.methods.terms.objective import Scale
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.streams.stream import Session

_LACKS = {
    "caption": "no row with two captions; give rows a second one, or set second: rewrite or label",
    "rewrite": "no row with a caption and a rewrite; add a column rewrites, or set second: caption or label",
    "label": "no row with a caption and a label; set second: caption or rewrite",
}


class ALIPConfig(TermConfig):
    """Two texts of each image, each weighed by how well it fits (arXiv:2308.08428)."""

    learns: ClassVar[tuple[str, ...]] = ("captions",)
    teaches: ClassVar[bool] = True

    kind: Literal["alip"] = "alip"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    second: Literal["caption", "rewrite", "label"] = Field(
        "caption", description="the second text: another caption of the row, one of its rewrites, or its class's prompt"
    )
    momentum: float = Field(0.99, ge=0, lt=1, description="of the running means that fits are compared with")
    sample_gate: NonNegativeFloat = Field(2.0, description="how steeply a row falls whose two texts do not fit each other")
    pair_gate: NonNegativeFloat = Field(2.0, description="how steeply each of its texts falls that does not fit the image")
    warm: bool = Field(True, description="means begin with each session's first batch; otherwise at 1, as in the authors' code")
    scale: Scale = Field("model", description="what cosines are multiplied with: the model's own, or a constant")

    def build(self, tuner: Tuner, seed: int) -> "ALIP":
        """The objective."""
        return ALIP(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class ALIP(Term):
    """CLIP's loss over captions and over second texts, each row weighed; a row without a second text keeps the first with weight 1.

    The weights, which get no gradient, compare how well two of the three fit with the running mean of that.
    """

    means: Float[Tensor, "3"]  # of two texts, of image and caption, of image and second text
    begun: Bool[Tensor, ""]  # whether the means are of this session

    def __init__(self, config: ALIPConfig) -> None:
        super().__init__()
        self.config = config
        self.register_buffer("means", torch.ones(3))
        self.register_buffer("begun", torch.tensor(not config.warm))

    def needs(self) -> Needs:
        """A second text beside each caption."""
        return Needs(rows="supervised", beside=frozenset({self._second}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Some row has two texts."""
        others: Mapping[str, Sequence[object]] = {
            "caption": [texts[1:] for texts in rows.captions],
            "rewrite": rows.rewrites,
            "label": rows.labels,
        }
        if not any(first and second for first, second in zip(rows.captions, others[self.config.second], strict=True)):
            raise MethodError(
                f"session {session.index} ({session.name}): the term alip compares two texts, and it has {_LACKS[self.config.second]}"
            )

    def begin(self, at: Site) -> None:
        """Fits are compared anew."""
        self.means.fill_(1.0)
        self.begun.fill_(not self.config.warm)

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`first` and `second`."""
        there, captioned = view.there(self._second), view.captioned
        if not view.some_captioned:
            return {"first": 0.0 * view.images.sum()}
        scale = view.scale if self.config.scale == "model" else self.config.scale
        images, texts, same = view.captioned_pairs
        firsts = pair_losses(images, texts, scale, same)
        if not there.any():
            return {"first": self.config.weight * firsts.mean()}
        both, others = there[captioned], view.beside(self._second)
        tokens, rows = view.batch.beside[self._second].values, there.nonzero()[:, 0]
        sample, first, second = self._weights(images[both], texts[both], others)
        whole = torch.ones_like(firsts).masked_scatter(both, sample * first)
        seconds = pair_losses(images[both], others, scale, equal(tokens) | view.alike(rows))
        return {"first": self.config.weight * (whole * firsts).mean(), "second": self.config.weight * (sample * second * seconds).mean()}

    def _weights(self, images: Tensor, firsts: Tensor, seconds: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        with torch.no_grad():
            one, two, three = precise(images), precise(firsts), precise(seconds)
            fits = torch.stack([(two * three).sum(-1), (one * two).sum(-1), (one * three).sum(-1)])
            if not self.begun:
                self.means.copy_(fits.mean(-1))
                self.begun.fill_(True)
            self.means.lerp_(fits.mean(-1).to(self.means), 1 - self.config.momentum)
            return gates(fits, self.means.to(fits), self.config.sample_gate, self.config.pair_gate)

    @property
    def _second(self) -> What:
        named: dict[str, What] = {"caption": "second:caption", "rewrite": "second:rewrite", "label": "second:label"}
        return named[self.config.second]
