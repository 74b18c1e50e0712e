"""Prompt tuning on pseudolabels: FPL, IFPL and GRIP over text, visual and multimodal prompts (arXiv:2306.01669)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from cl.data.classes import ClassName
from cl.data.table import ImageTable, concat
from cl.errors import MethodError
from cl.methods import prompts, pseudolabels
from cl.methods.base import Batch, Method, MethodConfig
from cl.methods.features import encoded
from cl.methods.frozen import Frozen
from cl.methods.losses import similarities
from cl.methods.prompts import Mixing, Prompts, drawn, encode_text, fitting, share, worded
from cl.methods.pseudolabels import (
    RULES,
    Pick,
    Pool,
    Rule,
    Weighting,
    as_rounds,
    as_tensors,
    kept,
    mismatch,
    paradigm_of,
    pseudolabelled,
    schedule,
    table,
    weights,
)
from cl.models.clip import Clip
from cl.models.zero_shot import class_features
from cl.seeds import derive, generator
from cl.streams.stream import Session

# five of the authors' 150 epochs are warm-up; with them the rate changes by the epoch and the first has none: schedule cosine_epochs
_TRAIN: dict[str, Any] = {
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
_RATE = {"text": 0.1, "visual": 0.1, "multimodal": 0.01}

Restart = Literal["same_init", "warm", "official"]


class PseudolabelConfig(MethodConfig):
    """Prompt tuning on pseudolabels: FPL, IFPL, GRIP; text, visual or multimodal (arXiv:2306.01669).

    Defaults are Evergreen's, made of the method as it was meant: the surest images of each class, all of them taught, and new prompts
    each round. The presets `papers/pseudolabel_*` set what the authors' code does instead. `train` is laid over the authors' settings,
    which hold for every round.
    """

    learns: ClassVar[tuple[str, ...]] = ("labels", "unlabelled")

    name: Literal["pseudolabel"] = "pseudolabel"
    paradigm: Literal["auto", "ssl", "trzsl", "ul"] = "auto"  # auto: as each session's labels say
    modality: Literal["text", "visual", "multimodal"] = "text"
    strategy: Literal["none", "fpl", "ifpl", "grip"] = "grip"  # none: the labelled rows alone (CoOp, VPT, UPT)
    k: PositiveInt = Field(16, description="images per class in fpl and ifpl; grip takes ever more")
    iterations: PositiveInt = Field(10, description="rounds of ifpl and grip")
    selector: Rule = "topk_per_class"
    candidates: Literal["session", "seen"] = "session"  # the classes that compete; under trzsl pseudolabels are unseen ones anyway
    weighting: Weighting = Field(
        "official_iterative", description="balanced weighs labelled rows up in every round, by which many rounds overfit them"
    )
    hold_out: float = Field(
        0.0,
        ge=0,
        lt=1,
        description="share of labelled rows, and of pseudolabels where k is 10 or more, that does not teach (the authors: 0.2)",
    )
    restart: Restart = Field(
        "same_init",
        description="what a round begins with: the session's first prompts, the last round's (warm), or as in the authors' code (official)",
    )
    sessions: Literal["continue", "fresh"] = "continue"  # what a session begins with: the last one's prompts, or new ones
    reg: Literal["none", "balance"] = "none"  # balance: later sessions take smaller steps, as in CPE-CLIP
    length: PositiveInt | None = Field(None, description="prompt tokens; default 16, multimodal 4 per tower")
    mixing: Mixing = "joint8"
    template: str | None = Field(None, description="of fixed class texts, such as 'a photo of a {}'; default: the stream's prompts")
    first_texts: Literal["template", "official"] = Field(
        "template", description="what the first round asks with; official: 'a photo of a {}daisy', as the authors' code does"
    )
    cache: bool = Field(True, description="with text prompts, compute image features once per session")

    @model_validator(mode="before")
    @classmethod
    def _over_the_authors(cls, given: Any) -> Any:
        if not isinstance(given, dict) or not isinstance(given.get("train", {}), dict):
            return given
        rate = _RATE.get(given.get("modality", "text"), 0.1)
        return {**given, "train": {**_TRAIN, "lr": rate, **given.get("train", {})}}

    def build(self, clip: Clip, seed: int) -> "Pseudolabel":
        """Prompts beside the clip, which stays as it is."""
        return Pseudolabel(clip, seed, self)

    def drawn(self, clip: Clip, seed: int) -> Prompts:
        """New prompts of the modality."""
        return drawn(clip, self.modality, self.length, seed, self.mixing)


class Pseudolabel(Frozen):
    """Learns prompts from labels, as far as there are any, and from what the model itself says about images without one.

    Each round scores all unlabelled rows anew (the first with zero-shot CLIP), picks those it is surest of for each class, and
    trains on them with a new optimizer. `picked` tells what every round of the session took: for reports, not for learning.
    """

    parts = (prompts, pseudolabels)
    drop_last = False

    def __init__(self, clip: Clip, seed: int, config: PseudolabelConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        self.pixels = config.modality != "text" or not config.cache
        self.prompts = fitting(clip, config.drawn(clip, derive(seed, "prompts")))
        self.bound = {"modality": config.modality}  # towers of one width take prompts of one shape
        self.picked: list[list[Pick]] = []
        self._texts: Tensor | None = None  # class features where no text prompt moves them
        self._pseudo = torch.empty(0, dtype=torch.bool)
        self._weights = (1.0, 1.0)

    def trainable(self) -> Iterable[nn.Parameter]:
        """The prompts, and what mixes them."""
        return self.prompts.parameters()

    def check(self, session: Session) -> None:
        """A session needs class names, unlabelled rows, and labels where the paradigm wants them."""
        whose = f"session {session.index} ({session.name})"
        if not session.classes:
            raise MethodError(f"{whose}: teaches no class; pseudolabel needs class names: choose it for streams that classify")
        if self.config.strategy == "none":
            return super().check(session)
        labels = session.data.labels
        if None not in labels:
            found = f"all {len(labels)} rows have a label and pseudolabels are for rows without"
            raise MethodError(f"{whose}: {found}; teach some of them unlabelled, or set method.strategy to none")
        if told := mismatch(session, self.config.paradigm):
            raise MethodError(f"{whose}: {told}")

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows and what zero-shot CLIP takes the others for."""
        return next(self.rounds(session))

    def rounds(self, session: Session) -> Iterator[ImageTable]:
        """One table per round: the labelled rows, then the picked ones under the label they were picked for."""
        Method.begin(self, session)
        if self.config.candidates == "seen":
            self.candidates = tuple(range(len(session.vocabulary)))
        self.rate = share(session) if self.config.reg == "balance" else 1.0
        if self.config.sessions == "fresh":
            self.prompts.load_state_dict(self.config.drawn(self.clip, derive(self.seed, "prompts")).state_dict())
        start = {name: tensor.clone() for name, tensor in self.prompts.state_dict().items()}
        pool = self._pool(session)
        self.picked, self.turns = [], len(pool.ks or [0])
        for turn, k in enumerate(pool.ks or [0]):
            picks = self._pick(pool, k, first=turn == 0) if pool.ks else []
            if turn:
                self._restart(start, turn)
            yield self._lesson(pool, self._taught(picks, k, turn))

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`labelled` and `pseudo`: weighted means over the rows of each kind, whichever the batch has."""
        texts = self._class_features() if self._texts is None else self._texts
        logits = similarities(self.clip.scale(), self.features_of(batch), texts)
        each = F.cross_entropy(logits, self.position(batch.labels), reduction="none")
        pseudo = self._pseudo[batch.rows]
        parts = {"labelled": (self._weights[0], each[~pseudo]), "pseudo": (self._weights[1], each[pseudo])}
        return {name: weight * values.mean() for name, (weight, values) in parts.items() if len(values)}

    def midway(self) -> dict[str, Tensor]:
        """What each round so far has picked: [n, 3] of row, class and probability, and how many of them are each round's."""
        return as_tensors(self.picked)

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """The rounds' picks as they were."""
        self.picked = as_rounds(tensors)

    def end(self, session: Session) -> None:
        """Forget everything about the session but its prompts and the record of its picks."""
        super().end(session)
        self._texts = None

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """By round and class: images picked, the least sure of them, those that other classes picked too, and the share picked rightly."""
        index = {known.name: place for place, known in enumerate(self.vocabulary)}
        known = [index.get(truth.get(row, ""), -1) for row in session.data.ids]
        return table(self.picked, self.vocabulary, session.classes, known if truth else None)

    def encode_image(self, images: Float[Tensor, "b 3 h w"]) -> Float[Tensor, "b d"]:
        """Unit-length features of images, with prompts behind the class token unless the modality is text."""
        return self.clip.encode_image(images, self.prompts.vision())

    def encode_text(self, tokens: Int[Tensor, "b t"]) -> Float[Tensor, "b d"]:
        """Unit-length features of texts, with prompts in front of them unless the modality is visual."""
        return encode_text(self.clip, tokens, self.prompts.text())

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Text features of the bare names behind the text prompts; with visual prompts those of the fixed class texts."""
        if self.config.modality == "visual":
            return self._fixed(classes)
        return class_features(self.encode_text, self.tokens, worded(classes, "{}"))

    def _fixed(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        template = self.config.template
        return class_features(self.clip.encode_text, self.tokens, worded(classes, template) if template else classes)

    def _first(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        if self.config.first_texts == "template":
            return self._fixed(classes)
        start = self.config.template or "a photo of a {}"
        texts = [ClassName(known.name, (start + worded([known], "{}")[0].prompts[0],)) for known in classes]
        return class_features(self.clip.encode_text, self.tokens, texts)

    def _class_features(self) -> Float[Tensor, "k d"]:
        return self.class_features([self.vocabulary[index] for index in self.candidates])

    def _restart(self, start: Mapping[str, Tensor], turn: int) -> None:
        """What a round after the first begins with.

        The authors' first prompts share their storage with those that train, so that text prompts and the tokens of multimodal ones go
        on from where they were; visual ones are copied to the GPU and start again, and what mixes tokens is drawn anew.
        """
        restart, modality = self.config.restart, self.config.modality
        if restart == "official" and modality == "multimodal":
            drawn = self.config.drawn(self.clip, derive(self.seed, "prompts", self.session, turn)).state_dict()
            start = {name: tensor for name, tensor in drawn.items() if not name.endswith("_tokens")}
        elif restart == "warm" or (restart == "official" and modality == "text"):
            return
        self.prompts.load_state_dict(start, strict=False)

    def _taught(self, picks: list[Pick], k: int, turn: int) -> list[Pick]:
        """The picks without those that are held out, where a class has ten or more."""
        share = self.config.hold_out if k >= 10 else 0.0
        return [picks[row] for row in kept(len(picks), share, generator(self.seed, "held out", self.session, turn))]

    @torch.no_grad()
    def _pool(self, session: Session) -> Pool:
        self.eval()
        config, data = self.config, session.data
        labels = self.labels_of(data).tolist()
        unlabelled = [row for row, label in enumerate(labels) if label < 0]
        paradigm = paradigm_of(session)
        columns = tuple(index for index in session.classes if index not in set(labels)) if paradigm == "trzsl" else self.candidates
        ks = (
            schedule(config.strategy, len(unlabelled), len(columns), k=config.k, iterations=config.iterations)
            if config.strategy != "none"
            else []
        )
        features = None if self.pixels else self._cache.images(self.encode_image, self.clip, data)
        self._texts = self._class_features() if config.modality == "visual" else None
        rows = [row for row, label in enumerate(labels) if label >= 0]
        rows = [rows[row] for row in kept(len(rows), config.hold_out, generator(self.seed, "held out", session.index))]
        return Pool(data, rows, unlabelled, columns, paradigm, ks, features)

    @torch.no_grad()
    def _pick(self, pool: Pool, k: int, *, first: bool) -> list[Pick]:
        self.eval()
        classes = [self.vocabulary[index] for index in pool.columns]
        if pool.features is not None:
            images = pool.features[pool.unlabelled]
        else:
            images = encoded(self.clip.encode_image if first else self.encode_image, self.clip, pool.data.take(pool.unlabelled))
        texts = self._first(classes) if first else self.class_features(classes)
        # in double precision: many a probability near one would be equal to one, and its rank lost
        probabilities = (self.clip.scale() * images @ texts.T).double().softmax(-1).cpu().numpy()
        picks = RULES[self.config.selector](np.asarray(probabilities), k)
        self.picked.append([Pick(pool.unlabelled[pick.row], pool.columns[pick.label], pick.probability) for pick in picks])
        return self.picked[-1]

    def _lesson(self, pool: Pool, picks: Sequence[Pick]) -> ImageTable:
        rows = pool.labelled + [pick.row for pick in picks]
        device = self.clip.device
        self._pseudo = torch.arange(len(rows), device=device) >= len(pool.labelled)
        self._features = None if pool.features is None else pool.features[torch.tensor(rows, device=device)]
        self._weights = weights(
            len(pool.labelled),
            len(picks),
            pool.paradigm,
            multimodal=self.config.modality == "multimodal",
            iterative=self.config.strategy in ("ifpl", "grip"),
            rule=self.config.weighting,
        )
        return concat([pool.data.take(pool.labelled), pseudolabelled(pool.data, picks, self.vocabulary)])
