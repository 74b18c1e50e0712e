"""Small made things that many tests share: images that can be told apart, tables, sessions, streams."""

import io
from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.models.clip import Clip, ModelConfig, load
from cl.streams.stream import EvalSet, Session, Stream

COLOURS = ("red", "green", "blue", "yellow", "purple", "orange", "white", "black")
RGB = ((220, 30, 30), (30, 200, 30), (30, 30, 220), (220, 220, 30), (160, 30, 160), (240, 140, 20), (245, 245, 245), (10, 10, 10))


def png(colour: int, seed: int, size: int = 16) -> bytes:
    """A noisy square of one colour."""
    noise = np.random.default_rng([colour, seed]).integers(-25, 26, (size, size, 3))
    buffer = io.BytesIO()
    Image.fromarray(np.clip(np.array(RGB[colour]) + noise, 0, 255).astype(np.uint8)).save(buffer, "PNG")
    return buffer.getvalue()


def table(colours: Sequence[int], each: int, *, seed: int = 0, labels: bool = True, captions: bool = False) -> ImageTable:
    """`each` images per colour; their names as labels, two captions each, or neither."""
    rows = [(colour, i) for colour in colours for i in range(each)]
    return ImageTable.of(
        [f"{COLOURS[c]}-{seed}-{i}" for c, i in rows],
        [png(c, seed * 1000 + i) for c, i in rows],
        labels=[COLOURS[c] for c, _ in rows] if labels else None,
        captions=[[f"a {COLOURS[c]} square", f"{COLOURS[c]} number {i}"] for c, i in rows] if captions else None,
    )


def names(colours: Sequence[int]) -> tuple[ClassName, ...]:
    """Class names with one prompt each."""
    return tuple(ClassName(COLOURS[c], (f"a {COLOURS[c]} square",)) for c in colours)


def session(
    index: int, colours: Sequence[int], known: Sequence[int], *, each: int = 8, labels: bool = True, captions: bool = False
) -> Session:
    """A session that teaches `colours` when `known` are all the colours known once it is over."""
    test = table(colours, 4, seed=100 + index, labels=True, captions=True)
    kind = "classify" if labels or not captions else "retrieve"
    return Session(
        index=index,
        name=f"session {index}",
        data=table(colours, each, seed=index, labels=labels, captions=captions),
        tests=(EvalSet(f"set {index}", kind, test, names(colours) if kind == "classify" else ()),),
        classes=tuple(known.index(c) for c in colours) if kind == "classify" else (),
        vocabulary=names(known) if kind == "classify" else (),
    )


def stream(*groups: Sequence[int], probe: Sequence[int] = (6, 7), each: int = 8, labels: bool = True, captions: bool = False) -> Stream:
    """One session per group of colours, and a probe."""
    known: list[int] = []
    sessions = []
    for index, colours in enumerate(groups, start=1):
        known += [c for c in colours if c not in known]
        sessions.append(session(index, colours, list(known), each=each, labels=labels, captions=captions))
    probes = (EvalSet("probe", "classify", table(probe, 4, seed=99), names(probe)),)
    return Stream("colours", tuple(sessions), probes)


def tiny() -> Clip:
    """A small random CLIP, always the same."""
    return load(ModelConfig(name="tiny"))


def padded(clip: Clip, tokens: torch.Tensor) -> torch.Tensor:
    """The same texts at the full context, zeros after the end, as open_clip's own forward wants them."""
    full = torch.zeros(len(tokens), clip.context_length, dtype=torch.int64)
    full[:, : tokens.shape[1]] = tokens
    return full
