"""What holds for whatever moves: laws over every tuner, with plain terms, on labels and on captions."""

from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods import CONFIGS
from cl.methods.compose import RecipeConfig
from cl.methods.features import pixels
from cl.methods.persist import memory, restore
from cl.methods.recipe import Recipe
from cl.methods.tuners import Tuner
from cl.plan import build_method
from cl.store.bundle import Bundle, read_bundle, write_bundle
from cl.streams.stream import Session
from tests import make

FAST = TrainConfig(max_steps=2, batch_size=6, lr=1e-2, device="cpu")
TUNERS: dict[str, dict[str, Any]] = {
    "whole": {"kind": "whole"},
    "image": {"kind": "whole", "part": "image"},
    "text, scale frozen": {"kind": "whole", "part": "text", "scale": "frozen"},
    "projections": {"kind": "projections"},
    "projection of images": {"kind": "projections", "towers": "image", "scale": "frozen"},
    "lora": {"kind": "lora"},
    "lora of texts": {"kind": "lora", "towers": "text", "targets": ["qkv"], "rank": 2, "alpha": 1.0},
    "bridged prompts": {"kind": "prompts", "depth": 2, "template": "{}."},
    "bridged prompts of texts": {"kind": "prompts", "depth": 2, "vision_mode": "none", "scale": 50.0},
    "text prompts": {"kind": "prompts", "form": "text", "length": 3, "template": "{}"},
    "image prompts": {"kind": "prompts", "form": "visual", "length": 3},
    "head": {"kind": "head"},
    "mixed prompts": {"kind": "prompts", "form": "multimodal", "length": 2},
}
LABELS_ALONE = {"head"}
KINDS = ("labels", "captions")
CASES = [(name, kind) for name in TUNERS for kind in KINDS if kind == "labels" or name not in LABELS_ALONE]


def recipe(name: str, seed: int = 0, *terms: dict[str, Any]) -> Recipe:
    return RecipeConfig(tune=TUNERS[name], terms=(*terms, {"kind": "clip"})).build(make.tiny(), seed)


@cache
def sessions(kind: str) -> tuple[Session, ...]:
    return make.stream((0, 1), (2, 3), each=6, labels=kind == "labels", captions=kind == "captions").sessions


def snapshot(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in tensors.items()}


def storages(tensors: Mapping[str, Tensor]) -> set[int]:
    return {tensor.untyped_storage().data_ptr() for tensor in tensors.values() if tensor.numel()}


def everything(of: Recipe) -> dict[str, Tensor]:
    return {name: tensor for name, tensor in of.state_dict().items() if isinstance(tensor, Tensor)}


def answers(of: Any) -> Tensor:
    asked, data = make.names((0, 1, 2, 6)), make.table((0, 1), 2, seed=3)
    with torch.no_grad():
        return of.classify(torch.cat([*pixels(of.clip, data)]), of.class_features(asked))


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_what_is_not_tuned_stays_to_the_bit_and_all_that_is_moves(name: str, kind: str) -> None:
    method = recipe(name)
    first, second = sessions(kind)
    learn(method, first, FAST, 0)
    moving = {id(each) for each in method.tuner.weights().values()}
    still = {key: each for key, each in method.named_parameters() if id(each) not in moving}
    before, was = snapshot(still), snapshot(method.tuner.weights())
    learn(method, second, FAST, 0)
    assert [key for key, each in still.items() if not torch.equal(each, before[key])] == []
    assert [key for key, each in method.tuner.weights().items() if torch.equal(each, was[key])] == []


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_names_of_weights_and_of_a_state_never_change_and_tensors_only_where_a_session_begins(name: str, kind: str) -> None:
    method = recipe(name)
    weights, kept = list(method.tuner.weights()), set(memory(method))
    named = {key for key, _ in method.named_parameters()}
    assert all(key in named or f"clip.{key}" in named for key in weights)
    for session in sessions(kind):
        rounds = method.rounds(session)
        next(rounds)
        held = [id(each) for each in method.tuner.weights().values()]
        learn(method, session, FAST.model_copy(update={"max_steps": 1}), 0)
        assert list(method.tuner.weights()) == weights and set(memory(method)) == kept
        assert [id(each) for each in method.tuner.weights().values()] == held


@pytest.mark.parametrize("name", TUNERS)
def test_a_teacher_shares_what_is_frozen_and_nothing_of_what_trains(name: str) -> None:
    method = recipe(name)
    learn(method, sessions("labels")[0], FAST, 0)
    teacher = method.tuner.frozen()
    moving = storages(method.tuner.weights())
    theirs = dict(teacher.named_parameters()) | {f"clip.{key}": each for key, each in teacher.clip.named_parameters()}
    assert not moving & storages(theirs)
    assert storages(dict(method.named_parameters())) - moving <= storages(theirs)
    before = taught(teacher)
    assert torch.allclose(before, answers(method), atol=1e-4)
    learn(method, sessions("labels")[1], FAST, 0)
    assert torch.equal(taught(teacher), before) and not torch.allclose(answers(method), before, atol=1e-4)


def taught(teacher: Tuner) -> Tensor:
    asked = torch.cat([*pixels(teacher.clip, make.table((0, 1), 2, seed=3))])
    with torch.no_grad():
        return teacher.scale() * teacher.image(asked) @ teacher.answers(make.names((0, 1, 2, 6))).T


@pytest.mark.parametrize(("name", "kind"), CASES)
def test_saved_loaded_and_gone_on_with_is_never_having_stopped(name: str, kind: str, tmp_path: Path) -> None:
    held = {"kind": "names"} if name == "head" else {"kind": "vocabulary", "texts": 6}
    through = recipe(name, 0, held)
    first, second = sessions(kind)
    learn(through, first, FAST, 0)
    write_tensors(memory(through), tmp_path / "m.safetensors")
    learn(through, second, FAST, 0)
    resumed = recipe(name, 0, held)
    restore(resumed, read_tensors(tmp_path / "m.safetensors"), "test")
    learn(resumed, second, FAST, 0)
    one, two = everything(through), everything(resumed)
    assert one.keys() == two.keys() and [key for key in one if not torch.equal(one[key], two[key])] == []


@pytest.mark.parametrize("name", TUNERS)
def test_what_folds_into_a_plain_clip_answers_with_it_to_the_bit(name: str, tmp_path: Path) -> None:
    method = recipe(name)
    learn(method, sessions("labels")[0], FAST, 0)
    own = answers(method.eval().requires_grad_(False))
    folded = method.folded()
    if folded is None:
        assert not torch.equal(own, answers(CONFIGS["zero_shot"]().build(method.clip, 0)))
        return
    assert torch.equal(answers(CONFIGS["zero_shot"]().build(folded.eval(), 0)), own)
    assert folded.state_dict().keys() == make.tiny().state_dict().keys()


@pytest.mark.parametrize("name", TUNERS)
def test_a_tower_is_called_fixed_where_no_gradient_reaches_anything_through_it(name: str) -> None:
    method = recipe(name)
    session = sessions("labels")[0]
    next(method.rounds(session))
    weights = method.tuner.weights()
    for parameter in method.parameters():
        parameter.requires_grad_(any(parameter is each for each in weights.values()))
    images = torch.cat([*pixels(method.clip, session.data.take([0, 1]))])
    tokens = method.clip.tokenize(["a red square"])
    moves = {"image": method.tuner.image(images).requires_grad, "text": method.tuner.text(tokens).requires_grad}
    assert method.tuner.fixed == {tower for tower, moved in moves.items() if not moved}


def test_a_recipe_over_a_tuner_names_its_states_by_what_is_not_at_its_default() -> None:
    plain, ranked = (RecipeConfig(tune={"kind": "lora", **more}, terms=({"kind": "clip"},)) for more in ({"rank": 4}, {"rank": 8}))
    assert plain.spelled()["tune"] == {"kind": "lora"} and ranked.spelled()["tune"] == {"kind": "lora", "rank": 8}
    changed = CONFIGS["vr_lwf"](tune={"kind": "lora"})
    assert changed.spelled()["tune"] == {"kind": "lora"} and changed.spelled()["terms"] == CONFIGS["vr_lwf"]().spelled()["terms"]


def test_features_computed_once_teach_what_those_of_every_step_do_and_a_teachers_are_looked_up_too() -> None:
    terms = ({"kind": "clip"}, {"kind": "vocabulary", "texts": 6}, {"kind": "names", "teacher": "original"})
    tune = TUNERS["lora of texts"]
    plain, cached = (RecipeConfig(tune=tune | more, terms=terms).build(make.tiny(), 0) for more in ({}, {"cache": True}))
    assert plain.pixels and not cached.pixels
    calls = []
    inner = cached.clip.encode_image
    cached.clip.encode_image = lambda *given: calls.append(len(given[0])) or inner(*given)  # type: ignore[method-assign]
    for session in sessions("labels"):
        for method in (plain, cached):
            learn(method, session, FAST, 0)
        assert calls == [1, 12] or calls == [1, 12, 1, 12]  # a row to see that nothing trains on the way, then all of them
        assert cached.tuner.known is None
    for own, theirs in zip(plain.trainable(), cached.trainable(), strict=True):
        assert torch.allclose(own, theirs, atol=1e-4)


@pytest.mark.parametrize("tune", [{"kind": "whole"}, {"kind": "lora", "towers": "image"}, {"kind": "prompts", "form": "visual"}])
def test_features_that_change_with_every_step_are_not_computed_once(tune: dict[str, Any]) -> None:
    with pytest.raises(MethodError, match=r"^recipe cannot learn with this model: .*the image tower is tuned.*leave tune.cache off"):
        build_method(RecipeConfig(tune=tune | {"cache": True}, terms=({"kind": "clip"},)), make.tiny(), 0)


def test_captions_do_not_teach_a_head() -> None:
    session = sessions("captions")[0]
    with pytest.raises(MethodError, match=r"none of its 12 rows has a label, and this method learns from labels alone"):
        recipe("head").check(session)
    assert RecipeConfig(tune={"kind": "head"}, terms=({"kind": "clip"},)).wants() == ("labels",)


def test_a_part_in_the_place_of_prompts_is_not_trained_as_prompts_are() -> None:
    own, given = CONFIGS["cpe_clip"](), CONFIGS["cpe_clip"](tune={"kind": "lora"})
    assert own.training(False)["optimizer"] == "sgd" and given.training(False) == given.training(True) == {}
    assert own.training(True)["batch_size"] == 4


@pytest.mark.parametrize("name", ["lora", "bridged prompts", "head"])
def test_a_bundle_answers_as_the_recipe_that_it_was_made_of(name: str, tmp_path: Path) -> None:
    config = RecipeConfig(tune=TUNERS[name], terms=({"kind": "clip"},))
    method = recipe(name)
    learn(method, sessions("labels")[0], FAST, 0)
    (tmp_path / "bundle").mkdir()
    write_bundle(Bundle(method.eval().requires_grad_(False), config, 0, ("a {} square",)), tmp_path / "bundle")
    back = read_bundle(tmp_path / "bundle")
    assert torch.allclose(answers(back.method), answers(method), atol=1e-5)
    assert back.beside == (name != "lora")


@pytest.mark.parametrize(
    ("tune", "term"),
    [
        ("lora of texts", {"kind": "vocabulary", "texts": 6}),
        ("text prompts", {"kind": "vocabulary", "texts": 6}),
        ("image prompts", {"kind": "class_texts"}),
        ("head", {"kind": "names"}),
    ],
)
def test_what_holds_back_reaches_what_is_tuned(tune: str, term: dict[str, Any]) -> None:
    session = sessions("labels")[0]
    method = RecipeConfig(tune=TUNERS[tune], terms=(term, {"kind": "clip"})).build(make.tiny(), 0)
    rows = Rows(method.begin(session), method.clip, session.vocabulary, pixels=method.pixels)
    losses = method.losses(Collate(method.clip.tokenize)([rows[(row, 0, 0)] for row in range(6)]))
    assert len(losses) > 1 and all(loss.requires_grad for loss in losses.values())


def test_a_session_without_classes_is_refused_where_their_share_says_how_far_it_goes() -> None:
    first, second = (make.session(index, (0, 1), (), labels=False, captions=True) for index in (1, 2))
    for share in ("new_over_seen", "one_over_t"):
        tune = {"kind": "prompts", "form": "text", "reg": "balance", "share": share}
        method = RecipeConfig.model_validate({"tune": tune}).build(make.tiny(), 0)
        method.check(first)
        if share == "one_over_t":
            method.check(second)
        else:
            with pytest.raises(MethodError, match=r"session 2 \(session 2\): teaches no class, and with reg: balance"):
                method.check(second)
