"""A collection grows whole session by whole session, from several processes at once, and what was learned stays valid."""

import json
from pathlib import Path

import pytest

from cl.data.collection import Entry, append, read, seen, sessions
from cl.data.table import ImageTable, concat
from cl.errors import DataError
from cl.plan import plan
from cl.run_config import parse_config
from cl.streams.build import build_stream
from cl.streams.config import CollectionStream
from tests.conftest import processes
from tests.make import table


def parts(*colours: int, seed: int = 0, captions: bool = False) -> dict[str, ImageTable]:
    return {"train": table(colours, 4, seed=seed, captions=captions), "test": table(colours, 2, seed=seed + 50, captions=captions)}


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def stream(**settings: object) -> CollectionStream:
    return CollectionStream(kind="collection", sources={"inbox": "inbox"}, template="a {}", **settings)  # type: ignore[arg-type]


def test_sessions_are_numbered_as_they_arrive_and_read_back_as_they_were(tmp_path: Path) -> None:
    first = append(tmp_path / "inbox", "may", parts(0, 1), "labels", source="may.zip", quarantined=3)
    append(tmp_path / "inbox", "april", parts(2), "captions")
    assert [(e.folder, e.supervision, e.train, e.test) for e in sessions(tmp_path / "inbox")] == [
        ("0001-may", "labels", 8, 4),
        ("0002-april", "captions", 4, 2),
    ]
    assert (first.source, first.quarantined) == ("may.zip", 3)
    train, test = read(tmp_path / "inbox", first)
    assert (train.digest(), test.digest()) == (parts(0, 1)["train"].digest(), parts(0, 1)["test"].digest())
    known = seen(tmp_path / "inbox", sessions(tmp_path / "inbox"))
    assert len(known) == 18 and {(s.session, s.label) for s in known.values()} == {("may", "red"), ("may", "green"), ("april", "blue")}


def test_the_same_again_changes_nothing_and_something_else_under_its_name_is_refused(tmp_path: Path) -> None:
    entry = append(tmp_path, "may", parts(0), "labels")
    append(tmp_path, "june", parts(1), "labels")
    before = contents(tmp_path)
    assert append(tmp_path, "may", parts(0), "labels") == entry
    for other, supervision in ((parts(1), "labels"), (parts(0), "none")):
        with pytest.raises(DataError, match="session 'may' is there and holds other data"):
            append(tmp_path, "may", other, supervision)  # type: ignore[arg-type]
    assert contents(tmp_path) == before


@pytest.mark.parametrize("name", ["", "../may", "a/b", ".may", "a b", "a\n", "x" * 101])
def test_a_name_that_is_no_folder_name(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match="a session's name is made of"):
        append(tmp_path, name, parts(0), "labels")
    assert sessions(tmp_path) == []


def test_a_session_needs_rows_to_learn_from_and_unless_unlabelled_to_be_examined_with(tmp_path: Path) -> None:
    for splits, supervision in (({"train": table([], 0), "test": table([0], 1)}, "labels"), ({"train": table([0], 1)}, "captions")):
        with pytest.raises(DataError, match=r"no (test|training) image; add some"):
            append(tmp_path, "may", splits, supervision)  # type: ignore[arg-type]
    entry = append(tmp_path, "may", {"train": table([0], 1)}, "none")
    assert len(read(tmp_path, entry)[1]) == 0


def _add(folder: Path, name: str, seed: int) -> None:
    append(folder, name, {"train": table([0], 2, seed=seed), "test": table([0], 1, seed=seed + 50)}, "labels")


def test_from_four_processes_at_once_one_of_them_twice_every_session_is_there_once(tmp_path: Path) -> None:
    names = [(f"s{i}", i) for i in range(8)] + [("s3", 3), ("s3", 3)]
    with processes().Pool(4) as pool:
        pool.starmap(_add, [(tmp_path, name, seed) for name, seed in names], chunksize=1)
    entries = sessions(tmp_path)
    assert [entry.number for entry in entries] == list(range(1, 9)) and {entry.name for entry in entries} == {f"s{i}" for i in range(8)}
    assert not list(tmp_path.glob(".*.part"))


def test_what_a_killed_writer_left_is_no_session_and_goes_with_the_next(tmp_path: Path) -> None:
    (tmp_path / ".0001-may.abc.part").mkdir()
    (tmp_path / ".0001-may.abc.part" / "train.parquet").write_bytes(b"half")
    assert sessions(tmp_path) == []
    append(tmp_path, "june", parts(0), "labels")
    assert sorted(path.name for path in tmp_path.iterdir()) == [".lock", "0001-june"]


@pytest.mark.parametrize(
    ("file", "change", "told"),
    [
        ("session.json", lambda b: b"{", "not what describes a session"),
        ("session.json", lambda b: b"", "not what describes a session"),
        ("session.json", lambda b: b.replace(b'"number": 1', b'"number": 2'), "describes 0002-may, not 0001-may"),
        ("session.json", lambda b: json.dumps(json.loads(b) | {"extra": 1}).encode(), "extra: unknown setting"),
        ("session.json", None, "session.json: cannot be read"),
        ("train.parquet", lambda b: b[: len(b) // 2], "train.parquet: cannot be read"),
        ("train.parquet", None, "train.parquet: cannot be read"),
        ("test.parquet", lambda b: b"", "test.parquet: cannot be read"),
        ("index.parquet", lambda b: b"no parquet", "index.parquet: cannot be read"),
    ],
)
def test_a_damaged_session_is_told_with_what_restores_it(tmp_path: Path, file: str, change: object, told: str) -> None:
    entry = append(tmp_path, "may", parts(0), "labels")
    path = tmp_path / "0001-may" / file
    if callable(change):
        path.write_bytes(change(path.read_bytes()))
    else:
        path.unlink()
    with pytest.raises(DataError, match=rf"{told}.*dvc checkout"):
        sessions(tmp_path), read(tmp_path, entry), seen(tmp_path, [entry])


def test_rows_that_were_changed_and_a_missing_session_are_noticed(tmp_path: Path) -> None:
    entry = append(tmp_path, "may", parts(0), "labels")
    append(tmp_path, "june", parts(1), "labels")
    (tmp_path / "0002-june" / "train.parquet").rename(tmp_path / "0001-may" / "train.parquet")
    with pytest.raises(DataError, match="not those that were taken in"):
        read(tmp_path, entry)
    (tmp_path / "0001-may").rename(tmp_path / "elsewhere")
    with pytest.raises(DataError, match="numbered 2; expected 1, 2"):
        sessions(tmp_path)


def test_a_stream_takes_the_sessions_in_order_each_with_its_own_supervision(tmp_path: Path) -> None:
    append(tmp_path / "inbox", "z", parts(0, 1), "labels")
    append(tmp_path / "inbox", "captions", parts(2, captions=True), "captions")
    append(tmp_path / "inbox", "a", parts(3, 1, seed=7), "labels")
    made = build_stream(stream(), tmp_path)
    assert [session.name for session in made.sessions] == ["z", "captions", "a"]
    assert [session.tests[0].kind for session in made.sessions] == ["classify", "retrieve", "classify"]
    assert [session.classes for session in made.sessions] == [(0, 1), (), (2, 1)]  # green came again and keeps its index
    assert made.sessions[1].data.classes() == [] and all(made.sessions[1].data.captions)
    assert [session.name for session in build_stream(stream(until=2), tmp_path).sessions] == ["z", "captions"]


def test_unlabelled_images_are_examined_as_classes_known_so_far(tmp_path: Path) -> None:
    append(tmp_path / "inbox", "first", parts(0, 1), "labels")
    append(tmp_path / "inbox", "bare", {"train": table([0, 1], 3, seed=9, labels=False)}, "none")
    append(tmp_path / "inbox", "own", parts(2), "none")
    made = build_stream(stream(), tmp_path)
    assert made.sessions[1].classes == (0, 1) and len(made.sessions[1].tests[0].data) == 4
    assert made.sessions[2].classes == (2,) and made.sessions[2].data.classes() == []


def test_a_collection_without_a_session_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evergreen ingest PATH --session NAME --into inbox"):
        build_stream(stream(), tmp_path)


def test_probes_come_from_other_sources(tmp_path: Path) -> None:
    append(tmp_path / "inbox", "first", parts(0, 1), "labels")
    append(tmp_path / "other", "x", parts(5), "labels")
    config = CollectionStream(
        kind="collection", source="inbox", sources={"inbox": "inbox", "o": "other/0001-x"}, probes=[{"name": "p", "source": "o"}]
    )  # type: ignore[call-arg, arg-type, list-item]
    assert len(build_stream(config, tmp_path).probes[0].data) == 2


def test_growing_leaves_what_was_learned_valid(tmp_path: Path) -> None:
    config = parse_config({"name": "x", "model": {"name": "tiny"}, "stream": {"kind": "collection", "sources": {"i": "inbox"}}}, "x")
    append(tmp_path / "inbox", "one", parts(0, 1), "labels")
    append(tmp_path / "inbox", "two", parts(2), "labels")
    before = plan(config, tmp_path, "before")
    append(tmp_path / "inbox", "three", parts(3, 0, seed=9), "labels")
    after = plan(config, tmp_path, "after")
    assert after.states[:3] == before.states and len(after.states) == 4
    assert len(set(after.states)) == 4 and isinstance(sessions(tmp_path / "inbox")[2], Entry)
    assert len(concat([session.data for session in after.stream.sessions])) == 20
