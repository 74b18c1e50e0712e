"""The model: four things asked of any open_clip model (images, texts, scale, pixels), and its life on disk."""

import copy
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import open_clip
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from open_clip.transform import PreprocessCfg, merge_preprocess_dict
from open_clip.transformer import VisionTransformer
from PIL import Image
from timm.models.efficientnet import EfficientNet
from torch import Tensor, nn

from cl.config import Augment
from cl.disk.tensors import save_tensors
from cl.errors import ModelError
from cl.models.context import longer
from cl.models.crops import pixels
from cl.models.prompted import TextPrompts, TextTower, VisionPrompts, image_features, text_features, text_tower
from cl.models.settings import check
from cl.models.source import CONFIG, WEIGHTS, ModelConfig, fill, find, first_line, reach_towers
from cl.models.tokens import Frame, frame, special, tokenize, tokenizer

__all__ = ["Clip", "ModelConfig", "TextPrompts", "VisionPrompts", "build", "load"]

BatchNorm = Literal["frozen", "trained"]
# where it was measured to pay, and only there: with another stem, convolutions in this layout can write past their memory (DECISIONS.md)
_CHANNELS_LAST = (EfficientNet,)


class Clip(nn.Module):
    """An open_clip model in fp32 with its tokenizer and preprocessing; features come out with length 1, normalised in fp32.

    Batch normalisation stays in eval mode whatever the mode of the rest while `batch_norm` is "frozen", as it is at first: a
    session is too small and too narrow to estimate statistics from, and frozen ones let teacher and student see the same image
    the same way. "trained" is for weights that begin as noise, where frozen statistics normalise nothing. Dropout follows the mode.

    `random` says that no weights were read; `first_scale` is the logit scale that it came with, no logarithm.
    """

    def __init__(self, model: Any, model_cfg: Mapping[str, Any], preprocess_cfg: Mapping[str, Any], tokenizer: Any) -> None:
        super().__init__()
        self.model: Any = model  # open_clip has no type for what its models share
        self.model_cfg = copy.deepcopy(dict(model_cfg))
        size = {"size": model.visual.image_size}
        self.preprocess_cfg: dict[str, Any] = merge_preprocess_dict(merge_preprocess_dict(PreprocessCfg(), dict(preprocess_cfg)), size)
        self.tokenizer = tokenizer
        self.batch_norm: BatchNorm = "frozen"
        self.random, self.first_scale = True, float(self.scale().detach())
        if isinstance(getattr(model.visual, "trunk", None), _CHANNELS_LAST):
            model.visual.to(memory_format=torch.channels_last)
        self.eval()

    def train(self, mode: bool = True) -> "Clip":
        """Change the mode of everything, of batch normalisation only where it trains."""
        super().train(mode)
        if self.batch_norm == "frozen":
            for module in self.batch_norms():
                module.eval()
        return self

    def batch_norms(self) -> list[nn.Module]:
        """Its layers of batch normalisation."""
        return [module for module in self.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]

    def encode_image(self, images: Float[Tensor, "b 3 h w"], prompts: VisionPrompts | None = None) -> Float[Tensor, "b d"]:
        """Unit-length image features.

        Raises:
            ModelError: prompts for a tower that is not open_clip's vision transformer, or of the wrong shape.
        """
        if prompts is None:
            return unit(self.model.encode_image(images, normalize=False))
        return unit(image_features(self._vision(), images, prompts))

    def encode_text(self, tokens: Int[Tensor, "b t"], prompts: TextPrompts | None = None) -> Float[Tensor, "b d"]:
        """Unit-length text features of `tokenize`'s output, or of any token sequences up to the context length.

        Raises:
            ModelError: prompts for a tower that cannot take them, or captions and prompts longer than the context.
        """
        tower = text_tower(self.model)
        if tower is None and prompts is None:
            return unit(self.model.encode_text(tokens, normalize=False))
        return unit(text_features(self._text() if tower is None else tower, tokens, prompts))

    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with to become logits: exp(logit_scale)."""
        return self.logit_scale.exp().reshape(())

    @property
    def logit_scale(self) -> nn.Parameter:
        """The logarithm of the scale, as a parameter."""
        return self.model.logit_scale

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.logit_scale.device

    @property
    def dtype(self) -> torch.dtype:
        """What it computes in: batches follow it."""
        return self.logit_scale.dtype

    def part(self, part: Literal["whole", "image", "text"]) -> Iterator[nn.Parameter]:
        """The parameters of the whole model, or of one tower and the logit scale."""
        for name, parameter in self.model.named_parameters():
            image = name.startswith("visual.")
            if part == "whole" or name == "logit_scale" or (image if part == "image" else not image and name != "logit_bias"):
                yield parameter

    def tokenize(self, texts: Sequence[str], reserve: int = 0) -> Int[Tensor, "n t"]:
        """Token ids, cut to the longest caption where that is exact; a caption over the context loses its last words, not its end.

        `reserve` leaves room for that many prompt tokens in the context.
        """
        return self.trim(tokenize(self.tokenizer, texts, self.context_length - reserve))

    def trim(self, tokens: Int[Tensor, "n t"]) -> Int[Tensor, "n s"]:
        """Token ids cut to the longest text, where the tower looks at nothing behind the end."""
        return tower.trim(tokens) if (tower := text_tower(self.model)) else tokens

    def frame(self) -> Frame:
        """What its tokenizer puts around words, and which ids are words; a ModelError where it reads none."""
        return frame(self.tokenizer, self.vocab_size)

    def transform(self, augment: Augment = False) -> Callable[[Image.Image], Float[Tensor, "3 h w"]]:
        """Image to pixels as the model's own preprocessing has it, after a random crop where `augment` asks for one: `cl.models.crops`."""
        return pixels(PreprocessCfg(**self.preprocess_cfg), augment)

    @property
    def context_length(self) -> int:
        """Longest token sequence the text tower takes, prompts included."""
        return int(self.tokenizer.context_length)

    @property
    def vocab_size(self) -> int:
        """Number of token ids."""
        return int(self.model.vocab_size if hasattr(self.model, "vocab_size") else self.model.text.vocab_size)  # CoCa has it there alone

    @property
    def sot(self) -> int:
        """Id of the start token."""
        return special(self.tokenizer, "sot_token_id", "bos_token_id")

    @property
    def eot(self) -> int:
        """Id of the end token."""
        return special(self.tokenizer, "eot_token_id", "eos_token_id")

    @property
    def image_width(self) -> int:
        """Width of the image tower's tokens; a ModelError where it has none. `image_layers` likewise."""
        return int(self._vision().transformer.width)

    @property
    def image_layers(self) -> int:
        """Number of the image tower's layers."""
        return len(self._vision().transformer.resblocks)

    @property
    def text_width(self) -> int:
        """Width of the text tower's tokens; a ModelError where prompts cannot enter it. `text_layers` likewise."""
        return int(self._text().positions.shape[1])

    @property
    def text_layers(self) -> int:
        """Number of the text tower's layers."""
        return len(self._text().blocks)

    def _vision(self) -> VisionTransformer:
        if not isinstance(self.model.visual, VisionTransformer):
            why = f"this model's image tower ({type(self.model.visual).__name__}) has no token sequence"
            raise ModelError(f"image prompts need open_clip's vision transformer and {why}; choose a model such as ViT-B-32")
        return self.model.visual

    def _text(self) -> TextTower:
        tower = text_tower(self.model)
        if tower is None:
            why = "this model has another text tower"
            raise ModelError(f"text prompts need open_clip's causal text transformer and {why}; choose a model such as ViT-B-32")
        return tower

    def digest(self) -> str:
        """32 hex digits that change with any weight, the configuration or the preprocessing, and with nothing else."""
        content = hashlib.sha256(json.dumps([self.model_cfg, self.preprocess_cfg], sort_keys=True).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            content.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            content.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy())
        return content.hexdigest()[:32]

    def save(self, folder: Path, dtype: torch.dtype = torch.float32) -> None:
        """Write open_clip's folder layout, which `load` and plain open_clip read as `local-dir:`. No half-written model is readable.

        Raises:
            ModelError: the folder cannot be written.
        """
        folder = folder.absolute()
        part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
        try:
            part.mkdir(parents=True)
            self._fill(part, dtype)
            folder.mkdir(exist_ok=True)
            # without its configuration a folder is no model: it goes first and comes last
            (folder / CONFIG).unlink(missing_ok=True)
            for path in sorted(part.iterdir(), key=lambda path: path.name == CONFIG):
                os.replace(path, folder / path.name)
        except OSError as error:
            raise ModelError(f"{folder}: the model cannot be written ({error.strerror or error}); make room or choose another") from error
        finally:
            shutil.rmtree(part, ignore_errors=True)

    def _fill(self, folder: Path, dtype: torch.dtype) -> None:
        weights = {name: tensor.detach().cpu() for name, tensor in self.model.state_dict().items()}
        weights = {name: (tensor.to(dtype) if tensor.is_floating_point() else tensor).contiguous() for name, tensor in weights.items()}
        save_tensors(weights, folder / WEIGHTS, {"format": "pt"})
        config = {"model_cfg": self.model_cfg, "preprocess_cfg": self.preprocess_cfg}
        (folder / CONFIG).write_text(json.dumps(config, indent=1), encoding="utf-8")
        if not isinstance(self.tokenizer, open_clip.SimpleTokenizer):
            self.tokenizer.save_pretrained(str(folder))


def unit(features: Float[Tensor, "b d"]) -> Float[Tensor, "b d"]:
    """Rows of length 1, computed in at least fp32.

    >>> unit(torch.tensor([[3.0, 4.0]]))
    tensor([[0.6000, 0.8000]])
    """
    return F.normalize(features if features.dtype == torch.float64 else features.float(), dim=-1)


def build(
    model_cfg: Mapping[str, Any],
    preprocess_cfg: Mapping[str, Any] | None = None,
    seed: int = 0,
    home: Path | None = None,
    reads: bool = True,
) -> Clip:
    """A model with random weights, the same for the same seed, from open_clip's own settings; `home` is its folder, if it has one.

    Without `reads` it has no tokenizer: enough to say which model it is, and nothing of its folder is opened for it.

    Raises:
        ModelError: open_clip cannot build it, or its settings ask for more than a shape.
    """
    check(model_cfg)
    settings = copy.deepcopy(dict(model_cfg))
    try:
        custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
        settings["vision_cfg"]["timm_model_pretrained"] = settings["text_cfg"]["hf_model_pretrained"] = False
        kind = open_clip.CoCa if "multimodal_cfg" in settings else open_clip.CustomTextCLIP if custom else open_clip.CLIP
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed)
            model = kind(**settings)
        clip = Clip(model, model_cfg, preprocess_cfg or {}, tokenizer(model_cfg["text_cfg"], home) if reads else None)
        clip.transform()
    except ModelError:
        raise
    except Exception as error:  # a configuration can be wrong in as many ways as there are towers
        why = f"{type(error).__name__}: {first_line(error)}"
        raise ModelError(f"open_clip cannot build this model ({why}); check its configuration") from error
    return clip


def load(config: ModelConfig, root: Path | None = None, reads: bool = True) -> Clip:
    """The model in eval mode, fp32, on the CPU; a relative `local-dir:` starts at `root`, by default the working directory.

    Without `reads` it comes without its tokenizer, see `build`.

    Raises:
        ModelError: the name or tag is unknown, or files are missing, damaged, of another model, or out of reach.
    """
    source = find(config.name, config.pretrained, root)
    reach_towers(source, config.name)
    try:
        clip = build(source.model_cfg, source.preprocess_cfg, config.seed, source.home, reads)
    except ModelError as error:
        raise ModelError(f"{config.name}: {error}") from error.__cause__
    if source.weights is not None:
        fill(clip.model, source.weights)
        clip.random, clip.first_scale = False, float(clip.scale().detach())
    if config.context is None:
        return clip
    model_cfg, weights = longer(config.name, clip.model_cfg, clip.model, config.context)
    wide = build(model_cfg, source.preprocess_cfg, config.seed, source.home, reads)
    wide.model.load_state_dict(weights)
    wide.random, wide.first_scale = clip.random, clip.first_scale
    return wide
