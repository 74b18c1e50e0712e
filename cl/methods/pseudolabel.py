"""Prompt tuning on pseudolabels: FPL, IFPL and GRIP over text, visual and multimodal prompts (arXiv:2306.01669)."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from pydantic import Field, PositiveInt, model_validator
from torch import Tensor, nn

from cl.clip import Clip
from cl.data import SCHEMA, ImageTable, concat
from cl.errors import MethodError
from cl.features import encoded
from cl.losses import similarities
from cl.methods.base import Batch, Method, MethodConfig
from cl.methods.frozen import Frozen
from cl.prompts import ImageContext, MixedPrompts, Mixing, Prompts, TextContext, encode_text, share, worded
from cl.pseudolabels import RULES, Paradigm, Pick, Rule, Weighting, count, schedule, weights
from cl.seeds import derive
from cl.stream import ClassName, Session
from cl.zero_shot import class_features

# five of the authors' 150 epochs are warm-up; their first epoch has rate zero, here it has the first fifth of the rise
_TRAIN: dict[str, Any] = {
    "epochs": 150,
    "batch_size": 16,
    "optimizer": "sgd",
    "momentum": 0.9,
    "weight_decay": 0.1,
    "warmup": 1 / 30,
    "schedule": "cosine",
    "clip_grad": None,
}
_RATE = {"text": 0.1, "visual": 0.1, "multimodal": 0.01}


class PseudolabelConfig(MethodConfig):
    """Prompt tuning on pseudolabels: FPL, IFPL, GRIP; text, visual or multimodal (arXiv:2306.01669).

    `train` is laid over the authors' settings, which hold for every round.
    """

    name: Literal["pseudolabel"] = "pseudolabel"
    paradigm: Literal["auto", "ssl", "trzsl", "ul"] = "auto"  # auto: as each session's labels say
    modality: Literal["text", "visual", "multimodal"] = "text"
    strategy: Literal["none", "fpl", "ifpl", "grip"] = "grip"  # none: the labelled rows alone (CoOp, VPT, UPT)
    k: PositiveInt = Field(16, description="images per class in fpl and ifpl; grip takes ever more")
    iterations: PositiveInt = Field(10, description="rounds of ifpl and grip")
    selector: Rule = "topk_per_class"
    candidates: Literal["session", "seen"] = "session"  # the classes that compete; under trzsl pseudolabels are unseen ones anyway
    weighting: Weighting = "balanced"
    restart: Literal["same_init", "warm"] = "same_init"  # what a round begins with: the session's first prompts, or the last round's
    sessions: Literal["continue", "fresh"] = "continue"  # what a session begins with: the last one's prompts, or new ones
    reg: Literal["none", "balance"] = "none"  # balance: later sessions take smaller steps, as in CPE-CLIP
    length: PositiveInt | None = Field(None, description="prompt tokens; default 16, multimodal 4 per tower")
    mixing: Mixing = "joint8"
    template: str | None = Field(None, description="of fixed class texts, such as 'a photo of a {}'; default: the stream's prompts")
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


@dataclass(frozen=True)
class Pool:
    """A session as pseudolabelling sees it; rows are positions in its table, `columns` the classes a pseudolabel may be."""

    data: ImageTable
    labelled: list[int]
    unlabelled: list[int]
    columns: tuple[int, ...]
    paradigm: Paradigm
    ks: list[int]
    features: Float[Tensor, "n d"] | None  # of every row, where image features are computed once


class Pseudolabel(Frozen):
    """Learns prompts from labels, as far as there are any, and from what the model itself says about images without one.

    Each round scores all unlabelled rows anew (the first with zero-shot CLIP), picks those it is surest of for each class, and
    trains on them with a new optimizer. `picked` tells what every round of the session took: for reports, not for learning.
    """

    def __init__(self, clip: Clip, seed: int, config: PseudolabelConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        self.pixels = config.modality != "text" or not config.cache
        self.prompts = _drawn(clip, config, derive(seed, "prompts"))
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
        found, wanted = paradigm_of(session), self.config.paradigm
        if wanted not in ("auto", found):
            taught = len(set(labels) - {None})
            raise MethodError(
                f"{whose}: paradigm {wanted} needs {_NEEDS[wanted]}; found labels for {taught} of {len(session.classes)} classes, "
                f"which is {found}: set method.paradigm to auto or {found}"
            )

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
            self.prompts.load_state_dict(_drawn(self.clip, self.config, derive(self.seed, "prompts")).state_dict())
        start = {name: tensor.clone() for name, tensor in self.prompts.state_dict().items()}
        pool = self._pool(session)
        self.picked = []
        for turn, k in enumerate(pool.ks or [0]):
            picks = self._pick(pool, k, first=turn == 0) if pool.ks else []
            if turn and self.config.restart == "same_init":
                self.prompts.load_state_dict(start)
            yield self._lesson(pool, picks)

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
        picks = [pick for picks in self.picked for pick in picks]
        return {
            "picked": torch.tensor(picks, dtype=torch.float64).reshape(-1, 3),
            "picked_by_round": torch.tensor([len(picks) for picks in self.picked], dtype=torch.int64),
        }

    def resume(self, tensors: Mapping[str, Tensor]) -> None:
        """The rounds' picks as they were."""
        parts = torch.split(tensors["picked"], tensors["picked_by_round"].tolist())
        self.picked = [[Pick(int(row), int(label), probability) for row, label, probability in part.tolist()] for part in parts]

    def end(self, session: Session) -> None:
        """Forget everything about the session but its prompts and the record of its picks."""
        super().end(session)
        self._texts = None

    def record(self, session: Session, truth: Mapping[str, str]) -> list[dict[str, Any]]:
        """By round and class: images picked, the least sure of them, those that other classes picked too, and the share picked rightly."""
        index = {known.name: place for place, known in enumerate(self.vocabulary)}
        known = [index.get(truth.get(row, ""), -1) for row in session.data.ids]
        rows = []
        for turn, picks in enumerate(self.picked, start=1):
            for found in count(picks, len(self.vocabulary), known if truth else None):
                if found.label in session.classes:
                    rows.append({"round": turn, "class": self.vocabulary[found.label].name, **found._asdict()})
                    del rows[-1]["label"]
        return rows

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

    def _class_features(self) -> Float[Tensor, "k d"]:
        return self.class_features([self.vocabulary[index] for index in self.candidates])

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
        return Pool(data, rows, unlabelled, columns, paradigm, ks, features)

    @torch.no_grad()
    def _pick(self, pool: Pool, k: int, *, first: bool) -> list[Pick]:
        self.eval()
        classes = [self.vocabulary[index] for index in pool.columns]
        if pool.features is not None:
            images = pool.features[pool.unlabelled]
        else:
            images = encoded(self.clip.encode_image if first else self.encode_image, self.clip, pool.data.take(pool.unlabelled))
        texts = self._fixed(classes) if first else self.class_features(classes)
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


_NEEDS: dict[str, str] = {
    "ssl": "some labelled rows of every class",
    "trzsl": "labelled rows of some classes and none of the others",
    "ul": "a session without labels",
}


def paradigm_of(session: Session) -> Paradigm:
    """What a session's labels make of it: all of its classes have some (ssl), some have (trzsl), none has (ul)."""
    taught = set(session.data.labels) - {None}
    names = {session.vocabulary[index].name for index in session.classes}
    return "ul" if not taught else "ssl" if taught == names else "trzsl"


def pseudolabelled(data: ImageTable, picks: Sequence[Pick], vocabulary: Sequence[ClassName]) -> ImageTable:
    """The picked rows under the class they were picked for; an image may stand for several classes, so ids name both."""
    names = [vocabulary[pick.label].name for pick in picks]
    rows = data.take([pick.row for pick in picks]).table
    ids = [f"{known} as {name}" for known, name in zip(rows["id"].to_pylist(), names, strict=True)]
    for column, values in (("id", ids), ("label", names)):
        rows = rows.set_column(SCHEMA.get_field_index(column), SCHEMA.field(column), pa.array(values, pa.string()))
    return ImageTable(rows)


def _drawn(clip: Clip, config: PseudolabelConfig, seed: int) -> Prompts:
    if config.modality == "text":
        return TextContext(config.length or 16, clip.text_width, seed=seed)
    if config.modality == "visual":
        return ImageContext(config.length or 16, clip.image_width, seed=seed)
    patch = int(clip.model.visual.patch_size[0])
    return MixedPrompts(config.length or 4, (clip.text_width, clip.image_width), patch, seed=seed, mixing=config.mixing)
