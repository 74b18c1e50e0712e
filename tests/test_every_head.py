"""Every head over frozen features, in small: it learns what zero-shot does not know, and no evaluation set is looked at meanwhile."""

import functools
from dataclasses import replace
from typing import Any

import pytest

from cl.config import EvalConfig, TrainConfig
from cl.evaluation.evaluate import evaluate
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method
from cl.methods.closed_form.base import ClosedForm
from cl.methods.recipe import Recipe
from cl.methods.tuners.head import Head
from cl.streams.stream import Session
from tests import make

pytestmark = pytest.mark.slow

TRAIN = TrainConfig(max_steps=40, batch_size=8, lr=1e-2, device="cpu")


def built(name: str, **settings: Any) -> Method:
    wide = {"projection": 200} if "projection" in CONFIGS[name].model_fields else {}  # of 10,000 features they are as right, and slow
    return CONFIGS[name](**(wide | settings)).build(make.tiny(), 0)


def is_head(name: str) -> bool:
    method = built(name)
    return isinstance(method, ClosedForm) or (isinstance(method, Recipe) and isinstance(method.tuner, Head))


SETTINGS: dict[str, dict[str, Any]] = {name: {} for name in CONFIGS if name != "recipe" and is_head(name)}
SETTINGS |= {
    f"{name}, {key}": {key: value} for name in ("ridge", "gda") for key, value in (("features", "unprojected"), ("mixed", "zero_shot"))
}
SETTINGS |= {"gda, em": {"unlabelled": "em"}, "gda, unlearnable": {"unlearnable": True}, "tip, auto": {"alpha": "auto", "beta": "auto"}}
SETTINGS |= {"zero_shot, none": {"none": {"score": "mcm"}}, "linear_probe, texts": {"texts_in_batch": True, "average": 0.5}}


class Poisoned:
    """A set of evaluation that nobody may look at."""

    def __getattr__(self, name: str) -> object:
        raise AssertionError(f"a test image was asked for its {name}")


@functools.cache
def zero_shot() -> dict[str, float]:
    return scores(built("zero_shot"))


def scores(method: Method) -> dict[str, float]:
    """Top-1 of each session's classes, all four of them competing."""
    first, second = make.stream((0, 1), (2, 3)).sessions
    exam = [replace(examined, classes=second.vocabulary) for session in (first, second) for examined in session.tests]
    return {name: score.metrics["top1"] for name, score in evaluate(method, exam, EvalConfig(geometry=0)).items()}


def taught(session: Session) -> Session:
    object.__setattr__(session, "tests", (Poisoned(),))
    return session


def test_the_heads_are_all_there() -> None:
    known = {"zero_shot", "ridge", "gda", "ncm", "slda", "ranpac", "rail", "tip", "tip_adapter", "tip_adapter_f", "caps_adapter"}
    assert {name for name in SETTINGS if "," not in name} == known | {"linear_probe", "real_linear"}


@pytest.mark.parametrize("label", SETTINGS)
def test_of_four_colours_in_two_sessions_it_tells_at_least_as_many_as_zero_shot(label: str) -> None:
    method = built(label.partition(",")[0], **SETTINGS[label])
    for session in make.stream((0, 1), (2, 3)).sessions:
        learn(method, taught(session), TRAIN, 0)
    right = scores(method)
    assert all(right[name] >= plain for name, plain in zero_shot().items()), (right, zero_shot())
    if label.partition(",")[0] != "zero_shot":
        assert sum(right.values()) > sum(zero_shot().values()) + 0.3, (right, zero_shot())
    assert all(
        tensor.isfinite().all() for name, tensor in method.state_dict().items() if tensor.is_floating_point() and "familiar" not in name
    )
