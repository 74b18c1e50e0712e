"""Images nearer to their own class than to any other, by a margin: the proto-triplet loss of SuSana Distancia."""

from typing import ClassVar, Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.methods.losses import apart, triplet
from cl.methods.terms.base import Term, TermConfig, refuse_still
from cl.methods.tuners.base import Tuner
from cl.methods.view import View
from cl.streams.stream import Session


class ProtoTripletConfig(TermConfig):
    """Each image nearer to its class than to the nearest other, by a margin; beside an objective (SuSana Distancia)."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["proto_triplet"] = "proto_triplet"
    weight: NonNegativeFloat = Field(1.0, description="of this loss in the sum")
    margin: NonNegativeFloat = Field(0.5, description="by how much nearer; unit vectors are 0 to 2 apart")
    prototypes: Literal["text", "images"] = Field("text", description="what a class is: its prompt, or the mean of its images in the batch")

    def build(self, tuner: Tuner, seed: int) -> "ProtoTriplet":
        """The term."""
        return ProtoTriplet(self)

    def absent(self) -> bool:
        """Whether its weight is 0."""
        return self.weight == 0


class ProtoTriplet(Term):
    """Euclidean distances of unit features. Of images a row's own prototype is the mean of its class without the row itself."""

    def __init__(self, config: ProtoTripletConfig) -> None:
        super().__init__()
        self.config = config

    def check(self, tuner: Tuner, session: Session, rows: ImageTable) -> None:
        """There are labels, and something moves."""
        if self.config.prototypes == "images":
            refuse_still(tuner, session, self.config.kind, "compares images with images (prototypes: images)")
        if not rows.classes():
            raise MethodError(
                f"session {session.index} ({session.name}): none of its {len(session.data)} rows has a label, and the term proto_triplet "
                "compares images with their class; give it labels, or leave the term out"
            )

    def forward(self, view: View) -> dict[str, Float[Tensor, ""]]:
        """`proto_triplet`."""
        if not view.some_labelled:
            return {"proto_triplet": 0.0 * view.images.sum()}
        images = view.labelled_images
        if self.config.prototypes == "text":
            distances, targets = apart(images, view.classes), view.targets
        else:
            distances, targets = among(images, view.batch.labels[view.labelled])
        return {"proto_triplet": self.config.weight * triplet(distances, targets, self.config.margin)}


def among(images: Float[Tensor, "n d"], labels: Tensor) -> tuple[Float[Tensor, "m c"], Tensor]:
    """Distances to the mean of each class, a row's own without the row, and which is whose; a class of one row has no query."""
    classes = labels.new_tensor(sorted(set(labels.tolist())))
    targets = (labels[:, None] == classes).nonzero()[:, 1]
    member = torch.nn.functional.one_hot(targets, len(classes)).to(images)
    sums, counts = member.T @ images, member.sum(0)
    others = counts[targets] > 1
    own = (sums[targets] - images)[others] / (counts[targets][others, None] - 1)
    distances = apart(images[others], sums / counts[:, None])
    nearest = apart_pairs(images[others], own)
    return distances.scatter(1, targets[others][:, None], nearest[:, None]), targets[others]


def apart_pairs(one: Float[Tensor, "n d"], two: Float[Tensor, "n d"]) -> Float[Tensor, " n"]:
    """The distance of each row to the row beside it, as `apart` has it."""
    return ((one - two).square().sum(1) + 1e-6).sqrt()
