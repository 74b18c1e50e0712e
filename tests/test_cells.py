"""Cells: one state asked one set, once, whoever asks."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.config import EvalConfig
from cl.evaluation import ask as asking
from cl.evaluation.ask import ask
from cl.evaluation.cells import Cell, Cells, cell_name, measured
from cl.run import Plan, advance, find, load_method, run
from cl.streams.stream import EvalSet
from tests.test_run import TREE, data, planned

__all__ = ["data"]


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sets that any model is asked from now on."""
    names: list[str] = []
    real = asking.each_score

    def counted(method: Any, sets: Any, config: EvalConfig) -> Any:
        for examined, score in real(method, sets, config):
            names.append(examined.name)
            yield examined, score

    monkeypatch.setattr(asking, "each_score", counted)
    return names


def listed(data: Path, count: int, **changes: Any) -> Plan:
    classes = [["red", "green"], ["blue", "yellow"], ["purple", "orange"]]
    sessions = [{"name": f"s{number}", "classes": own} for number, own in enumerate(classes[:count], start=1)]
    return planned(data, stream={"kind": "listed", "sources": {"colours": "colours"}, "sessions": sessions}, **changes)


def test_a_new_session_asks_the_new_state_everything_and_earlier_states_the_new_set_alone(data, tmp_path, asked) -> None:
    run(listed(data, 2), tmp_path)
    assert sorted(asked) == sorted(["s1", "s2"] * 3)  # the start and both states
    asked.clear()
    run(listed(data, 3), tmp_path)
    assert sorted(asked) == ["s1", "s2"] + ["s3"] * 4  # the new set of the start and two states, and the new state all three


def test_methods_over_one_model_share_what_the_start_answers(data, tmp_path, asked) -> None:
    run(listed(data, 2), tmp_path)
    asked.clear()
    run(listed(data, 2, method="finetune"), tmp_path)
    assert sorted(asked) == sorted(["s1", "s2"] * 2)


def test_nothing_is_asked_twice_and_weights_that_did_not_change_are_not_asked(data, tmp_path, asked) -> None:
    run(listed(data, 2, method="zero_shot"), tmp_path)
    assert sorted(asked) == ["s1", "s2"]
    asked.clear()
    run(listed(data, 2, method="zero_shot"), tmp_path)
    assert asked == []


def test_a_row_is_what_the_model_says_when_it_is_asked_in_one_go(data, tmp_path) -> None:
    run(listed(data, 2), tmp_path)
    run(work := listed(data, 3), tmp_path)
    run(listed(data, 3), tmp_path / "anew")
    for index in range(4):
        parts, whole = find(work, index, tmp_path), find(work, index, tmp_path / "anew")
        assert parts and whole
        assert replace(parts, finished="", cost=whole.cost) == replace(whole, finished="")


def test_other_settings_of_evaluation_are_other_cells_of_the_same_state(data, tmp_path) -> None:
    plain, few = listed(data, 2), listed(data, 2, evaluate={"limit": 3})
    assert plain.states == few.states and set(plain.keys).isdisjoint(few.keys)
    run(plain, tmp_path)
    before = find(plain, 2, tmp_path)
    run(few, tmp_path)
    assert find(plain, 2, tmp_path) == before
    assert len(Cells(tmp_path, plain.states[2]).read()) == 4
    assert measured(EvalConfig()) != measured(EvalConfig(limit=3)) and cell_name("a", "b") != cell_name("b", "a")


def test_questions_are_the_sets_they_name(data) -> None:
    for candidates in ("own", "seen", "all"):
        stream = planned(data, stream={**TREE["stream"], "candidates": candidates}).stream
        for after in range(len(stream.sessions) + 1):
            assert stream.questions(after) == tuple(examined.digest for examined in stream.exam(after))


def test_a_question_says_nothing_of_what_sets_and_rows_are_called(data) -> None:
    examined: EvalSet = planned(data).stream.exam(0)[0]
    assert replace(examined, name="other", data=examined.data.under("x")).digest == examined.digest
    assert replace(examined, classes=examined.classes[::-1]).digest != examined.digest
    assert replace(examined, data=examined.data.take([0, 1])).digest != examined.digest


def test_many_who_add_at_once_lose_nothing(tmp_path) -> None:
    cells = Cells(tmp_path, "state")
    cell = Cell({"top1": 0.5, "ece": float("nan")}, "1:gA==", {}, {}, 14.3)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda number: Cells(tmp_path, "state").add({str(number): cell}), range(40)))
    kept = cells.read()
    assert len(kept) == 40 and kept["7"].hits == cell.hits and np.isnan(kept["7"].metrics["ece"])


def test_a_model_is_loaded_only_to_be_asked(data, tmp_path) -> None:
    work = listed(data, 2)
    run(work, tmp_path)
    questions = work.questions(2)

    def never() -> Any:
        raise AssertionError("loaded")

    assert len(ask(work.states[2], never, work.start(tmp_path), questions)) == 2
    Cells(tmp_path, work.states[2]).file.unlink()
    assert len(ask(work.states[2], lambda: load_method(work, 2, tmp_path), work.start(tmp_path), questions)) == 2
    assert advance(work, 2, tmp_path).session == "s2"
