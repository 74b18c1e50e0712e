"""CPE-CLIP: one prompt tensor for both towers, trained on through all sessions in ever smaller steps (arXiv:2303.04751)."""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, PositiveInt, field_validator
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.methods import prompts
from cl.methods.base import Batch, MethodConfig
from cl.methods.frozen import Frozen
from cl.methods.losses import classification, similarities
from cl.methods.prompts import DeepPrompts, Share, encode_text, fitting, share, worded
from cl.models.clip import Clip
from cl.models.prompted import TextMode, VisionMode
from cl.models.zero_shot import class_features
from cl.seeds import derive
from cl.streams.stream import Session

# the authors set 0.00325, which their warm-up overwrites: this is what their optimizer really used, epoch by epoch
_TRAIN: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 32,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "decay_all": True,  # theirs is plain SGD: biases and gains decay as well
    "clip_grad": None,
    "lr_epochs": [0.001, 0.00298, 0.00496, 0.00694, 0.00892, 0.0109],
}
_LATER: dict[str, Any] = {"epochs": 5, "batch_size": 4}


def _laid_over(authors: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    # whoever names a rate means it: the authors' rates by epoch would silently win
    mine = {"lr_epochs": None} if "lr" in given else {}
    return {**authors, **mine, **given}


class CPEClipConfig(MethodConfig):
    """Few-shot prompts in both towers, the text ones feeding the image ones (arXiv:2303.04751).

    Defaults as in the authors' code (CUB-200: train.epochs 6 and train.batch_size 4), but that from the second session on the learning
    rate is scaled in place of the gradient, and with it the decay of weights; `scale_target: grad` is theirs.
    """

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["cpe_clip"] = "cpe_clip"
    train: dict[str, Any] = Field(_TRAIN, validate_default=True, description="laid over the authors' settings and the run's")
    later: dict[str, Any] = Field(_LATER, validate_default=True, description="the same, from the second session on")
    depth: PositiveInt = Field(12, description="layers that get prompts; at most as many as the towers have")
    length: PositiveInt = Field(2, description="prompt tokens per layer")
    text_mode: TextMode = "replace"
    vision_mode: VisionMode | Literal["none"] = "accumulate"  # replace: the "no accumulation" ablation; none: text prompts only
    template: str = "{}."
    logit_scale: PositiveFloat | Literal["model"] = 100.0
    reg: Literal["balance", "none", "freeze"] = "balance"  # smaller steps from the second session on, equal ones, or none at all
    share: Share = "new_over_seen"
    scale_target: Literal["lr", "grad"] = Field("lr", description="grad: as the authors do; without effect under AdamW")

    @field_validator("train")
    @classmethod
    def _over_the_authors(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _laid_over(_TRAIN, given)

    @field_validator("later")
    @classmethod
    def _over_the_authors_later(cls, given: dict[str, Any]) -> dict[str, Any]:
        return _laid_over(_LATER, given)

    def build(self, clip: Clip, seed: int) -> "CPEClip":
        """CPE-CLIP beside the clip, which stays as it is."""
        return CPEClip(clip, seed, self)


class CPEClip(Frozen):
    """Cross-entropy over the session's own classes moves the prompts; from the second session on, alpha_t times as far.

    alpha_t is the share of the session's classes among all seen. Nothing else protects old classes: no exemplar, no teacher.
    """

    parts = (prompts,)
    drop_last = False

    def __init__(self, clip: Clip, seed: int, config: CPEClipConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        self.pixels = config.vision_mode != "none"
        vision = config.vision_mode
        depth = min(config.depth, clip.text_layers, clip.text_layers if vision == "none" else clip.image_layers)
        prompts = DeepPrompts(
            depth,
            config.length,
            clip.text_width,
            None if vision == "none" else clip.image_width,
            seed=derive(seed, "prompts"),
            text_mode=config.text_mode,
            vision_mode="accumulate" if vision == "none" else vision,
        )
        self.prompts = fitting(clip, prompts)

    def trainable(self) -> Iterable[nn.Parameter]:
        """The prompt tensor and the bridge."""
        return self.prompts.parameters()

    def begin(self, session: Session) -> ImageTable:
        """Set alpha; the labelled rows."""
        data = super().begin(session)
        self.alpha = share(session, self.config.share) if self.config.reg == "balance" else 1.0
        self.rate = self.alpha if self.config.scale_target == "lr" else 1.0
        return data

    def rounds(self, session: Session) -> Iterator[ImageTable]:
        """The labelled rows; nothing after the first session where the prompts are frozen."""
        data = self.begin(session)
        self.turns = 1
        if self.config.reg != "freeze" or session.index == 1:
            yield data

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`classify`, over the session's classes: what masking the others with -9999 gives, without encoding them."""
        texts = self.class_features([self.vocabulary[index] for index in self.candidates])
        logits = similarities(self.scale(), self.features_of(batch), texts)
        return {"classify": classification(logits, self.position(batch.labels))}

    def before_step(self) -> None:
        """Scale the gradients, where the authors' own way is asked for."""
        if self.config.scale_target == "grad":
            for parameter in self.trainable():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.alpha)

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of images with prompts behind their patches."""
        return self.clip.encode_image(images, self.prompts.vision())

    def encode_text(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit-length features of texts with prompts behind their start."""
        return encode_text(self.clip, tokens, self.prompts.text())

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Text features of the class names in the method's own template."""
        return class_features(self.encode_text, self.tokens, worded(classes, self.config.template))

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k d"]) -> Float[Tensor, "b k"]:
        """Scaled cosines."""
        return self.scale() * self.encode_image(images) @ features.T

    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with: the authors' constant 100, or the model's own."""
        scale = self.config.logit_scale
        return self.clip.scale() if scale == "model" else torch.tensor(scale, device=self.clip.device)
