"""Whether a model tells images of classes that it has learned from images of others: by rank, without a threshold."""

import hashlib
import json
from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.evaluation.evaluate import at_rest, images_of, spread
from cl.methods.base import Method
from cl.methods.closed_form import familiarity
from cl.streams.stream import EvalSet, line_up

VERSION = 1  # of what a score means

Scores = Float[np.ndarray, " n"]


def auroc(known: Scores, unknown: Scores) -> float:
    """The probability that a known sample scores higher than an unknown one, ties counted half.

    >>> auroc(np.array([3.0, 2.0]), np.array([1.0, 2.0]))
    0.875
    """
    ordered = np.sort(unknown)
    below, upto = np.searchsorted(ordered, known, "left"), np.searchsorted(ordered, known, "right")
    return float((below + upto).mean() / 2 / len(unknown))


def fpr95(known: Scores, unknown: Scores) -> float:
    """Share of unknown samples that pass where 95 % of known ones do: at least the (floor(0.05 n) + 1)-th smallest known score.

    >>> fpr95(np.arange(20.0), np.array([0.0, 1.0, 2.0, 3.0]))
    0.75
    """
    return float((unknown >= np.sort(known)[len(known) // 20]).mean())


def strangers(sets: Sequence[EvalSet], classes: Sequence[ClassName]) -> list[tuple[str, ImageTable]]:
    """By name of the set, its rows whose label is none of the classes, where it has some."""
    names = {each.name for each in classes}
    apart = [(each.name, each.data.where([label not in names for label in each.data.labels])) for each in sets if each.kind == "classify"]
    return [(name, rows) for name, rows in apart if len(rows)]


def acquainted(sets: Sequence[EvalSet], classes: Sequence[ClassName]) -> list[ImageTable]:
    """Of each set its rows whose label is one of the classes."""
    names = {each.name for each in classes}
    apart = [each.data.where([label in names for label in each.data.labels]) for each in sets if each.kind == "classify"]
    return [rows for rows in apart if len(rows)]


def digest(known: Sequence[str], unknown: str, classes: Sequence[ClassName]) -> str:
    """The name of the question: it changes with the content of any set, and with the classes."""
    asked = ["known", VERSION, list(known), unknown, line_up("", classes)]
    return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:32]


def known_unknown(
    method: Method, known: Sequence[ImageTable], unknown: Sequence[ImageTable], classes: Sequence[ClassName], config: EvalConfig
) -> list[dict[str, float]]:
    """For each table of unknown images, `auroc_SCORE` and `fpr95_SCORE` against all known ones, for every score that the method has.

    All are asked among the same classes; no threshold takes part. Changes neither the method nor any random state.
    """
    with at_rest(method), torch.autocast(method.clip.device.type, torch.bfloat16, enabled=config.precision == "bf16"):
        features = method.class_features(classes)
        ours = [_scores(method, rows, features, config) for rows in known]
        return [_ranked(ours, _scores(method, rows, features, config)) for rows in unknown]


def _scores(method: Method, rows: ImageTable, features: Float[Tensor, "k d"], config: EvalConfig) -> dict[str, Scores]:
    batches = [familiarity(method, images, features) for images in images_of(method, spread(rows, config.limit), config)]
    return {name: torch.cat([each[name] for each in batches]).double().cpu().numpy() for name in batches[0]}


def _ranked(known: Sequence[dict[str, Scores]], unknown: dict[str, Scores]) -> dict[str, float]:
    told: dict[str, float] = {}
    for name, theirs in unknown.items():
        ours = np.concatenate([each[name] for each in known])
        told |= {f"auroc_{name}": auroc(ours, theirs), f"fpr95_{name}": fpr95(ours, theirs)}
    return told
