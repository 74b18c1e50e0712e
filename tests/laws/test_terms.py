"""Laws of terms: what weighs nothing is not there, what is minimised together is a sum, and each term reaches what moves."""

import functools
from collections.abc import Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods import PARTS
from cl.methods.compose import RecipeConfig
from cl.methods.part import PartConfig
from cl.methods.recipe import Recipe
from cl.methods.view import View
from tests import make
from tests.golden.numbers import sessions
from tests.laws.cases import build, recipe, small
from tests.laws.life import FAST, copied, refusal

OBJECTIVE = small("terms", "clip") | {"scale": 10}
KINDS = ("labels", "captions")


def weightless(kind: str) -> dict[str, Any]:
    """A term that weighs nothing, whatever its weights are called."""
    fields = PARTS["terms"][kind].model_fields
    weights = {name: 0 for name in fields if name in ("weight", "alpha") or name.endswith("_weight")}
    assert weights, f"{kind}: nothing says how much it weighs"
    return small("terms", kind) | weights


@functools.cache
def learned(*kinds: str) -> dict[str, Tensor]:
    method = build(recipe(OBJECTIVE, *(weightless(kind) for kind in kinds)))
    for session in sessions("mixed"):
        learn(method, session, FAST, 0)
    return copied(method)


@pytest.mark.parametrize("kind", PARTS["terms"])
def test_a_term_that_weighs_nothing_is_bit_for_bit_absent(kind: str) -> None:
    with_it, without = (RecipeConfig.model_validate(recipe(OBJECTIVE, *more)) for more in ([weightless(kind)], []))
    assert with_it.spelled() == without.spelled() and [*with_it.build(make.tiny(), 0).terms] == ["clip"]


@pytest.mark.slow
@pytest.mark.parametrize("kind", PARTS["terms"])
def test_what_is_learned_beside_a_term_that_weighs_nothing_is_what_is_learned_without(kind: str) -> None:
    assert learned().keys() == learned(kind).keys()
    assert all(torch.equal(learned()[name], tensor) for name, tensor in learned(kind).items())


@pytest.mark.parametrize("data", [KINDS[1], pytest.param(KINDS[0], marks=pytest.mark.slow)])
@pytest.mark.parametrize("kind", PARTS["terms"])
def test_gradients_of_terms_that_share_a_view_are_the_sum_of_each_alone(kind: str, data: str) -> None:
    method, (first, second) = build(recipe(OBJECTIVE, small("terms", kind))), sessions(data)
    if refusal(method, first):
        return
    assert isinstance(method, Recipe) and len(method.terms) == 2
    learn(method, first, FAST, 0)
    table, weights = method.begin(second), [*method.trainable()]
    with torch.no_grad():  # a teacher that equals the student hides its term behind a zero
        for index, weight in enumerate(weights):
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index), dtype=weight.dtype))
    for weight in weights:
        weight.requires_grad_(True)
    lesson = method.lesson
    assert lesson is not None
    rows = Rows(table, method.clip, method.vocabulary, beside=method.beside)
    batch = Collate(method.clip.tokenize, torch.float64, method.beside)([rows[(row, 0, 0)] for row in range(6)])

    def gradients(losses: Mapping[str, Tensor]) -> list[Tensor]:
        assert all(loss.isfinite() for loss in losses.values())
        slopes = torch.autograd.grad(torch.stack([*losses.values()]).sum(), weights, allow_unused=True)
        return [torch.zeros_like(weight) if each is None else each for weight, each in zip(weights, slopes, strict=True)]

    def alone(term: Any) -> list[Tensor]:
        with method.tuner.step():
            return gradients(term(View(batch, lesson, method.tuner, method.seed, teacher=method.teacher)))

    each = [alone(term) for term in method.terms.values()]
    together = gradients(method.losses(batch))
    assert all(any(gradient.abs().max() > 1e-9 for gradient in one) for one in each), "a term trains nothing"
    assert max(float((sum(parts) - whole).abs().max()) for *parts, whole in zip(*each, together, strict=True)) < 1e-12


def test_each_part_makes_itself_from_its_defaults_and_says_what_it_is() -> None:
    for kinds in PARTS.values():
        for kind, config in kinds.items():
            assert issubclass(config, PartConfig) and config().called() == kind
            assert (config.__doc__ or "").splitlines()[0].endswith("."), f"{kind} has no sentence for `evergreen parts`"
