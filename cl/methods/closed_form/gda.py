"""Gaussian discriminant analysis beside zero-shot CLIP: no training, and the sessions' statistics simply add up (arXiv:2402.04087)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Bool, Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.classes import ClassName
from cl.methods.closed_form.judging import Looked
from cl.methods.closed_form.moments import Moments
from cl.methods.closed_form.sums import Sums, SumsConfig
from cl.models.clip import Clip


class GDAConfig(SumsConfig):
    """Gaussian discriminant analysis on frozen features beside zero-shot, with no training."""

    name: Literal["gda"] = "gda"
    alpha: NonNegativeFloat = Field(
        1.0,
        description="weight beside zero-shot; the authors search 1e-4 to 100; 1,000 was best on glyphs (RESULTS)",
    )

    def build(self, clip: Clip, seed: int) -> "GDA":
        """Gaussian discriminant analysis beside the clip, which stays as it is."""
        return GDA(clip, seed, self)


class GDA(Sums):
    """Zero-shot logits plus alpha times those of Gaussian classes with one covariance and equal priors.

    Keeps what every head of sums does: order and number of sessions do not matter.
    """

    def __init__(self, clip: Clip, seed: int, config: GDAConfig) -> None:
        super().__init__(clip, seed, config)
        self.config = config
        self.moments = Moments(int(clip.model_cfg["embed_dim"]))

    def discriminant(self, names: Sequence[str]) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"], Bool[Tensor, " k"]]:
        """Weights and biases of classes, zero for those never taught, and which were taught."""
        means, _, known = self.moments.means(names)
        inverse = precision(self.moments.scatter(), self.moments.count)
        weights = means @ inverse
        return weights, -(weights * means).sum(1) / 2, known

    def head(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k w"], Bool[Tensor, " k"]]:
        """Weights and bias of each class, and which were taught."""
        weights, bias, known = self.discriminant([each.name for each in classes])
        return torch.cat([weights, bias[:, None]], 1), known

    def score(self, looked: Looked, zero_shot: Float[Tensor, "b k"], own: Float[Tensor, "k w"]) -> Float[Tensor, "b k"]:
        """Both classifiers together."""
        return zero_shot + self.config.alpha * (looked.wide @ own[:, :-1].T + own[:, -1])


def precision(scatter: Float[Tensor, "d d"], count: float) -> Float[Tensor, "d d"]:
    """Inverse covariance from the scatter within classes of `count` samples, shrunk as Kubokawa and Srivastava have it.

    d ((n - 1) S + tr(S) I)^-1 with S = scatter / (n - 1): it exists with fewer samples than dimensions. Where no class varies
    at all (one sample each) there is nothing to estimate and the result is zero.

    >>> precision(torch.diag(torch.tensor([1.0, 3.0])), 3.0).diagonal()
    tensor([0.6667, 0.4000])
    """
    trace = scatter.trace() / max(count - 1, 1)
    if trace <= 1e-12:
        return torch.zeros_like(scatter)
    identity = torch.eye(len(scatter), dtype=scatter.dtype, device=scatter.device)
    return len(scatter) * torch.cholesky_inverse(torch.linalg.cholesky(scatter + trace * identity))
