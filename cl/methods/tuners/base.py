"""What moves while a session is learned, and how features come out of it."""

import copy
import json
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import ClassVar, Literal, Self, TypeVar

from jaxtyping import Float, Int
from pydantic import Field
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import ModelError
from cl.methods.features import FeatureCache
from cl.methods.part import Part, PartConfig
from cl.models.clip import Clip, ModelConfig, load
from cl.models.zero_shot import class_features
from cl.streams.stream import Session

Tower = Literal["image", "text"]
Towers = Literal["image", "text", "both"]
TOWERS: dict[Towers, frozenset[Tower]] = {
    "image": frozenset({"image"}),
    "text": frozenset({"text"}),
    "both": frozenset({"image", "text"}),
}
T = TypeVar("T", bound="Tuner")


class TunerConfig(PartConfig):
    """Settings of a tuner; a subclass adds `kind: Literal[...]` and its knobs."""

    caches: ClassVar[bool] = False  # whether features of images that nothing moves are computed once where no setting says it

    cache: bool | None = Field(
        None, description="compute image features once a session, without augmentation; default: prompts and heads, over a fixed tower"
    )

    def cached(self, tuner: "Tuner") -> bool:
        """Whether image features are computed once.

        Raises:
            ModelError: they are to be, and change with every step.
        """
        if self.cache and "image" not in tuner.fixed:
            raise ModelError(
                "image features cannot be computed once and kept: the image tower is tuned, so that they change with every step; leave "
                "tune.cache off"
            )
        return "image" in tuner.fixed and (self.caches if self.cache is None else self.cache)

    def build(self, clip: Clip, seed: int) -> "Tuner":
        """The tuner over a clip that it may change.

        Raises:
            MethodError: it cannot tune this model; says which it can.
        """
        raise NotImplementedError


class Tuner(Part, ABC):
    """Features of images and texts, and the weights that descend to change them.

    The clip is the recipe's: a tuner registers only what it adds to it, so that nothing is kept twice. What it computes is a function of
    the clip, its own weights, and what it is asked.
    """

    grows: ClassVar[bool] = False  # whether a session may add values to its weights
    linear: ClassVar[bool] = True  # weights between two of its own compute as what is between the two does: merges ask that
    rows: Literal["labelled"] | None = None  # which rows reach it, where that is not for the terms to say
    fixed: frozenset[Tower] = frozenset()  # towers whose features do not move: they may be computed once
    resting: bool = False  # the clip is left as it is and stays in eval mode: dropout would blur what does not learn

    def __init__(self, clip: Clip) -> None:
        super().__init__()
        self._held = (clip,)  # no submodule
        self.known: Tensor | None = None  # image features of the lesson's rows, where they were computed before
        self._cache = FeatureCache()
        if self.resting:
            nn.Module.requires_grad_(clip, False)

    @property
    def clip(self) -> Clip:
        """The model that is tuned."""
        return self._held[0]

    @abstractmethod
    def weights(self) -> Mapping[str, nn.Parameter]:
        """What descends, by name and in order: the clip's under its own names, whatever is added under `tuner.` and its name here."""

    def image(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Unit-length features of images."""
        return self.clip.encode_image(pixels)

    def know(self, data: ImageTable) -> None:
        """Compute the image features of a lesson's rows.

        Raises:
            MethodError: something that trains is asked on the way.
        """
        self.known = self._cache.images(self.image, self.clip, data)

    def forget(self) -> None:
        """Drop them."""
        self.known = None
        self._cache.clear()

    def text(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Unit-length features of texts."""
        return self.clip.encode_text(tokens)

    def classes(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Features of classes as they are trained on: of the first prompt of each."""
        return self.text(self.tokens([each.prompts[0] for each in names]))

    def answers(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Features of classes as images are compared with them: the mean over the prompts of each."""
        return class_features(self.text, self.tokens, names)

    def scale(self) -> Float[Tensor, ""]:
        """What cosines are multiplied with to become logits."""
        return self.clip.scale()

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """Token ids, where the clip is."""
        return self.clip.tokenize(texts).to(self.clip.device)

    def check(self, session: Session) -> None:
        """Say before anything is trained that a session cannot be used.

        Raises:
            MethodError: names the session, what it lacks and what to do.
        """

    def begin(self, session: Session, competing: Sequence[ClassName]) -> None:
        """A session begins, in whose first lesson these classes compete."""

    def moves(self, session: Session) -> bool:
        """Whether anything descends in a session."""
        return True

    def end(self, session: Session) -> None:
        """A session is over: drop what was only for it."""

    def rate(self, session: Session) -> float:
        """What the learning rate is multiplied with in a session."""
        return 1.0

    def step(self) -> AbstractContextManager[None]:
        """The forward pass of one step: no weight moves in it, and one backward pass follows."""
        return nullcontext()

    def before_step(self) -> None:
        """Gradients are complete and not yet clipped."""

    def after_step(self) -> None:
        """The optimizer has just moved the weights."""

    def of(self, tower: Tower) -> Mapping[str, nn.Parameter]:
        """Those of its weights that move one tower; asked by rounds that teach one after the other."""
        raise NotImplementedError

    def redrawn(self, *counter: int) -> Mapping[str, Tensor]:
        """New values of the weights that make others of what was learned, by name; none, where nothing is made of anything."""
        return {}

    def shrink(self, share: float) -> None:
        """Keep this share of the way from the clip to what the tuner makes of it, exactly; asked where `linear` does not hold."""
        raise NotImplementedError

    def folded(self) -> Clip | None:
        """A plain CLIP with the same answers, if there is one; what is added to a clip says here how it goes into it."""
        return self.clip

    def frozen(self) -> Self:
        """A copy in eval mode that never gets a gradient and shares with this one only what no step moves."""
        moving = {id(weight) for weight in self.weights().values()}
        still = [each for each in self.clip.parameters() if id(each) not in moving]
        memo = {id(self.clip.tokenizer): self.clip.tokenizer} | {id(each): each for each in still}
        return at_rest(copy.deepcopy(self, memo))


class Plain(Tuner):
    """A clip as it is; nothing moves."""

    fixed, resting = TOWERS["both"], True

    def weights(self) -> Mapping[str, nn.Parameter]:
        """None."""
        return {}


def at_rest(tuner: T) -> T:
    """The same tuner, in eval mode and without gradients."""
    tuner.eval()
    tuner.clip.eval()
    for module in (tuner, tuner.clip):
        nn.Module.requires_grad_(module, False)
    return tuner


def earlier(name: str, clip: Clip) -> Plain:
    """A model by its name, for good, as precise as the clip.

    Raises:
        ModelError: there is none, or it is of another make: the two do not see the same.
    """
    other = load(ModelConfig(name=name))
    if _settings(other) != _settings(clip):
        raise ModelError(f"{name}: no earlier model of this one, its settings differ; name one of the same architecture and preprocessing")
    return at_rest(Plain(other.to(clip.dtype)))


def _settings(clip: Clip) -> str:
    return json.dumps([clip.model_cfg, clip.preprocess_cfg], sort_keys=True)  # tuples and lists are one


def base(clip: Clip) -> Plain:
    """The clip as it is now, for good: a frozen copy that shares nothing with it but its tokenizer, which is only read, and large."""
    return at_rest(Plain(copy.deepcopy(clip, {id(clip.tokenizer): clip.tokenizer})))
