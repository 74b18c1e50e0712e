"""Prompt tuning on pseudolabels: FPL, IFPL and GRIP over text, visual and multimodal prompts (arXiv:2306.01669)."""

from typing import Any, Literal

from pydantic import Field, field_validator

from cl.config import Count
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.prompts import Mixing
from cl.methods.rounds.picks import Rule, Weighting
from cl.methods.rounds.pseudolabels import PseudolabelsConfig
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.prompts import PromptsConfig

# five of the authors' 150 epochs are warm-up; with them the rate changes by the epoch and the first has none: schedule cosine_epochs
TRAIN: dict[str, Any] = {
    "epochs": 150,
    "batch_size": 16,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.1,
    "decay_all": True,  # theirs is plain SGD: biases and gains decay as well
    "warmup": 1 / 30,
    "schedule": "cosine",
    "clip_grad": None,
}
RATE = {"text": 0.1, "visual": 0.1, "multimodal": 0.01}

# the authors' first prompts share their storage with those that train, so that text prompts and the tokens of multimodal ones go on
# from where they were; visual ones are copied to the GPU and start again, and what mixes tokens is drawn anew
OFFICIAL: dict[str, Literal["warm", "same_init", "mixer"]] = {"text": "warm", "visual": "same_init", "multimodal": "mixer"}


class PseudolabelConfig(PresetConfig):
    """Prompt tuning on pseudolabels: FPL, IFPL, GRIP; text, visual or multimodal (arXiv:2306.01669).

    Learns prompts from labels, as far as there are any, and from what the model itself says about images without one. Defaults are
    Evergreen's, made of the method as it was meant: the surest images of each class, all of them taught, and new prompts each round.
    One slip of the authors' code is kept, the ratio that `weighting` has upside down in IFPL and GRIP: ten rounds of GRIP reach 42.1 on
    held-out images with it and 19.6 with `balanced`, the ratio as it was meant (RESULTS, e). The presets `papers/pseudolabel_*` set all
    that the authors' code does. `train` is laid over the authors' settings, which hold for every round.
    """

    name: Literal["pseudolabel"] = "pseudolabel"
    paradigm: Literal["auto", "ssl", "trzsl", "ul"] = "auto"  # auto: as each session's labels say
    modality: Literal["text", "visual", "multimodal"] = "text"
    strategy: Literal["none", "fpl", "ifpl", "grip"] = "grip"  # none: the labelled rows alone (CoOp, VPT, UPT)
    k: Count = Field(16, description="images per class in fpl and ifpl; grip takes ever more")
    iterations: Count = Field(10, le=1000, description="rounds of ifpl and grip")
    selector: Rule = "topk_per_class"
    weighting: Weighting = Field(
        "official_iterative",
        description="balanced, as it was meant: labelled rows weigh more in every round, by which many rounds overfit them; "
        "official_iterative, as in the authors' code: in ifpl and grip the ratio is upside down",
    )
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of labelled rows, and of pseudolabels where k is 10 or more, that does not teach (the authors: 0.2)",
    )
    restart: Literal["same_init", "warm", "official"] = Field(
        "same_init",
        description="what a round begins with: the session's first prompts, the last round's (warm), or as in the authors' code (official)",
    )
    sessions: Literal["continue", "fresh"] = "continue"  # what a session begins with: the last one's prompts, or new ones
    reg: Literal["none", "balance"] = "none"  # balance: later sessions take smaller steps, as in CPE-CLIP
    length: Count | None = Field(None, le=10_000, description="prompt tokens; default 16, multimodal 4 per tower")
    mixing: Mixing = "joint8"
    template: str | None = Field(None, description="of fixed class texts, such as 'a photo of a {}'; default: the stream's prompts")
    first_texts: Literal["template", "official"] = Field(
        "template", description="what the first round asks with; official: 'a photo of a {}daisy', as the authors' code does"
    )
    cache: bool = Field(True, description="with text prompts, compute image features once per session")

    @field_validator("candidates", mode="before")
    @classmethod
    def _in_words_of_now(cls, given: Any) -> Any:
        return "lesson" if given == "session" else given  # as releases up to 0.2.0 called it

    def recipe(self) -> RecipeConfig:
        """Cross-entropy over labels and pseudolabels, each weighted as a group, moves the prompts."""
        visual, multimodal = self.modality == "visual", self.modality == "multimodal"
        same = {name: getattr(self, name) for name in ("length", "mixing", "sessions", "reg")}
        prompts = PromptsConfig(
            form=self.modality,
            template=self.template if visual else "{}",
            cache=None if self.cache else False,
            train={**TRAIN, "lr": RATE[self.modality]},
            **same,
        )
        said = ("paradigm", "strategy", "k", "iterations", "selector", "weighting", "hold_out", "template", "first_texts")
        restart = OFFICIAL[self.modality] if self.restart == "official" else self.restart
        rounds = PseudolabelsConfig(root=multimodal, restart=restart, **{name: getattr(self, name) for name in said})
        return RecipeConfig(tune=prompts, terms=(FitConfig(rows="labelled"),), rounds=rounds, drop_last=False)
