"""The whole loop with no orchestrator: content keys, resuming, and the same numbers every time."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from cl.base_model import settle
from cl.data.collection import append
from cl.data.table import write
from cl.errors import ConfigError, MethodError, StoreError
from cl.models.clip import ModelConfig, build, load
from cl.models.source import TINY
from cl.plan import check_wants
from cl.reports.report import Report
from cl.run import Plan, advance, find, load_method, parse_config, plan, run
from cl.run_config import train_config
from tests import make

TREE: dict[str, Any] = {
    "name": "colours",
    "model": {"name": "tiny"},
    "stream": {"kind": "classes", "sources": {"colours": "colours"}, "increment": 2, "candidates": "seen"},
    "method": "replay",
    "train": {"max_steps": 3, "batch_size": 6, "lr": 1e-3, "device": "cpu"},
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    colours = range(6)
    write({"train": make.table(colours, 6, captions=True), "test": make.table(colours, 3, seed=50, captions=True)}, root / "colours")
    return root


def planned(data: Path, version: str = "v1", **changes: Any) -> Plan:
    return plan(parse_config({**TREE, **changes}, "test"), data, version)


def numbers(report: Report) -> np.ndarray:
    return np.asarray(report.matrix.rows)


def weights(work: Plan, index: int, store: Path) -> dict[str, torch.Tensor]:
    return load_method(work, index, store).state_dict()


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.parametrize("method", ["finetune", {"name": "vr_lwf", "texts": 8}, "replay"])
def test_the_same_run_gives_the_same_matrix_and_weights_bit_for_bit(data, tmp_path, method) -> None:
    work = planned(data, method=method)
    one, two = run(work, tmp_path / "a"), run(work, tmp_path / "b")
    assert np.array_equal(numbers(one), numbers(two), equal_nan=True)
    assert_same(weights(work, 3, tmp_path / "a"), weights(work, 3, tmp_path / "b"))


def test_a_session_may_have_training_settings_of_its_own(data, tmp_path) -> None:
    plain, own = planned(data), planned(data, per_session={"classes 3-4": {"lr": 5e-3, "max_steps": 2}})
    assert [one == two for one, two in zip(plain.states, own.states, strict=True)] == [True, True, False, False]
    assert [cost.steps for cost in run(own, tmp_path).costs] == [3, 2, 3]
    above = planned(data, per_session={"classes 3-4": {"lr": 5e-3}}, method={"name": "replay", "train": {"lr": 1e-3}})
    assert train_config(above.config, above.stream.sessions[1]).lr == 1e-3  # a method's own is what that method was tuned to
    for wrong, told in (
        ({"classes 3-5": {"lr": 1}}, r"per_session.classes 3-5: no such session; there are .*did you mean classes 3-4\?"),
        ({"classes 3-4": {"lrr": 1}}, r"per_session.classes 3-4: lrr: unknown setting"),
    ):
        with pytest.raises(ConfigError, match=told):
            planned(data, per_session=wrong)


def test_a_method_that_cannot_enter_the_models_towers_is_refused_by_name_before_anything(data, monkeypatch) -> None:
    bidirectional = build(TINY | {"text_cfg": TINY["text_cfg"] | {"no_causal_mask": True}, "custom_text": True})
    monkeypatch.setattr("cl.plan.base_model", lambda *_: bidirectional)
    with pytest.raises(MethodError, match=r"^cpe_clip cannot learn with this model: text prompts need open_clip's causal text transformer"):
        planned(data, method="cpe_clip")
    with pytest.raises(MethodError, match="the term vocabulary learns on random texts, and 98 words do not fit its context"):
        planned(data, method={"name": "vr_lwf", "length": 100})


def test_a_plan_says_what_was_chosen_and_why_where_nothing_was_set(data, monkeypatch) -> None:
    assert planned(data).chosen == ()  # this config sets its rate, and the model has nothing else to choose
    monkeypatch.setattr("cl.learning.defaults.LARGE", 1000)
    assert planned(data, train={"max_steps": 3, "batch_size": 8, "device": "cpu"}).chosen == (
        "train.lr is 0.0005: 2 million weights train, and they begin as noise",
    )


def test_what_was_chosen_is_part_of_a_states_name_as_if_it_had_been_set(data, monkeypatch) -> None:
    train = {"max_steps": 3, "batch_size": 6, "device": "cpu"}
    left, said = planned(data, train=train), planned(data, train={**train, "lr": 1e-4, "drop_last": True, "batch_norm": "trained"})
    assert left.states == said.states
    assert left.states[1] != planned(data, train={**train, "drop_last": False}).states[1]
    monkeypatch.setattr("cl.learning.defaults.LARGE", 1000)  # chosen otherwise one day, it is another state
    assert left.states[0] == planned(data, train=train).states[0] and left.states[1] != planned(data, train=train).states[1]


def test_a_run_with_its_own_number_of_threads_is_the_same_on_any_machine(data, tmp_path) -> None:
    work, before = planned(data, threads=1), torch.get_num_threads()
    learned = []
    for cores in (1, 4):
        torch.set_num_threads(cores)
        try:
            run(work, tmp_path / str(cores))
            assert torch.get_num_threads() == cores  # the caller's number is given back
        finally:
            torch.set_num_threads(before)
        learned.append(weights(work, 3, tmp_path / str(cores)))
    assert_same(*learned)


@pytest.mark.parametrize(
    "method",
    [{"name": "cpe_clip", "length": 1, "depth": 1}, {"name": "pseudolabel", "iterations": 1}, {"name": "linear_probe", "init": "zeros"}],
)
def test_the_first_row_is_of_the_base_model_whatever_a_method_begins_with(data, tmp_path, method) -> None:
    changes: dict[str, Any] = {"stream": {**TREE["stream"], "labelled": {"shots": 2}}} if method["name"] == "pseudolabel" else {}
    tuned = planned(data, method=method, **changes)
    frozen = run(planned(data, method="zero_shot", **changes), tmp_path)
    assert advance(tuned, 0, tmp_path).row == advance(planned(data, method="zero_shot", **changes), 0, tmp_path).row
    prompted = run(tuned, tmp_path)
    assert np.array_equal(numbers(prompted)[0], numbers(frozen)[0])
    calibration = [report.details["ece"].rows for report in (prompted, frozen)]  # top-1 of a few images may well stay what it was
    assert np.array_equal(calibration[0][0], calibration[1][0]) and not np.array_equal(calibration[0][1], calibration[1][1])


def test_a_crop_at_every_step_is_refused_where_features_are_computed_once(data) -> None:
    settings = {**TREE["train"], "augment": True}
    with pytest.raises(MethodError, match="linear_probe computes image features once; give it a train of its own with augment: false"):
        planned(data, method="linear_probe", train=settings)
    planned(data, method="ridge", train=settings)  # takes no step, so there is none to crop for


def test_another_seed_gives_other_weights(data, tmp_path) -> None:
    one, two = planned(data), planned(data, seed=1)
    run(one, tmp_path), run(two, tmp_path)
    assert one.keys != two.keys
    first, second = weights(one, 3, tmp_path), weights(two, 3, tmp_path)
    assert any(not torch.equal(first[name], second[name]) for name in first)


def test_a_second_run_learns_nothing(data, tmp_path) -> None:
    work = planned(data)
    first = run(work, tmp_path)
    files = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}
    again = run(planned(data), tmp_path)
    assert np.array_equal(numbers(first), numbers(again), equal_nan=True)
    assert files == {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*") if path.is_file()}


def test_row_zero_is_the_model_before_any_learning(data, tmp_path) -> None:
    frozen, moving = run(planned(data, method="zero_shot"), tmp_path), run(planned(data), tmp_path)
    assert np.array_equal(numbers(frozen)[0], numbers(moving)[0])
    assert all(cost.steps == 3 and cost.samples == 18 for cost in moving.costs)
    assert all(cost.steps == 0 for cost in frozen.costs)


def test_going_on_in_the_middle_is_the_same_as_never_having_stopped(data, tmp_path) -> None:
    work = planned(data)
    whole = run(work, tmp_path / "whole")
    for index in (0, 1):
        advance(work, index, tmp_path / "parts")
    rest = run(planned(data), tmp_path / "parts")
    assert np.array_equal(numbers(whole), numbers(rest), equal_nan=True)
    assert_same(weights(work, 3, tmp_path / "whole"), weights(work, 3, tmp_path / "parts"))


def test_a_step_without_the_one_before_it_is_refused(data, tmp_path) -> None:
    with pytest.raises(StoreError, match="run the stream again"):
        advance(planned(data), 2, tmp_path)


@pytest.mark.parametrize("damage", ["delete", "truncate", "flip"])
def test_lost_or_damaged_weights_are_learned_again_to_the_same_bits(data, tmp_path, damage) -> None:
    work = planned(data)
    run(work, tmp_path)
    before = weights(work, 2, tmp_path)
    path = tmp_path / "states" / work.states[2] / "state.safetensors"
    content = bytearray(path.read_bytes())
    content[-7] ^= 1
    path.unlink() if damage == "delete" else path.write_bytes(content if damage == "flip" else content[:-9])
    assert find(work, 2, tmp_path) is None
    run(work, tmp_path)
    assert_same(before, weights(work, 2, tmp_path))


def test_a_damaged_row_is_measured_again_and_nothing_is_learned(data, tmp_path) -> None:
    work = planned(data)
    first = run(work, tmp_path)
    state = tmp_path / "states" / work.states[1] / "state.safetensors"
    written = state.stat().st_mtime_ns
    result = tmp_path / "steps" / work.keys[1] / "result.json"
    result.write_text(result.read_text()[:-20])
    again = run(work, tmp_path)
    assert np.array_equal(numbers(first), numbers(again), equal_nan=True) and state.stat().st_mtime_ns == written


def test_what_changes_a_result_changes_the_keys_and_nothing_else_does(data) -> None:
    base = planned(data)
    for changed in (
        {"seed": 2},
        {"method": "finetune"},
        {"method": {"name": "replay", "capacity": 7}},
        {"train": {**TREE["train"], "lr": 2e-3}},
        {"model": {"name": "tiny", "seed": 1}},
        {"stream": {**TREE["stream"], "template": "a {} square"}},
    ):
        other = planned(data, **changed)
        assert other.states[1] != base.states[1], changed
    for same in ({"method": {"name": "replay", "label": "ours"}}, {"train": {**TREE["train"], "workers": 1}}, {"name": "other"}):
        assert planned(data, **same).keys == base.keys, same


def test_a_new_session_leaves_learned_states_valid(data, tmp_path) -> None:
    listed = {"kind": "listed", "sources": {"colours": "colours"}}
    sessions = [{"name": name, "classes": list(classes)} for name, classes in (("one", ("red", "green")), ("two", ("blue", "yellow")))]
    short = planned(data, stream={**listed, "sessions": sessions[:1]})
    long = planned(data, stream={**listed, "sessions": sessions})
    assert short.states == long.states[:2] and short.keys[1] != long.keys[1]
    run(short, tmp_path)
    report = run(long, tmp_path)
    assert len(numbers(report)) == 3 and report.costs[0].seconds == run(short, tmp_path).costs[0].seconds


def test_joint_learns_everything_at_once_and_is_asked_what_the_stream_asks(data, tmp_path) -> None:
    joint = planned(data, joint=True, method="finetune")
    report = run(joint, tmp_path)
    assert len(joint.stream.sessions) == 1 and len(joint.stream.sessions[0].data) == 36
    assert report.method == "joint" and set(report.matrix.sets) == set(run(planned(data), tmp_path).matrix.sets)


PAIRS = {"name": "recipe", "terms": ["infoloob"]}
BESIDE = {"name": "recipe", "terms": ["clip", "infoloob", "gap"]}


@pytest.mark.parametrize(
    ("method", "stream", "told"),
    [
        (PAIRS, {}, "infoloob / whole learns from captions, and the stream teaches with labels .*labels: pairs"),
        (BESIDE, {}, "; infoloob, gap cannot use that: set labels: pairs on infoloob, gap, or choose another method"),
        ("lwf", {"supervision": "captions"}, "lwf learns from labels, .*; class_texts cannot use that: choose another method"),
        ("ridge", {"supervision": "captions"}, "ridge learns from labels, and the stream teaches with captions"),
        ("finetune", {"supervision": "none"}, "learns from labels or captions, and the stream teaches with unlabelled"),
    ],
)
def test_what_no_session_can_hold_is_said_before_any_data_are_read(method, stream, told, tmp_path) -> None:
    with pytest.raises(MethodError, match=told):
        planned(tmp_path / "nowhere", method=method, stream={**TREE["stream"], **stream})


def test_of_a_collection_it_is_said_once_no_session_that_is_there_can_be_learned(tmp_path) -> None:
    def check(method: Any, **stream: Any) -> None:
        tree = {**TREE, "method": method, "stream": {"kind": "collection", "sources": {"inbox": "inbox"}, **stream}}
        check_wants(parse_config(tree, "test"), tmp_path)

    check(PAIRS)  # nothing has come in yet
    rows = {"train": make.table((0, 1), 2), "test": make.table((0, 1), 1, seed=50)}
    append(tmp_path / "inbox", "one", rows, "labels")
    with pytest.raises(MethodError, match=r"learns from captions, and the stream teaches with labels \(stream.supervision: labels\)"):
        check(PAIRS)
    check("finetune")
    append(tmp_path / "inbox", "two", {split: table.without("label") for split, table in rows.items()}, "none")
    with pytest.raises(MethodError, match="teaches with labels, unlabelled"):
        check(PAIRS)
    check("zero_shot")


def test_what_a_method_cannot_learn_is_said_before_anything_is_written(data, tmp_path) -> None:
    with pytest.raises(MethodError, match="teaches with unlabelled"):
        planned(data, stream={**TREE["stream"], "supervision": "none"})
    with pytest.raises(ConfigError, match="unknown method 'replya'"):
        planned(data, method="replya")


def test_a_missing_base_model_is_trained_once_on_the_first_session(data, tmp_path) -> None:
    small = {"embed_dim": 16, "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "layers": 1, "head_width": 8}}
    small["text_cfg"] = {"context_length": 16, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    recipe = {"domains": None, "architecture": small, "train": {"max_steps": 2, "batch_size": 6, "device": "cpu"}}
    config = parse_config({**TREE, "model": {"name": f"local-dir:{tmp_path}/absent"}, "pretrain": recipe}, "test")
    settled = settle(config, data, tmp_path / "models")
    assert load(settled.model).encode_text(load(settled.model).tokenize(["red"])).shape == (1, 16)
    written = [path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")]
    assert settle(config, data, tmp_path / "models") == settled
    assert written == [path.stat().st_mtime_ns for path in (tmp_path / "models").rglob("*")]
    assert len(run(plan(settled, data, "v1"), tmp_path / "store").costs) == 3
    present = config.model_copy(update={"model": ModelConfig(name="tiny")})
    assert settle(present, data, tmp_path / "models") is present


def test_a_report_survives_json(data, tmp_path) -> None:
    report = run(planned(data), tmp_path)
    again = Report.from_json(json.loads(json.dumps(report.to_json())))
    assert np.array_equal(numbers(report), numbers(again), equal_nan=True) and again.provenance == report.provenance
