"""Streams from and to Avalanche benchmarks: its scenarios for our methods, our sessions for its strategies."""

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from avalanche.benchmarks import benchmark_from_datasets, with_classes_timeline, with_task_labels
from avalanche.benchmarks.utils import _make_taskaware_classification_dataset as task_aware
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset

from cl.data.table import ImageTable, concat
from cl.errors import DataError
from cl.streams.build import class_names
from cl.streams.config import PROMPT
from cl.streams.stream import Candidates, EvalSet, Session, Stream


def from_avalanche(
    benchmark: Any,
    names: Sequence[str] | Mapping[int, str],
    template: Sequence[str] = PROMPT,
    *,
    name: str = "avalanche",
    candidates: Candidates = "own",
) -> Stream:
    """One session per training experience; `names` says what each of the benchmark's targets is called.

    Our indices follow arrival, not Avalanche's targets. Images are stored as PNG: those given as PIL images or uint8
    tensors lose nothing, floats in [0, 1] are rounded to 8 bits. Evaluation transforms of the benchmark are applied.
    Where the benchmark has one test experience for all, each session is examined with the rows of its classes.

    Args:
        benchmark: an Avalanche scenario with `train_stream` and `test_stream` of classification datasets.
        names: class name by target.
        template: prompts with `{}` where the class name goes.
        name: of the stream.
        candidates: see `Stream.exam`.

    Raises:
        DataError: a target without a name, numbers of train and test experiences that do not fit, or images that are
            neither PIL nor tensors of 1 or 3 channels with values in [0, 1] or uint8.
    """
    train, test = list(benchmark.train_stream), list(benchmark.test_stream)
    if len(test) not in (1, len(train)):
        raise DataError(
            f"benchmark: {len(train)} training and {len(test)} test experiences; expected as many of each, or one test experience"
        )
    called = dict(names) if isinstance(names, Mapping) else dict(enumerate(names))
    tests = [_table(experience.dataset, called, f"test/{number}") for number, experience in enumerate(test)]
    sessions: list[Session] = []
    for number, experience in enumerate(train):
        data = _table(experience.dataset, called, f"train/{number}")
        own = set(data.classes())
        asked = tests[number] if len(tests) > 1 else tests[0].where([label in own for label in tests[0].labels])
        sessions.append(_session(data, asked, sessions, template))
    return Stream(name, tuple(sessions), candidates=candidates)


def _session(data: ImageTable, test: ImageTable, before: Sequence[Session], template: Sequence[str]) -> Session:
    old = [known.name for known in before[-1].vocabulary] if before else []
    own = data.classes()
    order = list(dict.fromkeys(old + own))
    vocabulary = class_names(order, template)
    classes = tuple(order.index(each) for each in own)
    title = f"experience {len(before) + 1}"
    examined = EvalSet(title, "classify", test, tuple(vocabulary[index] for index in classes))
    return Session(len(before) + 1, title, data, (examined,), classes, vocabulary)


def to_avalanche(stream: Stream, transform: Callable[[Image.Image], Any] | None = None) -> Any:
    """An Avalanche benchmark with one training and one test experience per session; targets are vocabulary indices.

    Images are decoded when a loader asks for them. Several tests of a session become one. Probes are left out: their
    classes may have no index. All experiences carry task label 0.

    Args:
        stream: labelled sessions, examined by classification.
        transform: from an RGB image to what the strategy's model takes; default: a float tensor (3, h, w) in [0, 1].

    Raises:
        DataError: a session has rows without a label, or is not examined by classification.
    """
    position = {known.name: i for i, known in enumerate(stream.sessions[-1].vocabulary)}
    for session in stream.sessions:
        if session.data.table["label"].null_count:
            raise DataError(
                f"session {session.name!r}: has training images without a label; Avalanche's classification needs them all labelled"
            )
        if any(test.kind != "classify" for test in session.tests):
            raise DataError(f"session {session.name!r}: is examined by retrieval; Avalanche's strategies need classification")
    view = transform or _tensor
    splits = {
        "train": [_Rows(session.data, position, view) for session in stream.sessions],
        "test": [_Rows(concat([test.data for test in session.tests]), position, view) for session in stream.sessions],
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # avalanche pulls in a QP solver that complains at import
        # with task labels LwF runs too, which breaks on datasets without
        aware = {name: [task_aware(rows, task_labels=0) for rows in split] for name, split in splits.items()}
        return with_task_labels(with_classes_timeline(benchmark_from_datasets(**aware)))


class _Rows(Dataset[tuple[Any, int]]):
    """Rows of a table as (image, vocabulary index)."""

    def __init__(self, data: ImageTable, position: Mapping[str, int], transform: Callable[[Image.Image], Any]) -> None:
        self.data = data
        self.transform = transform
        self.targets = [position[label] for label in data.labels if label is not None]  # Avalanche reads this name

    def __len__(self) -> int:
        return len(self.data)

    def __getitem__(self, row: int) -> tuple[Any, int]:
        return self.transform(self.data.image(row)), self.targets[row]


def _tensor(image: Image.Image) -> Tensor:
    return torch.from_numpy(np.array(image)).permute(2, 0, 1).float() / 255


def _table(dataset: Any, called: Mapping[int, str], prefix: str) -> ImageTable:
    images, labels = [], []
    view = dataset.eval()  # augmentation must not be frozen into the stored image
    for row in range(len(view)):
        image, target, *_ = view[row]
        if int(target) not in called:
            raise DataError(f"benchmark: target {int(target)} has no name; names are given for {len(called)} targets")
        images.append(_png(image, f"{prefix}/{row}"))
        labels.append(called[int(target)])
    return ImageTable.of([f"{prefix}/{row:06d}" for row in range(len(images))], images, labels)


def _png(image: Any, where: str) -> bytes:
    sink = io.BytesIO()
    _picture(image, where).save(sink, "PNG")
    return sink.getvalue()


def _picture(image: Any, where: str) -> Image.Image:
    if isinstance(image, Image.Image):
        return image
    if not isinstance(image, Tensor) or image.ndim != 3 or image.shape[0] not in (1, 3):
        kind = f"{type(image).__name__} {tuple(getattr(image, 'shape', ()))}"
        raise DataError(f"{where}: {kind}; expected a PIL image or a tensor of 1 or 3 channels, height, width")
    if image.is_floating_point():
        if image.min() < 0 or image.max() > 1:
            raise DataError(f"{where}: values from {image.min():.3g} to {image.max():.3g}; expected [0, 1], so leave out Normalize")
        image = (image * 255).round()
    pixels = image.to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
    return Image.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
