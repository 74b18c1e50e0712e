"""Features held to an earlier model's, and queries held to what it finds: worked numbers, rows, what is kept and what is refused."""

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from cl.config import TrainConfig
from cl.data.table import fingerprint
from cl.errors import ModelError
from cl.learning.learner import Learned, learn, visits
from cl.methods.compose import RecipeConfig
from cl.methods.lesson import plain_batch
from cl.methods.losses import contrastive, regression
from cl.methods.recipe import Recipe
from cl.methods.terms.anchor import Anchor, held
from cl.methods.terms.vocabulary import vocabulary_texts
from cl.seeds import generator
from cl.store.holds import forget
from cl.store.states import Origin, keep_state, revive
from cl.streams.stream import Session
from tests import make
from tests.golden.numbers import sessions
from tests.test_lwf import batch_of, shaken

TRAIN = TrainConfig(max_steps=2, batch_size=6, lr=1e-3, device="cpu")


def grid(rows: int, width: int, start: int) -> Tensor:
    """sin(7(i + o) + j + (i + o) j), rows of length 1, in fp64."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None] + start, torch.arange(width, dtype=torch.float64)[None]
    return F.normalize(torch.sin(7 * i + j + i * j), dim=1)


def features() -> tuple[Tensor, ...]:
    """Images and texts now, images and texts then, vectors."""
    made = [grid(4, 5, start) for start in (0, 10, 20, 30)]
    return *(each.requires_grad_() for each in made), grid(6, 5, 40)


def built(*terms: dict[str, Any], **seats: Any) -> Recipe:
    return RecipeConfig.model_validate({"terms": ["clip", *terms], **seats}).build(make.tiny().double(), 0).double()


def begun(method: Recipe, session: Session, shake: float = 0.1) -> Recipe:
    method.begin(session)
    shaken(method, shake)
    return method


def test_regression_has_its_worked_number_and_no_gradient_reaches_what_was() -> None:
    images, texts, images_then, texts_then, _ = features()
    loss = (regression(images, images_then) + regression(texts, texts_then)) / 2
    squared = ((images - images_then).square().sum(1).mean() + (texts - texts_then).square().sum(1).mean()) / 4
    assert loss.item() == pytest.approx(1.171163094136, abs=1e-11) and squared.item() == pytest.approx(loss.item(), abs=1e-14)
    assert [each.norm().item() for each in torch.autograd.grad(squared, [images, texts])] == pytest.approx(
        [0.384451734741, 0.380772421780], abs=1e-11
    )
    loss.backward()
    assert images.grad is not None and texts.grad is not None and images_then.grad is None and texts_then.grad is None
    assert [images.grad.norm().item(), texts.grad.norm().item()] == pytest.approx([0.25, 0.25], abs=1e-12)


def test_beside_it_clips_own_loss_has_its_worked_number() -> None:
    images, texts = features()[:2]
    loss = contrastive(images, texts, 10.0)
    assert loss.item() == pytest.approx(6.546213344590, abs=1e-11)
    slopes = [each.norm().item() for each in torch.autograd.grad(loss, [images, texts])]
    assert slopes == pytest.approx([7.107438628395, 6.990459120042], abs=1e-11)


def test_its_gradient_through_the_normalisation_is_that_of_half_the_squared_distance() -> None:
    raw = torch.randn(5, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64, requires_grad=True)
    then = grid(5, 4, 3)
    one = torch.autograd.grad(regression(F.normalize(raw, dim=1), then), raw)[0]
    two = torch.autograd.grad((F.normalize(raw, dim=1) - then).square().sum(1).mean() / 2, raw)[0]
    torch.testing.assert_close(one, two, rtol=0, atol=1e-15)
    assert torch.autograd.gradcheck(lambda x: regression(F.normalize(x, dim=1), then), raw)


def test_the_anchor_has_its_worked_numbers() -> None:
    images, texts, images_then, texts_then, vectors = features()
    by_texts, by_images = held(texts, texts_then, vectors, 10.0), held(images, images_then, vectors, 10.0)
    assert [by_texts.item(), by_images.item()] == pytest.approx([10.386727523251, 7.238528209619], abs=1e-10)
    (by_texts + by_images).backward()
    assert texts.grad is not None and images.grad is not None and texts_then.grad is None and images_then.grad is None
    assert [texts.grad.norm().item(), images.grad.norm().item()] == pytest.approx([6.506829410600, 6.532950102510], abs=1e-10)
    assert torch.autograd.gradcheck(lambda x: held(x, images_then, vectors, 10.0), images.detach().requires_grad_())


def test_a_model_that_has_not_moved_is_held_by_nothing_and_its_scale_lowers_no_divergence() -> None:
    first, second = sessions("mixed")
    method = built("regress", "anchor")
    learn(method, first, TrainConfig(max_steps=1, batch_size=6, lr=1e-30, device="cpu", weight_decay=0), 0)
    method.begin(second)
    batch = batch_of(method, second)
    losses = method.losses(batch)
    assert abs(losses["regress"].item()) < 1e-12 and abs(losses["anchor"].item()) < 1e-12
    weights = [*method.tuner.weights().values()]
    still = torch.autograd.grad(losses["regress"] + losses["anchor"], weights, allow_unused=True)
    assert max(each.abs().max().item() for each in still if each is not None) < 1e-9
    shaken(method, 0.1)
    losses = method.losses(batch)
    assert losses["regress"].item() > 1e-3 and losses["anchor"].item() > 1e-6
    moved = torch.autograd.grad(losses["regress"] + losses["anchor"], weights, allow_unused=True)
    by_name = dict(zip(method.tuner.weights(), moved, strict=True))
    assert by_name["model.logit_scale"] is None or by_name["model.logit_scale"].item() == 0


def test_after_a_session_the_base_model_holds_and_only_if_asked_what_the_next_one_found() -> None:
    first, second = sessions("captions")
    held_by = {}
    for teacher in ("original", "session"):
        method = built({"kind": "regress", "teacher": teacher})
        learn(method, first, TRAIN, 0)
        method.begin(second)
        held_by[teacher] = method.losses(batch_of(method, second))["regress"].item()
    assert held_by["original"] > 1e-6 and abs(held_by["session"]) < 1e-12


@pytest.mark.parametrize("kind", ["labels", "captions", "mixed"])
def test_images_of_all_rows_and_texts_of_those_that_have_one_are_held(kind: str) -> None:
    session = sessions(kind)[0]
    method = begun(built({"kind": "regress", "weight": 3.0}), session)
    table = session.data.take(range(6))
    assert method.lesson is not None
    loss = method.losses(plain_batch(method.clip, table, method.lesson, range(6)))["regress"]
    base = make.tiny().double()
    pixels = torch.stack([base.transform()(table.image(row)) for row in range(6)]).double()
    words = [texts[0] if texts else f"a {label} square" for label, texts in zip(table.labels, table.captions, strict=True)]
    apart = [
        1
        - (one.encode_image(pixels) * two.encode_image(pixels)).sum(1).mean()
        + 1
        - (one.encode_text(one.tokenize(words)) * two.encode_text(two.tokenize(words))).sum(1).mean()
        for one, two in [(method.clip, base)]
    ]
    assert loss.item() == pytest.approx(3.0 / 2 * apart[0].item(), rel=1e-9)


def test_features_kept_by_row_are_those_of_every_step() -> None:
    session, losses = sessions("mixed")[0], []
    for often in (0.0, 3.0):
        method = built("regress")
        method.visits = often
        begun(method, session)
        assert (method.terms["regress"]._taught.images is None) == (not often)  # type: ignore[union-attr]
        asked: list[int] = []
        teacher = method.teacher("original")
        real = teacher.image
        teacher.image = lambda pixels, real=real, asked=asked: asked.append(len(pixels)) or real(pixels)  # type: ignore[method-assign]
        losses.append(method.losses(batch_of(method, session))["regress"].item())
        assert asked == ([] if often else [6])
    assert losses[0] == pytest.approx(losses[1], abs=1e-14)


def test_rows_come_up_again_where_there_are_epochs_and_no_crops() -> None:
    assert visits(12, TrainConfig(epochs=5, batch_size=6)) == 5
    assert visits(12, TrainConfig(max_steps=1, batch_size=6)) == 0.5
    assert visits(12, TrainConfig(epochs=5, augment=True)) == visits(0, TrainConfig()) == 0
    method = built("regress")
    learn(method, sessions("labels")[0], TRAIN.model_copy(update={"max_steps": 5}), 0)
    assert method.visits == 2.5


@pytest.mark.slow
def test_vectors_kept_are_the_earlier_models_and_neither_order_nor_splits_choose_them() -> None:
    one, two = sessions("mixed")
    kept = []
    for order in ((one, two), (two, one)):
        method = built({"kind": "anchor", "rows": 7}, candidates="seen")
        for session in order:
            learn(method, Session(**{**vars(session), "vocabulary": two.vocabulary}), TRAIN, 0)
        term = method.terms["anchor"]
        assert isinstance(term, Anchor)
        kept.append(term)
    assert torch.equal(kept[0].marks, kept[1].marks)
    for name in ("images", "words"):  # but for rounding: a batch of other company
        torch.testing.assert_close(getattr(kept[0], name), getattr(kept[1], name), rtol=0, atol=1e-14)
    rows = {fingerprint(image.as_py()): (each.data, place) for each in (one, two) for place, image in enumerate(each.data.table["image"])}
    assert [bytes(mark.tolist()) for mark in kept[0].marks] == sorted(rows)[:7]
    base = make.tiny().double()
    for mark, image, words in zip(kept[0].marks, kept[0].images, kept[0].words, strict=True):
        data, place = rows[bytes(mark.tolist())]
        text = (data.captions[place] or [f"a {data.labels[place]} square"])[0]
        torch.testing.assert_close(image, base.encode_image(base.transform()(data.image(place))[None].double())[0])
        torch.testing.assert_close(words, base.encode_text(base.tokenize([text]))[0])


@pytest.mark.parametrize("texts", [0, 4])
def test_the_anchor_is_the_mean_over_kinds_of_queries(texts: int) -> None:
    first, second = sessions("captions")
    method = built({"kind": "anchor", "texts": texts, "weight": 2.0})
    learn(method, first, TRAIN, 0)
    begun(method, second)
    table, lesson, term = second.data.take(range(5)), method.lesson, method.terms["anchor"]
    assert lesson is not None and isinstance(term, Anchor)
    loss = method.losses(plain_batch(method.clip, table, lesson, range(5)))["anchor"]
    vectors, base = torch.cat([each[: len(first.data)] for each in (term.images, term.words)]), make.tiny().double()
    pixels = torch.stack([base.transform()(table.image(row)) for row in range(5)]).double()
    words = [base.tokenize([captions[0] for captions in table.captions])]
    words += [vocabulary_texts(base, texts, 10, generator(0, "vocabulary", 2, 0))] if texts else []
    two = [(method.clip, base)]
    each = [held(now.encode_image(pixels), then.encode_image(pixels), vectors, then.scale()) for now, then in two]
    each += [held(now.encode_text(x), then.encode_text(x), vectors, then.scale()) for now, then in two for x in words]
    assert loss.item() == pytest.approx(2 * torch.stack(each).mean().item(), rel=1e-9) and loss.item() > 1e-6


def test_taking_an_image_out_of_a_state_takes_its_vectors_out(tmp_path: Path) -> None:
    first, second = sessions("mixed")
    settings = {"name": "recipe", "terms": ["clip", {"kind": "anchor", "rows": 30}]}
    method = RecipeConfig.model_validate(settings).build(make.tiny(), 0)
    learn(method, first, TRAIN, 0)
    keep_state(tmp_path, "one", method, Learned(1, 8, 0.0, 0), [], Origin("recipe", None, "session 1", 1))
    gone = fingerprint(first.data.table["image"][3].as_py())
    assert forget(tmp_path / "states" / "one", lambda image: image == gone) == 1
    revived = revive(RecipeConfig.model_validate(settings).build(make.tiny(), 0), "one", tmp_path)
    was, now = method.terms["anchor"], revived.terms["anchor"]  # type: ignore[union-attr, index]
    there = [bytes(mark.tolist()) != gone for mark in was.marks]
    for name in ("marks", "images", "words"):
        assert (
            torch.equal(getattr(now, name)[there], getattr(was, name)[there]) and not getattr(now, name)[[not each for each in there]].any()
        )
    learn(revived, second, TRAIN, 0)
    assert gone not in [bytes(mark.tolist()) for mark in now.marks] and int((now.marks != 0).any(1).sum()) == 23


def test_an_earlier_model_is_named_and_read_and_changes_what_the_recipe_is_called(tmp_path: Path) -> None:
    was = make.tiny()
    with torch.no_grad():
        was.model.visual.proj.mul_(torch.linspace(0, 2, 32))
    was.save(tmp_path / "was")
    name = f"local-dir:{tmp_path / 'was'}"
    session = sessions("labels")[0]
    method = built({"kind": "regress", "teacher": name})
    assert RecipeConfig.model_validate({"terms": ["clip", {"kind": "regress", "teacher": name}]}).build(make.tiny(), 0).sources() == (
        was.digest(),
    )
    assert built("regress").sources() == ()
    method.begin(session)
    loss = method.losses(batch_of(method, session))["regress"]
    assert loss.item() > 1e-3 and built("regress", "anchor")._wanted == ["original"]
    assert not any(part.startswith("teacher") for part in method.state_dict())


def test_a_model_of_another_make_and_one_that_is_not_there_are_refused(tmp_path: Path) -> None:
    other = make.tiny()
    other.preprocess_cfg["mean"] = (0.5, 0.5, 0.5)
    other.save(tmp_path / "other")
    session = sessions("labels")[0]
    with pytest.raises(ModelError, match="no earlier model of this one, its settings differ"):
        built({"kind": "regress", "teacher": f"local-dir:{tmp_path / 'other'}"}).check(session)
    with pytest.raises(ModelError, match="'orignal' is not known"):
        built({"kind": "anchor", "teacher": "orignal"}).check(session)
