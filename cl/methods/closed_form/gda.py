"""Gaussian discriminant analysis beside zero-shot CLIP: no training, and the sessions' statistics simply add up (arXiv:2402.04087)."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat
from torch import Tensor

from cl.data.classes import ClassName
from cl.methods.closed_form.sums import Sums, SumsConfig, fall_back
from cl.methods.features import ClassRows
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

    Keeps count and feature sum per class and the second moment of all features: order and number of sessions do not matter.
    """

    moment: Tensor

    def __init__(self, clip: Clip, seed: int, config: GDAConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        width = int(clip.model_cfg["embed_dim"])
        self.register_buffer("moment", torch.zeros(width, width, dtype=torch.float64))
        self.sums = ClassRows(width + 1)  # the last column counts

    @property
    def second(self) -> Float[Tensor, "d d"]:
        """The second moment."""
        return self.moment

    def counted(self, lifted: Float[Tensor, "b d"]) -> Float[Tensor, "b e"]:
        """The features, and a one that counts."""
        return torch.cat([lifted, torch.ones_like(lifted[:, :1])], 1)

    def discriminant(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k d"], Float[Tensor, " k"], Tensor]:
        """Weights and biases of the classes, zero for those never taught, and which were taught."""
        rows, known = self.sums.find([each.name for each in classes])
        every = self.sums.rows
        inverse = precision(self.moment - (every[:, :-1].T / every[:, -1]) @ every[:, :-1], float(every[:, -1].sum()))
        means = rows[:, :-1] / rows[:, -1:].clamp(min=1)
        weights = means @ inverse
        return weights, -(weights * means).sum(1) / 2, known

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k m"]:
        """Per class: its text feature, its weights and bias, and whether it was ever taught."""
        text = self.texts(classes)
        weights, bias, known = self.discriminant(classes)
        return torch.cat([text.double(), weights, bias[:, None], known[:, None].double()], 1)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """Both classifiers together for taught classes, zero-shot logits for the others."""
        encoded = self.encode_image(images).double()
        width = encoded.shape[1]
        zero_shot = self.clip.scale() * encoded @ features[:, :width].T
        gaussian = encoded @ features[:, width : 2 * width].T + features[:, 2 * width]
        return fall_back(zero_shot + self.config.alpha * gaussian, zero_shot, features[:, -1] > 0)


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
