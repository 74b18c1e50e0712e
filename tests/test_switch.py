"""Another method, or the same one under other settings, goes on from a state on disk as it would in memory: to the bit, and told."""

import copy
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.disk.files import read_json, write_json
from cl.disk.seal import unsealed
from cl.errors import MethodError, StoreError
from cl.learning.learner import Learned, learn
from cl.methods import CONFIGS, Method, MethodConfig
from cl.models.clip import Clip
from cl.store.bundle import Bundle, read_bundle, write_bundle
from cl.store.states import Dropped, Origin, Why, keep_state, load_state, revive
from cl.store.store import read_state
from tests import make
from tests.test_every_method import METHODS, SMALL, assert_same, state, stream, usable
from tests.test_resume import resumed

ONE = TrainConfig(max_steps=1, batch_size=6, lr=1e-2, device="cpu")
ASKED = make.names((0, 1, 2, 3, 6))  # the last was never taught
PIXELS = torch.stack([make.tiny().transform()(image) for image in map(make.table((0, 1, 2, 3, 6), 1, seed=7).image, range(5))])

Build = Callable[[], Method]
Learnt = tuple[Path, Mapping[str, Method]]
BASE = make.tiny()
taught = cache(lambda name, index: usable(name, stream().sessions[index - 1]))


def base() -> Clip:
    return copy.deepcopy(BASE, {id(BASE.tokenizer): BASE.tokenizer})  # five times as fast as building one


def builder(name: str, **settings: Any) -> Build:
    return lambda: config_of(name, **settings).build(base(), 0)


def config_of(name: str, **settings: Any) -> MethodConfig:
    config = CONFIGS[name]
    small = {key: value for key, value in (SMALL | {"depth": 2, "iterations": 1, "samples": 4}).items() if key in config.model_fields}
    return config(**{**small, **settings})


def answers(method: Method) -> Tensor:
    with torch.no_grad():
        return method.eval().classify(PIXELS, method.class_features(ASKED))


def keep(store: Path, key: str, method: Method, name: str, parent: str | None, index: int) -> None:
    keep_state(store, key, method, Learned(1, 6, 0.0, 0), [], Origin(name, parent, f"session {index}", index))


def by_hand(build: Build, before: Method) -> Method:
    """The method over the base model, then the weights of the one before."""
    method = build()
    method.clip.load_state_dict(before.clip.state_dict())
    return method


def assert_alike(one: Method, two: Method) -> None:
    assert_same(state(one), state(two))
    assert torch.equal(answers(one), answers(two))


@pytest.fixture(scope="module")
def first(tmp_path_factory: pytest.TempPathFactory) -> Learnt:
    """A store with every method's state after the first session, and the methods themselves."""
    store = tmp_path_factory.mktemp("store")
    methods = {name: builder(name)() for name in METHODS}
    for name, method in methods.items():
        learn(method, taught(name, 1), ONE, 0)
        keep(store, name, method, name, None, 1)
    return store, methods


@cache
def fresh(name: str) -> dict[str, Tensor]:
    return own(builder(name)())


def own(method: Method) -> dict[str, Tensor]:
    return {key: value for key, value in state(method).items() if not key.startswith("clip.")}


def clip_of(method: Method) -> dict[str, Tensor]:
    return {key: value for key, value in state(method).items() if key.startswith("clip.")}


PAIRS = [(before, after) for before in METHODS for after in METHODS]
SOME = {*zip(METHODS, METHODS[1:] + METHODS[:1], strict=True), ("finetune", "finetune"), ("finetune", "replay"), ("finetune", "ridge")}
LEARNED = [pair if pair in SOME else pytest.param(*pair, marks=pytest.mark.slow) for pair in PAIRS]


@pytest.mark.parametrize(("before", "after"), PAIRS)
def test_the_clip_carries_over_and_memory_only_to_the_same_method(first: Learnt, before: str, after: str) -> None:
    store, methods = first
    method, dropped = load_state(builder(after), after, before, store)
    assert_same(clip_of(method), clip_of(methods[before]))
    assert_same(own(method), own(methods[before]) if before == after else fresh(after))
    assert bool(dropped) == (before != after and bool(own(methods[before])))


@pytest.mark.parametrize(("before", "after"), LEARNED)
def test_a_session_learned_after_a_switch_and_kept_is_the_one_learned_by_hand(first: Learnt, before: str, after: str) -> None:
    store, methods = first
    build, key = builder(after), f"{before}-{after}"
    reference = copy.deepcopy(methods[before]) if before == after else by_hand(build, methods[before])
    learn(reference, taught(after, 2), ONE, 0)
    method, _ = load_state(build, after, before, store)
    learn(method, taught(after, 2), ONE, 0)
    assert_alike(method, reference)
    keep(store, key, method, after, before, 2)
    assert_alike(revive(build(), key, store), reference)
    assert_same(state(load_state(build, after, key, store)[0]), state(reference))


def test_a_line_of_switches_names_what_it_stands_on_and_grows_with_them_alone(first: Learnt, tmp_path: Path) -> None:
    line: list[tuple[str, dict[str, Any], str | None]] = [  # method, settings, what its state has to stand on
        ("finetune", {}, None),
        ("finetune", {"part": "image"}, "0"),
        ("finetune", {"part": "image"}, "0"),
        ("vr_lwf", {"part": "text", "teacher": "original"}, "2"),
        ("cpe_clip", {}, "3"),
        ("cpe_clip", {}, "3"),
        ("gda", {}, "3"),
        ("replay", {"part": "image"}, "3"),
        ("wise_ft", {"part": "image", "reference": "original"}, "3"),
        ("lwf", {}, "8"),  # its logit scale never trains
        ("finetune", {"part": "text"}, "9"),
        ("finetune", {}, None),
    ]
    reference: Method | None = None
    for index, (name, settings, below) in enumerate(line):
        build, parent = builder(name, **settings), str(index - 1) if index else None
        before = reference
        if before is None:
            reference = build()
        elif line[index][:2] == line[index - 1][:2]:
            reference = copy.deepcopy(before)
        else:
            reference = by_hand(build, before)
        method = load_state(build, name, parent, tmp_path)[0] if parent else build()
        for each in (method, reference):
            learn(each, taught(name, min(index, 1) + 1), ONE, index)
        assert before is None or not torch.equal(answers(reference), answers(before))
        keep(tmp_path, str(index), method, name, parent, index)
        written = read_state(tmp_path / "states" / str(index))
        assert (written.stands_on, written.parent, written.method, written.index) == (below, parent, name, index)
        assert_alike(revive(build(), str(index), tmp_path), reference)


ORIGINALS = [
    ("lwf", {"teacher": "original"}),
    ("zscl", {}),
    ("vr_lwf", {"teacher": "original"}),
    ("wise_ft", {"reference": "original"}),
]


@pytest.mark.parametrize(("name", "settings"), ORIGINALS)
def test_an_original_stays_the_base_model_after_a_switch(first: Learnt, name: str, settings: dict[str, Any]) -> None:
    method: Any = load_state(builder(name, **settings), name, "finetune", first[0])[0]
    learn(method, taught(name, 2), ONE, 0)
    original = method.merge._reference if name == "wise_ft" else method.teacher("original").clip.state_dict()
    assert_same(dict(original), dict(BASE.state_dict()))


TUNERS: dict[str, dict[str, Any]] = {"finetune": {}, "replay": {}, "ewc": {}, "lwf_vr_zscl": {}, **dict(ORIGINALS)}


@pytest.mark.parametrize("name", TUNERS)
@pytest.mark.parametrize(("part", "other"), [("image", "text"), ("text", "image")])
def test_a_tower_that_does_not_train_stays_what_the_switch_found_though_an_original_differs(first: Learnt, name, part, other) -> None:
    method, _ = load_state(builder(name, part=part, **TUNERS[name]), name, "finetune", first[0])
    frozen = {id(parameter) for parameter in method.clip.part(other)} - {id(parameter) for parameter in method.clip.part(part)}
    before = {key: value.detach().clone() for key, value in method.clip.named_parameters() if id(value) in frozen}
    if part == "text" and name in ("lwf", "lwf_vr_zscl", "zscl"):  # what they hold are images
        with pytest.raises(MethodError, match="the image tower is not tuned; tune it as well"):
            learn(method, taught(name, 2), ONE, 0)
        return
    learn(method, taught(name, 2), ONE, 0)
    after = dict(method.clip.named_parameters())
    assert before and [key for key, value in before.items() if not torch.equal(value, after[key])] == []


CARRIED: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("replay", {"capacity": 10}, {"capacity": 4, "part": "text"}),
    ("replay", {"policy": "class_balanced", "capacity": 4}, {"policy": "class_balanced", "capacity": 9}),
    ("ewc", {"weight": 10.0}, {"weight": 5.0, "decay": 0.5}),
    ("ridge", {"projection": 40, "penalty": 0.1}, {"projection": 40, "penalty": 1.0}),
    ("gda", {"alpha": 1.0}, {"mixed": "zero_shot"}),
    ("linear_probe", {}, {"candidates": "seen"}),
    ("gda", {}, {"alpha": 10.0}),
    ("cpe_clip", {}, {"reg": "none"}),
    ("pseudolabel", {}, {"strategy": "fpl", "k": 2}),
]
AFRESH: list[tuple[str, dict[str, Any], dict[str, Any]]] = [
    ("replay", {}, {"policy": "class_balanced"}),  # a row's group would mean something else
    ("ewc", {"part": "image"}, {"part": "text"}),
    ("ridge", {"projection": None}, {"projection": 40}),
    ("ridge", {"projection": 40}, {"projection": 41}),
    ("cpe_clip", {}, {"length": 1}),  # the bridge would fit
    ("cpe_clip", {}, {"vision_mode": "none"}),
    ("pseudolabel", {}, {"modality": "visual"}),
]


@pytest.mark.parametrize(("name", "was", "now"), [*CARRIED, *AFRESH])
def test_under_other_settings_memory_is_carried_over_whole_or_not_at_all(name: str, was, now, tmp_path: Path) -> None:
    before, build = builder(name, **was)(), builder(name, **now)
    learn(before, taught(name, 1), ONE, 0)
    keep(tmp_path, "one", before, name, None, 1)
    method, dropped = load_state(build, name, "one", tmp_path)
    if (name, was, now) in CARRIED:
        assert dropped == ()
        assert_same(state(method), state(before))
    else:
        parts: dict[str, dict[str, Tensor]] = {}
        for key, value in own(before).items():
            part = key.partition(".")[0]
            parts.setdefault(part if part in before.bounds() else next(iter(before.bounds())), {})[key] = value
        sizes = {part: (len(held), sum(value.nbytes for value in held.values())) for part, held in parts.items()}
        assert {each.part: each for each in dropped} == {
            part: Dropped(name, name, count, size, Why.SETTINGS, part) for part, (count, size) in sizes.items()
        }
        assert_same(own(method), own(build()))
        assert_same(clip_of(method), clip_of(before))
    learn(method, taught(name, 2), ONE, 0)


def test_random_features_of_another_seed_are_not_those_that_were_summed_up(tmp_path: Path) -> None:
    config = CONFIGS["ridge"](projection=40)  # type: ignore[call-arg]
    method = config.build(base(), 0)
    learn(method, taught("ridge", 1), ONE, 0)
    keep(tmp_path, "one", method, "ridge", None, 1)
    assert load_state(lambda: config.build(base(), 0), "ridge", "one", tmp_path)[1] == ()
    assert load_state(lambda: config.build(base(), 1), "ridge", "one", tmp_path)[1]


def test_a_buffer_that_has_become_smaller_is_cut_at_the_end_of_the_next_session(tmp_path: Path) -> None:
    method: Any = builder("replay", capacity=10)()
    learn(method, taught("replay", 1), ONE, 0)
    keep(tmp_path, "one", method, "replay", None, 1)
    smaller: Any = load_state(builder("replay", capacity=4), "replay", "one", tmp_path)[0]
    assert len(smaller.memory.exemplars.rows) == 10
    learn(smaller, taught("replay", 2), ONE, 0)
    assert len(smaller.memory.exemplars.rows) == 4


def test_a_whole_model_after_one_tower_after_a_whole_model(first: Learnt, tmp_path: Path) -> None:
    reference = copy.deepcopy(first[1]["finetune"])
    keep(tmp_path, "0", reference, "finetune", None, 0)
    for index, part in enumerate(("image", "whole", "text"), start=1):
        build = builder("finetune", part=part)
        method, dropped = load_state(build, "finetune", str(index - 1), tmp_path)
        reference = by_hand(build, reference)
        for each in (method, reference):
            learn(each, taught("finetune", 2), ONE, 0)
        assert dropped == ()
        keep(tmp_path, str(index), method, "finetune", str(index - 1), index)
        assert_alike(revive(build(), str(index), tmp_path), reference)


def test_what_is_dropped_is_told_in_words(first: Learnt) -> None:
    told = {each.part: each for each in load_state(builder("finetune"), "finetune", "gda", first[0])[1]}
    dropped, notes = told[""], told["notes"]
    size = sum(value.nbytes for key, value in own(first[1]["gda"]).items() if key.startswith("moments."))
    assert str(notes).startswith("the memory of gda (notes: 4 tensors, ")
    assert str(dropped) == f"the memory of gda (3 tensors, {size:,} bytes): finetune has no use for it"
    assert str(replace(dropped, tensors=1, why=Why.SETTINGS)).endswith(
        "(1 tensor, " + f"{size:,} bytes): it does not fit the settings of now"
    )


@pytest.mark.parametrize("name", METHODS)
def test_what_earlier_releases_learned_goes_on_with_its_memory(first: Learnt, name: str, tmp_path: Path) -> None:
    method = copy.deepcopy(first[1][name])
    keep(tmp_path, "old", method, name, None, 1)
    file = tmp_path / "states" / "old" / "state.json"
    noted = unsealed(read_json(file), "x", ())
    write_json({key: noted[key] for key in ("sha256", "cost", "record")}, file)  # as release 0.1.0 wrote it
    loaded, dropped = load_state(builder(name), name, "old", tmp_path)
    assert dropped == ()
    assert_alike(loaded, method)
    other, left = load_state(builder("finetune"), "finetune", "old", tmp_path)
    assert_same(clip_of(other), clip_of(method))
    assert bool(left) == bool(own(method)) and all(each.method == "" for each in left)


def test_a_state_of_another_model_is_refused(first: Learnt, tmp_path: Path) -> None:
    method = builder("finetune")()
    for harm, told in ((lambda value: value[..., :1], "shapes do not fit the model"), (None, "1 weights are none of this model's")):
        weights = state(method)
        key = "clip.model.text_projection"
        changed = weights | ({key: harm(weights[key]).contiguous()} if harm else {"clip.model.more": weights[key].clone()})
        other = copy.deepcopy(method)
        other.state_dict = lambda *_, changed=changed, **__: changed  # type: ignore[method-assign]
        keep(tmp_path, told, other, "finetune", None, 1)
        for build in (builder("finetune"), builder("gda")):
            with pytest.raises(StoreError, match=told):
                load_state(build, "gda", told, tmp_path)


def test_a_link_that_is_gone_is_told_by_name(first: Learnt, tmp_path: Path) -> None:
    keep(tmp_path, "one", first[1]["finetune"], "finetune", None, 1)
    keep(tmp_path, "two", load_state(builder("gda"), "gda", "one", tmp_path)[0], "gda", "one", 2)
    (tmp_path / "states" / "one" / "state.safetensors").unlink()
    for load in (lambda: revive(builder("gda")(), "two", tmp_path), lambda: load_state(builder("lwf"), "lwf", "two", tmp_path)):
        with pytest.raises(
            StoreError, match=r"two: this state is not there or was damaged \(.*one/state\.safetensors: .* two stands on it\)"
        ):
            load()


@pytest.mark.parametrize("between", [pytest.param(True, marks=pytest.mark.slow), False], ids=["interrupted", "killed"])
@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("cpe_clip", {}),
        ("pseudolabel", {"restart": "warm"}),
        ("linear_probe", {}),
        ("ewc", {"part": "text"}),
        ("replay", {"part": "image"}),
        ("vr_lwf", {"teacher": "original", "part": "text"}),
        ("zscl", {"ensemble": 2, "part": "image", "l2": 0.1}),
        ("wise_ft", {"reference": "original", "part": "image"}),
    ],
)
def test_half_a_session_over_a_switched_parent_goes_on_to_the_same_bits(first: Learnt, name, settings, between, tmp_path: Path) -> None:
    train = TrainConfig(max_steps=5, batch_size=6, lr=1e-2, device="cpu")

    def again() -> Method:
        return load_state(builder(name, **settings), name, "finetune", first[0])[0]

    assert_same(*resumed(name, train, tmp_path, 60.0 if between else 1e-9, again, between=between))


@pytest.mark.parametrize("name", ["cpe_clip", "pseudolabel", "linear_probe", "ridge", "gda", "zero_shot", "wise_ft"])
def test_a_bundle_holds_the_whole_model_whatever_its_state_stands_on(first: Learnt, name: str, tmp_path: Path) -> None:
    settings = {key: value for key, value in {"part": "text", "reference": "original"}.items() if name == "wise_ft"}
    build = builder(name, **settings)
    method, _ = load_state(build, name, "finetune", first[0])
    learn(method, taught(name, 2), ONE, 0)
    keep(first[0], f"{name} to leave", method, name, "finetune", 2)
    assert read_state(first[0] / "states" / f"{name} to leave").stands_on == "finetune"
    (tmp_path / "bundle").mkdir()
    kept = revive(build(), f"{name} to leave", first[0])
    write_bundle(Bundle(kept, config_of(name, **settings), 0, ("a {} square",)), tmp_path / "bundle")
    assert torch.equal(answers(read_bundle(tmp_path / "bundle").method), answers(method))
    assert not torch.equal(answers(method), answers(builder(name, **settings)()))


ACROSS: list[tuple[str, dict[str, Any], str, dict[str, Any], list[str], list[str]]] = [
    ("replay", {}, "vr_lwf", {"memory": {"kind": "reservoir"}}, ["memory"], []),
    ("vr_lwf", {"memory": {"kind": "reservoir"}}, "replay", {}, ["memory"], []),
    ("replay", {}, "vr_lwf", {"memory": {"kind": "session_balanced"}}, [], ["memory"]),
    ("ewc", {"memory": {"kind": "class_balanced"}}, "replay", {"policy": "class_balanced"}, ["memory"], ["terms.hold"]),
    ("ewc", {"memory": {"kind": "reservoir"}}, "ewc", {}, ["terms.hold"], ["memory"]),
    ("ewc", {"memory": {"kind": "reservoir"}}, "ewc", {"part": "image"}, [], ["terms.hold", "memory"]),
]


@pytest.mark.parametrize(("before", "was", "after", "now", "goes_on", "stays"), ACROSS)
def test_another_recipe_goes_on_with_the_parts_it_has_too(before, was, after, now, goes_on, stays, tmp_path: Path) -> None:
    reference, build = builder(before, **was)(), builder(after, **now)
    learn(reference, taught(before, 1), ONE, 0)
    keep(tmp_path, "one", reference, before, None, 1)
    method, dropped = load_state(build, after, "one", tmp_path)

    def of(tensors: dict[str, Tensor], parts: list[str]) -> dict[str, Tensor]:
        return {name: value for name, value in tensors.items() if any(name.startswith(f"{part}.") for part in parts)}

    assert_same(of(state(method), goes_on), of(state(reference), goes_on))
    assert len(of(state(method), goes_on)) == len(goes_on)
    assert sorted(each.part for each in dropped) == sorted(stays)
    here = method.bounds()
    assert {each.why for each in dropped} <= {Why.METHOD, Why.SETTINGS}
    assert all((each.why is Why.SETTINGS) == (each.part in here) for each in dropped)
    learn(method, taught(after, 2), ONE, 0)


def test_a_part_that_is_left_behind_is_told_by_name(tmp_path: Path) -> None:
    method = builder("ewc")()
    learn(method, taught("ewc", 1), ONE, 0)
    keep(tmp_path, "one", method, "ewc", None, 1)
    (left,) = load_state(builder("finetune"), "finetune", "one", tmp_path)[1]
    assert str(left) == f"the memory of ewc (terms.hold: 1 tensor, {left.size:,} bytes): finetune has no use for it"
