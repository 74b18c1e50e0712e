"""Ridge regression to class indicators in closed form: what sessions add up to is the joint solution, in any order."""

from collections.abc import Sequence
from typing import Literal

import torch
from jaxtyping import Float
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from cl.data.classes import ClassName
from cl.methods.closed_form.sums import Sums, SumsConfig, fall_back
from cl.methods.features import ClassRows
from cl.models.clip import Clip
from cl.seeds import generator


class RidgeConfig(SumsConfig):
    """Ridge regression on frozen features, in closed form."""

    name: Literal["ridge"] = "ridge"
    penalty: PositiveFloat = Field(0.1, description="times the squared weights, where features have length 1")
    projection: PositiveInt | None = Field(None, description="random features, such as 2000 (RanPAC); memory grows with their square")

    def build(self, clip: Clip, seed: int) -> "Ridge":
        """Ridge regression beside the clip, which stays as it is."""
        return Ridge(clip, seed, self)


class Ridge(Sums):
    """Keeps the Gram matrix of all features and their sum per class, from which the weights follow (RanPAC, arXiv:2307.02251).

    No gradient and no exemplar. Whether an image shows a class that was ever taught is for zero-shot CLIP to say, and which.
    """

    gram: Tensor
    random: Tensor | None

    def __init__(self, clip: Clip, seed: int, config: RidgeConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        width, wide = int(clip.model_cfg["embed_dim"]), config.projection
        drawn = None if wide is None else torch.randn(width, wide, generator=generator(seed, "projection"), dtype=torch.float64)
        self.register_buffer("random", drawn, persistent=False)  # the seed gives it back
        self.bound = {} if wide is None else {"seed": seed}
        self.register_buffer("gram", torch.zeros(wide or width, wide or width, dtype=torch.float64))
        self.sums = ClassRows(wide or width)

    @property
    def second(self) -> Float[Tensor, "m m"]:
        """The Gram matrix."""
        return self.gram

    def lift(self, features: Float[Tensor, "b d"]) -> Float[Tensor, "b m"]:
        """The features themselves, or relu(features R) with R drawn from N(0, 2/m), which keeps their mean square length."""
        if self.random is None:
            return features.double()
        return (features.double() @ self.random).relu() * (2 / self.random.shape[1]) ** 0.5

    def weights(self, classes: Sequence[ClassName]) -> tuple[Float[Tensor, "k m"], Tensor]:
        """(G + penalty I)^-1 applied to the feature sum of each class, and which of the classes were taught."""
        sums, known = self.sums.find([each.name for each in classes])
        penalised = self.gram + self.config.penalty * torch.eye(len(self.gram), dtype=self.gram.dtype, device=self.gram.device)
        return torch.cholesky_solve(sums.T, torch.linalg.cholesky(penalised)).T, known

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k m"]:
        """Per class: its text feature, its ridge weights, and whether it was ever taught."""
        text = self.texts(classes)
        weights, known = self.weights(classes)
        return torch.cat([text.double(), weights, known[:, None].double()], 1)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """Ridge scores of taught classes, zero-shot logits of the others."""
        encoded = self.encode_image(images)
        width = encoded.shape[1]
        zero_shot = self.clip.scale() * encoded.double() @ features[:, :width].T
        return fall_back(self.lift(encoded) @ features[:, width:-1].T, zero_shot, features[:, -1] > 0)
