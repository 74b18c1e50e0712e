"""One matrix row: what a model scores on every evaluation set, and which samples it gets right."""

import base64
import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import NamedTuple
from weakref import WeakKeyDictionary

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchmetrics.functional.classification import multiclass_calibration_error

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import DataError
from cl.evaluation.alike import among_images
from cl.methods.base import Method
from cl.methods.losses import precise
from cl.streams.stream import EvalSet
from cl.text import plural, some

VERSION = 1  # of what a score means; see cl/store/units.py

RANKS = (1, 5, 10)
HEADLINE = {"classify": "top1", "retrieve": "recall@10"}
Progress = Callable[[int, int, str], None]


class Score(NamedTuple):
    """Metrics in 0..1, and for each image whether it was right (top-1; for retrieval: an own caption among the first ten)."""

    metrics: dict[str, float]
    hits: Bool[np.ndarray, " n"]


def pack(hits: Bool[np.ndarray, " n"]) -> str:
    """The number of samples and one bit for each, as short text.

    >>> pack(np.array([True, False, True])), unpack("3:oA==").tolist()
    ('3:oA==', [True, False, True])
    """
    return f"{len(hits)}:{base64.b64encode(np.packbits(hits).tobytes()).decode()}"


def unpack(text: str) -> Bool[np.ndarray, " n"]:
    """What `pack` was given."""
    count, _, bits = text.partition(":")
    return np.unpackbits(np.frombuffer(base64.b64decode(bits), dtype=np.uint8), count=int(count)).astype(bool)


def evaluate(method: Method, sets: Sequence[EvalSet], config: EvalConfig, progress: Progress | None = None) -> dict[str, Score]:
    """Scores by set name. Changes neither the method nor any random state.

    Each image is encoded once, and a list of classes once for as long as sets that follow each other are asked among it.
    """
    scores = {}
    for done, (examined, score) in enumerate(each_score(method, sets, config)):
        scores[examined.name] = score
        if progress:
            progress(done + 1, len(sets), examined.name)
    return scores


def each_score(method: Method, sets: Iterable[EvalSet], config: EvalConfig) -> Iterator[tuple[EvalSet, Score]]:
    """The score of one set after the other, each of which is looked at only when its turn comes."""
    classes: tuple[ClassName, ...] | None = None
    features = torch.empty(0)
    for examined in sets:
        data = spread(examined.data, config.limit)
        with at_rest(method), torch.autocast(method.clip.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
            if examined.kind == "retrieve":
                score = _retrieve(method, data, config)
            else:
                if examined.classes != classes:
                    classes, features = examined.classes, method.class_features(examined.classes)
                score = _classify(method, examined, data, features, config)
        yield examined, score


@contextmanager
def at_rest(method: Method) -> Iterator[None]:
    """Eval mode and no gradients, put back afterwards; where a weight asks for a gradient, torch's attention rounds otherwise."""
    training, asking = method.training, [parameter for parameter in method.parameters() if parameter.requires_grad]
    method.eval()
    try:
        for parameter in asking:
            parameter.requires_grad_(False)
        with torch.no_grad():
            yield
    finally:
        for parameter in asking:
            parameter.requires_grad_(True)
        method.train(training)


def spread(data: ImageTable, limit: int | None) -> ImageTable:
    """At most `limit` rows, evenly spaced, so that every class and domain of an ordered table keeps its share."""
    if limit is None or len(data) <= limit:
        return data
    return data.take([int(row) for row in np.linspace(0, len(data) - 1, limit).round()])


def _classify(method: Method, examined: EvalSet, data: ImageTable, features: Float[Tensor, "k d"], config: EvalConfig) -> Score:
    index = {known.name: position for position, known in enumerate(examined.classes)}
    unknown = sorted({str(label) for label in data.labels if label not in index})
    if unknown:
        raise DataError(
            f"evaluation set {examined.name}: {plural(len(unknown), 'label is', 'labels are')} no candidate class ({some(unknown)})"
        )
    targets = np.array([index[label or ""] for label in data.labels])
    logits = torch.cat([precise(method.classify(images, features)).cpu() for images in images_of(method, data, config)]).numpy()
    hits = logits.argmax(-1) == targets
    metrics = {"top1": float(hits.mean()), "top5": float((rank_of(logits, targets) < 5).mean())}
    metrics |= {"worst_class": worst_class(hits, targets), "ece": calibration_error(logits, targets)}
    if config.alike:
        metrics |= among_images(image_features(method, data, config), targets)
    return Score(metrics, hits)


def worst_class(hits: Bool[np.ndarray, " n"], targets: Int[np.ndarray, " n"]) -> float:
    """Top-1 of the class that fares worst.

    >>> worst_class(np.array([True, True, False]), np.array([0, 1, 1]))
    0.5
    """
    return min(float(hits[targets == label].mean()) for label in np.unique(targets))


def calibration_error(logits: Float[np.ndarray, "n k"], targets: Int[np.ndarray, " n"]) -> float:
    """Expected calibration error of the softmax in 15 equal bins of confidence, 0..1 (arXiv:1706.04599); 0 for a single class.

    >>> round(calibration_error(np.log(np.array([[0.8, 0.2], [0.8, 0.2]])), np.array([0, 1])), 6)
    0.3
    """
    if logits.shape[1] < 2:
        return 0.0
    shares = torch.from_numpy(np.asarray(logits, dtype=np.float64)).softmax(-1)
    return float(multiclass_calibration_error(shares, torch.from_numpy(targets), logits.shape[1], n_bins=15, norm="l1"))


def rank_of(logits: Float[np.ndarray, "n k"], targets: Int[np.ndarray, " n"]) -> Float[np.ndarray, " n"]:
    """How many candidates come before the target, ties counted half: 0 is first.

    >>> rank_of(np.array([[3.0, 1.0, 2.0], [1.0, 1.0, 1.0]]), np.array([0, 0])).tolist()
    [0.0, 1.0]
    """
    own = np.take_along_axis(logits, targets[:, None], 1)
    return np.asarray((logits > own).sum(1) + ((logits == own).sum(1) - 1) / 2)


def image_features(method: Method, data: ImageTable, config: EvalConfig) -> Float[np.ndarray, "n d"]:
    """Unit-length features of images, as the method sees them now. Changes neither the method nor any random state."""
    with at_rest(method), torch.autocast(method.clip.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        features = [precise(method.encode_image(batch)).cpu() for batch in images_of(method, data, config)]
    return np.asarray(torch.cat(features).numpy())


def _retrieve(method: Method, data: ImageTable, config: EvalConfig) -> Score:
    images = torch.cat([precise(method.encode_image(batch)) for batch in images_of(method, data, config)])
    captions = data.captions
    texts = [text for own in captions for text in own]
    owner = np.repeat(np.arange(len(captions)), [len(own) for own in captions])
    features = torch.cat(
        [
            precise(method.encode_text(method.clip.tokenize(texts[start : start + config.batch_size]).to(images.device)))
            for start in range(0, len(texts), config.batch_size)
        ]
    )
    return retrieval((images @ features.T).cpu().numpy(), owner)


def retrieval(similarity: Float[np.ndarray, "n m"], owner: Int[np.ndarray, " m"]) -> Score:
    """Recall at 1, 5, 10 both ways; `owner[j]` is the image that text j belongs to.

    Image to text counts an image as found when the best of its own texts is (as CLIP and Mod-X do); text to image asks every
    text. A rank is the number of wrong items above, ties counted half, so that a model whose features collapsed scores nothing.
    `recall@k` is the mean of the two directions.
    """
    n, m = similarity.shape
    own = owner[None, :] == np.arange(n)[:, None]
    best = np.where(own, similarity, -np.inf).max(1, keepdims=True)
    wrong = np.where(own, -np.inf, similarity)
    by_image = (wrong > best).sum(1) + (wrong == best).sum(1) / 2
    target = similarity[owner, np.arange(m)]
    others = np.where(own, -np.inf, similarity)
    by_text = (others > target).sum(0) + (others == target).sum(0) / 2
    metrics = {}
    for k in RANKS:
        metrics[f"i2t@{k}"], metrics[f"t2i@{k}"] = float((by_image < k).mean()), float((by_text < k).mean())
        metrics[f"recall@{k}"] = (metrics[f"i2t@{k}"] + metrics[f"t2i@{k}"]) / 2
    return Score(metrics, by_image < 10)


def headline(sets: Sequence[EvalSet]) -> dict[str, str]:
    """The one metric of each set that stands in the matrix."""
    return {examined.name: HEADLINE[examined.kind] for examined in sets}


def headline_row(row: Mapping[str, Mapping[str, float]], names: Mapping[str, str]) -> list[float]:
    """The headline values of a row, in the order of `names`."""
    return [row[name][metric] for name, metric in names.items()]


class _Decoded(Dataset[Tensor]):
    def __init__(self, data: ImageTable, method: Method) -> None:
        self.data, self.transform = data, method.clip.transform()

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> Tensor:
        return self.transform(self.data.image(row))


_PIXELS: WeakKeyDictionary[ImageTable, dict[str, Tensor]] = WeakKeyDictionary()  # decoded sets, for as long as their tables live
_PIXEL_BYTES = 1 << 27  # a larger set is decoded anew each time


def decoded(method: Method, data: ImageTable) -> Float[Tensor, "n 3 h w"] | None:
    """The preprocessed images of a set that was asked before in this process; None where it was not, or is too large to keep."""
    return _PIXELS.get(data, {}).get(_preprocess(method))


def _preprocess(method: Method) -> str:
    return json.dumps(method.clip.preprocess_cfg, sort_keys=True, default=str)


def images_of(method: Method, data: ImageTable, config: EvalConfig) -> Iterator[Tensor]:
    """Batches of preprocessed images; the same small sets are asked after every session, so they are decoded once."""
    known = decoded(method, data)
    if known is not None:
        for batch in torch.split(known, config.batch_size):
            yield batch.to(method.clip.device, method.clip.dtype)
        return
    kept: list[Tensor] = []
    own = torch.Generator()  # else the loader would draw a seed from the global one
    for batch in DataLoader(_Decoded(data, method), batch_size=config.batch_size, generator=own):
        kept.append(batch)
        if len(data) * batch[0].nbytes > _PIXEL_BYTES:
            kept.clear()
        yield batch.to(method.clip.device, method.clip.dtype)
    if kept:
        _PIXELS.setdefault(data, {})[_preprocess(method)] = torch.cat(kept)
