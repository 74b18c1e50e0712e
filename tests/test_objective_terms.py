"""Objectives as terms: which rows they see, what each kind of row weighs, what they keep, and what they are refused beside."""

from functools import cache

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cl.config import TrainConfig
from cl.data.table import ImageTable
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.methods.compose import RecipeConfig
from cl.methods.lesson import Lesson, plain_batch
from cl.methods.losses import classification, contrastive, similarities
from cl.methods.objectives import cloob, distance, infoloob, mixed, siglip, siglip_bias, uniformity
from cl.methods.persist import memory, restore
from cl.methods.recipe import Recipe
from cl.methods.terms.base import Term
from cl.methods.tuners.whole import Whole
from cl.methods.view import View
from cl.streams.stream import Session
from tests import make

TRAIN = TrainConfig(max_steps=2, batch_size=6, lr=1e-3, device="cpu")
KINDS = ("clip", "infoloob", "cloob", "siglip", "gap", "m2mix")
FIRST = ("clip", "infoloob", "cloob", "siglip")  # those that take labels too; the others stand beside them
ROWS: dict[str, tuple[list[str | None], list[list[str]]]] = {
    "labels": (["red", "green", "red", "green"], [[], [], [], []]),
    "captions": ([None] * 4, [["ink"], ["paint"], ["ink"], ["dye"]]),
    "mixed": (["red", None, "green", None], [[], ["ink"], [], ["a red square"]]),
    "both": (["red", "green", "red", None], [["ink"], ["paint"], [], ["dye"]]),
    "one label": (["red"], [[]]),
    "one caption": ([None], [["ink"]]),
    "one class": (["red", "red", "red"], [[], [], []]),
    "one caption for all": ([None] * 3, [["ink"], ["ink"], ["ink"]]),
    "one of each": (["green", None], [[], ["ink"]]),
}


@cache
def tuner() -> Whole:
    """Over the tiny model in fp64."""
    return Whole(make.tiny().double())


def view(rows: str, step: int = 0) -> View:
    """One batch of such rows."""
    labels, captions = ROWS[rows]
    table = ImageTable.of([str(n) for n in range(len(labels))], [make.png(n, n) for n in range(len(labels))], labels, captions)
    lesson = Lesson(1, table, make.names((0, 1)), (0, 1))
    return View(plain_batch(tuner().clip, table, lesson, range(len(labels)))._replace(step=step), lesson, tuner(), 0)


def recipe(*terms: dict[str, object]) -> Recipe:
    return RecipeConfig(terms=terms).build(make.tiny(), 0)  # type: ignore[arg-type]


def term(kind: str, **settings: object) -> Term:
    """A term in fp64."""
    config = RecipeConfig(terms=({"kind": kind, **settings},)).terms[0]  # type: ignore[arg-type]
    return config.build(tuner(), 0).double()


def gradients(loss: Tensor) -> list[Tensor]:
    weights = list(tuner().weights().values())
    slopes = torch.autograd.grad(loss, weights, retain_graph=True, allow_unused=True)
    return [torch.zeros_like(weight) if each is None else each for weight, each in zip(weights, slopes, strict=True)]


def total(losses: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(losses.values())).sum()


@pytest.mark.parametrize("rows", ROWS)
@pytest.mark.parametrize("kind", KINDS)
def test_whatever_a_batch_holds_the_losses_are_finite_and_so_are_their_gradients(kind: str, rows: str) -> None:
    for labels in ("classify", "pairs"):
        losses = term(kind, labels=labels, **({"cross": 0.5} if kind == "gap" else {}))(view(rows))
        if not losses:
            assert labels == "classify" and kind not in FIRST and not view(rows).some_captioned
            continue
        assert all(loss.isfinite() and loss.ndim == 0 for loss in losses.values())
        assert all(each.isfinite().all() for each in gradients(total(losses)))


@pytest.mark.parametrize("kind", FIRST)
def test_rows_of_each_kind_weigh_as_many_as_they_are(kind: str) -> None:
    seen = view("both")  # three rows with a label, three with a caption, two of them both
    losses = term(kind, scale=10.0)(seen)
    logits = similarities(10.0, seen.images[:3], seen.classes)
    assert losses["classify"].item() == pytest.approx(classification(logits, torch.tensor([0, 1, 0])).item() / 2, rel=1e-6)
    pairs = seen.images[[0, 1, 3]], seen.captions
    alone = {
        "clip": lambda: contrastive(*pairs, 10.0),
        "infoloob": lambda: 10 * infoloob(*pairs, 10.0),
        "cloob": lambda: 10 * cloob(*pairs, 10.0, 14.3),
        "siglip": lambda: siglip(*pairs, 10.0, siglip_bias(*pairs, 10.0)),
    }[kind]()
    assert losses["contrast"].item() == pytest.approx(alone.item() / 2, rel=1e-6)


@pytest.mark.parametrize("rows", ["labels", "captions", "mixed", "both"])
def test_pairs_are_one_batch_and_a_class_is_a_text_like_any_other(rows: str) -> None:
    seen = view(rows)
    images, texts, same = seen.pairs
    assert len(images) == int(seen.labelled.sum() + seen.captioned.sum())
    wanted = {
        "clip": {"contrast": contrastive(images, texts, seen.scale, same)},
        "infoloob": {"contrast": 14.3 * infoloob(images, texts, 14.3, same)},
        "cloob": {"contrast": 14.3 * cloob(images, texts, 14.3, 14.3, same)},
        "siglip": {"contrast": siglip(images, texts, 14.3, siglip_bias(images, texts, 14.3, same), same)},
        "gap": {
            "align": distance(images, texts),
            "uniform": (uniformity(images, images, same) + uniformity(texts, texts, same)) / 2,
        },
    }
    for kind, losses in wanted.items():
        as_pairs = term(kind, labels="pairs")(seen)
        assert {name: loss.item() for name, loss in as_pairs.items()} == pytest.approx({name: loss.item() for name, loss in losses.items()})


@pytest.mark.parametrize("rows", ["captions", "mixed", "both"])
def test_the_gradient_of_a_sum_is_the_sum_of_the_gradients(rows: str) -> None:
    seen = view(rows)
    parts = [term("clip", scale=14.3), term("infoloob", weight=0.5), term("gap"), term("m2mix")]
    apart = [gradients(total(part(seen))) for part in parts]
    together = gradients(torch.stack([total(part(seen)) for part in parts]).sum())
    for each, whole in zip(zip(*apart, strict=True), together, strict=True):
        torch.testing.assert_close(sum(each), whole, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_multiplies_every_loss_and_one_of_0_leaves_the_term_out(kind: str) -> None:
    seen = view("mixed")
    once, thrice = (term(kind, weight=weight)(seen) for weight in (1.0, 3.0))
    assert {name: loss.item() for name, loss in thrice.items()} == pytest.approx({name: 3 * loss.item() for name, loss in once.items()})
    with_it, without = RecipeConfig(terms=({"kind": "clip"}, {"kind": kind, "weight": 0})), RecipeConfig(terms=({"kind": "clip"},))  # type: ignore[arg-type]
    assert with_it.spelled() == without.spelled()
    assert list(with_it.build(make.tiny(), 0).terms) == ["clip"]


def test_terms_that_all_weigh_nothing_are_refused() -> None:
    with pytest.raises(ValidationError, match="every term weighs 0"):
        recipe({"kind": "clip", "weight": 0}, {"kind": "gap", "align": 0, "uniform": 0})


@pytest.mark.parametrize("kind", KINDS)
def test_labels_alone_are_refused_by_name_where_only_captions_would_be_seen(kind: str) -> None:
    labels, captions = make.session(1, (0, 1), (0, 1)), make.session(1, (0, 1), (0, 1), labels=False, captions=True)
    method = recipe({"kind": "clip", "scale": 10}, {"kind": kind})
    method.check(captions)
    recipe({"kind": "clip", "scale": 10}, {"kind": kind, "labels": "pairs"}).check(labels)
    if kind == "clip":
        method.check(labels)
        return
    assert RecipeConfig(terms=({"kind": kind},)).wants() == ("captions",)  # type: ignore[arg-type]
    with pytest.raises(MethodError, match=rf"session 1 .*none of its 16 rows has a caption.* {kind} .*labels: pairs"):
        method.check(labels)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("captions", [False, True], ids=["labels", "captions"])
def test_each_learns_and_a_fixed_scale_leaves_the_model_s_own_alone(kind: str, captions: bool) -> None:
    session = make.session(1, (0, 1), (0, 1), labels=not captions, captions=captions)
    first = [] if kind in FIRST else [{"kind": "infoloob", "labels": "pairs"}]
    method = recipe(*first, {"kind": kind, "labels": "pairs", **({"scale": 14.3} if kind != "gap" else {})})
    before = {name: weight.detach().clone() for name, weight in method.state_dict().items()}
    learn(method, session, TRAIN, 0)
    after = method.state_dict()
    assert torch.equal(after["clip.model.logit_scale"], before["clip.model.logit_scale"])
    assert not torch.equal(after["clip.model.text_projection"], before["clip.model.text_projection"])
    assert set(after) == set(before) and all(value.isfinite().all() for value in after.values())


@pytest.mark.parametrize("kind", ["infoloob", "cloob"])
def test_a_scale_that_would_run_away_is_refused(kind: str) -> None:
    with pytest.raises(ValidationError, match="give a number: a scale that trains under this objective only ever grows"):
        recipe({"kind": kind, "scale": "model"})


def session(index: int) -> Session:
    return make.session(index, (0, 1), (0, 1), labels=False, captions=True)


def test_the_bias_begins_where_the_first_batch_wants_it_trains_and_is_kept() -> None:
    seen, siglips = view("captions"), term("siglip")
    assert not siglips.chosen
    siglips(seen)
    assert siglips.chosen and siglips.bias.item() == pytest.approx(siglip_bias(*seen.captioned_pairs[:2], 14.3, seen.same_captions).item())
    (slope,) = torch.autograd.grad(siglips(seen)["contrast"], siglips.bias)
    assert slope.item() == pytest.approx(0, abs=1e-9)
    kept = siglips.bias.item()
    siglips(view("mixed"))
    assert siglips.bias.item() == kept

    method = recipe({"kind": "siglip"})
    assert any(parameter is method.terms["siglip"].bias for parameter in method.trainable())
    learn(method, session(1), TRAIN, 0)
    state = {name: value.clone() for name, value in memory(method).items()}
    assert state["terms.siglip.chosen"] and state["terms.siglip.bias"] != 0
    resumed = recipe({"kind": "siglip"})
    restore(resumed, state, "test")
    for each in (method, resumed):
        learn(each, session(2), TRAIN, 0)
    assert memory(method)["terms.siglip.bias"] != state["terms.siglip.bias"]
    assert [name for name, value in memory(method).items() if not torch.equal(value, memory(resumed)[name])] == []


def test_a_bias_that_is_given_is_the_bias_and_a_batch_without_negatives_chooses_none() -> None:
    given = term("siglip", bias=-10)
    given(view("captions"))
    assert given.chosen and given.bias == -10
    waiting = term("siglip")
    assert waiting(view("one caption for all"))["contrast"].isfinite()
    assert not waiting.chosen
    waiting(view("captions"))
    assert waiting.chosen


def test_a_mixture_is_drawn_anew_each_step_and_the_same_when_the_step_is_repeated() -> None:
    drawn = [term("m2mix", weight=1)(view("captions", step))["mixed"].item() for step in (0, 0, 1)]
    assert drawn[0] == drawn[1] != drawn[2]
    seen = view("captions")
    values = [mixed(*seen.captioned_pairs[:2], share, 1 / 0.07, seen.same_captions).item() for share in torch.linspace(0, 1, 51).tolist()]
    assert min(values) - 1e-3 < drawn[0] < max(values) + 1e-3


def test_alignment_beside_mixtures_is_refused_by_name() -> None:
    with pytest.raises(ValidationError, match=r"m2mix beside align has no meaning: .*leave one of them out"):
        recipe({"kind": "clip"}, {"kind": "m2mix"}, {"kind": "align"})
    recipe({"kind": "clip"}, {"kind": "m2mix", "weight": 0}, {"kind": "align"})


def test_losses_of_one_name_are_all_minimised() -> None:
    method = recipe({"kind": "clip"}, {"kind": "clip", "scale": 14.3}, {"kind": "infoloob"}, {"kind": "gap"}, {"kind": "align", "alpha": 1})
    data = method.begin(session(1))
    assert method.lesson is not None
    losses = method.losses(plain_batch(method.clip, data.take(range(4)), method.lesson, range(4)))
    assert list(losses) == ["contrast", "clip2.contrast", "infoloob.contrast", "align", "uniform", "align.align"]


@pytest.mark.parametrize(
    "settings",
    [{"terms": ["gap"]}, {"terms": ["identity", "alip"], "rounds": {"kind": "towers", "text": ["alip"]}}],
    ids=["no loss at all", "a loss of features that were computed before"],
)
def test_a_step_with_nothing_for_any_term_moves_nothing_by_itself(settings: dict[str, object]) -> None:
    labels, captions = ["red", None], [[], ["ink", "a dark thing"]]
    data = ImageTable.of(["0", "1"], [make.png(0, 0), make.png(1, 1)], labels, captions)
    taught = Session(1, "here", data, make.session(1, (0, 1), (0, 1)).tests, (0, 1), make.names((0, 1)))
    method = RecipeConfig.model_validate(settings).build(make.tiny(), 0)
    learn(method, taught, TRAIN.model_copy(update={"batch_size": 1}), 0)  # of the two steps one shows a label alone
    assert all(value.isfinite().all() for value in method.state_dict().values())
