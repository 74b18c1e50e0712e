"""Prompt tokens that enter a tower, or both: CPE-CLIP's bridged ones, CoOp's, VPT's and UPT's."""

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal, Self

import torch
from jaxtyping import Float, Int
from pydantic import Field, PositiveFloat, model_validator
from torch import Tensor, nn

from cl.config import Count
from cl.data.classes import ClassName
from cl.errors import MethodError
from cl.explain import told
from cl.methods import prompts
from cl.methods.prompts import DeepPrompts, Mixing, Prompts, Share, drawn, encode_text, fitting, share, worded
from cl.methods.tuners.base import TOWERS, Tuner, TunerConfig
from cl.models.clip import Clip
from cl.models.prompted import TextMode, VisionMode
from cl.models.zero_shot import class_features
from cl.seeds import derive
from cl.streams.stream import Session

Form = Literal["bridged", "text", "visual", "multimodal"]


class PromptsConfig(TunerConfig):
    """Prompt tokens descend, and whatever makes them; the towers that they enter stay as they are.

    `bridged`: text prompts in many layers, and image prompts made of them (arXiv:2303.04751). `text`: words before a class's name
    (arXiv:2109.01134). `visual`: tokens among the patches (arXiv:2203.12119). `multimodal`: both, mixed (arXiv:2210.07225).
    """

    caches: ClassVar[bool] = True

    kind: Literal["prompts"] = "prompts"
    form: Form = "bridged"
    depth: Count = Field(12, description="layers that get bridged prompts; at most as many as the towers have")
    length: Count | None = Field(
        None, le=10_000, description="tokens per layer; default: bridged 2, text and visual 16, multimodal 4 per tower"
    )
    text_mode: TextMode = "replace"
    vision_mode: VisionMode | Literal["none"] = Field("accumulate", description="of bridged prompts; none: text prompts alone")
    mixing: Mixing = "joint8"
    template: str | None = Field(None, description="what a class's name stands in, such as '{}.'; default: the stream's prompts")
    sessions: Literal["continue", "fresh"] = Field(
        "continue", description="what a session begins with: the last one's prompts, or new ones"
    )
    scale: PositiveFloat | Literal["model"] = Field("model", description="what cosines are multiplied with: the model's own, or a constant")
    reg: Literal["none", "balance", "freeze"] = Field(
        "none", description="from the second session on: steps as large, smaller ones by `share`, or none at all"
    )
    share: Share = "new_over_seen"
    scale_target: Literal["lr", "grad"] = Field("lr", description="what becomes smaller; a smaller gradient changes nothing under AdamW")

    @model_validator(mode="after")
    def _of_its_form(self) -> Self:
        if self.form != "bridged" and {"depth", "text_mode", "vision_mode"} & self.changed().keys():
            raise told(
                "depth, text_mode and vision_mode are of bridged prompts, which text, visual and multimodal ones are not; leave them out"
            )
        return self

    def build(self, clip: Clip, seed: int) -> "Prompted":
        """Newly drawn prompts."""
        return Prompted(clip, seed, self)

    def drawn(self, clip: Clip, seed: int) -> Prompts:
        """Prompts for this model.

        Raises:
            ModelError: a tower cannot take them, or they leave a text no room.
        """
        if self.form != "bridged":
            return fitting(clip, drawn(clip, self.form, self.length, seed, self.mixing))
        vision = self.vision_mode
        layers = clip.text_layers if vision == "none" else min(clip.text_layers, clip.image_layers)
        width = None if vision == "none" else clip.image_width
        depth, mode = min(self.depth, layers), "accumulate" if vision == "none" else vision
        bridged = DeepPrompts(depth, self.length or 2, clip.text_width, width, seed=seed, text_mode=self.text_mode, vision_mode=mode)
        return fitting(clip, bridged)


class Prompted(Tuner):
    """Features by towers with prompts in them; class names stand in the tuner's own template, where it has one."""

    version = prompts.VERSION
    resting = True

    def __init__(self, clip: Clip, seed: int, config: PromptsConfig) -> None:
        super().__init__(clip)
        self.config, self.seed = config, seed
        self.prompts = config.drawn(clip, derive(seed, "prompts"))
        with torch.no_grad():
            moved = {"text": self.prompts.text(), "image": self.prompts.vision()}
        self.fixed = frozenset(tower for tower in TOWERS["both"] if moved[tower] is None)
        self.reach = 1.0  # how far this session may go, against the first
        self._texts: dict[tuple[ClassName, ...], Tensor] = {}  # of classes, where no prompt moves them

    def bound(self) -> dict[str, str | int]:
        """Their form, where shapes do not tell it: towers of one width take prompts of one shape."""
        return {} if self.config.form == "bridged" else {"modality": self.config.form}

    def weights(self) -> Mapping[str, nn.Parameter]:
        """The prompts, and what bridges or mixes them."""
        return {f"tuner.{name}": each for name, each in self.named_parameters()}

    def image(self, pixels: Float[Tensor, "n 3 h w"]) -> Float[Tensor, "n d"]:
        """Unit-length features of images, among whose patches the image prompts stand."""
        return self.clip.encode_image(pixels, self.prompts.vision())

    def text(self, tokens: Int[Tensor, "n t"]) -> Float[Tensor, "n d"]:
        """Unit-length features of texts, behind whose start the text prompts stand; a text that leaves no room loses its last words."""
        return encode_text(self.clip, tokens, self.prompts.text())

    def classes(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """As they are answered with; computed once a session where no text prompt moves them."""
        if "text" not in self.fixed:
            return self.answers(names)
        if tuple(names) not in self._texts:
            with torch.no_grad():
                self._texts[tuple(names)] = self.answers(names)
        return self._texts[tuple(names)]

    def answers(self, names: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Text features of the names in the template; without one the mean over the prompts of each."""
        template = self.config.template
        return class_features(self.text, self.tokens, names if template is None else worded(names, template))

    def scale(self) -> Float[Tensor, ""]:
        """A constant, or the model's own."""
        scale = self.config.scale
        return self.clip.scale() if scale == "model" else torch.tensor(scale, device=self.clip.device)

    def folded(self) -> None:
        """None: prompts are no weights of a plain CLIP."""

    def check(self, session: Session) -> None:
        """A session teaches classes, where their share says how far it may go: without one it would learn nothing."""
        balanced = self.config.reg == "balance" and self.config.share == "new_over_seen"
        if balanced and session.index > 1 and not session.classes:
            raise MethodError(
                f"session {session.index} ({session.name}): teaches no class, and with reg: balance its steps are as large as the share of "
                "its classes among all; set share to one_over_t, or reg to none"
            )

    def begin(self, session: Session, competing: Sequence[ClassName]) -> None:
        """Find how far the session may go; draw new prompts, where each session gets its own."""
        self._texts.clear()
        if self.config.sessions == "fresh":
            self.prompts.load_state_dict(self.config.drawn(self.clip, derive(self.seed, "prompts")).state_dict())
        self.reach = share(session, self.config.share) if self.config.reg == "balance" else 1.0

    def end(self, session: Session) -> None:
        """Drop what was computed once."""
        self._texts.clear()

    def redrawn(self, *counter: int) -> Mapping[str, Tensor]:
        """What mixes the tokens of both towers."""
        drawn = self.config.drawn(self.clip, derive(self.seed, "prompts", *counter))
        mixes = self.config.form == "multimodal"
        return {f"tuner.prompts.{name}": each.detach() for name, each in drawn.named_parameters() if mixes and not name.endswith("_tokens")}

    def moves(self, session: Session) -> bool:
        """Not after the first session, where they are frozen then."""
        return self.config.reg != "freeze" or session.index == 1

    def rate(self, session: Session) -> float:
        """The session's share, unless gradients are scaled by it."""
        return self.reach if self.config.scale_target == "lr" else 1.0

    def before_step(self) -> None:
        """Scale the gradients, where that is asked for."""
        if self.config.scale_target == "grad":
            for parameter in self.parameters():
                if parameter.grad is not None:
                    parameter.grad.mul_(self.reach)
