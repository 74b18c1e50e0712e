"""EWC: weights that mattered to earlier sessions are held back by the Fisher diagonal (arXiv:1612.00796)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor, nn

from cl.config import Count
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import classification, pair_losses
from cl.methods.terms.base import Term, TermConfig
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.methods.weights import signature, snapshot, squared_distance
from cl.seeds import generator
from cl.streams.stream import Session

_PAIRS = 16  # captions that compete for an image when its importance is estimated


class HoldConfig(TermConfig):
    """A pull to the old weights, each by its importance to what was learned (arXiv:1612.00796)."""

    kind: Literal["hold"] = "hold"
    weight: NonNegativeFloat = Field(1000.0, description="lambda, the strength of the hold; its scale depends on model and data: search it")
    decay: float = Field(1.0, ge=0, le=1, description="share of the importance so far that a session keeps; below 1: online EWC")
    samples: Count | None = Field(256, description="rows of a session, drawn at random, that tell the importance; null: all")

    def build(self, tuner: Tuner, seed: int) -> "Hold":
        """The hold over what the tuner moves."""
        return Hold(self, tuner)

    def absent(self) -> bool:
        """Whether its weight is 0: then no importance is kept either."""
        return self.weight == 0


class Hold(Term):
    """Lambda/2 times the squared distance to the weights as the last session left them, weighted by importance.

    The importance is the diagonal of the empirical Fisher information, summed over sessions; one anchor, the latest weights, holds
    for all of them (arXiv:1712.03847). With a decay below 1 it is online EWC (arXiv:1805.06370).

    Whatever the objective is, the information is of the cross-entropy, which is a likelihood: of the rows that the session itself brought
    (an exemplar told its own when it was new), among the classes of the lesson, since those are what the weights were fitted to.
    """

    importance: Tensor

    def __init__(self, config: HoldConfig, tuner: Tuner) -> None:
        super().__init__()
        self.config, weights = config, tuner.weights()
        # one vector over all values that descend: the anchor needs no storage, since a session begins where the last one ended
        self.register_buffer("importance", torch.cat([torch.zeros_like(each).flatten() for each in weights.values()]).detach())
        self._over = signature(weights)
        self._anchor: dict[str, Tensor] = {}

    def bound(self) -> dict[str, str | int]:
        """Which weights: those of two towers may be of one number."""
        return {"weights": self._over}

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Weights that grow have no importance yet."""
        if tuner.grows:
            raise MethodError(
                f"session {session.index} ({session.name}): the term {self.config.kind} has an importance for each weight, and what is "
                "tuned grows with the classes; take another tuner, or leave the term out"
            )

    def begin(self, at: Site) -> None:
        """Drop the anchor here, if anything was learned before."""
        self._anchor = snapshot(at.tuner.weights()) if self.importance.any() else {}

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`hold`, from the second session on."""
        if not self._anchor:
            return {}
        importances = self.importances(view.weights)
        return {"hold": self.config.weight / 2 * squared_distance(view.weights, self._anchor, importances)}

    def end(self, at: Site) -> None:
        """Add the importance of the weights to this session."""
        self._anchor = {}
        rows = at.lesson.taught()
        drawn = torch.randperm(len(rows), generator=generator(at.seed, "importance", at.session.index))[: self.config.samples]
        asked = rows.take(drawn.tolist())
        with torch.enable_grad():
            fisher = fisher_diagonal(sample_losses(at, asked), list(at.tuner.weights().values()))
        self.importance.mul_(self.config.decay).add_(torch.cat([each.flatten() for each in fisher]))

    def importances(self, weights: Mapping[str, nn.Parameter]) -> dict[str, Float[Tensor, "..."]]:
        """The importance of each weight, by name, as views of `importance`."""
        parts = torch.split(self.importance, [each.numel() for each in weights.values()])
        return {name: part.view_as(each) for (name, each), part in zip(weights.items(), parts, strict=True)}


def sample_losses(at: Site, rows: ImageTable) -> Iterator[Float[Tensor, ""]]:
    """The cross-entropy of each labelled row among the classes that compete, and of each captioned row among its neighbours."""
    labelled = rows.where([label is not None for label in rows.labels])
    for view in at.views(labelled, 1):
        # not through autocast or a term: one row, one loss
        logits = view.scale * view.images @ view.classes.T
        yield classification(logits, view.targets)
    captioned = rows.where([bool(texts) for texts in rows.captions])
    for view in at.views(captioned, _PAIRS):
        yield from pair_losses(view.images, view.captions, view.scale, view.same_captions)


def fisher_diagonal(losses: Iterable[Float[Tensor, ""]], parameters: Sequence[nn.Parameter]) -> list[Tensor]:
    """Mean over samples of the squared gradient of each sample's loss, shaped like the parameters (zeros where none flows).

    With negative log-likelihoods of the true labels it is the diagonal of the empirical Fisher information.
    """
    total = [torch.zeros_like(parameter) for parameter in parameters]
    count = 0
    for loss in losses:
        count += 1
        gradients = torch.autograd.grad(loss, parameters, retain_graph=True, allow_unused=True)
        for each, gradient in zip(total, gradients, strict=True):
            if gradient is not None:
                each.addcmul_(gradient, gradient)
    return [each / max(count, 1) for each in total]
