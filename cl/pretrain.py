"""A small CLIP from nothing: the recipe of the shipped glyph model, and the way out where a configured model is not there."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from pydantic import Field

from cl.config import Config, EvalConfig, TrainConfig
from cl.data.table import ImageTable
from cl.evaluation.evaluate import evaluate
from cl.learning.learner import learn
from cl.learning.progress import Progress
from cl.methods.presets.finetune import FinetuneConfig
from cl.models.clip import Clip, build
from cl.streams.stream import EvalSet, Session

_ARCHITECTURE: dict[str, Any] = {
    "embed_dim": 128,
    "vision_cfg": {"image_size": 32, "patch_size": 8, "width": 96, "layers": 4, "head_width": 32},
    "text_cfg": {"context_length": 32, "vocab_size": 49408, "width": 64, "heads": 2, "layers": 3},
}
_PIXELS: dict[str, Any] = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "interpolation": "bicubic", "resize_mode": "squash"}


class PretrainConfig(Config):
    """What to train from nothing, on what, and how; the defaults make the shipped glyph model."""

    seed: int = 0
    architecture: dict[str, Any] = Field(_ARCHITECTURE, description="open_clip's model_cfg")
    preprocess: dict[str, Any] = Field(_PIXELS, description="open_clip's preprocess_cfg")
    domains: tuple[str, ...] | None = Field(("latin", "armenian", "marks"), description="which domains of the table; null: all rows")
    train: TrainConfig = TrainConfig(
        max_steps=2400, batch_size=256, lr=2e-3, weight_decay=0.1, betas=(0.9, 0.98), warmup=0.05, augment=True
    )


def pretrain(config: PretrainConfig, data: ImageTable, tests: Sequence[EvalSet], progress: Progress | None = None) -> Clip:
    """A CLIP trained contrastively on the captioned rows, repeatable bit for bit on the same machine.

    Raises:
        MethodError: no row has a caption.
    """
    clip = build(config.architecture, config.preprocess, config.seed)
    rows = data if config.domains is None else data.where([domain in config.domains for domain in data.domains])
    session = Session(1, "pretraining", rows.without("label"), tuple(tests), (), ())
    learn(FinetuneConfig().build(clip, config.seed), session, config.train, config.seed, progress=progress)
    return clip.eval()


def measure(clip: Clip, sets: Sequence[EvalSet], config: EvalConfig) -> dict[str, dict[str, float]]:
    """Zero-shot scores of a model, by set."""
    return {name: score.metrics for name, score in evaluate(FinetuneConfig().build(clip, 0), sets, config).items()}


def save_pretrained(clip: Clip, folder: Path) -> None:
    """Write the model in half precision, which is what it ships in."""
    clip.save(folder, dtype=torch.float16)
