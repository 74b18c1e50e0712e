"""Laws of terms: what weighs nothing is not there, what is minimised together is a sum, and each term reaches what moves."""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor, nn

from cl.data.table import ImageTable, concat
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods import PARTS, Batch
from cl.methods.compose import RecipeConfig
from cl.methods.part import PartConfig
from cl.methods.recipe import Recipe
from cl.methods.view import View
from tests import make
from tests.laws.cases import build, config, recipe, sessions, small
from tests.laws.life import FAST, copied, refusal

OBJECTIVE = small("terms", "clip") | {"scale": 10}
KINDS = ("labels", "captions")
TUNED: dict[str, dict[str, Any]] = {
    "both towers": {"kind": "whole"},
    "image tower": {"kind": "whole", "part": "image", "scale": "frozen"},
    "text tower": {"kind": "whole", "part": "text", "scale": "frozen"},
    "image prompts": {"kind": "prompts", "form": "visual"},
    "head": {"kind": "head"},
}
UNSCALED = ("counterfactual", "class_texts", "reference")


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


class Begun(NamedTuple):
    """A method of an objective and a term in its second session, away from where its teachers are."""

    method: Recipe
    weights: list[nn.Parameter]
    rows: Rows

    @property
    def term(self) -> Any:
        """The one that is looked at."""
        return [*self.method.terms.values()][-1]

    def batch(self, order: Sequence[int] = range(6)) -> Batch:
        """These rows of the session, as its first epoch shows them."""
        rows = [self.rows[(row, 0, 0)] for row in order]
        return Collate(self.method.clip.tokenize, torch.float64, self.method.beside)(rows)

    def alone(self, term: Any, batch: Batch) -> Mapping[str, Tensor]:
        """The losses of a term, which has the same memory afterwards."""
        kept = [(each, each.clone()) for each in term.buffers()]
        assert self.method.lesson is not None
        with self.method.tuner.step():
            losses = term(View(batch, self.method.lesson, self.method.tuner, self.method.seed, teacher=self.method.teacher))
        for now, then in kept:
            if not torch.equal(now, then):
                now.copy_(then)
        return losses  # type: ignore[no-any-return]

    def gradients(self, losses: Mapping[str, Tensor]) -> list[Tensor]:
        """Of their sum, with respect to all that descends."""
        assert all(loss.isfinite() for loss in losses.values())
        if not losses:
            return [torch.zeros_like(weight) for weight in self.weights]
        slopes = torch.autograd.grad(torch.stack([*losses.values()]).sum(), self.weights, allow_unused=True)
        return [torch.zeros_like(weight) if each is None else each for weight, each in zip(self.weights, slopes, strict=True)]


@functools.cache
def begun(kind: str, data: str, tune: str = "both towers") -> Begun | None:
    """None where the data is refused."""
    settings, (first, second) = recipe(OBJECTIVE, small("terms", kind), tune=TUNED[tune]), sessions(data)
    method = build(settings)
    if refusal(method, first):
        assert tune != "both towers" or data not in config(settings).wants()
        return None
    assert isinstance(method, Recipe) and len(method.terms) == 2
    learn(method, first, FAST, 0)
    table, weights = method.begin(second), [*method.trainable()]
    with torch.no_grad():  # a teacher that equals the student hides its term behind a zero
        for index, weight in enumerate(weights):
            weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index), dtype=weight.dtype))
    for weight in weights:
        weight.requires_grad_(True)
    state = Begun(method, weights, Rows(table, method.clip, method.vocabulary, beside=method.beside))
    state.alone(state.term, state.batch())  # what begins with a session's first batch has begun
    return state


each_term = pytest.mark.parametrize("kind", PARTS["terms"])
each_data = pytest.mark.parametrize("data", [KINDS[1], pytest.param(KINDS[0], marks=pytest.mark.slow)])


def test_each_term_is_held_to_them_on_one_kind_of_data_at_least() -> None:
    assert [kind for kind in PARTS["terms"] if not {*KINDS} & {*config(recipe(OBJECTIVE, small("terms", kind))).wants()}] == []


@each_data
@each_term
def test_gradients_of_terms_that_share_a_view_are_the_sum_of_each_alone(kind: str, data: str) -> None:
    state = begun(kind, data)
    if state is None:
        return
    batch, method = state.batch(), state.method
    each = [state.gradients(state.alone(term, batch)) for term in method.terms.values()]
    kept = [(tensor, tensor.clone()) for tensor in state.term.buffers()]
    together = state.gradients(method.losses(batch))
    for now, then in kept:
        now.copy_(then)
    assert all(any(gradient.abs().max() > 1e-9 for gradient in one) for one in each), "a term trains nothing"
    assert max(float((sum(parts) - whole).abs().max()) for *parts, whole in zip(*each, together, strict=True)) < 1e-12


@pytest.mark.slow
@each_term
@pytest.mark.parametrize("tune", TUNED)
def test_a_term_moves_what_is_tuned_or_is_refused(kind: str, tune: str) -> None:
    try:
        state = begun(kind, "rich", tune)
    except ValidationError as error:
        assert kind in str(error)
        return
    if state is None:
        return
    own = {id(weight) for weight in state.method.tuner.weights().values()}
    slopes = zip(state.weights, state.gradients(state.alone(state.term, state.batch())), strict=True)
    assert any(id(weight) in own and slope.abs().max() > 1e-9 for weight, slope in slopes)


@each_data
@each_term
def test_the_gradient_of_a_term_is_that_of_finite_differences(kind: str, data: str, monkeypatch: pytest.MonkeyPatch) -> None:
    state = begun(kind, data)
    if state is None:
        return
    batch, method = state.batch(), state.method
    if kind == "alip":  # whose gates are no function of the weights to it
        gates = state.term._weights

        @functools.cache
        def once() -> Any:
            view = View(batch, method.lesson, method.tuner, method.seed)  # type: ignore[arg-type]
            return gates(view.images[view.captioned], view.captions, view.beside(state.term._second))

        monkeypatch.setattr(state.term, "_weights", lambda *features: once())
    found = state.gradients(state.alone(state.term, batch))
    scale = next(place for place, weight in enumerate(state.weights) if weight is method.clip.logit_scale)
    drawn = [torch.randn(each.shape, generator=torch.Generator().manual_seed(7), dtype=each.dtype) for each in found]
    if kind in UNSCALED:  # which take the model's scale for a constant
        assert not found[scale]
        drawn[scale].zero_()
    steep, length = (sum(float(each.square().sum()) for each in some) ** 0.5 for some in (found, drawn))
    direction = [one / steep + two / length for one, two in zip(found, drawn, strict=True)]

    def at(step: float) -> float:
        with torch.no_grad():
            for weight, each in zip(state.weights, direction, strict=True):
                weight.add_(each, alpha=step)
            value = sum(float(loss) for loss in state.alone(state.term, batch).values())
            for weight, each in zip(state.weights, direction, strict=True):
                weight.sub_(each, alpha=step)
        return value

    slope = sum(float((one * two).sum()) for one, two in zip(found, direction, strict=True))
    one, two = (at(step) - at(-step) for step in (1e-4, 2e-4))  # five points: what is left out is of the fourth order in the step
    assert (8 * one - two) / 12e-4 == pytest.approx(slope, rel=1e-6, abs=1e-10)


@each_data
@each_term
def test_neither_the_order_of_a_batch_matters_nor_that_a_row_is_alone_and_what_is_kept_has_no_gradient(kind: str, data: str) -> None:
    state = begun(kind, data)
    if state is None:
        return
    first, again = (state.alone(state.term, state.batch(order)) for order in (range(6), (3, 5, 0, 4, 1, 2)))
    assert first and {name: loss.item() for name, loss in again.items()} == pytest.approx(
        {name: loss.item() for name, loss in first.items()}, rel=1e-9, abs=1e-12
    )
    assert all(each.isfinite().all() for each in state.gradients(state.alone(state.term, state.batch((0,)))))
    taught = [tensor for each in state.method._teachers.values() for tensor in (*each.parameters(), *each.clip.parameters())]
    assert not any(tensor.requires_grad for tensor in (*taught, *state.term.buffers()))


@pytest.mark.slow
@each_term
@pytest.mark.parametrize("pairs", [False, True], ids=["as it is", "pairs"])
def test_a_step_whose_rows_are_no_term_s_is_a_step(kind: str, pairs: bool) -> None:
    if pairs and "labels" not in PARTS["terms"][kind].model_fields:
        return
    part = small("terms", kind) | ({"labels": "pairs"} if pairs else {})
    method = build(recipe(OBJECTIVE, part, *([] if kind == "clusters" else [small("terms", "clusters")])))
    first, second = (replace(mixed, data=concat([mixed.data, _bare(mixed.data)])) for mixed in sessions("mixed"))
    learn(method, first, FAST, 0)
    table = method.begin(second)
    rows = Rows(table, method.clip, method.vocabulary, beside=method.beside)
    sorts = [(label is not None, bool(texts)) for label, texts in zip(table.labels, table.captions, strict=True)]
    assert {*sorts} >= {(True, False), (False, True), (False, False)}
    for sort in dict.fromkeys(sorts):
        batch = Collate(method.clip.tokenize, torch.float64, method.beside)([rows[(sorts.index(sort), 0, 0)]])
        losses = method.losses(batch)
        slopes = torch.autograd.grad(torch.stack([*losses.values()]).sum(), [*method.trainable()], allow_unused=True)
        assert all(loss.isfinite() for loss in losses.values()) and all(each is None or each.isfinite().all() for each in slopes)


def _bare(rows: ImageTable) -> ImageTable:
    """The same images again, of which nothing is told."""
    return ImageTable.of([f"{each} again" for each in rows.ids], rows.table["image"].to_pylist())


def test_each_part_makes_itself_from_its_defaults_and_says_what_it_is() -> None:
    for kinds in PARTS.values():
        for kind, part in kinds.items():
            assert issubclass(part, PartConfig) and part().called() == kind
            assert (part.__doc__ or "").splitlines()[0].endswith("."), f"{kind} has no sentence for `evergreen parts`"
