"""Recipes as settings: the three ways to write a method, what each is called, and what is told where one is wrong."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from cl.errors import ConfigError
from cl.methods import CONFIGS, AnyMethodConfig
from cl.methods.compose import PresetConfig
from cl.methods.describe import as_yaml, part
from cl.reports.markdown import markdown
from cl.run import run
from cl.run_config import called, label, overridden, parse_config, train_config, variants
from tests import make, test_run
from tests.test_run import planned

data = test_run.data  # a small data set
BARE = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}


def method(text: str, *overrides: str) -> AnyMethodConfig:
    return parse_config(overridden({**BARE, "method": yaml.safe_load(text)}, overrides), "here").method


SAME = [  # a preset, and the recipe that it stands for
    ("finetune", "recipe"),
    ("finetune", "{name: recipe, tune: whole, terms: [clip]}"),
    (
        "{name: finetune, part: image, smoothing: 0.1}",
        "{name: recipe, tune: {kind: whole, part: image}, terms: [{kind: clip, smoothing: 0.1}]}",
    ),
    ("{name: finetune, tune: {kind: whole, part: text}}", "{name: finetune, part: text}"),
    ("vr_lwf", "{name: recipe, terms: [vocabulary, clip]}"),
    (
        "{name: vr_lwf, alpha: 2, lwf: true}",
        "{name: recipe, terms: [{kind: vocabulary, alpha: 2}, clip, {kind: names, alpha: 2, first: false}]}",
    ),
    ("{name: vr_lwf, alpha: 0}", "finetune"),
    ("mod_x", "{name: recipe, terms: [{kind: clip}, {kind: align, alpha: 20}], label: mine}"),
]


@pytest.mark.parametrize(("preset", "spelled"), SAME)
def test_a_preset_and_the_same_recipe_spelled_out_share_their_states(data: Path, preset: str, spelled: str) -> None:
    one, two = (planned(data, method=yaml.safe_load(text)) for text in (preset, spelled))
    assert one.states == two.states and one.keys == two.keys
    assert one.states != planned(data, method={"name": "vr_lwf", "alpha": 3}).states


def test_a_recipe_of_many_parts_runs_by_config_alone_and_is_not_learned_again_under_another_spelling(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    preset = {"name": "vr_lwf", "texts": 8, "tune": {"kind": "lora", "rank": 2}, "memory": {"kind": "reservoir", "capacity": 6}}
    work = planned(data, method=preset)
    report = run(work, tmp_path)
    assert report.method == "vr_lwf / lora / reservoir" and len(report.costs) == 3 and "vr_lwf / lora / reservoir" in markdown([report])
    monkeypatch.setattr("cl.run.learn", lambda *_, **__: pytest.fail("a session is learned again"))
    spelled = {"name": "recipe", "terms": [{"kind": "vocabulary", "texts": 8}, "clip"], "tune": preset["tune"], "memory": preset["memory"]}
    again = run(planned(data, method=spelled), tmp_path)
    assert again.method == "vocabulary + clip / lora / reservoir" and np.array_equal(again.matrix.rows, report.matrix.rows, equal_nan=True)


def test_what_a_part_is_and_in_which_order_terms_are_asked_names_the_states(data: Path) -> None:
    spelled = ["[clip, vocabulary]", "[vocabulary, clip]", "[clip, {kind: vocabulary, texts: 7}]", "[clip, {kind: clip, scale: 10}]"]
    assert len({planned(data, method=yaml.safe_load(f"{{name: recipe, terms: {terms}}}")).states[1] for terms in spelled}) == len(spelled)


def test_a_part_is_changed_through_settings_on_the_command_line() -> None:
    assert (
        method("vr_lwf", "method.tune.kind=whole", "method.tune.part=image").tune
        == method("{name: x}", "method={name: finetune, tune: {kind: whole, part: image}}").tune
    )
    assert method("finetune", "method=recipe", "method.terms=[vocabulary, clip]", "method.terms.0.alpha=0.5").terms[0].alpha == 0.5
    assert method("{name: recipe, tune: whole}", "method.tune={kind: whole, part: text}").tune.part == "text"
    for text, told in (("method.terms.1.alpha=2", "'1' is no place in a list of 1"), ("method.terms.x=2", "'x' is no place")):
        with pytest.raises(ConfigError, match=told):
            method("{name: recipe, terms: [{kind: clip}]}", text)


WRONG = [
    ("{name: recipe, tune: {kind: lorra}}", r"method\.tune\.kind: there is no 'lorra'; there are .*whole"),
    ("{name: recipe, tune: whol}", r"method\.tune\.kind: there is no 'whol'; there are .*did you mean whole\?"),
    ("{name: recipe, terms: [{alpha: 3}]}", r"method\.terms\.0\.kind: this setting is required; there are align, .*clip"),
    ("{name: recipe, tune: {kind: whole, prat: image}}", r"method\.tune\.prat: unknown setting, did you mean part\?"),
    ("{name: recipe, tune: {kind: whole, zzz: image}}", r"method\.tune\.zzz: unknown setting; there are .*part, scale"),
    ("{name: recipe, tune: [whole]}", r"method\.tune: expected a group of settings, such as \{kind: \w+\} \(found \['whole'\]\)"),
    ("{name: recipe, terms: {kind: clip}}", r"method\.terms: expected a list, such as \[\.\.\.\] \(found \{'kind': 'clip'\}\)"),
    (
        "{name: recipe, terms: [{kind: clip}, {kind: vocabulry}]}",
        r"here: method\.terms\.1\.kind: there is no 'vocabulry'; .*did you mean vocabulary\?$",
    ),
    ("{name: recipe, terms: [{kind: clip, smoothing: 2}]}", r"here: method\.terms\.0\.smoothing: expected a number below 1 \(found 2\)$"),
    (
        "{name: recipe, terms: [{kind: clip, scale: modle}]}",
        r"0\.scale: expected model, or a number .*did you mean model\?$",
    ),
    ("{name: recipe, terms: [{kind: clip, scale: -1}]}", r"terms\.0\.scale: expected model, or a number above 0 \(found -1\)$"),
    ("{name: cpe_clip, vision_mode: null}", r"here: method\.vision_mode: expected accumulate, replace or none \(found null\)"),
    ("{name: gda, shrinkage: 2}", r"here: method\.shrinkage: expected ks, or a number of at most 1 \(found 2\)$"),
    ("{name: recipe, terms: [3]}", r"here: method\.terms\.0: expected a group of settings, such as \{kind: \w+\} \(found 3\)$"),
    ("{name: recipe, terms: []}", r"method\.terms: none given, and at least 1 is needed"),
    ("{name: recipe, term: [clip]}", r"method\.term: unknown setting, did you mean terms\?"),
    ("{name: mod_x, teacher: original}", r"no setting teacher, and its term align has; .* terms: \[\{kind: align, teacher: original\}\]$"),
    ("{name: vr_lwf, tune: {kind: lorra}}", r"method\.tune\.kind: there is no 'lorra'"),
    ("{name: recipe, tune: {kind: whole, train: {lrr: 1}}}", r"method\.tune\.train: lrr: unknown setting, did you mean lr\?$"),
    ("{name: finetune, train: {lr: -1}}", r"method\.train: lr: expected a number above 0 \(found -1\)$"),
    ("{name: recipie}", r"method\.name: unknown method 'recipie'"),
    ("[recipe]", r"method: .*\(found \['recipe'\]\)"),
    ("{name: finetune, part: image, tune: whole}", r"method: part sets what tune takes the place of; leave part out, or say it there$"),
]


@pytest.mark.parametrize(("text", "words"), WRONG)
def test_what_is_wrong_is_told_by_its_path_with_what_there_is(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        method(text)


def test_tables_call_a_recipe_by_its_parts() -> None:
    def title(text: str) -> str:
        return label(parse_config({**BARE, "method": yaml.safe_load(text)}, "here"))

    assert title("{name: recipe, terms: [vocabulary, clip]}") == "vocabulary + clip / whole"
    assert title("{name: vr_lwf, tune: whole}") == "vr_lwf / whole"
    assert title("{name: vr_lwf, tune: whole, label: mine}") == "mine" and title("vr_lwf") == "vr_lwf"
    methods = [{"name": "recipe", "terms": ["clip"]}, {"name": "recipe", "terms": ["clip", "vocabulary"]}]
    assert [label(run) for run in variants(parse_config({**BARE, "compare": {"methods": methods}}, "x"))] == [
        "clip / whole",
        "clip + vocabulary / whole",
    ]


@pytest.mark.parametrize("name", CONFIGS)
def test_a_method_printed_as_yaml_is_that_method(name: str) -> None:
    with pytest.raises(ConfigError, match=rf"there is no part '{name}', but a method: `evergreen methods {name}`; there are"):
        part(name)
    with pytest.raises(ConfigError, match=r"there is no method 'clip', but a part: `evergreen parts clip`; there are"):
        as_yaml("clip")
    printed = parse_config({**BARE, **yaml.safe_load(as_yaml(name))}, "printed")
    named = parse_config({**BARE, "method": name}, "named")
    assert printed.method.spelled() == named.method.spelled()
    assert (printed.method.name == "recipe") == (name == "recipe" or isinstance(named.method, PresetConfig))
    for later in (False, True):
        assert printed.method.training(later) == named.method.training(later)


def test_a_record_of_a_method_that_is_not_known_here_is_called_by_its_name() -> None:
    assert called({"name": "recipe", "terms": ["clip"]}) == "clip / whole"
    assert called({"name": "of_long_ago", "knob": 3}) == "of_long_ago" and called({"name": "finetune", "label": "mine"}) == "mine"


def test_a_part_brings_its_training_settings_and_the_method_says_the_last_word() -> None:
    def lr(text: str, index: int = 1) -> Any:
        run = parse_config({**BARE, "method": yaml.safe_load(text), "train": {"lr": 1.0, "epochs": 9}}, "x")
        train = train_config(run, make.session(index, (0,), (0,)))
        return train.lr, train.lr_epochs, train.epochs

    part = "tune: {kind: whole, train: {lr_epochs: [0.1, 0.2]}, later: {epochs: 2}}"
    assert lr(f"{{name: recipe, {part}}}") == (1.0, (0.1, 0.2), 9)
    assert lr(f"{{name: recipe, {part}}}", 2) == (1.0, (0.1, 0.2), 2)
    assert lr(f"{{name: vr_lwf, {part}, train: {{lr: 0.5}}}}", 2) == (0.5, None, 2)
