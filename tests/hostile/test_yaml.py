"""A config of a few lines that would fill the memory or never end is refused at once, in one line."""

import resource
import time
from pathlib import Path

import pytest

from cl.config import override, read_yaml
from cl.errors import ConfigError
from cl.plain_yaml import parse


def bomb(levels: int, width: int) -> str:
    """Each level lists the one before it `width` times."""
    lines = [f"a0: &a0 [{', '.join(['x'] * width)}]"]
    return "\n".join([*lines, *(f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * width)}]" for i in range(1, levels))])


def merges(levels: int) -> str:
    """Each level merges the one before it twice."""
    return "\n".join(["a0: &a0 {x: 1}", *(f"a{i}: &a{i} {{<<: [*a{i - 1}, *a{i - 1}]}}" for i in range(1, levels))])


BOMBS = {
    "lists of lists": (bomb(9, 9), "aliases make over 100,000 values of it"),
    "mappings of mappings": (
        "\n".join(["a0: &a0 {x: y}", *(f"a{i}: &a{i} {{p: *a{i - 1}, q: *a{i - 1}}}" for i in range(1, 30))]),
        "aliases make over 100,000 values of it",
    ),
    "merges of merges": (merges(22), "aliases make over 100,000 values of it"),
    "an alias within itself": ("a: &a [*a]", "an alias stands for what it is part of"),
    "a merge of itself": ("a: &a {<<: *a}", "stands for what it is part of|not valid YAML"),
    "a chain of aliases that nest": (
        "\n".join(["a0: &a0 [x]", *(f"a{i}: &a{i} [*a{i - 1}]" for i in range(1, 500))]),
        "nested over 50 levels deep",
    ),
    "300 brackets": ("a: " + "[" * 300 + "]" * 300, "nested over 50 levels deep"),
    "100,000 brackets": ("a: " + "[" * 100_000, "nested too deeply"),
    "a million words": ("a: [" + "x, " * 1_000_000 + "x]", "at most 500,000"),
    "a number of 5,000 digits": ("a: " + "9" * 5_000, "a number of over 1,000 characters"),
    "a time of 200,000 minutes": ("a: 1" + ":59" * 150_000, "a number of over 1,000 characters"),
    "a day that is none": ("a: 2020-13-45", "not of the kind it looks like"),
    "a number that is none": ("a: !!float x", "not of the kind it looks like"),
    "a truth that is none": ("a: !!bool x", "not of the kind it looks like"),
    "a time that is none": ("a: !!timestamp x", "not of the kind it looks like"),
    "an object of Python's": ("a: !!python/object/apply:os.system [true]", "not valid YAML"),
}


@pytest.mark.parametrize("what", BOMBS)
def test_a_small_text_that_means_much_is_refused_at_once(what: str, tmp_path: Path) -> None:
    text, told = BOMBS[what]
    (tmp_path / "x.yaml").write_text(text)
    before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.process_time()
    with pytest.raises(ConfigError, match=told) as caught:
        read_yaml(tmp_path / "x.yaml")
    assert "\n" not in str(caught.value)
    assert time.process_time() - began < 10
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 400_000  # kB


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("name: x\nmethod: a\ntrain: {lr: 1}\nmethod: b\n", r"x\.yaml, line 4: not valid YAML \('method' stands twice, first in line 2\)"),
        ("name: x\ntrain:\n  lr: 1\n  lr: 2\n", r"line 4: not valid YAML \('lr' stands twice, first in line 3\)"),
        ("name: x\nday: 2020-13-45\n", r"line 2: not valid YAML \(a value is not of the kind it looks like: .*; quote it\)"),
        ("name: x\nmodel:\n  - a\n  lr: 2\n", "line 4: not valid YAML"),
    ],
)
def test_the_line_that_is_told_is_the_one_to_mend(text: str, told: str, tmp_path: Path) -> None:
    (tmp_path / "x.yaml").write_text(text)
    with pytest.raises(ConfigError, match=told):
        read_yaml(tmp_path / "x.yaml")


def test_a_value_of_the_command_line_is_bounded_as_well() -> None:
    with pytest.raises(ConfigError, match=r"override 'a=.*stands for what it is part of"):
        override({}, ["a=&a [*a]"])
    with pytest.raises(ConfigError, match=r"override 'day=2020-13-45'.*: not valid YAML"):
        override({}, ["day=2020-13-45"])


def test_a_file_without_an_end_is_not_read_to_it() -> None:
    with pytest.raises(ConfigError, match="/dev/zero"):
        read_yaml(Path("/dev/zero"))


def test_what_people_use_aliases_and_long_lists_for_goes_on_working() -> None:
    text = "base: &base {lr: 1.0, epochs: 2}\none: {<<: *base, lr: 2.0}\ntwo: *base\n"
    assert parse(text, "x")["one"] == {"lr": 2.0, "epochs": 2} and parse(text, "x")["two"] == {"lr": 1.0, "epochs": 2}
    classes = [f"class number {i}" for i in range(20_000)]
    assert parse("order: [" + ", ".join(classes) + "]", "x") == {"order": classes}
    assert parse("", "x") is None
