"""Laws over every part with plain partners, every preset, and every two parts together, on labels and on captions.

A part or preset that is registered is held to them by that alone.
"""

from itertools import combinations

import pytest

from tests.laws.cases import KINDS, PRESETS, UNITS, pairwise
from tests.laws.life import broken
from tests.laws.pairwise import array, pairs

FIRST = dict(list(pairwise().items())[:6])  # of which each holds as many new pairs as any can: the default tier's


@pytest.mark.parametrize("name", UNITS)
def test_a_part_with_plain_partners_keeps_the_laws_on_captions(name: str) -> None:
    assert broken(UNITS[name], "captions", brief=True) == []


@pytest.mark.parametrize("name", FIRST)
def test_parts_that_meet_keep_the_laws(name: str) -> None:
    assert broken(*FIRST[name], brief=True) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", UNITS)
def test_a_part_with_plain_partners_keeps_all_laws(name: str, kind: str) -> None:
    assert broken(UNITS[name], kind) == []


@pytest.mark.slow
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_keeps_all_laws(name: str, kind: str) -> None:
    assert broken(PRESETS[name], kind) == []


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
