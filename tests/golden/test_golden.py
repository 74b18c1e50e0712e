"""No number that a method computes changes unnoticed."""

import json
import math
from collections.abc import Iterator
from typing import Any

import pytest
import torch

from cl.methods import CONFIGS
from tests.golden.numbers import CASES, DEFAULTS, OF_KNOWN_PARTS, VALUES, build, defaults, kept, numbers, sessions, silent, versions

TOLERANCE = 1e-9
WRITE = "then write them: python -m tests.golden.numbers"


def differences(want: Any, got: Any, where: str = "") -> Iterator[str]:
    """The places where two trees of numbers differ by more than a rounding."""
    if isinstance(want, dict) and isinstance(got, dict):
        for key in sorted(want.keys() | got.keys()):
            if key not in want or key not in got:
                yield f"{where}/{key}: {'new' if key in got else 'gone'}"
            else:
                yield from differences(want[key], got[key], f"{where}/{key}")
    elif isinstance(want, list) and isinstance(got, list) and len(want) == len(got):
        for index, (old, new) in enumerate(zip(want, got, strict=True)):
            yield from differences(old, new, f"{where}/{index}")
    elif isinstance(want, float) and isinstance(got, float):
        if not math.isclose(want, got, rel_tol=TOLERANCE, abs_tol=TOLERANCE):
            yield f"{where}: {want!r} was computed, now {got!r}"
    elif want != got:
        yield f"{where}: was {want!r:.60}, is {got!r:.60}"


@pytest.mark.parametrize("case", [pytest.param(case, marks=pytest.mark.slow) if case in OF_KNOWN_PARTS else case for case in CASES])
def test_a_method_computes_its_golden_numbers(case: str) -> None:
    want = kept(case)
    raised = sorted(name for name, version in versions(case).items() if want["units"].get(name) != version)
    assert not raised, f"{', '.join(raised)}: another version than the numbers of {case} are of; write them: python -m tests.golden.numbers"
    changed = list(differences(want["numbers"], numbers(case)))
    assert not changed, (
        f"{case} computes other numbers than before ({len(changed)}; first: {'; '.join(changed[:3])}). If that is not meant, mend the "
        f"code. If it is, raise the version of the unit that computes otherwise (one of {', '.join(want['units'])}): else states that "
        "were learned by the old code are taken for new ones. Then: python -m tests.golden.numbers, and a line in CHANGELOG.md"
    )


def test_a_default_that_changes_raises_a_version_since_names_leave_defaults_out() -> None:
    kept_before = json.loads(DEFAULTS.read_text())
    for name, now in defaults().items():
        if changed := silent(kept_before[name], now):
            pytest.fail(f"{name}: another default of {', '.join(changed)}; raise the version of one of {', '.join(now['units'])}, {WRITE}")
        assert now == kept_before[name], f"{name}: other settings or versions than were written; {WRITE}"


def test_every_method_has_golden_numbers_and_no_file_is_left_over() -> None:
    assert {settings["name"] for settings in CASES.values()} == set(CONFIGS)
    assert {file.stem for file in VALUES.glob("*.json")} == set(CASES)


def test_a_default_that_changed_in_silence_is_found() -> None:
    was = {"units": {"learner": 1}, "settings": {"epochs": 5}}
    assert silent(was, {"units": {"learner": 1}, "settings": {"epochs": 6}}) == ["epochs"]
    assert silent(was, {"units": {"learner": 2}, "settings": {"epochs": 6}}) == []
    assert silent(was, {"units": {"learner": 1}, "settings": {"epochs": 5, "ema": None}}) == []


def test_every_case_learns_from_at_least_one_kind_of_data() -> None:
    for case in CASES:
        assert [kind for kind, value in kept(case)["numbers"].items() if value != "refused"], case


def test_a_change_of_one_weight_in_the_eighth_digit_is_seen() -> None:
    want = kept("finetune")["numbers"]
    nudged = json.loads(json.dumps(want))
    name = next(key for key in nudged["labels"]["weights"] if key != "all")
    nudged["labels"]["weights"][name] *= 1 + 1e-8
    assert len(list(differences(want, nudged))) == 1


def test_the_numbers_are_of_fp64() -> None:
    method = build(CASES["finetune"])
    assert {value.dtype for value in method.state_dict().values() if value.is_floating_point()} == {torch.float64}
    assert len(sessions("mixed")[0].data) == 12
