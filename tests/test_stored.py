"""Exemplars with the features of their own session's model beside them, and the term that holds them there."""

from typing import Any

import pyarrow as pa
import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter, ValidationError
from torch import Tensor

from cl.config import TrainConfig
from cl.learning.learner import learn
from cl.methods import AnyMethodConfig
from cl.methods.buffer import packed, unpacked
from cl.methods.losses import contrastive, distillation, divergence, log_shares
from cl.methods.memories.exemplars import Rehearsal
from cl.methods.persist import memory, restore
from cl.methods.recipe import Recipe
from cl.methods.stored import features_in, with_features
from cl.methods.terms.stored import places
from tests import make
from tests.test_lwf import batch_of, shaken

TRAIN = TrainConfig(max_steps=2, batch_size=6, lr=1e-3, device="cpu")
SETTINGS: dict[str, Any] = {
    "name": "recipe",
    "terms": [{"kind": "clip"}, {"kind": "stored", "rows": 4, "weight": 2.0}],
    "memory": {"kind": "session_balanced", "capacity": 12, "store": "features"},
}
SESSIONS = make.stream((0, 1), (2, 3), (4, 5), each=6).sessions


def grid(rows: int, width: int, shift: float = 0.0) -> Tensor:
    """sin(7i + 3j + ij + shift), rows of length 1, in fp64."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)[None]
    return F.normalize(torch.sin(7 * i + 3 * j + i * j + shift), dim=1)


def same(one: Any, two: Any) -> bool:
    return torch.equal(one, two) if isinstance(one, Tensor) else one == two


def built(dtype: torch.dtype = torch.float32, capacity: int = 12) -> Recipe:
    settings = SETTINGS | {"memory": {**SETTINGS["memory"], "capacity": capacity}}
    method = TypeAdapter(AnyMethodConfig).validate_python(settings).build(make.tiny().to(dtype), 0)
    assert isinstance(method, Recipe)
    return method


def kept(method: Recipe) -> Rehearsal:
    assert isinstance(method.memory, Rehearsal)
    return method.memory


def test_two_teachers_are_a_mean_after_the_softmax_and_the_number_is_the_known_one() -> None:
    logits = grid(4, 6) @ grid(4, 6, 1).T / 0.07
    teachers = [10 * grid(4, 5, 0.5) @ grid(4, 5, 1.5).T, 10 * grid(4, 7, 0.7) @ grid(4, 7, 1.7).T]
    rows, columns = (torch.stack([way.softmax(-1) for way in side]).mean(0) for side in (teachers, [each.T for each in teachers]))
    loss = divergence(logits, rows.log(), columns.log())
    assert loss.item() == pytest.approx(4.086669555014, abs=1e-11)
    floor = -(rows * rows.log()).sum() / 8 - (columns * columns.log()).sum() / 8
    assert floor.item() == pytest.approx(0.129987064172, abs=1e-11)
    assert 0.75 * (loss + floor).item() == pytest.approx(3.162492464389, abs=1e-11)  # the cross-entropy form
    assert 0.25 * contrastive(grid(4, 6), grid(4, 6, 1), 1 / 0.07).item() == pytest.approx(1.001039813916, abs=1e-11)


def test_a_second_caption_is_a_second_sum_with_the_known_number() -> None:
    a, b, more = ((grid(4, 5, shift), grid(4, 7, shift + 0.2)) for shift in (0.5, 1.5, 2.5))
    contrasts, divergences = 0.0, 0.0
    for texts, taught in ((grid(4, 6, 1), b), (grid(4, 6, 2), more)):
        teachers = [10 * one @ two.T for one, two in zip(a, taught, strict=True)]
        rows, columns = (torch.stack([way.softmax(-1) for way in side]).mean(0) for side in (teachers, [each.T for each in teachers]))
        floor = -(rows * rows.log()).sum() / 8 - (columns * columns.log()).sum() / 8
        divergences += 0.75 * (divergence(grid(4, 6) @ texts.T / 0.07, rows.log(), columns.log()) + floor).item()
        contrasts += 0.25 * contrastive(grid(4, 6), texts, 1 / 0.07).item()
    assert [contrasts, divergences] == pytest.approx([3.521198779651, 6.739995559602], abs=1e-11)
    assert contrasts + divergences == pytest.approx(10.261194339253, abs=1e-11)


def test_with_one_teacher_it_is_distillation_both_ways_and_its_gradient_is_the_known_one() -> None:
    logits = (grid(4, 6) @ grid(4, 6, 1).T / 0.07).requires_grad_()
    taught = (10 * grid(4, 5, 0.5) @ grid(4, 5, 1.5).T).requires_grad_()
    loss = divergence(logits, log_shares(taught), log_shares(taught.T))
    assert loss.item() == pytest.approx((distillation(logits, taught) + distillation(logits.T, taught.T)).item() / 2, abs=1e-14)
    loss.backward()
    want = (logits.softmax(-1) - taught.softmax(-1) + (logits.T.softmax(-1) - taught.T.softmax(-1)).T) / 8
    assert torch.allclose(logits.grad, want.detach(), atol=1e-15) and taught.grad is None
    same = logits.detach().requires_grad_()
    nothing = divergence(same, log_shares(same.detach()), log_shares(same.detach().T))
    nothing.backward()
    assert abs(nothing.item()) < 1e-12 and same.grad.abs().max() < 1e-15


def test_each_session_s_exemplars_keep_what_its_own_model_made_of_them() -> None:
    method, then = built(), {}
    for session in SESSIONS:
        learn(method, session, TRAIN, 0)
        store = kept(method).exemplars
        assert store.features is not None
        for place, (index, name) in enumerate(zip(store.features.session.tolist(), store.rows.ids, strict=True)):
            if index != session.index:
                assert torch.equal(store.features.images[place], then[name])  # what was kept stays
                continue
            with torch.no_grad():
                image = method.encode_image(method.clip.transform()(store.rows.image(place))[None])[0]
                text = method.encode_text(method.clip.tokenize([f"a {store.rows.labels[place]} square"]))[0]
            assert torch.allclose(store.features.images[place].float(), image, atol=1e-3)
            assert torch.allclose(store.features.texts[place][0].float(), text, atol=1e-3) and len(store.features.texts[place]) == 1
            assert store.features.scale[place].item() == pytest.approx(method.clip.scale().item(), rel=1e-6)
            then[name] = store.features.images[place]
    assert sorted(store.features.session.tolist()) == [1] * 4 + [2] * 4 + [3] * 4
    assert [len(each) for each in places(store.features)] == [4, 4, 4]


def test_a_step_compares_the_exemplars_of_one_session_at_its_scale_and_sessions_take_turns() -> None:
    method = built(torch.float64, capacity=8)
    for session in SESSIONS[:2]:
        learn(method, session, TRAIN, 0)
    method.begin(SESSIONS[2])
    shaken(method, 0.1)
    features, rows = kept(method).exemplars.features, kept(method).exemplars.rows
    assert features is not None
    values = []
    for step in range(4):
        batch = batch_of(method, SESSIONS[2], rows=4)._replace(step=step)
        values.append(method.losses(batch)["stored"].item())
        of = places(features)[step % 2]  # four of each session, and four are asked for
        images = torch.stack([method.clip.transform()(rows.image(row)) for row in of.tolist()]).double()
        texts = method.encode_text(method.clip.tokenize([features.words[row][0] for row in of.tolist()]))
        student = method.clip.scale() * method.encode_image(images) @ texts.T
        taught = (
            features.scale[of[0]].double()
            * features.images[of].double()
            @ torch.cat([features.texts[row] for row in of.tolist()]).double().T
        )
        want = distillation(student, taught) + distillation(student.T, taught.T)  # weight 2, halved
        assert len(of) == 4 and values[-1] == pytest.approx(want.item(), rel=1e-5)
    assert min(values) > 0 and values[0] != pytest.approx(values[1], rel=1e-3)


def test_nothing_is_held_in_the_first_session_and_an_unmoved_model_is_where_it_was() -> None:
    method = built()
    method.begin(SESSIONS[0])
    assert "stored" not in method.losses(batch_of(method, SESSIONS[0], rows=4))
    with torch.no_grad():
        method.end(SESSIONS[0])
    method.begin(SESSIONS[1])
    loss = method.losses(batch_of(method, SESSIONS[1], rows=4))["stored"]
    assert abs(loss.item()) < 1e-4  # half precision


def test_they_are_saved_and_loaded_and_taken_apart_with_the_exemplars() -> None:
    method = built()
    for session in SESSIONS[:2]:
        learn(method, session, TRAIN, 0)
    store = kept(method).exemplars
    again = unpacked(packed(store))
    assert store.features is not None and again.features is not None
    for one, two in zip(vars(store.features).values(), vars(again.features).values(), strict=True):
        assert torch.equal(one, two) if isinstance(one, Tensor) else all(map(same, one, two))
    fewer = store.take([0, 3]).features
    assert fewer is not None and torch.equal(fewer.images, store.features.images[[0, 3]])
    other = built()
    restore(other, memory(method), "here")
    for each in (method, other):
        learn(each, SESSIONS[2], TRAIN, 0)
    one, two = memory(method), memory(other)
    assert all(torch.equal(one[name], two[name]) for name in one)


def test_captions_are_kept_all_of_each_row_and_rows_without_a_text_are_left_out() -> None:
    session = make.session(1, (0, 1), (), each=6, labels=False, captions=True)
    method = built()
    learn(method, session, TRAIN, 0)
    store = kept(method).exemplars
    features = store.features
    assert features is not None and list(map(list, features.words)) == store.rows.captions
    with torch.no_grad():
        for texts, encoded in zip(store.rows.captions, features.texts, strict=True):
            torch.testing.assert_close(encoded.float(), method.encode_text(method.clip.tokenize(texts)), atol=1e-3, rtol=0)


def test_each_caption_of_an_exemplar_takes_its_turn_beside_its_own_feature(monkeypatch: pytest.MonkeyPatch) -> None:
    sessions = [make.session(index, (0, 1), (), each=6, labels=False, captions=True) for index in (1, 2)]
    method = built(torch.float64)
    learn(method, sessions[0], TRAIN, 0)
    method.begin(sessions[1])
    asked: list[tuple[str, ...]] = []
    real, batch = method.clip.tokenize, batch_of(method, sessions[1], rows=4)
    monkeypatch.setattr(method.clip, "tokenize", lambda texts: asked.append(tuple(texts)) or real(texts))
    values = [method.losses(batch._replace(step=step))["stored"].item() for step in range(12)]
    features = kept(method).exemplars.features
    assert max(values) < 1e-4 and features is not None  # an unmoved model is where it was, whichever caption is asked
    assert len({text for texts in asked for text in texts}) > len(features.words)  # first captions alone are no more than so many
    shaken(method, 0.1)
    assert method.losses(batch)["stored"].item() > 1e-4


def test_what_was_kept_when_an_exemplar_had_one_text_is_read() -> None:
    images, texts = grid(3, 4).half(), grid(3, 4, 1).half()
    columns = {
        name: pa.FixedSizeListArray.from_arrays(pa.array(each.reshape(-1).numpy()), 4)
        for name, each in (("image_feature", images), ("text_feature", texts))
    }
    columns |= {"words": pa.array(["a dog", "", "a cat"]), "scale": pa.array([1.0, 0.0, 2.0], pa.float32()), "session": pa.array([1, 1, 2])}
    features = features_in(pa.table(columns))
    assert features is not None and features.words == (("a dog",), (), ("a cat",)) and torch.equal(features.images, images)
    assert torch.equal(features.texts[0], texts[:1]) and torch.equal(features.texts[2], texts[2:]) and features.texts[1].shape == (0, 4)
    again = features_in(with_features(pa.table({"id": ["a", "b", "c"]}), features))
    assert again is not None and again.words == features.words and all(map(torch.equal, again.texts, features.texts))


def test_half_precision_is_enough_for_a_feature() -> None:
    source = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(64, 768, generator=source, dtype=torch.float64), dim=1) for _ in range(2))
    exact, stored = (100 * one @ two.T for one, two in ((images, texts), (images.half().double(), texts.half().double())))
    assert 0 < distillation(stored, exact).item() < 1e-6


def test_without_stored_features_it_is_refused_by_name() -> None:
    for memory_of in (None, {"kind": "reservoir"}):
        with pytest.raises(ValidationError, match="give the recipe both, or neither"):
            TypeAdapter(AnyMethodConfig).validate_python({**SETTINGS, "memory": memory_of})
