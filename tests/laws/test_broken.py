"""A law that is broken is found: each is broken here on purpose, in the one way that it is about."""

from typing import Any

import pytest
import torch

from cl.errors import MethodError
from cl.methods.merges.ensemble import Ensemble
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import Fit
from cl.methods.tuners.base import Tuner
from cl.methods.tuners.whole import Whole
from tests.laws.cases import alone
from tests.laws.life import broken

pytestmark = pytest.mark.slow


def _moves_what_is_frozen(method: Recipe) -> None:
    with torch.no_grad():
        moving = {id(tensor) for tensor in method.trainable()}
        next(tensor for tensor in method.parameters() if id(tensor) not in moving).add_(1)


def _forgets(term: Any, at: Any) -> None:
    term.config = term.config.model_copy(update={"weight": 3.0})  # an attribute, which no state holds


def _other_names(tuner: Tuner, session: Any, competing: Any) -> None:
    weights = tuner.weights()
    tuner.weights = lambda: {f"new {name}": tensor for name, tensor in weights.items()}  # type: ignore[method-assign]


def _refuse(method: Recipe, session: Any) -> None:
    raise MethodError("no")


def _answers_and_learns(method: Recipe, images: Any, features: Any) -> Any:
    with torch.no_grad():
        method.clip.logit_scale.add_(0.1)
    return method.tuner.image(images) @ features.T


BROKEN: dict[str, tuple[Any, str, Any, dict[str, Any], str]] = {
    "frozen": (Recipe, "after_step", _moves_what_is_frozen, alone("tune", "projections"), "is frozen and has changed"),
    "teacher": (Tuner, "frozen", lambda tuner: tuner, alone("terms", "vocabulary"), "the session teacher shares storage with what trains"),
    "saved": (Fit, "end", _forgets, alone("tune", "whole"), "is another once it was saved and loaded"),
    "midway": (Ensemble, "resume", lambda merge, tensors: None, alone("merge", "ensemble"), "is another once its session was cut short"),
    "names": (Whole, "begin", _other_names, alone("tune", "whole"), "its weights have other names once a session begins"),
    "refused": (Recipe, "check", _refuse, alone("tune", "whole"), "refuses labels, and says that it learns from captions, labels"),
    "scoring": (Recipe, "classify", _answers_and_learns, alone("tune", "whole"), "scoring changes clip."),
}


@pytest.mark.parametrize("law", BROKEN)
def test_a_law_that_is_broken_is_found(law: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, name, change, settings, told = BROKEN[law]
    monkeypatch.setattr(owner, name, change)
    assert any(told in sentence for sentence in broken(settings, "labels"))
