"""CPE-CLIP: one prompt tensor for both towers, trained on through all sessions in ever smaller steps (arXiv:2303.04751)."""

from typing import Any, Literal

from pydantic import Field, PositiveFloat

from cl.config import Count
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.prompts import Share
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.prompts import PromptsConfig
from cl.models.prompted import TextMode, VisionMode

# the authors set 0.00325, which their warm-up overwrites: this is what their optimizer really used, epoch by epoch
TRAIN: dict[str, Any] = {
    "epochs": 5,
    "batch_size": 32,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 1e-5,
    "decay_all": True,  # theirs is plain SGD: biases and gains decay as well
    "clip_grad": None,
    "lr_epochs": [0.001, 0.00298, 0.00496, 0.00694, 0.00892, 0.0109],
}
LATER: dict[str, Any] = {"epochs": 5, "batch_size": 4}


class CPEClipConfig(PresetConfig):
    """Few-shot prompts in both towers, the text ones feeding the image ones (arXiv:2303.04751).

    Cross-entropy over the session's own classes moves the prompts; nothing else protects old classes: no exemplar, no teacher. Defaults
    as in the authors' code (CUB-200: train.epochs 6 and train.batch_size 4), but that from the second session on the learning rate is
    scaled in place of the gradient, and with it the decay of weights; `scale_target: grad` is theirs.
    """

    name: Literal["cpe_clip"] = "cpe_clip"
    depth: Count = Field(12, description="layers that get prompts; at most as many as the towers have")
    length: Count = Field(2, le=10_000, description="prompt tokens per layer")
    text_mode: TextMode = "replace"
    vision_mode: VisionMode | Literal["none"] = "accumulate"  # replace: the "no accumulation" ablation; none: text prompts only
    template: str = "{}."
    logit_scale: PositiveFloat | Literal["model"] = 100.0
    reg: Literal["balance", "none", "freeze"] = "balance"  # smaller steps from the second session on, equal ones, or none at all
    share: Share = "new_over_seen"
    scale_target: Literal["lr", "grad"] = Field("lr", description="grad: as the authors do; without effect under AdamW")

    def recipe(self) -> RecipeConfig:
        """CLIP's objective over labels alone moves the prompts; the authors' training settings are theirs."""
        same = ("depth", "length", "text_mode", "vision_mode", "template", "reg", "share", "scale_target")
        said = {name: getattr(self, name) for name in same}
        prompts = PromptsConfig(**said, scale=self.logit_scale, train=TRAIN, later=LATER)
        return RecipeConfig(tune=prompts, terms=(FitConfig(rows="labelled"),), drop_last=False)
