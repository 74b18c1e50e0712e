"""Images told apart by the clusters that the base model puts them in, several for each: no label, no text (MLCD, arXiv:2407.17331)."""

import math
from typing import ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from pydantic import Field, NonNegativeFloat, PositiveFloat
from torch import Tensor, nn
from torch.nn.functional import normalize

from cl.config import Count
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import similarities
from cl.methods.terms.base import Needs, Term, TermConfig, refuse_still
from cl.methods.tuners.base import Tuner
from cl.methods.view import Site, View
from cl.seeds import generator
from cl.streams.stream import Session

CHUNK = 256  # images encoded at a time
_TURNS = 25  # of k-means, at most


class ClustersConfig(TermConfig):
    """Each image near the nearest of its session's clusters, several of them, and far from the others (arXiv:2407.17331)."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions", "unlabelled")
    teaches: ClassVar[bool] = True

    kind: Literal["clusters"] = "clusters"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    count: Count | None = Field(None, description="clusters of a session; default: the square root of its rows")
    top: Count = Field(2, description="nearest clusters that an image is of")
    scale: PositiveFloat = Field(14.3, description="what cosines are multiplied with")

    def build(self, tuner: Tuner, seed: int) -> "Clusters":
        """The objective, before any session."""
        return Clusters(self, tuner, seed)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class Clusters(Term):
    """A centre for each cluster descends with the image tower, from where the base model has it, and goes when the session is over.

    What is learned are the model's own groups, told apart better: it sharpens what the model knows. Beside it stands what holds texts.
    """

    def __init__(self, config: ClustersConfig, tuner: Tuner, seed: int) -> None:
        super().__init__()
        self.config, self.seed, self._width = config, seed, int(tuner.clip.model_cfg["embed_dim"])
        self.centres = nn.Parameter(torch.zeros(0, self._width))
        self._near = torch.empty(0, 0, dtype=torch.int64)  # of each row of the lesson

    def needs(self) -> Needs:
        """Any rows, and the base model."""
        return Needs(rows="any", teachers=frozenset({"original"}))

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """Images move, and there are enough to make groups of."""
        whose = f"session {session.index} ({session.name})"
        refuse_still(tuner, session, self.config.kind, "moves images")
        if self._count(len(rows)) <= self.config.top:
            raise MethodError(
                f"{whose}: {len(rows)} rows make {self._count(len(rows))} clusters, of which an image would be of {self.config.top}; leave "
                "the term clusters out, or lower its top"
            )

    def begin(self, at: Site) -> None:
        """Group the lesson's images by what the base model makes of them."""
        rows = at.lesson.data
        with torch.no_grad():
            features = torch.cat([view.through("original").images for view in at.views(rows, CHUNK)])
            centres = grouped(features, self._count(len(rows)), generator(self.seed, "clusters", at.session.index))
            self._near = (features @ centres.T).topk(self.config.top, dim=1).indices
        self.centres = nn.Parameter(centres.to(at.tuner.clip.logit_scale))

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`clusters`."""
        cosines = similarities(1.0, view.images, normalize(self.centres, dim=-1))
        own = torch.zeros_like(cosines, dtype=torch.bool).scatter(1, self._near.to(cosines.device)[view.batch.rows], True)
        return {"clusters": self.config.weight * discriminated(cosines, own, self.config.scale)}

    def end(self, at: Site) -> None:
        """Drop the session's clusters."""
        self.centres = nn.Parameter(self.centres.new_zeros(0, self._width))
        self._near = torch.empty(0, 0, dtype=torch.int64)

    def _count(self, rows: int) -> int:
        return min(rows, self.config.count or round(math.sqrt(rows)))


def discriminated(cosines: Float[Tensor, "n k"], own: Bool[Tensor, "n k"], scale: float) -> Float[Tensor, ""]:
    """The mean over rows of log(1 + sum of e^s over the others) + log(1 + sum of e^-s over a row's own (MLCD, arXiv:2407.17331)."""
    logits = scale * cosines
    nothing = logits.new_zeros(len(logits), 1)
    others, mine = logits.masked_fill(own, -torch.inf), (-logits).masked_fill(~own, -torch.inf)
    return sum(torch.cat([nothing, each], 1).logsumexp(1).mean() for each in (others, mine))  # type: ignore[return-value]


def grouped(features: Float[Tensor, "n d"], count: int, source: torch.Generator) -> Float[Tensor, "count d"]:
    """Unit centres of groups of unit rows: k-means by cosine, from rows that are drawn; a centre that no row is nearest to stays.

    Written out, since libraries add up in the order in which threads are done, and a session that goes on has to find the same groups.
    """
    rows = features.double().cpu()
    centres = rows[torch.randperm(len(rows), generator=source)[:count]]
    nearest: Int[Tensor, " n"] | None = None
    for _ in range(_TURNS):
        assigned = (rows @ centres.T).argmax(1)
        if nearest is not None and torch.equal(assigned, nearest):
            break
        nearest = assigned
        sums = torch.zeros_like(centres).index_add_(0, assigned, rows)
        filled = torch.bincount(assigned, minlength=count) > 0
        centres = torch.where(filled[:, None], normalize(sums, dim=1), centres)
    return centres.to(features)
