"""Settings: what is refused, and how it is told."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, get_args

import pytest
import yaml
from pydantic import BaseModel, TypeAdapter, ValidationError

from cl.config import EvalConfig, TrainConfig, override, read_yaml, validate
from cl.errors import ConfigError, MethodError
from cl.explain import models_in
from cl.methods import CONFIGS, PARTS
from cl.plan import build_method
from cl.run_config import RunConfig, label, parse_config, parse_method, variants
from tests import make


def test_a_misspelt_setting_is_told_by_its_path(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"here: lrr: unknown setting, did you mean lr\?"):
        validate(TrainConfig, {"lrr": 1}, "here")


@pytest.mark.parametrize(
    ("changed", "meant"),
    [
        ("train.steps=3", "max_steps"),  # not eps, though that is nearer
        ("trian.lr=3", "train"),
        ("method={name: vr_lwf, alpah: 1}", "alpha"),
        ("compare={seedz: [1], methods: [ewc]}", "seeds"),
        ("stream={kind: listed, sources: {d: {path: d, tempate: x}}, sessions: [{name: a}]}", "template"),
        ("stream={kind: listed, sources: {d: d}, sessions: [{name: a, limt: 3}]}", "limit"),
        ("stream={kind: domains, sources: {d: d}, zzz: 1}", None),
    ],
)
def test_the_setting_that_was_meant_is_named(changed: str, meant: str | None) -> None:
    given = override({"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}, [changed])
    with pytest.raises(ConfigError, match="unknown setting") as caught:
        parse_config(given, "here")
    assert str(caught.value).partition("did you mean ")[2] == (f"{meant}?" if meant else "")


def test_two_variants_of_a_method_need_labels_or_they_would_be_taken_for_seeds() -> None:
    tree = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}

    def named(*methods: object) -> list[str]:
        return [label(run) for run in variants(parse_config({**tree, "compare": {"methods": list(methods), "seeds": [0, 1]}}, "here"))]

    with pytest.raises(ConfigError, match="wise_ft with seed 0 stands there twice; give each method its label"):
        named({"name": "wise_ft", "alpha": 0.5}, {"name": "wise_ft", "alpha": 0.8})
    assert named("wise_ft", {"name": "wise_ft", "alpha": 0.8, "label": "more"}, "finetune", "joint")[::2] == [
        "wise_ft",
        "more",
        "finetune",
        "joint",
    ]


def test_a_value_out_of_range_is_told_with_what_was_found() -> None:
    with pytest.raises(ConfigError, match=r"lr: expected a number above 0 \(found -1\)"):
        validate(TrainConfig, {"lr": -1}, "here")


def groups(of: type[BaseModel]) -> Iterator[type[BaseModel]]:
    """Every group of settings that a group may hold, and itself."""
    models, todo = set[type[BaseModel]](), [of]
    while todo:
        group = todo.pop()
        if group not in models:
            models.add(group)
            yield group
            todo += [each for field in group.model_fields.values() for each in models_in(field.annotation)]


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ("train.lr=true", r"train\.lr: expected a number \(found true\)$"),
        ("train.epochs=no", r"train\.epochs: expected a whole number \(found false\)$"),
        ("train.betas=[0.9, true]", r"train\.betas\.1: expected a number \(found true\)$"),
        ("seed=true", r"seed: expected a whole number \(found true\)$"),
        ("method={name: vr_lwf, alpha: yes}", r"method\.alpha: expected a number \(found true\)$"),
        ("method={name: vr_lwf, train: {lr: true}}", r"method\.train.*lr: expected a number \(found true\)$"),
        ("method={name: recipe, terms: [{kind: l2, weight: true}]}", r"method\.terms\.0\.weight: expected a number \(found true\)$"),
        ("gate.drop=true", r"gate\.drop: expected a number.*\(found true\)$"),
        ("stream.seed=true", r"stream\.seed: expected a whole number \(found true\)$"),
        ("stream.sessions=[{domains: a, part: [true, 2]}]", r"stream\.sessions\.0\.part\.0: expected a whole number \(found true\)$"),
        ("compare={methods: [ewc], seeds: [false]}", r"compare\.seeds\.0: expected a whole number \(found false\)$"),
    ],
)
def test_a_switch_is_no_number(changed: str, told: str) -> None:
    given = override({"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}, [changed])
    with pytest.raises(ConfigError, match=told):
        parse_config(given, "here")


def test_what_is_wrong_with_any_setting_is_told_in_our_own_words() -> None:
    foreign = re.compile(r"input should|unable to|string should|value error|constrained|literal\[|\[str,", re.IGNORECASE)
    fields = {(name, str(field.annotation)): group for group in groups(RunConfig) for name, field in group.model_fields.items()}
    told = [
        (group, name, value, problem(group, {name: value}))
        for (name, _), group in fields.items()
        for value in ("no such", -7.5, None, {"no": 1})
    ]
    assert sum(bool(each[3]) for each in told) > 500
    assert not [each for each in told if foreign.search(each[3])][:5]


def problem(group: type[BaseModel], tree: dict[str, Any]) -> str:
    """What is told of these settings; nothing where they are fine."""
    try:
        validate(group, tree, "here")
    except ConfigError as error:
        return str(error)
    return ""


def test_settings_cannot_be_changed_once_read() -> None:
    with pytest.raises(Exception, match="frozen"):
        TrainConfig().lr = 1.0  # type: ignore[misc]


def test_an_override_reaches_deep_and_leaves_the_given_tree_alone() -> None:
    tree = {"train": {"lr": 1, "epochs": 2}}
    assert override(tree, ["train.lr=1e-4", "stream.name=x"]) == {"train": {"lr": 1e-4, "epochs": 2}, "stream": {"name": "x"}}
    assert tree == {"train": {"lr": 1, "epochs": 2}}


@pytest.mark.parametrize("text", ["train.lr", "=1"])
def test_an_override_without_key_or_value_is_refused(text: str) -> None:
    with pytest.raises(ConfigError, match=r"expected dotted.key=value"):
        override({}, [text])


def test_an_override_below_a_plain_value_is_refused() -> None:
    with pytest.raises(ConfigError, match="not a group of settings"):
        override({"seed": 1}, ["seed.x=2"])


def test_an_override_that_is_no_yaml_is_refused() -> None:
    with pytest.raises(ConfigError, match="not valid YAML"):
        override({}, ["a=[1"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("a: [1", "not valid YAML"),
        ("- 1", "expected a mapping"),
        ("a: ${NOT_SET_ANYWHERE}", "NOT_SET_ANYWHERE is not set"),
        ("\0", "not valid YAML"),
    ],
)
def test_a_bad_file_is_told_in_one_line(tmp_path: Path, text: str, told: str) -> None:
    path = tmp_path / "x.yaml"
    path.write_text(text)
    with pytest.raises(ConfigError, match=told) as caught:
        read_yaml(path)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot be read"):
        read_yaml(tmp_path / "none.yaml")


def test_variables_come_from_the_environment_or_their_default(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("a: ${SOME_ROOT:-here}/b\n")
    assert read_yaml(path) == {"a": "here/b"}
    monkeypatch.setenv("SOME_ROOT", "there")
    assert read_yaml(path) == {"a": "there/b"}


def _whole(schema: type[BaseModel]) -> Iterator[tuple[str, Any]]:
    """The settings of a group that hold a whole number, and what checks them."""
    for name, field in schema.model_fields.items():
        if {int, bool} & {*_kinds(field.annotation)} == {int}:
            yield name, TypeAdapter(Annotated[field.annotation, field])


def _kinds(annotation: Any) -> Iterator[Any]:
    yield annotation
    for part in get_args(annotation):
        yield from _kinds(part)


GROUPS = {
    **{f"method {name}": schema for name, schema in CONFIGS.items()},
    **{f"{seat} {kind}": schema for seat, kinds in PARTS.items() for kind, schema in kinds.items()},
    "train": TrainConfig,
    "evaluate": EvalConfig,
}


@pytest.mark.parametrize("group", GROUPS)
def test_no_whole_number_is_without_an_upper_bound(group: str) -> None:
    for name, adapter in _whole(GROUPS[group]):
        with pytest.raises(ValidationError, match="less than or equal"):
            pytest.fail(f"{name}: {adapter.validate_python(10**12)}")


@pytest.mark.parametrize(
    ("method", "told"),
    [
        ("{name: vr_lwf, texts: 1000000000000}", "method.texts: expected a number of at most 100,000 (found 1000000000000)"),
        (
            "{name: recipe, terms: [clip, {kind: vocabulary, length: 1000000}]}",
            "length: expected a number of at most 10,000",
        ),
        ("{name: ridge, projection: 1000000}", "projection: expected a number of at most 50,000 (found 1000000)"),
        ("{name: replay, capacity: 1000000000000}", "capacity: expected a number of at most 1,000,000,000 (found 1000000000000)"),
    ],
)
def test_a_size_that_no_memory_has_room_for_is_refused_where_it_is_read(method: str, told: str) -> None:
    with pytest.raises(ConfigError) as caught:
        parse_method(yaml.safe_load(method), "here")
    assert told in str(caught.value)


def test_a_rank_above_that_of_every_matrix_is_refused() -> None:
    method = parse_method({"name": "recipe", "tune": {"kind": "lora", "rank": 100_000}}, "here")
    with pytest.raises(MethodError, match=r"rank 100,000 is more than any matrix has .* give at most \d+"):
        build_method(method, make.tiny(), 0)
