"""Laws over every part with plain partners and with one field set otherwise, every preset, and every two parts together.

A part or preset that is registered is held to them by that alone.
"""

from itertools import combinations

import pytest
from pydantic import ValidationError

from tests.laws.cases import KINDS, PRESETS, UNITS, build, config, pairwise, sessions
from tests.laws.life import broken, refusal
from tests.laws.otherwise import otherwise
from tests.laws.pairwise import array, pairs

FIRST = dict(list(pairwise().items())[:6])  # of which each holds as many new pairs as any can: the default tier's
OTHERWISE = dict(otherwise())
NEVER = {"tip_adapter, keys: trained", "caps_adapter, keys: trained", "tip_adapter_f, alpha: auto", "tip_adapter_f, beta: auto"}


@pytest.mark.parametrize("name", UNITS)
def test_a_part_with_plain_partners_keeps_the_laws_on_captions(name: str) -> None:
    assert broken(UNITS[name], "captions", brief=True) == []


@pytest.mark.parametrize("name", FIRST)
def test_parts_that_meet_keep_the_laws(name: str) -> None:
    assert broken(*FIRST[name], brief=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", [*KINDS, "retrieval"])
@pytest.mark.parametrize("name", UNITS)
def test_a_part_with_plain_partners_keeps_all_laws(name: str, kind: str) -> None:
    assert broken(UNITS[name], kind) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_all_laws(name: str, kind: str) -> None:
    assert broken(PRESETS[name], kind) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", OTHERWISE)
def test_a_part_with_one_field_set_otherwise_keeps_the_laws_where_it_is_taken(name: str) -> None:
    settings = OTHERWISE[name]
    if name in NEVER:
        with pytest.raises(ValidationError):
            config(settings)
        return
    taken = [kind for kind in ("rich", "half", "some", "bare") if refusal(build(settings), sessions(kind)[0]) is None]
    assert taken and broken(settings, taken[0], brief=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", pairwise())
def test_every_two_parts_that_may_meet_keep_all_laws(name: str) -> None:
    assert broken(*pairwise()[name]) == []


def test_the_array_holds_every_pair_that_is_allowed_in_few_rows_and_always_the_same() -> None:
    factors = {"a": [0, 1, 2, 3], "b": [0, 1, 2], "c": [0, 1, 2], "d": [0, 1]}

    def allowed(row: dict[str, int]) -> bool:
        return row["a"] != 3 or row["b"] == 0

    rows = list(array(factors, allowed))
    held = set().union(*(pairs(row) for row in rows))
    wanted = {
        ((one, i), (two, j))
        for one, two in combinations(sorted(factors), 2)
        for i in factors[one]
        for j in factors[two]
        if not (one == "a" and two == "b" and i == 3 and j != 0)
    }
    assert held == wanted and all(allowed(row) for row in rows) and rows == list(array(factors, allowed))
    assert 12 <= len(rows) <= 16


def test_the_array_of_parts_has_every_kind_of_data_and_two_sessions_are_no_special_case() -> None:
    assert {kind for _, kind in pairwise().values()} == set(KINDS)
