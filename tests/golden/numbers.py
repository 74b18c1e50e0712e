"""Golden numbers: what every method computes over two small sessions in fp64, from perturbed weights, by plain gradient descent.

Plain descent, since Adam turns gradients that are zero but for rounding into steps of full size; perturbed weights, since a
teacher that equals the student hides its term behind a zero; numbers and not hashes, since other processors round otherwise.

    python -m tests.golden.numbers             # write what is missing, and what has another version than when it was written
    python -m tests.golden.numbers NAME ...    # write these
    python -m tests.golden.numbers --units     # write which units take part, where the code was moved and no number may change
"""

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from cl.config import EvalConfig, TrainConfig
from cl.data.table import ImageTable, concat
from cl.errors import MethodError
from cl.evaluation import evaluate as evaluation
from cl.evaluation.evaluate import evaluate
from cl.learning import learner
from cl.learning.learner import learn
from cl.methods import CONFIGS, PARTS, Batch, Method
from cl.store.old_names import renamed
from cl.store.units import units
from cl.streams.stream import Session
from tests import make

VALUES, DEFAULTS = Path(__file__).parent / "values", Path(__file__).parent / "defaults.json"
TRAIN = TrainConfig(
    max_steps=2,
    batch_size=6,
    lr=0.05,
    momentum=0.0,
    optimizer="sgd",
    schedule="constant",
    warmup=0,
    weight_decay=0.01,
    drop_last=True,  # the same batches for every method
    device="cpu",
)
KINDS = ("labels", "captions", "mixed", "half", "bare")
SMALL = {
    "projection": 24,
    "texts": 8,
    "depth": 2,
    "iterations": 2,
    "k": 2,
}  # settings that only make a method cheaper, used where it has them

_OFFICIAL = {
    **{"name": "pseudolabel", "selector": "official_stream", "mixing": "official_pairwise", "restart": "official"},
    **{"hold_out": 0.2, "template": "a photo of a {}", "first_texts": "official"},
}  # as the presets of the paper have it

OF_KNOWN_PARTS = {"tip_adapter", "caps_adapter", "real_linear", "long_clip"}  # of which others compute each part: their tests are slow

# every method as it is when nothing is set, and beside it each setting that takes another way through its code
CASES: dict[str, dict[str, Any]] = {
    **{name: {"name": name} for name in CONFIGS},
    "finetune-image": {"name": "finetune", "part": "image"},
    "finetune-text-smoothed": {"name": "finetune", "part": "text", "smoothing": 0.2},
    "vr_lwf-no-texts": {"name": "vr_lwf", "texts": 0},
    "replay-class_balanced": {"name": "replay", "policy": "class_balanced", "capacity": 6},
    "replay-session_balanced": {"name": "replay", "policy": "session_balanced", "capacity": 6},
    "ridge-projected": {"name": "ridge", "projection": 32, "penalty": 0.1},
    "ridge-plain": {"name": "ridge", "projection": None, "penalty": 0.1},
    "gda-set": {"name": "gda", "alpha": 1.0},
    "wise_ft-frozen-scale": {"name": "wise_ft", "smoothing": 0.2, "scale": "frozen"},
    "cpe_clip-replaced": {"name": "cpe_clip", "vision_mode": "replace"},
    "cpe_clip-official": {"name": "cpe_clip", "scale_target": "grad"},
    "pseudolabel-balanced": {"name": "pseudolabel", "weighting": "balanced"},
    **{f"pseudolabel-official-{modality}": _OFFICIAL | {"modality": modality} for modality in ("text", "visual", "multimodal")},
    **{
        f"pseudolabel-{strategy}-{modality}": {"name": "pseudolabel", "strategy": strategy, "modality": modality}
        for strategy in ("none", "fpl", "ifpl", "grip")
        for modality in ("text", "visual", "multimodal")
        if (strategy, modality) != ("grip", "text")  # the default
    },
}


def numbers(case: str) -> dict[str, Any]:
    """What a case computes, by kind of data; where it refuses a kind, the word "refused"."""
    return {kind: _over(CASES[case], kind) for kind in KINDS}


def versions(case: str) -> dict[str, int]:
    """The versions of the units that take part in a case."""
    return units(build(CASES[case]))


def defaults() -> dict[str, Any]:
    """Settings as they are where nobody sets them, with the versions of the units that answer for them: names leave them out."""
    but = {"label", "train", "later"}
    parts = {
        f"{seat}: {kind}": {
            "units": {config.makes().__name__: config.makes().version},
            "settings": config().model_dump(mode="json", exclude=but),
        }
        for seat, kinds in PARTS.items()
        for kind, config in kinds.items()
    }
    methods = {
        name: {
            "units": versions(name),
            "settings": config().model_dump(mode="json", exclude=but | ({*PARTS} if name == "recipe" else set())),
        }
        for name, config in CONFIGS.items()
    }
    train = {"units": {"learner": learner.VERSION}, "settings": TrainConfig().model_dump(mode="json")}
    asked = {"units": {"evaluate": evaluation.VERSION}, "settings": EvalConfig().model_dump(mode="json")}
    return {"train": train, "evaluate": asked} | methods | parts


def kept(case: str) -> dict[str, Any]:
    """The file of a case: its `units` and its `numbers`."""
    return dict(json.loads((VALUES / f"{case}.json").read_text(encoding="utf-8")))


def build(settings: Mapping[str, Any]) -> Method:
    """The method over the tiny model, all in fp64."""
    config = CONFIGS[settings["name"]]
    small = {key: value for key, value in SMALL.items() if key in config.model_fields}
    if settings.get("strategy") == "fpl":
        small.pop("iterations", None)
    return config(**{**small, **settings}).build(make.tiny().double(), 0).double()


def sessions(kind: str) -> list[Session]:
    """Two sessions of two colours each, six images a colour."""
    return [
        _taught(make.session(1, (0, 1), (0, 1), each=6), kind),
        _taught(make.session(2, (2, 3), (0, 1, 2, 3), each=6), kind),
    ]


def _taught(session: Session, kind: str) -> Session:
    rows = session.data
    # no caption is a class prompt too: whether a tie counts would hang on the last bit
    texts = [[f"{label} paint, sample {row}", f"the {row}th {label} patch"] for row, label in enumerate(rows.labels)]
    captioned = ImageTable.of(rows.ids, rows.table["image"].to_pylist(), rows.labels, texts)
    odd, even = range(1, len(rows), 2), range(0, len(rows), 2)
    match kind:
        case "labels":
            data = rows
        case "captions":
            data = captioned.without("label")
        case "mixed":
            data = concat([rows.take(even), captioned.take(odd).without("label")])
        case "half":
            data = concat([rows.take(even), rows.take(odd).without("label")])
        case "bare":
            data = rows.without("label")
    return replace(session, data=data)


def _over(settings: Mapping[str, Any], kind: str) -> Any:
    taught = sessions(kind)
    method = build(settings)
    try:
        for session in taught:
            method.check(session)
    except MethodError:
        return "refused"
    steps: list[dict[str, float]] = []
    with _one_thread():
        for session in taught:
            _perturb(method)
            with _overheard(method, steps):
                learn(method, session, TRAIN, 0)
        exams = [examined for session in taught for examined in session.tests]
        scores = {name: score.metrics for name, score in evaluate(method, exams, EvalConfig(geometry=0)).items()}
        logits = [_logits(method, session) for session in taught]
    state = {name: value for name, value in sorted(method.state_dict().items()) if value.is_floating_point() and value.numel()}
    return {"losses": steps, "weights": _weights(state), "logits": logits, "scores": scores}


def _perturb(method: Method) -> None:
    with torch.no_grad():
        for index, weight in enumerate(method.trainable()):
            noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(index), dtype=torch.float64)
            weight.add_(0.02 * noise)


@contextmanager
def _overheard(method: Method, steps: list[dict[str, float]]) -> Iterator[None]:
    inner = method.losses

    def losses(batch: Batch) -> dict[str, Tensor]:
        terms = inner(batch)
        steps.append({name: float(value.detach()) for name, value in terms.items()})
        return terms

    method.losses = losses  # type: ignore[method-assign]
    try:
        yield
    finally:
        del method.losses


@contextmanager
def _one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


def _logits(method: Method, session: Session) -> float:
    images = torch.stack([method.clip.transform()(session.tests[0].data.image(row)) for row in range(4)]).double()
    with torch.no_grad():
        return _along(method.classify(images, method.class_features(session.vocabulary)))


def _weights(state: Mapping[str, Tensor]) -> dict[str, float]:
    """Five tensors spread over the sorted names, and all of them together, each as its product with a fixed direction."""
    names = list(state)
    some = [names[(len(names) - 1) * part // 4] for part in range(5)]
    return {"all": sum(_along(value) for value in state.values())} | {name: _along(state[name]) for name in some}


def _along(values: Tensor) -> float:
    """The product with sin(1), sin(2), ...: a change anywhere shows, and so does a change of order."""
    flat = values.detach().double().reshape(-1)
    return float(flat @ torch.sin(torch.arange(1, len(flat) + 1, dtype=torch.float64)))


def write(case: str) -> None:
    """Keep what a case computes now as what it has to compute from now on."""
    VALUES.mkdir(exist_ok=True)
    content = {"units": versions(case), "numbers": numbers(case)}
    (VALUES / f"{case}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def rename(case: str) -> None:
    """Keep which units take part now, and what tensors are called, beside the numbers that are kept: tests say if they still come out."""
    named, told = build(CASES[case]).state_dict(), kept(case)["numbers"]
    for numbers_of in told.values():
        if numbers_of != "refused":
            numbers_of["weights"] = renamed(numbers_of["weights"], named)
    content = {"units": versions(case), "numbers": told}
    (VALUES / f"{case}.json").write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _stale(case: str) -> bool:
    return not (VALUES / f"{case}.json").exists() or kept(case)["units"] != versions(case)


def write_defaults() -> None:
    """Keep the defaults of now, but for those that changed under a version that did not."""
    was = json.loads(DEFAULTS.read_text(encoding="utf-8")) if DEFAULTS.exists() else {}
    fresh = {name: was[name] if name in was and silent(was[name], now) else now for name, now in defaults().items()}
    DEFAULTS.write_text(json.dumps(fresh, indent=1) + "\n", encoding="utf-8")


def silent(was: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """The settings whose default changed although no version was raised; one that is new is none of them."""
    changed = [name for name, value in was["settings"].items() if now["settings"].get(name) != value]
    return changed if was["units"] == now["units"] else []


if __name__ == "__main__":
    write_defaults()
    if "--units" in sys.argv:
        for each in filter(_stale, CASES):
            rename(each)
        sys.exit()
    for each in sys.argv[1:] or filter(_stale, CASES):
        write(each)
        print(each)
