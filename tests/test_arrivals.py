"""Sessions one by one are those of the stream cut whole; and what a line is asked is what the stream would ask."""

import shutil
from pathlib import Path

import pytest
from pydantic import TypeAdapter

from cl.data.classes import ClassName
from cl.data.collection import append
from cl.data.table import concat, write
from cl.errors import DataError
from cl.evaluation.line import Line, exam_of
from cl.streams.arrivals import Arrivals
from cl.streams.build import StreamConfig, build_stream
from cl.streams.stream import Stream
from tests import make

STREAMS = {
    "collection": {"kind": "collection", "sources": {"inbox": "inbox"}},
    "classes": {"kind": "classes", "sources": {"colours": "colours"}, "increment": 2, "probes": [{"name": "all", "limit": 4}]},
    "listed": {
        "kind": "listed",
        "sources": {"colours": "colours"},
        "sessions": [{"name": name, "classes": own} for name, own in (("a", ["red", "green"]), ("b", ["blue"]))],
    },
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("data")
    write({"train": make.table(range(6), 3), "test": make.table(range(6), 2, seed=50)}, folder / "colours")
    for number, colours in enumerate([(0, 1), (2, 3), (0, 4)]):
        parts = {"train": make.table(colours, 3, seed=number), "test": make.table(colours, 2, seed=50 + number)}
        append(folder / "inbox", f"s{number}", parts, "labels")
    append(folder / "inbox", "bare", {"train": make.table((0,), 3, seed=9), "test": make.table((0,), 0)}, "none")
    return folder


def config(kind: str, **changes: object) -> StreamConfig:
    checked: StreamConfig = TypeAdapter(StreamConfig).validate_python(STREAMS[kind] | {"template": "a {} square"} | changes)
    return checked


@pytest.mark.parametrize("kind", STREAMS)
@pytest.mark.parametrize("changes", [{}, {"limit": 4, "test_limit": 2}, {"labelled": {"shots": 1}}, {"test_split": "held_out"}])
def test_sessions_one_by_one_are_those_of_the_whole_stream(root: Path, kind: str, changes: dict[str, object]) -> None:
    whole = build_stream(config(kind, **changes), root)
    arrivals, known = Arrivals(config(kind, **changes), root), dict[str, ClassName]()
    assert list(arrivals.there()) == [session.name for session in whole.sessions]
    for session in whole.sessions:
        alone, withheld = arrivals.session(session.name, session.index, known)
        assert (alone.digest, alone.classes, alone.vocabulary) == (session.digest, session.classes, session.vocabulary)
        assert withheld.items() <= whole.withheld.items()
        if session.name != "bare":  # which has no test rows of its own
            assert [test.digest for test in alone.tests] == [test.digest for test in session.tests]
            assert arrivals.test_rows(session.name).content() == session.tests[0].data.content()
        known = {each.name: each for each in alone.vocabulary}
    assert [probe.digest for probe in arrivals.probes()] == [probe.digest for probe in whole.probes]


def test_a_session_that_follows_another_than_in_the_stream_has_the_place_and_classes_of_its_line(root: Path) -> None:
    arrivals = Arrivals(config("collection"), root)
    first, _ = arrivals.session("s0", 1, {})
    third, _ = arrivals.session("s2", 2, {each.name: each for each in first.vocabulary})
    assert third.index == 2 and [each.name for each in third.vocabulary] == ["red", "green", "purple"] and third.classes == (0, 2)


def test_a_listing_is_remembered_by_settings_and_version_and_reads_no_image(root: Path, tmp_path: Path, monkeypatch) -> None:
    there = Arrivals(config("classes"), root, tmp_path, "v1").there()
    monkeypatch.setattr("cl.streams.arrivals.read_sources", lambda *_: pytest.fail("read"))
    assert Arrivals(config("classes"), root, tmp_path, "v1").there() == there
    for other in (Arrivals(config("classes"), root, tmp_path, "v2"), Arrivals(config("classes", limit=3), root, tmp_path, "v1")):
        with pytest.raises(pytest.fail.Exception):
            other.there()


def test_a_listing_of_data_that_lie_beside_the_root_is_made_again_once_they_change(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root / "colours", tmp_path / "elsewhere" / "colours")
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "colours").symlink_to(tmp_path / "elsewhere" / "colours")
    far = {"sources": {"colours": {"path": str(tmp_path / "elsewhere" / "colours")}}}
    before = [Arrivals(config("classes", **changes), tmp_path / "data", tmp_path / "kept", "v1").there() for changes in ({}, far)]
    write({"train": make.table(range(5), 3), "test": make.table(range(5), 2, seed=50)}, tmp_path / "elsewhere" / "colours")
    after = [Arrivals(config("classes", **changes), tmp_path / "data", tmp_path / "kept", "v1").there() for changes in ({}, far)]
    assert [list(each) for each in before] == [["classes 1-2", "classes 3-4", "classes 5-6"]] * 2
    assert [list(each) for each in after] == [["classes 1-2", "classes 3-4", "classes 5-5"]] * 2


def test_rows_that_are_taught_or_examined_elsewhere_are_found(root: Path) -> None:
    parts = [{"name": "one", "part": [1, 2]}, {"name": "two", "part": [2, 2]}, {"name": "again", "part": [1, 2]}]
    arrivals = Arrivals(config("listed", sessions=parts), root)
    assert arrivals.clashes("two", ["one"]) is None and arrivals.clashes("two", ["gone"]) is None
    assert "9 of its training rows are those of session 'one'" in str(arrivals.clashes("again", ["one"]))


def line_of(stream: Stream, candidates: str) -> Line:
    exams = [exam_of(test, session.index) for session in stream.sessions for test in session.tests]
    exams += [exam_of(probe, 0) for probe in stream.probes]
    starts = [0, *(len(session.vocabulary) for session in stream.sessions)]
    fresh = [session.vocabulary[start:] for start, session in zip(starts, stream.sessions, strict=False)]
    return Line(fresh, exams, candidates)  # type: ignore[arg-type]


@pytest.mark.parametrize("candidates", ["own", "seen"])
@pytest.mark.parametrize("kind", STREAMS)
def test_a_line_asks_what_a_stream_of_the_same_sessions_asks(root: Path, kind: str, candidates: str) -> None:
    stream = build_stream(config(kind, candidates=candidates), root)
    line = line_of(stream, candidates)
    for after in range(len(stream.sessions) + 1):
        asked = line.questions(after)
        assert [each.asked for each in asked] == list(stream.questions(after)) == line.asked(after)
        assert [each.examined().digest for each in asked] == list(stream.questions(after))
        assert [each.first for each in asked] == list(stream.questions(0))
        assert [each.at_first().digest for each in asked] == list(stream.questions(0))


def test_a_set_of_a_session_that_is_not_in_the_line_is_asked_among_the_lines_classes_and_its_own(root: Path) -> None:
    stream = build_stream(config("classes", candidates="seen"), root)
    (aside,) = stream.sessions[2].tests
    line = Line([stream.sessions[0].vocabulary], [exam_of(stream.sessions[0].tests[0], 1), exam_of(aside, None)], "seen")
    after, _ = line.questions(1)[1], line.questions(0)
    assert [each.name for each in after.examined().classes] == ["red", "green", "purple", "orange"]
    assert after.examined().digest == after.asked and after.at_first().digest == after.first
    assert (line.asked(1)[1], line.asked(0)[1]) == (after.asked, after.first)
    assert [each.name for each in after.at_first().classes] == ["purple", "orange"]


def test_rows_that_are_others_than_were_asked_are_refused(root: Path) -> None:
    stream = build_stream(config("classes"), root)
    exam = exam_of(stream.sessions[0].tests[0], 1)
    changed = Line([()], [type(exam)(**{**vars(exam), "rows": lambda: concat([stream.sessions[1].tests[0].data])})], "own")
    with pytest.raises(DataError, match="not those that were asked before"):
        changed.questions(1)[0].examined()


def test_sessions_that_are_gone_leave_a_gap_which_a_line_lives_with_and_a_run_does_not(root: Path, tmp_path: Path) -> None:
    shutil.copytree(root, tmp_path / "data")
    shutil.rmtree(tmp_path / "data" / "inbox" / "0002-s1")
    arrivals = Arrivals(config("collection"), tmp_path / "data")
    assert list(arrivals.there()) == ["s0", "s2", "bare"] and arrivals.gaps == [2]
    assert list(Arrivals(config("collection", until=2), tmp_path / "data").there()) == ["s0"]
    assert Arrivals(config("collection"), root).gaps == [] == Arrivals(config("classes"), root).gaps
    with pytest.raises(DataError, match="without a gap"):
        build_stream(config("collection"), tmp_path / "data")
