"""LoRA: a product of two thin matrices is added to each chosen weight, and it alone descends (arXiv:2106.09685)."""

import copy
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Literal

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat
from torch import Tensor, nn
from torch.func import functional_call

from cl.config import Count
from cl.errors import ModelError
from cl.methods.tuners.base import TOWERS, Tower, Towers, Tuner, TunerConfig
from cl.models.clip import Clip
from cl.seeds import generator

Target = Literal["qkv", "out", "mlp"]

# how open_clip's, timm's and Hugging Face's layers name what can be tuned, and how many matrices one such weight is a stack of
_SITES: tuple[tuple[str, Target, int], ...] = (
    (r"\.in_proj_weight$|\.qkv\.weight$", "qkv", 3),
    (r"\.kv\.weight$", "qkv", 2),
    (r"\.(q|k|v|q_proj|k_proj|v_proj|query|key|value)\.weight$|\.[qkv]_proj_weight$", "qkv", 1),
    (
        r"\.(attn|attn_pool|token_mixer|attention)\.(out_)?proj\.weight$|\.attnpool\.c_proj\.weight$|\.attention\.output\.dense\.weight$",
        "out",
        1,
    ),
    (r"\.mlp\.(c_fc|c_proj|fc1|fc1_g|fc1_x|fc2)\.weight$|\.(intermediate|output)\.dense\.weight$", "mlp", 1),
)


class LoRAConfig(TunerConfig):
    """Low-rank changes of attention and MLP weights descend; the model's own stay as they are (arXiv:2106.09685).

    A session of ViT-B/16 is 4.4 MB at rank 4 in place of 600. It saves room: it does not hold forgetting back.
    """

    kind: Literal["lora"] = "lora"
    rank: Count = Field(4, description="of each change; at most the shorter side of the largest matrix that it enters")
    alpha: PositiveFloat | None = Field(None, description="the change is scaled by alpha / rank; default: as the rank")
    towers: Towers = "both"
    targets: tuple[Target, ...] = Field(("qkv", "out", "mlp"), min_length=1, description="of each layer (CLIP-LoRA: qkv alone)")

    def build(self, clip: Clip, seed: int) -> "LoRA":
        """Matrices for every weight of the towers that is aimed at; exact at the start, since one of each two is zero."""
        return LoRA(clip, seed, self)


class LowRank(nn.Module):
    """The two factors of one weight's change, for each of the matrices that it is a stack of."""

    def __init__(self, shape: torch.Size, rank: int, blocks: int, source: torch.Generator) -> None:
        super().__init__()
        rows, columns = shape[0], shape[1:].numel()
        bound = columns**-0.5
        self.a = nn.Parameter(torch.empty(blocks, rank, columns).uniform_(-bound, bound, generator=source))
        self.b = nn.Parameter(torch.zeros(blocks, rows // blocks, rank))


class LoRA(Tuner):
    """Features by W + alpha / rank * B A in place of each chosen W, with the clip's own weights never written to.

    The sums are laid under the clip's functions while those run. So the clip keeps open_clip's names and bits, whatever reads a weight
    gets the sum (attention reads its projections past their modules), and a frozen copy shares all of the clip.
    """

    linear = False  # the product of two means is not the mean of two products

    def __init__(self, clip: Clip, seed: int, config: LoRAConfig) -> None:
        super().__init__(clip)
        self.factor = 1.0 if config.alpha is None else config.alpha / config.rank
        moved = TOWERS[config.towers]
        self.fixed = TOWERS["both"] - moved
        stacks = sites(clip, config.targets)
        for tower in sorted(moved):
            if not stacks[tower]:
                aimed = ", ".join(config.targets)
                raise ModelError(f"its {tower} tower has no weight for LoRA ({aimed}); choose other targets or towers, or another tuner")
        weights = dict(clip.model.named_parameters())
        full = max(_full(weights[name].shape, blocks) for tower in moved for name, blocks in stacks[tower].items())
        if config.rank > full:
            raise ModelError(f"rank {config.rank:,} is more than any matrix has that LoRA enters here; give at most {full:,}")
        self._sites = {tower: tuple(stacks[tower]) if tower in moved else () for tower in stacks}
        # module names hold no dots
        self.low = nn.ModuleDict(
            {
                _key(name): LowRank(weights[name].shape, config.rank, blocks, generator(seed, "lora", name))
                for tower in ("image", "text")
                if tower in moved
                for name, blocks in stacks[tower].items()
            }
        )
        self._merged: dict[Tower, dict[str, Tensor]] | None = None

    def weights(self) -> Mapping[str, nn.Parameter]:
        """All factors."""
        return {f"tuner.{name}": each for name, each in self.named_parameters()}

    def image(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Unit-length features of images, by the changed weights."""
        return self._by("image", lambda: self.clip.encode_image(pixels))

    def text(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Unit-length features of texts, by the changed weights."""
        return self._by("text", lambda: self.clip.encode_text(tokens))

    @contextmanager
    def step(self) -> Iterator[None]:
        """Every sum is made once in the block, and here: a first use without gradient would leave one that has none."""
        self._merged = {tower: self.merged(tower) for tower in self._sites}
        try:
            yield
        finally:
            self._merged = None

    def merged(self, tower: Tower) -> dict[str, Tensor]:
        """The changed weights of a tower, under their names in the open_clip model."""
        weights, own = dict(self.clip.model.named_parameters()), self.weights()
        with torch.autocast(self.clip.device.type, enabled=False):  # a sum is no place for half precision
            factors = {name: (own[f"tuner.low.{_key(name)}.a"], own[f"tuner.low.{_key(name)}.b"]) for name in self._sites[tower]}
            return {name: changed(weights[name], a, b, self.factor) for name, (a, b) in factors.items()}

    def shrink(self, share: float) -> None:
        """Scale one factor of each product."""
        with torch.no_grad():
            for low in self.low.values():
                low.b.mul_(share)  # type: ignore[operator]

    def folded(self) -> Clip:
        """A plain CLIP with the changed weights as its own."""
        clip = copy.deepcopy(self.clip, {id(self.clip.tokenizer): self.clip.tokenizer})
        with torch.no_grad():
            own = dict(clip.model.named_parameters())
            for tower in self._sites:
                for name, weight in self.merged(tower).items():
                    own[name].copy_(weight)
        return clip

    def _by(self, tower: Tower, features: Callable[[], Tensor]) -> Tensor:
        if not self._sites[tower]:
            return features()
        merged = self.merged(tower) if self._merged is None else self._merged[tower]
        return functional_call(
            _Over(self.clip.model), {f"model.{name}": weight for name, weight in merged.items()}, features, tie_weights=False
        )


class _Over(nn.Module):
    """What computes by a model's modules, whose weights `functional_call` exchanges meanwhile."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, features: Callable[[], Tensor]) -> Tensor:
        return features()


def changed(
    weight: Float[Tensor, "o ..."], a: Float[Tensor, "blocks rank i"], b: Float[Tensor, "blocks o/blocks rank"], factor: float
) -> Float[Tensor, "o ..."]:
    """W + factor * the stack of B_b A_b, as W is shaped (arXiv:2106.09685, section 4.1)."""
    return weight + factor * (b @ a).reshape(weight.shape)


def sites(clip: Clip, targets: tuple[Target, ...]) -> dict[Tower, dict[str, int]]:
    """Weights aimed at, by tower and name in the open_clip model, with the number of matrices that each is a stack of.

    A convolution is one where its kernel is a single pixel. What only writes captions (CoCa's decoder) answers nothing here.
    """
    stacks: dict[Tower, dict[str, int]] = {"image": {}, "text": {}}
    for name, weight in clip.model.named_parameters():
        kind = next(((target, blocks) for pattern, target, blocks in _SITES if re.search(pattern, name)), None)
        if kind and kind[0] in targets and not name.startswith("text_decoder.") and weight.shape[0] * weight.shape[1] == weight.numel():
            stacks["image" if name.startswith("visual.") else "text"][name] = kind[1]
    return stacks


def _full(shape: torch.Size, blocks: int) -> int:
    return min(shape[0] // blocks, shape[1:].numel())


def _key(name: str) -> str:
    return name.replace(".", "/")
