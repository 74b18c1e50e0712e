"""Learnable prompt tokens apart from the towers they enter: the parameters of CPE-CLIP, CoOp, VPT and UPT."""

import math
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Literal, TypeVar

import torch
from jaxtyping import Float, Int
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.errors import ModelError
from cl.models.clip import Clip
from cl.models.prompted import TextMode, TextPrompts, VisionMode, VisionPrompts, text_tower
from cl.models.zero_shot import prompts_of
from cl.streams.stream import Session

VERSION = 1  # see cl/store/units.py

P = TypeVar("P", bound="Prompts")
Mixing = Literal["joint8", "official_pairwise"]
Share = Literal["new_over_seen", "one_over_t"]


class Prompts(nn.Module, ABC):
    """Prompt tokens of one or both towers; where a tower gets none, its features are the clip's own."""

    @abstractmethod
    def text(self) -> TextPrompts | None:
        """What enters the text tower."""

    @abstractmethod
    def vision(self) -> VisionPrompts | None:
        """What enters the image tower."""


class DeepPrompts(Prompts):
    """CPE-CLIP's one prompt tensor for the text tower, and a linear bridge that makes image prompts of it.

    Holds depth * length * text_width numbers, and with image prompts text_width * image_width + image_width more: 406,272 for
    ViT-B/16 at depth 12 and length 2. Xavier's bounds are those of the three-dimensional tensor: U(-0.0289, 0.0289) there.
    """

    def __init__(
        self,
        depth: int,
        length: int,
        text_width: int,
        image_width: int | None,
        *,
        seed: int,
        text_mode: TextMode = "replace",
        vision_mode: VisionMode = "accumulate",
    ) -> None:
        super().__init__()
        self.text_mode, self.vision_mode = text_mode, vision_mode
        with drawn_from(seed):
            self.tokens = nn.Parameter(nn.init.xavier_uniform_(torch.empty(depth, length, text_width)))
            self.bridge = None if image_width is None else nn.Linear(text_width, image_width)

    def text(self) -> TextPrompts:
        """The tensor itself, behind the start token of every layer up to its depth."""
        return TextPrompts(self.tokens, self.text_mode)

    def vision(self) -> VisionPrompts | None:
        """The tensor through the bridge, behind the patches; None without a bridge."""
        return None if self.bridge is None else VisionPrompts(self.bridge(self.tokens), self.vision_mode, "after_patches")


class TextContext(Prompts):
    """CoOp's learnable words in front of a class name, shared by all classes (arXiv:2109.01134); drawn from N(0, 0.02)."""

    def __init__(self, length: int, width: int, *, seed: int) -> None:
        super().__init__()
        with drawn_from(seed):
            self.tokens = nn.Parameter(0.02 * torch.randn(1, length, width))

    def text(self) -> TextPrompts:
        """The words, at layer 0 only."""
        return TextPrompts(self.tokens)

    def vision(self) -> None:
        """None."""


class ImageContext(Prompts):
    """VPT's learnable tokens between class token and patches, at layer 0 only (arXiv:2203.12119); drawn from N(0, 1 / width)."""

    def __init__(self, length: int, width: int, *, seed: int) -> None:
        super().__init__()
        with drawn_from(seed):
            self.tokens = nn.Parameter(width**-0.5 * torch.randn(1, length, width))

    def text(self) -> None:
        """None."""

    def vision(self) -> VisionPrompts:
        """The tokens, behind the class token."""
        return VisionPrompts(self.tokens, place="after_class")


class MixedPrompts(Prompts):
    """UPT: text and image tokens that meet in a small transformer before they enter their towers (arXiv:2210.07225).

    `joint8` lets all tokens attend to each other, as the paper has it. `official_pairwise` repeats what the pseudolabel code
    does: text token k sees image token k and nothing else.
    """

    def __init__(
        self, length: int, widths: tuple[int, int], patch: int, *, seed: int, hidden: int = 128, mixing: Mixing = "joint8"
    ) -> None:
        super().__init__()
        self.mixing = mixing
        text, image = widths
        bound = math.sqrt(6 / (3 * patch**2 + image))
        with drawn_from(seed):
            self.text_tokens = nn.Parameter(0.02 * torch.randn(1, length, text))
            self.image_tokens = nn.Parameter(torch.empty(1, length, image).uniform_(-bound, bound))
            self.text_in, self.text_out = nn.Linear(text, hidden), nn.Linear(hidden, text)
            self.image_in, self.image_out = nn.Linear(image, hidden), nn.Linear(hidden, image)
            self.mixer = ResidualAttentionBlock(hidden, 1, act_layer=QuickGELU)

    def mixed(self) -> tuple[Float[Tensor, "1 length hidden"], Float[Tensor, "1 length hidden"]]:
        """Text and image tokens after they met."""
        text, image = self.text_in(self.text_tokens), self.image_in(self.image_tokens)
        if self.mixing == "joint8":
            both = self.mixer(torch.cat([text, image], 1))
            return both[:, : text.shape[1]], both[:, text.shape[1] :]
        both = self.mixer(torch.stack([text[0], image[0]], 1))  # one pair is one sequence
        return both[None, :, 0], both[None, :, 1]

    def text(self) -> TextPrompts:
        """The text half, at layer 0 only."""
        return TextPrompts(self.text_out(self.mixed()[0]))

    def vision(self) -> VisionPrompts:
        """The image half, behind the class token, at layer 0 only."""
        return VisionPrompts(self.image_out(self.mixed()[1]), place="after_class")


def drawn(
    clip: Clip, modality: Literal["text", "visual", "multimodal"], length: int | None, seed: int, mixing: Mixing = "joint8"
) -> Prompts:
    """New prompts for one tower, 16 tokens by default, or for both, 4 each."""
    if modality == "text":
        return TextContext(length or 16, clip.text_width, seed=seed)
    if modality == "visual":
        return ImageContext(length or 16, clip.image_width, seed=seed)
    patch = int(clip.model.visual.patch_size[0])
    return MixedPrompts(length or 4, (clip.text_width, clip.image_width), patch, seed=seed, mixing=mixing)


@contextmanager
def drawn_from(seed: int) -> Iterator[None]:
    """Random numbers in the block follow from the seed; the global generator stays where it was."""
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        yield


def encode_text(clip: Clip, tokens: Int[Tensor, "b t"], prompts: TextPrompts | None) -> Float[Tensor, "b d"]:
    """Unit-length features of prompted texts; a text that leaves the prompts no room loses its last words."""
    if prompts is not None:
        tokens = shortened(tokens, clip.context_length - prompts.layers.shape[1], clip.eot)
    return clip.encode_text(tokens, prompts)


def fitting(clip: Clip, prompts: P) -> P:
    """The prompts, if they leave a text room in the context for its start, a word and its end.

    Raises:
        ModelError: they do not.
    """
    text, tower = prompts.text(), text_tower(clip.model)
    if text is not None and tower is not None and (context := len(tower.positions)) - text.layers.shape[1] < 3:
        crowded = f"{text.layers.shape[1]} prompt tokens leave no room for a text in a context of {context}"
        raise ModelError(f"{crowded}; use at most {context - 3} (method.length)")
    return prompts


def shortened(tokens: Int[Tensor, "b t"], room: int, end: int) -> Int[Tensor, "b s"]:
    """At most `room` tokens a row; a row that was cut still has its end token, in the last place.

    >>> shortened(torch.tensor([[8, 1, 2, 9], [8, 1, 9, 0]]), 3, 9).tolist()
    [[8, 1, 9], [8, 1, 9]]
    """
    if tokens.shape[1] <= room:
        return tokens
    cut = tokens[:, :room].clone()
    cut[~(cut == end).any(-1), -1] = end
    return cut


def worded(classes: Sequence[ClassName], template: str) -> tuple[ClassName, ...]:
    """The classes with their name in one template as their only prompt.

    >>> worded([ClassName("polar_bear", ("a bear",))], "{}.")
    (ClassName(name='polar_bear', prompts=('polar bear.',)),)
    """
    return tuple(ClassName(known.name, prompts_of(known.name, (template,))) for known in classes)


def share(session: Session, of: Share = "new_over_seen") -> float:
    """How much of its step a session may take, 0..1: 1 in the first session.

    `new_over_seen`: the session's classes over all classes seen up to it, the alpha of CPE-CLIP. `one_over_t`: one over the
    session's number. Where sessions bring domains and no classes, the first is 1 throughout: such streams want the second.
    """
    if session.index == 1:
        return 1.0
    return 1 / session.index if of == "one_over_t" else len(session.classes) / len(session.vocabulary)
