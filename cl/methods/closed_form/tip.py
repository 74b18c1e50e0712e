"""Tip-Adapter: images that were labelled vote for their class by how near they are, beside zero-shot CLIP (arXiv:2111.03930)."""

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar, Literal, Self

import torch
from jaxtyping import Float
from pydantic import Field, NonNegativeFloat, model_validator
from torch import Tensor, nn

from cl.config import Count
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.explain import told
from cl.methods.base import Batch, MethodConfig
from cl.methods.closed_form.base import ClosedForm
from cl.methods.closed_form.keys import Keys, prints_of
from cl.methods.closed_form.taught import labels
from cl.methods.closed_form.votes import ALPHAS, BETAS, Kept, cached, left_out, scores
from cl.methods.features import encoded
from cl.methods.losses import classification, plain, similarities
from cl.methods.rows import labelled, teaching
from cl.models.clip import Clip
from cl.streams.stream import Session

_JUDGES = 2000  # images that are asked where alpha or beta is chosen: a sample by fingerprint, as the keys are
# Tip-Adapter-F as its authors train it
TRAIN: dict[str, Any] = {"epochs": 20, "batch_size": 256, "lr": 1e-3, "eps": 1e-4, "weight_decay": 0.01, "warmup": 0.0}


class TipConfig(MethodConfig):
    """A cache of image features beside zero-shot: labelled images vote for their class by how near they are (arXiv:2111.03930)."""

    learns: ClassVar[tuple[str, ...]] = ("labels",)

    name: Literal["tip"] = "tip"
    alpha: NonNegativeFloat | Literal["auto"] = Field(
        1.0, description="weight beside zero-shot; auto: by leave-one-out over what is kept, as beta"
    )
    beta: NonNegativeFloat | Literal["auto"] = Field(5.5, description="how fast a vote fades with distance: exp(-beta (1 - cosine))")
    shots: Count | None = Field(16, description="images kept of a class, by the hash of their bytes; null: all, and memory grows")
    captions: float = Field(0.0, ge=0, le=1, description="share of its caption's feature in a key; without a caption, its class's prompts")
    keys: Literal["kept", "trained"] = Field("kept", description="trained: those of a session move in it, as in Tip-Adapter-F")

    @model_validator(mode="after")
    def _settled(self) -> Self:
        if self.keys == "trained" and "auto" in (self.alpha, self.beta):
            raise told(
                "alpha and beta cannot be auto where keys are trained: an image that is left out has moved its key before; "
                "give both, or leave keys at kept"
            )
        return self

    def training(self, later: bool) -> dict[str, Any]:
        """As the authors train keys, where keys are trained."""
        return (TRAIN if self.keys == "trained" else {}) | super().training(later)

    def build(self, clip: Clip, seed: int) -> "Tip":
        """The cache beside the clip, which stays as it is."""
        return TrainedTip(clip, seed, self) if self.keys == "trained" else Tip(clip, seed, self)


class Tip(ClosedForm):
    """Zero-shot logits plus alpha times what the keys of each class say: the sum over them of exp(-beta (1 - cosine)).

    Keys are features of images, or (1 - captions) times that plus captions times the feature of the caption, as they come. Order and
    number of sessions do not matter, a class without a key is read by zero-shot, and what is taken out is as if it had never been there
    as long as its class has no more images than `shots`; else it is gone, and the class has a key less.
    """

    def __init__(self, clip: Clip, seed: int, config: TipConfig) -> None:
        super().__init__(clip, seed)
        self.config = config
        width = int(clip.model_cfg["embed_dim"])
        self.cache = Keys(width, width if config.captions and config.keys == "kept" else 0)

    def check(self, session: Session) -> None:
        """A session needs at least one labelled row."""
        labelled(session)

    def begin(self, session: Session) -> ImageTable:
        """The labelled rows."""
        super().begin(session)
        return teaching(session, "labelled")

    def end(self, session: Session) -> None:
        """Keep features of the session's labelled rows, as many as there is room for."""
        rows = teaching(session, "labelled")
        rows = rows.take(self.cache.welcome(labels(rows), prints_of(rows), self.config.shots))
        if len(rows):
            images, texts = encoded(self.encode_image, self.clip, rows), self._captions(session, rows)
            self.cache.add(labels(rows), prints_of(rows), images, texts, self.config.shots)

    def delete(self, rows: ImageTable) -> None:
        """Take labelled rows out that were learned."""
        self.cache.drop(labels(rows), prints_of(rows))

    def _captions(self, session: Session, rows: ImageTable) -> Float[Tensor, "n e"]:
        """Of each row the mean feature of its captions, or of its class's prompts; nothing where captions take no part."""
        if not self.config.captions:
            return self.cache.texts.new_zeros(len(rows), 0)
        prompts = {known.name: known.prompts for known in session.vocabulary}
        told = zip(labels(rows), rows.captions, strict=True)
        with torch.no_grad():
            return self.texts([ClassName(name, tuple(own) or prompts[name]) for name, own in told])

    def texts(self, classes: Sequence[ClassName]) -> Float[Tensor, "k d"]:
        """Mean text feature of each class's prompts."""
        return super().class_features(classes)

    def keyed(self) -> Float[Tensor, "n d"]:
        """The keys, in double precision."""
        share, images = self.config.captions, self.cache.images.double()
        return (1 - share) * images + share * self.cache.texts.double() if self.cache.texts.shape[1] else images

    def class_features(self, classes: Sequence[ClassName]) -> Float[Tensor, "k m"]:
        """Per class: its text feature, alpha, beta, how many keys it has, and these, filled up with zeros."""
        texts, keys, spans = self.texts(classes).double(), self.keyed(), self.cache.spans()
        own = [keys[spans.get(known.name, slice(0))] for known in classes]
        alpha, beta = self._strengths(classes, texts, keys)
        told = torch.tensor([[alpha, beta, len(each)] for each in own], dtype=texts.dtype, device=texts.device)
        return torch.cat([texts, told, torch.nn.utils.rnn.pad_sequence(own, batch_first=True).flatten(1)], 1)

    def _strengths(self, classes: Sequence[ClassName], texts: Float[Tensor, "k d"], keys: Float[Tensor, "n d"]) -> tuple[float, float]:
        """Alpha and beta as they are set, or as they would have answered best what is kept of these classes."""
        alpha, beta = self.config.alpha, self.config.beta
        alphas, betas = ALPHAS if alpha == "auto" else (alpha,), BETAS if beta == "auto" else (beta,)
        place, spans = {known.name: row for row, known in enumerate(classes)}, self.cache.spans()
        taught = [row for name, row in place.items() if name in spans]
        mine = [row for name, span in spans.items() if name in place for row in range(span.start, span.stop)]
        if (len(alphas), len(betas)) == (1, 1) or not mine:
            return alphas[0], betas[0]
        index = {row: order for order, row in enumerate(taught)}
        owners = torch.tensor([index[place[name]] for name in self.cache.of() if name in place], device=keys.device)
        marks = self.cache.marks()
        asked = sorted(range(len(mine)), key=lambda row: marks[mine[row]])[:_JUDGES]
        kept = Kept(self.cache.images.double()[mine], keys[mine], owners, texts[taught])
        return left_out(kept, float(self.clip.scale()), alphas, betas, asked)

    def classify(self, images: Float[Tensor, "b 3 h w"], features: Float[Tensor, "k m"]) -> Float[Tensor, "b k"]:
        """Both classifiers together."""
        return scores(self.encode_image(images).double(), features, self.clip.scale())


class TrainedTip(Tip):
    """Cross-entropy over all classes seen so far moves the session's keys; older ones, texts, alpha and beta stay as they are.

    A key that was trained shows other images of its session too, so that nothing can be taken out again.
    """

    def __init__(self, clip: Clip, seed: int, config: TipConfig) -> None:
        super().__init__(clip, seed, config)
        self.fresh = nn.Parameter(torch.zeros(0, self.cache.images.shape[1]))  # the session's keys while it is learned
        if config.captions:
            self.bound = {"captions": repr(config.captions)}  # keys were mixed with that share
        self._places: Tensor = torch.empty(0)  # of those among all keys
        self._known, self._texts, self._owners = torch.empty(0), torch.empty(0), torch.empty(0)
        self._scale, self._columns = torch.empty(()), 0

    def trainable(self) -> Iterable[nn.Parameter]:
        """The session's keys."""
        return (self.fresh,)

    def begin(self, session: Session) -> ImageTable:
        """Encode the session's rows, and make keys of them, as many as there is room for."""
        rows = super().begin(session)
        names, marks, share = labels(rows), prints_of(rows), self.config.captions
        with torch.no_grad():
            self._known = encoded(self.encode_image, self.clip, rows)
            self._texts, self._scale = self.texts(session.vocabulary), self.clip.scale()
            keys = (1 - share) * self._known + share * self._captions(session, rows) if share else self._known
        places = self.cache.add(names, marks, keys, self.cache.texts.new_zeros(len(rows), 0), self.config.shots)
        self._places = torch.tensor(places, dtype=torch.int64, device=self._known.device)
        self.fresh = nn.Parameter(self.cache.images[self._places].clone())
        index = {known.name: place for place, known in enumerate(session.vocabulary)}
        owners = [index.get(name, len(index)) for name in self.cache.of()]
        self._owners = torch.tensor(owners, device=self._known.device)
        # keys of classes that are not among those seen, if a stream has forgotten some, vote for a column that is left out
        self._columns = max(len(index), 1 + max(owners, default=0))
        return rows

    def losses(self, batch: Batch) -> dict[str, Float[Tensor, ""]]:
        """`classify`."""
        images, keys = self._known[batch.rows], self.cache.images.index_copy(0, self._places, self.fresh)
        zero_shot = similarities(self._scale, images, self._texts)
        with plain(images.device):
            cache = cached(images, keys, self._owners, self._columns, float(self.config.beta))
            cache = cache if cache.shape == zero_shot.shape else cache[:, : zero_shot.shape[1]]
        votes = cache if self.config.alpha == 1 else float(self.config.alpha) * cache
        return {"classify": classification(zero_shot + votes, batch.labels)}

    def end(self, session: Session) -> None:
        """The keys stay where they came to."""
        self.cache.images = self.cache.images.index_copy(0, self._places, self.fresh.detach())
        self.fresh = nn.Parameter(self.fresh.detach()[:0])
        self._known = self._texts = self._owners = self._places = torch.empty(0)
