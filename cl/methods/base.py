"""What a method is: one way to learn a session, in the few holes the learner calls."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Self

from jaxtyping import Bool, Float, Int
from pydantic import Field, model_validator
from torch import Tensor, nn

from cl.config import Config, Name, Overlay
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.explain import told
from cl.methods.part import SEATS
from cl.models.clip import Clip
from cl.models.zero_shot import class_features
from cl.streams.stream import Session

What = Literal[
    "partner:label",  # another image of the same class
    "partner:identity",  # of the same one
    "wrong:column",  # a caption that is wrong, as the table tells it
    "wrong:numbers",  # the row's own with another number
    "wrong:words",  # with two words exchanged
    "second:caption",  # another caption of the row
    "second:rewrite",  # one in other words
    "second:label",  # its class's prompt
]


class Beside(NamedTuple):
    """What stands beside some rows of a batch: another image of each, or the tokens of another text."""

    values: Float[Tensor, "m 3 h w"] | Int[Tensor, "m t"]
    there: Bool[Tensor, " b"]  # which rows


class Batch(NamedTuple):
    """What one step sees.

    `labels` index the session's vocabulary, -1 where a sample has none; `texts` hold one caption's tokens each, and mean
    something where `captioned`; `rows` are positions in the table that `rounds` gave; `step` counts the session's batches;
    `beside` is what the method asked for.
    """

    images: Float[Tensor, "b 3 h w"]
    labels: Int[Tensor, " b"]
    texts: Int[Tensor, "b t"]
    captioned: Bool[Tensor, " b"]
    rows: Int[Tensor, " b"]
    step: int
    beside: Mapping[What, Beside] = {}


class MethodConfig(Config):
    """Settings of a method; a subclass adds `name: Literal[...]` and its knobs."""

    learns: ClassVar[tuple[str, ...]] = ("labels", "captions")  # what a session must have some of
    former: ClassVar[Mapping[str, Any]] = {}  # what was the default of an earlier release, where a line that began with it keeps it

    label: Name | None = None  # what tables call it, where one method stands there twice
    train: Overlay = Field({}, description="training settings that this method wants otherwise")
    later: Overlay = Field({}, description="the same, from the second session on")

    @model_validator(mode="before")
    @classmethod
    def _placed(cls, given: Any) -> Any:
        # a part where there is no place for one is told as that, not as an unknown word
        odd = [name for name in ("terms", *SEATS) if isinstance(given, dict) and name in given and name not in cls.model_fields]
        if odd:
            raise told(cls._no_place(odd[0]))
        return given

    @classmethod
    def _no_place(cls, part: str) -> str:
        return f"{cls.called()} is no recipe, so it has no place for {part}; `evergreen methods` says what is made of parts"

    @classmethod
    def called(cls) -> str:
        """The method's name."""
        return str(cls.model_fields["name"].default)

    def located(self, root: Path) -> Self:
        """The same settings with relative paths of data starting at `root`."""
        return self

    def title(self) -> str:
        """What tables call it where it has no label."""
        return self.called()

    def wants(self) -> tuple[str, ...]:
        """What a session must have some of."""
        return self.learns

    def training(self, later: bool) -> dict[str, Any]:
        """Training settings that it wants otherwise, in the first session or `later` ones."""
        return {**self.train, **(self.later if later else {})}

    def spelled(self) -> dict[str, Any]:
        """What it computes, as far as settings say it: part of the name of every state."""
        return {"name": self.called()} | self.changed("label", "train", "later")

    def build(self, clip: Clip, seed: int) -> "Method":
        """The method over a clip that it may change."""
        raise NotImplementedError


class Method(nn.Module, ABC):
    """One way to learn a session: what it minimises and what it remembers.

    Whatever outlives a session is a parameter, a buffer or plain extra state: `state_dict()` is the whole memory.
    All randomness comes from generators made of (seed, session, step), so that a resumed run repeats itself exactly.
    """

    version: ClassVar[int] = 1  # of what this very class computes, not of its bases; see cl/store/units.py
    pixels: bool = True  # False: `losses` reads no images (features are cached by row), so none are decoded
    steps_apart: ClassVar[bool] = False  # whether a step may be cut among ranks and into chunks
    younger: ClassVar[tuple[str, ...]] = ()  # parts that states of earlier releases have not, and that begin empty where they are missing
    drop_last: bool = True  # whether the authors leave out an epoch's last, short batch; `train.drop_last` overrules it

    def __init__(self, clip: Clip, seed: int) -> None:
        super().__init__()
        self.clip = clip
        self.seed = seed
        self.vocabulary: tuple[ClassName, ...] = ()  # every class so far; a label is an index into it
        # beside names and shapes of tensors, what its memory means nothing without: made under another, it is not gone on with
        self.bound: dict[str, str | int] = {}
        self.rate = 1.0  # times the learning rate: scaling a gradient would change nothing under Adam
        self.turns: int | None = None  # rounds of this session, told by `rounds` when the first begins; None: only the last one tells
        self.visits = 0.0  # how often a row of this session comes up in a round with the same pixels; 0: not known
        self.full = 0  # rows of a whole batch of this round, which the last of an epoch may not have
        self.beside: tuple[What, ...] = ()  # what each row of a batch is to have beside it
        self.chunk: int | None = None  # how many images or texts are encoded at a time; None: all of a step

    def units(self) -> dict[str, int]:
        """The version of every unit that takes part in it, by name: its classes."""
        kinds = [kind for kind in type(self).__mro__ if issubclass(kind, Method)]
        return {kind.__name__: int(vars(kind).get("version", 1)) for kind in kinds}

    @abstractmethod
    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """Named loss terms of one step, already weighted; the learner sums and logs them."""

    def trainable(self) -> Iterable[nn.Parameter]:
        """The parameters that descend; none at all means there is nothing to train by gradient."""
        return self.clip.parameters()

    def descending(self) -> Iterable[nn.Parameter]:
        """Those of them that the round under way moves."""
        return self.trainable()

    def bounds(self) -> dict[str, dict[str, str | int]]:
        """What its tensors mean nothing without, by what their names begin with: "" for a method that is not made of parts."""
        return {"": {"kind": type(self).__name__, **self.bound}}

    def sources(self) -> tuple[str, ...]:
        """Digests of the tables that it learns from beside its sessions."""
        return ()

    def check(self, session: Session) -> None:
        """Say before anything is trained that a session cannot be used.

        Raises:
            MethodError: names the session, what it lacks and what to do.
        """

    def begin(self, session: Session) -> ImageTable:
        """Get ready for a session; returns the rows to learn from."""
        self.vocabulary = session.vocabulary
        return session.data

    def rounds(self, session: Session) -> Iterator[ImageTable]:
        """The tables to learn from, one after the other, each with a new optimizer; most methods have just the one of `begin`."""
        self.turns = 1
        yield self.begin(session)

    def end(self, session: Session) -> None:
        """The session is learned: drop what was only for it, keep what must be kept.

        Its FLOPs are counted: a loop that repeats itself goes through `cl.models.flops.alike`.
        """

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """Rows of a table about the session just learned, beyond its losses; `truth`: withheld labels by sample id, to judge by."""
        return []

    def before_step(self) -> None:
        """Gradients are complete and not yet clipped."""

    def after_step(self) -> None:
        """The optimizer has just moved the weights."""

    def midway(self) -> dict[str, Tensor]:
        """What a half-learned session holds beyond `state_dict()` and what `begin` makes anew; most methods nothing."""
        return {}

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """Put back what `midway` gave."""

    def folded(self) -> Clip | None:
        """A plain CLIP that answers as the method does; none where any of the four ways to ask it is its own."""
        own = ("encode_image", "encode_text", "class_features", "classify")
        return None if any(getattr(type(self), way) is not getattr(Method, way) for way in own) else self.clip

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length image features."""
        return self.clip.encode_image(images)

    def encode_text(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit-length text features."""
        return self.clip.encode_text(tokens)

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """What `classify` compares images with; computed once per evaluation set, not once per batch."""
        return class_features(self.encode_text, self.tokens, classes)

    def tokens(self, texts: Sequence[str]) -> Int[Tensor, "n t"]:
        """Token ids, where the clip is."""
        return self.clip.tokenize(texts).to(self.clip.device)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k d"]) -> Float[Tensor, "b k"]:
        """Logits over the classes whose `class_features` are given."""
        return self.clip.scale() * self.encode_image(images) @ features.T
