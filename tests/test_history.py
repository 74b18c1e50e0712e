"""What a history can say is read as it was written, and what it cannot say is told."""

from pathlib import Path
from typing import Any

import pytest

from cl.disk.journal import Entry
from cl.errors import StoreError
from flows.history.conclude import conclude
from flows.history.entries import (
    Abandoned,
    Accept,
    Adopted,
    AskedSet,
    Fact,
    Opened,
    Pruned,
    Rebuilt,
    Retry,
    Skipped,
    Withdrawn,
    entry_of,
    fact,
    history_of,
    note,
)
from flows.settings import Place
from tests.telling import OPENED, began, crown, entries, learned, says


def test_whatever_was_written_is_read_back(tmp_path: Path) -> None:
    exam = (AskedSet(name="s", kind="classify", content="d", classes=(("owl", ("an owl", "a bird")),)),)
    full = learned(
        "1", "a", classes=(("owl", ("an owl",)),), exam=exam, dropped=("buffer",), versions={"torch": "2"}, seconds=1.5, images=7
    )
    said: list[Fact] = [
        Opened(model="m", stream={"a": [1, None]}, base="b", taken_over={"how": "verified"}),
        began("1", "a", None, "0", "1"),
        full,
        says("1", "a", "refused", "1", champion="z", champion_version="0", policy="keep", by="Ann"),
        crown("1", "a", "rollback", "intent"),
        Adopted(version="2", line=(full,)),
        Rebuilt(version="2", state="a", line=(full,), why="w", by="Ann"),
        Skipped(session="1", why="w", by="Ann"),
        Retry(session="1", by="Ann"),
        Accept(session="1", why="w", by="Ann"),
        Abandoned(state="a", session="1", why="w"),
        Withdrawn(phase="intent", session="1", images=("x",), versions=("1",), into="a", line=(full,), why="w", by="Ann"),
        Pruned(phase="done", states=("a",), versions=("1",)),
    ]
    journal = history_of(Place(tmp_path), "Glyphs: joint")
    assert journal.path == tmp_path / "mlruns" / "history" / "glyphs-joint.jsonl"
    for number, each in enumerate(said):
        assert fact(note(journal, each, expect=number)) == each
    assert [fact(entry) for entry in journal.read()] == said
    assert len({type(each) for each in said}) == 13, "each kind is tried"


@pytest.mark.parametrize(
    ("kind", "change", "told"),
    [
        ("merged", {}, r"entry 7, says 'merged', which was written by a later release of Evergreen; use that release"),
        ("retry", {"session": "1", "mood": "good"}, r"entry 7 \(retry\), mood: unexpected.*another release"),
        ("retry", {}, r"entry 7 \(retry\), session: field required; it was written by another release"),
        ("champion", {"version": "1", "state": None, "how": "vote"}, r"entry 7 \(champion\), how: input should be 'gate'.*another release"),
        ("adopted", {"version": "1", "line": [{"state": "a"}]}, r"entry 7 \(adopted\), line\.0\.session: "),
    ],
)
def test_what_a_later_release_wrote_is_told_and_not_guessed(kind: str, change: dict[str, Any], told: str) -> None:
    with pytest.raises(StoreError, match=told):
        fact(Entry(7, "", "", kind, change))


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ([says("1", "a", "promoted", "1")], r"entry 2 \(verdict\): nothing before it learned the state a; put a copy"),
        ([crown("1", "a")], r"entry 2 \(champion\): nothing before it learned the state a"),
        ([learned("2", "b", "a"), crown("1", "b", "promote")], "nothing before it learned the state a"),
        ([learned("1", "a", "b"), learned("2", "b", "a"), crown("1", "b")], "the state b stands on itself"),
        ([Adopted(version="1", line=(learned("1", "a"), learned("2", "b")))], "b stands on None, and the line before it ends in a"),
        ([Withdrawn(phase="done", session="1", into="x")], "nothing before it learned the state x"),
        ([OPENED], r"entry 2 \(opened\): a history begins with 'opened', once, and this is another"),
    ],
)
def test_what_cannot_be_is_told(steps: list[Fact], told: str) -> None:
    with pytest.raises(StoreError, match=told):
        conclude(entries(steps))


def test_a_history_begins_with_its_opening_or_is_none() -> None:
    with pytest.raises(StoreError, match=r"begins with 'opened', once, and this is none"):
        conclude([Entry(1, "", "", *entry_of(Retry(session="1")))])
    assert conclude([]).opened is None and conclude([]).head is None and conclude([]).last == 0
