"""A stream that was cut before is planned without its images, unless anything has changed; what is learned is found without its weights."""

import os
import shutil
import sys
from collections.abc import Callable
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from PIL import Image
from pydantic import TypeAdapter
from safetensors.torch import load_file, save_file

from cl.data.collection import append, read, read_test
from cl.data.table import SCHEMA, ImageTable, concat, write
from cl.data.told import Topic
from cl.disk.unchanged import remember
from cl.errors import DataError, StoreError
from cl.models.clip import ModelConfig
from cl.plan import Plan, _loaded, _stream, base_digest, plan
from cl.run import advance, find, load_method, report, run
from cl.run_config import parse_config
from cl.store.store import HASHED, WEIGHTS, read_state
from cl.streams import outline
from cl.streams.build import build_stream
from cl.streams.config import StreamConfig
from cl.streams.outline import joint_of, stream_of
from cl.streams.stream import Stream
from tests import make

KINDS: dict[str, dict[str, Any]] = {
    "folders": {
        "kind": "classes",
        "sources": {"shapes": "shapes"},
        "increment": 2,
        "test_split": "held_out",
        "labelled": {"shots": 2},
        "candidates": "seen",
    },
    "tables": {
        "kind": "listed",
        "sources": {"colours": "colours"},
        "supervision": "both",
        "limit": 5,
        "sessions": [{"name": name, "classes": own} for name, own in (("a", ["red", "green"]), ("b", ["blue"]))],
        "probes": [{"name": "all", "limit": 4}],
    },
    "collection": {"kind": "collection", "sources": {"inbox": "inbox"}, "candidates": "all"},
}


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Three data sets, which count as old enough for a change to show."""
    monkeypatch.setattr("cl.disk.unchanged._YOUNG", -1)
    root = tmp_path / "data"
    write({"train": make.table(range(4), 6, captions=True), "test": make.table(range(4), 3, seed=50, captions=True)}, root / "colours")
    for name, own in (("one", (0, 1)), ("two", (2,))):
        append(root / "inbox", name, {"train": make.table(own, 3), "test": make.table(own, 2, seed=50)}, "labels")
    append(root / "inbox", "bare", {"train": make.table((0,), 3, seed=9)}, "none")
    for colour in range(4):
        folder = root / "shapes" / make.COLOURS[colour]
        folder.mkdir(parents=True)
        for seed in range(5):
            (folder / f"{seed}.png").write_bytes(make.png(colour, seed))
    return root


def config(kind: str, **changes: Any) -> StreamConfig:
    made: StreamConfig = TypeAdapter(StreamConfig).validate_python(KINDS[kind] | changes)
    return made


def told(stream: Stream) -> tuple[Any, ...]:
    """All that planning asks of a stream."""
    rows = [data for session in stream.sessions for data in (session.data, *(test.data for test in session.tests))]
    rows += [probe.data for probe in stream.probes]
    asked = [stream.questions(index) for index in range(len(stream.sessions) + 1)]
    columns = [(each.ids, each.labels, each.captions, each.domains, each.index["time"].to_pylist()) for each in rows]
    return stream.digest, asked, columns, dict(stream.withheld), stream.told, stream.taught, [each.vocabulary for each in stream.sessions]


@contextmanager
def opened(below: Path) -> Any:
    """The files below a folder that are opened meanwhile, by whatever part of Python."""
    opened_files: list[str] = []
    listening = True

    def hear(event: str, arguments: tuple[Any, ...]) -> None:
        if listening and event == "open" and str(arguments[0]).startswith(str(below)):
            opened_files.append(str(arguments[0]))

    sys.addaudithook(hear)
    try:
        yield opened_files
    finally:
        listening = False


def refuse(*_: Any) -> Any:
    pytest.fail("read")


@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_a_stream_cut_before_is_the_same_and_opens_no_image_until_one_is_needed(root, tmp_path, monkeypatch, kind, together) -> None:
    def made(outlines: Path | None) -> Stream:
        stream = stream_of(config(kind), root, outlines)
        return joint_of(stream, config(kind), root, outlines) if together else stream

    whole = made(None)
    expected = told(whole)
    assert told(made(tmp_path / "outlines")) == expected
    with monkeypatch.context() as patch, opened(root) as files:
        patch.setattr(outline, "build_stream", refuse)
        patch.setattr(outline, "again", refuse)
        again = made(tmp_path / "outlines")
        assert told(again) == expected
        for session in again.sessions:  # neither do rows that are chosen by what they say
            assert session.data.where([label is None or bool(label) for label in session.data.labels]).take([0]).without("captions").ids
        with pytest.raises(pytest.fail.Exception):
            again.sessions[0].data.image(0)
    assert not [each for each in files if not each.endswith("session.json")]  # which say where images are to be read
    again = made(tmp_path / "outlines")
    with opened(root) as files:
        for one, two in zip(again.exam(1), whole.exam(1), strict=True):
            assert one.data.table.equals(two.data.table)
        for ours, theirs in zip(again.sessions, whole.sessions, strict=True):
            assert ours.data.table.equals(theirs.data.table) and ours.data.take([1]).table.equals(theirs.data.take([1]).table)
    assert files if kind == "folders" else True  # Arrow opens its files itself


def edit(root: Path) -> None:
    """Another image of the same length under the same name, the time of writing set back."""
    file = root / "shapes" / "red" / "0.png"
    before, content = file.stat(), bytearray(file.read_bytes())
    content[content.index(b"IDAT") + 20] ^= 1
    with file.open("r+b") as same:
        same.write(content)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert (file.stat().st_size, file.stat().st_mtime_ns) == (before.st_size, before.st_mtime_ns)


def more(root: Path) -> None:
    (root / "shapes" / "red" / "9.png").write_bytes(make.png(0, 9))


def less(root: Path) -> None:
    (root / "shapes" / "red" / "3.png").unlink()


def renamed(root: Path) -> None:
    (root / "shapes" / "red" / "3.png").rename(root / "shapes" / "green" / "7.png")


@pytest.fixture
def reads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The sessions of a collection whose rows are read meanwhile, each time."""
    named: list[str] = []

    def hear(reading: Callable[..., Any]) -> Callable[..., Any]:
        return lambda folder, entry: [named.append(entry.name), reading(folder, entry)][1]

    monkeypatch.setattr("cl.streams.arrived.read", hear(read))
    monkeypatch.setattr("cl.streams.arrived.read_test", hear(read_test))
    return named


def arrive(root: Path) -> None:
    """Two sessions more: one of a new class with an image that session two has under another name, one whose class is written otherwise."""
    twin = make.table((2,), 3)
    clash = concat([make.table((3,), 3), ImageTable(twin.table.set_column(2, SCHEMA.field("label"), pa.array(["yellow"] * 3)))])
    append(root / "inbox", "three", {"train": clash, "test": make.table((3,), 2, seed=50)}, "labels")
    written = make.table((4,), 2).table.set_column(2, SCHEMA.field("label"), pa.array(["Yellow"] * 2))
    append(root / "inbox", "four", {"train": ImageTable(written), "test": ImageTable(written.slice(0, 1)).under("test")}, "labels")


@pytest.mark.parametrize(
    "changes", [{}, {"test_split": "held_out", "limit": 2, "probes": [{"source": "colours", "name": "all", "limit": 4}]}]
)
def test_of_a_collection_that_grew_only_what_came_in_is_read_and_the_rest_once_it_is_needed(
    root, tmp_path, monkeypatch, reads, changes
) -> None:
    settings = config("collection", **changes, sources={"inbox": "inbox", "colours": "colours"}, source="inbox")
    stream_of(settings, root, tmp_path / "outlines")
    arrive(root)
    whole = build_stream(settings, root)
    topics = [each.topic for each in whole.told]
    assert Topic.SAME_PROMPT in topics and (changes or Topic.CONFLICT in topics)  # found across sessions
    reads.clear()
    with monkeypatch.context() as patch:
        patch.setattr(outline, "build_stream", refuse)
        grew = stream_of(settings, root, tmp_path / "outlines")
        assert told(grew) == told(whole) and reads == ["three", "four"]
        again = stream_of(settings, root, tmp_path / "outlines")
        assert told(again) == told(whole) and reads == ["three", "four"]
        reads.clear()
        for one, two in (
            (again.sessions[1].data, whole.sessions[1].data),
            (again.sessions[0].tests[0].data, whole.sessions[0].tests[0].data),
        ):
            assert one.table.equals(two.table)
        assert reads == ["two", "one"]
    for ours, theirs in zip(again.exam(5), whole.exam(5), strict=True):  # one of them is examined with what others hold: with all
        assert ours.data.table.equals(theirs.data.table)


def bare(root: Path) -> None:
    append(root / "inbox", "bare-again", {"train": make.table((1,), 3, seed=19)}, "none")  # examined with the test images of all before it


def other(root: Path) -> None:
    arrive(root)
    file = root / "inbox" / "0001-one" / "session.json"
    file.write_bytes(file.read_bytes())


@pytest.mark.parametrize("change", [bare, other])
def test_where_more_than_that_has_changed_all_is_read_again(root, tmp_path, monkeypatch, reads, change) -> None:
    stream_of(config("collection"), root, tmp_path / "outlines")
    change(root)
    made = stream_of(config("collection"), root, tmp_path / "outlines")
    assert told(made) == told(build_stream(config("collection"), root)) and "one" in reads


def test_a_session_that_came_in_and_cannot_be_examined_is_refused_as_ever(root, tmp_path) -> None:
    stream_of(config("collection", sources={"inbox": "inbox", "colours": "colours"}, source="inbox"), root, tmp_path / "outlines")
    append(root / "inbox", "two-more", {"train": make.table((5,), 3), "test": make.table((6,), 2)}, "labels")
    for outlines in (None, tmp_path / "outlines"):
        with pytest.raises(DataError, match="1 of 1 tested class has no training image"):
            stream_of(config("collection", sources={"inbox": "inbox", "colours": "colours"}, source="inbox"), root, outlines)


@pytest.mark.parametrize("change", [edit, more, less, renamed])
def test_any_change_of_the_data_is_noticed(root, tmp_path, change: Callable[[Path], None]) -> None:
    before = stream_of(config("folders"), root, tmp_path / "outlines")
    change(root)
    after = stream_of(config("folders"), root, tmp_path / "outlines")
    assert told(after) == told(build_stream(config("folders"), root)) and after.digest != before.digest
    assert told(stream_of(config("folders"), root, tmp_path / "outlines")) == told(after)


def test_other_settings_and_other_code_cut_anew(root, tmp_path, monkeypatch) -> None:
    stream_of(config("tables"), root, tmp_path)
    assert told(stream_of(config("tables", limit=4), root, tmp_path)) == told(build_stream(config("tables", limit=4), root))
    monkeypatch.setattr(outline, "code_version", lambda: "later")
    monkeypatch.setattr(outline, "build_stream", refuse)
    with pytest.raises(pytest.fail.Exception):
        stream_of(config("tables"), root, tmp_path)


@pytest.mark.parametrize("suffix", [".json", ".parquet", ".joint.json"])
def test_a_damaged_outline_is_noticed_and_made_again(root, tmp_path, suffix) -> None:
    def both() -> tuple[Any, ...]:
        stream = stream_of(config("tables"), root, tmp_path / "outlines")
        return told(stream), told(joint_of(stream, config("tables"), root, tmp_path / "outlines"))

    expected = both()
    (file,) = [
        each for each in (tmp_path / "outlines").iterdir() if each.name.endswith(suffix) and each.name.count(".") == suffix.count(".")
    ]
    whole = file.read_bytes()
    for place in range(0, len(whole), max(1, len(whole) // 12)):
        file.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        assert both() == expected and file.read_bytes() == whole
    for left in (whole[: len(whole) // 2], b"", b"[]", b'{"a": 1}'):
        file.write_bytes(left)
        assert both() == expected and file.read_bytes() == whole
    file.unlink()
    assert both() == expected and file.read_bytes() == whole


def test_what_changes_after_it_was_planned_is_refused_where_it_is_needed(root, tmp_path) -> None:
    stream_of(config("folders"), root, tmp_path)
    stream = stream_of(config("folders"), root, tmp_path)
    edit(root)
    with pytest.raises(DataError, match=r"'classes \d-\d': its images or labels have changed"):
        [data.table for session in stream.sessions for data in (session.data, session.tests[0].data)]


def test_files_that_may_change_within_the_same_tick_and_images_that_lie_elsewhere_are_not_remembered(root, tmp_path, monkeypatch) -> None:
    elsewhere = shutil.move(root / "shapes" / "red" / "0.png", tmp_path / "0.png")
    (root / "shapes" / "red" / "0.png").symlink_to(elsewhere)
    stream_of(config("folders"), root, tmp_path / "outlines")
    assert not (tmp_path / "outlines").exists()
    monkeypatch.setattr("cl.disk.unchanged._YOUNG", 10**12)
    stream_of(config("tables"), root, tmp_path / "outlines")
    assert not (tmp_path / "outlines").exists()


def test_a_data_set_that_is_a_link_is_looked_at_where_it_lies(root, tmp_path) -> None:
    shutil.move(root / "shapes", tmp_path / "shapes")
    (root / "shapes").symlink_to(tmp_path / "shapes")
    before = stream_of(config("folders"), root, tmp_path / "outlines")
    edit(root)
    assert stream_of(config("folders"), root, tmp_path / "outlines").digest != before.digest


TREE: dict[str, Any] = {
    "name": "shapes",
    "model": {"name": "tiny"},
    "stream": {"kind": "classes", "sources": {"shapes": "shapes"}, "increment": 2, "test_split": "held_out"},
    "train": {"max_steps": 1, "batch_size": 4, "lr": 1e-3, "device": "cpu"},
}


def planned(root: Path, **changes: Any) -> Plan:
    _stream.cache_clear()  # as another process would
    return plan(parse_config(TREE | changes, "test"), root, "v1", outlines=root.parent / "outlines")


@pytest.mark.parametrize("changes", [{"method": "finetune"}, {"method": "vr_lwf"}, {"method": "ridge", "joint": True}])
def test_the_same_run_again_opens_no_image_and_hashes_no_weights(root, tmp_path, monkeypatch, changes) -> None:
    store = tmp_path / "store"
    first = run(planned(root, **changes), store)
    with monkeypatch.context() as patch, opened(root) as files, opened(store / "states") as states:
        for name in ("cl.disk.unchanged.sha256", "cl.store.store.sha256", "cl.streams.outline.build_stream"):
            patch.setattr(name, refuse)
        patch.setattr(Image, "open", refuse)
        patch.setattr("cl.store.store.read_tensors", refuse)
        work = planned(root, **changes)
        steps = [find(work, index, store) for index in range(len(work.keys))]
        assert all(steps) and report(work, steps).to_json() == first.to_json()
        assert not [str(each) for each in work.remarks()]
    assert not files and not [each for each in states if each.endswith(WEIGHTS)]


def test_weights_that_changed_are_noticed_before_and_after_they_are_asked_for(root, tmp_path, caplog) -> None:
    store = tmp_path / "store"
    work = planned(root, method="finetune")
    run(work, store)
    folder = store / "states" / work.states[1]
    whole = (folder / WEIGHTS).read_bytes()
    broken = whole[:-1] + bytes([whole[-1] ^ 1])
    (folder / WEIGHTS).write_bytes(broken)
    assert find(work, 1, store) is None and "damaged, it is not what was written; it is learned again" in caplog.text
    # bits that turned where the system notes nothing: told once they are loaded, and from then on
    (folder / WEIGHTS).write_bytes(broken)
    remember(folder / WEIGHTS, read_state(folder).sha256, folder / HASHED)
    assert find(work, 1, store)
    with pytest.raises(StoreError, match="damaged, it is not what was written"):
        load_method(work, 1, store)
    assert find(work, 1, store) is None
    assert advance(work, 1, store) == find(work, 1, store) and (folder / WEIGHTS).read_bytes() == whole


def test_the_base_model_is_hashed_once_while_its_file_is_as_it_was(root, tmp_path, monkeypatch) -> None:
    make.tiny().save(tmp_path / "base")
    model = ModelConfig(name=f"local-dir:{tmp_path / 'base'}")

    def digest() -> str:
        _loaded.cache_clear()
        base_digest.cache_clear()  # as another process would
        return base_digest(model, False, tmp_path / "outlines")

    first = digest()
    assert first == make.tiny().digest()
    with monkeypatch.context() as patch:
        patch.setattr("cl.models.clip.Clip.digest", refuse)
        assert digest() == first
    file = tmp_path / "base" / "open_clip_model.safetensors"
    tensors = load_file(file)
    tensors["logit_scale"] += 1
    before = file.stat()
    save_file(tensors, file)
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert digest() != first


@pytest.mark.parametrize("left", [b"", b"{}", b'{"stamp": [], "sha256": "0"}'])
def test_a_damaged_note_of_a_hash_is_made_again(root, tmp_path, monkeypatch, left) -> None:
    work, store = planned(root, method="finetune"), tmp_path / "store"
    advance(work, 0, store)
    note = store / "states" / work.states[0] / HASHED
    whole = note.read_bytes()
    note.write_bytes(left)
    assert find(work, 0, store) and note.read_bytes() == whole
