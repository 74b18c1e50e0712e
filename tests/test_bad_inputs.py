"""Bad input of every kind is refused in one sentence or set aside with its reason, and what was there before stays byte for byte."""

import base64
import gzip
import io
import json
import os
import pickle
import random
import shutil
import struct
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl.data.told import Topic
from cl.disk.files import read_json
from cl.disk.tensors import read_tensors
from cl.errors import ConfigError, DataError, EvergreenError, StoreError
from cl.methods.persist import restore
from cl.plan import plan
from cl.run import advance, find
from cl.run_config import parse_config, read_config
from cl.store.store import whole
from cl.streams.intake import take
from flows.cli.main import main
from flows.intake.ingest import Outcome, Source, ingest
from flows.settings import Place
from tests import make
from tests.make import png
from tests.test_ingest import contents

GOOD = 4  # images that every input below holds beside what is bad in it


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A project with one session: red and green."""
    project = tmp_path_factory.mktemp("before")
    _lay(project / "may", {f"{c}/{i}.png": png(k, i) for k, c in enumerate(("red", "green")) for i in range(3)})
    ingest(Source(project / "may", "may"), project / "data", Place(project))
    return project


@pytest.fixture
def project(before: Path, tmp_path: Path) -> Path:
    shutil.copytree(before / "data", tmp_path / "data")
    (tmp_path / "in").mkdir()
    return tmp_path


def _lay(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    return folder


def good() -> dict[str, bytes]:
    return {f"blue/{i}.png": png(2, 500 + i) for i in range(GOOD)}


def sound(kind: str, mode: str = "RGB", size: tuple[int, int] = (16, 16)) -> bytes:
    sink = io.BytesIO()
    rng = random.Random(kind)
    Image.frombytes(mode, size, rng.randbytes(len(Image.new(mode, size).tobytes()))).save(sink, kind)
    return sink.getvalue()


def blank(size: tuple[int, int]) -> bytes:
    sink = io.BytesIO()
    Image.new("1", size).save(sink, "PNG")
    return sink.getvalue()


def deep(kind: type) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(np.arange(256).reshape(16, 16).astype(kind)).save(sink, "TIFF")
    return sink.getvalue()


def huge_header() -> bytes:
    data = png(3, 3)
    header = struct.pack(">II", 60_000, 60_000) + data[24:29]
    return data[:16] + header + struct.pack(">I", zlib.crc32(b"IHDR" + header)) + data[33:]


def flipped(data: bytes, at: float) -> bytes:
    place = int(at * len(data))
    return data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]


class Payload:
    """A pickle that would leave a mark if anybody loaded it."""

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(Path(os.environ["EVERGREEN_TEST_MARK"]) / "unpickled"),)


def payload() -> bytes:
    return pickle.dumps(Payload())


# --- image files in a folder per class: set aside, the rest goes in

FILES: dict[str, tuple[str, bytes, str]] = {
    "png that is cut short": ("red/x.png", png(3, 1)[:-40], "cut short"),
    "jpeg that is cut short": ("red/x.jpg", sound("JPEG")[:-60], "cut short"),
    "webp that is cut short": ("red/x.webp", sound("WEBP")[:-20], "cut short"),
    "gif that is cut short": ("red/x.gif", sound("GIF", "P")[:200], "cut short"),
    "tiff that is cut short": ("red/x.tif", sound("TIFF")[:300], "cut short"),
    "bmp that is cut short": ("red/x.bmp", sound("BMP")[:300], "cut short"),
    "png with a flipped bit in its pixels": ("red/x.png", flipped(png(3, 1), 0.5), "unreadable"),
    "png with a flipped bit in its header": ("red/x.png", flipped(png(3, 1), 0.02), "unreadable"),
    "empty file": ("red/x.png", b"", "unreadable"),
    "text called png": ("red/x.png", b"no picture at all", "unreadable"),
    "page called jpeg": ("red/x.jpg", b"<html><body>404</body></html>", "unreadable"),
    "drawing called png": ("red/x.png", b"<svg xmlns='http://www.w3.org/2000/svg'/>", "unreadable"),
    "postscript called png": ("red/x.png", b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unreadable"),
    "pickle called png": ("red/x.png", pickle.dumps({"a": 1}), "unreadable"),
    "drawing": ("red/x.svg", b"<svg/>", "no kind of image that is read"),
    "heic": ("red/x.heic", b"\0\0\0 ftypheic", "no kind of image that is read"),
    "pickle among the images": ("red/x.pkl", pickle.dumps(1), "no kind of image that is read"),
    "archive among the images": ("red/x.zip", b"PK\5\6" + bytes(18), "no kind of image that is read"),
    "one pixel": ("red/x.png", blank((1, 1)), "too small"),
    "one pixel wide": ("red/x.png", blank((1, 90)), "too small"),
    "81 million pixels in 10 kB": ("red/x.png", blank((9000, 9000)), "too large"),
    "a header that claims 3.6 thousand million pixels": ("red/x.png", huge_header(), "too large"),
    "a line of 3,000 pixels": ("red/x.png", blank((3000, 2)), "too large"),
    "floats from 0 to 255": ("red/x.tif", deep(np.float32), "no kind of image that is read"),
    "integers of 32 bits": ("red/x.tif", deep(np.int32), "no kind of image that is read"),
    "the same image twice": ("blue/again.png", png(2, 500), "duplicate"),
    "an image of an earlier session": ("red/again.png", png(0, 1), "duplicate"),
    "an image of an earlier session under another class": ("blue/again.png", png(0, 1), "label conflict"),
    "an image in no class": ("loose.png", png(4, 4), "in no class folder"),
    "a name with a line break": ("red/a\nb.png", png(4, 4), "unusable name"),
    "a name with an escape sequence": ("red/\x1b[31m.png", png(4, 4), "unusable name"),
    "a class whose name has a line break": ("re\nd/1.png", png(4, 4), "unusable name"),
    "a class called nan": ("nan/1.png", png(4, 4), "unusable label"),
    "a class that was UTF-8 and read as Latin-1": ("cafÃ©/1.png", png(4, 4), "unusable label"),
    "a class with a replacement character": ("caf\ufffd/1.png", png(4, 4), "unusable label"),
}


def set_aside(project: Path, source: Source, reason: str, kept: int = GOOD) -> Outcome:
    old = contents(project / "data")
    outcome = ingest(source, project / "data", Place(project))
    assert reason in {problem.reason for problem in outcome.problems}, outcome.problems
    assert outcome.entry.train + outcome.entry.test == kept and outcome.entry.folder == "0002-new"
    now = contents(project / "data")
    assert {name: data for name, data in now.items() if "/0002-new/" not in f"/{name}"} == old
    report = (project / "mlruns" / "ingest" / "inbox-new" / "report.csv").read_text()
    assert f",{reason}," in report
    return outcome


def refused(project: Path, source: Source, told: str) -> None:
    old = contents(project / "data")
    with pytest.raises(EvergreenError) as caught:
        ingest(source, project / "data", Place(project))
    assert told in str(caught.value), str(caught.value)
    assert contents(project / "data") == old and not [*project.rglob("*.part")]


@pytest.mark.parametrize("what", FILES)
def test_a_bad_file_is_set_aside_and_never_loses_the_rest(project: Path, what: str) -> None:
    name, data, reason = FILES[what]
    _lay(project / "in", {**good(), name: data})
    set_aside(project, Source(project / "in", "new"), reason)


# what `data add` tells and takes all the same: another's test images are not ours to change
TAKEN = {
    "the same image twice": Topic.SAME,
    "an image of an earlier session": None,
    "an image of an earlier session under another class": None,
}


def not_added(path: Path, reason: str, **columns: str) -> str:
    """`data add` refuses what `ingest` sets aside, for the same reason."""
    with pytest.raises(DataError) as caught:
        take(path, columns)
    assert reason in str(caught.value), str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize("what", FILES)
def test_what_ingest_sets_aside_data_add_refuses_or_tells(tmp_path: Path, what: str) -> None:
    name, data, reason = FILES[what]
    source = _lay(tmp_path / "in", {**good(), name: data})
    if what not in TAKEN:
        not_added(source, reason)
        return
    splits, told = take(source, {})
    assert sum(map(len, splits.values())) == GOOD + 1 and (not TAKEN[what] or TAKEN[what] in {each.topic for each in told})


def _link(folder: Path) -> None:
    (folder / "red" / "x.png").symlink_to("/etc/hostname")


def _dangling(folder: Path) -> None:
    (folder / "red" / "x.png").symlink_to("nowhere.png")


def _circle(folder: Path) -> None:
    (folder / "red" / "x.png").symlink_to("x.png")


def _linked_folder(folder: Path) -> None:
    _lay(folder.parent / "elsewhere", {"1.png": png(4, 4)})
    (folder / "red" / "more").symlink_to(folder.parent / "elsewhere")


def _linked_class(folder: Path) -> None:
    _lay(folder.parent / "elsewhere", {"1.png": png(4, 4)})
    (folder / "yellow").symlink_to(folder.parent / "elsewhere")


def _pipe(folder: Path) -> None:
    os.mkfifo(folder / "red" / "x.png")


def _device(folder: Path) -> None:
    (folder / "red" / "x.png").symlink_to("/dev/zero")


def _latin_name(folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/red/caf\xe9.png")).write_bytes(png(4, 4))


def _empty_class(folder: Path) -> None:
    (folder / "yellow").mkdir()


def _too_large(folder: Path) -> None:
    with (folder / "red" / "x.png").open("wb") as file:
        file.truncate((1 << 28) + 1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (_link, "link"),
        (_dangling, "link"),
        (_circle, "link"),
        (_linked_folder, "link"),
        (_linked_class, "link"),
        (_pipe, "not a regular file"),
        (_device, "link"),
        (_latin_name, "unusable name"),
        (_empty_class, "class without an image"),
        (_too_large, "too large"),
    ],
)
def test_what_is_no_plain_file_is_never_followed_or_opened(project: Path, spoil: Callable[[Path], None], reason: str) -> None:
    _lay(project / "in", {**good(), "red/1.png": png(0, 600)})
    spoil(project / "in")
    set_aside(project, Source(project / "in", "new"), reason, GOOD + 1)


def test_a_test_image_that_also_teaches_is_left_out_of_the_test(project: Path) -> None:
    files = {f"train/blue/{i}.png": png(2, 500 + i) for i in range(3)} | {"test/blue/8.png": png(2, 508), "test/blue/1.png": png(2, 501)}
    outcome = set_aside(project, Source(_lay(project / "in", files), "new"), "duplicate")
    assert (outcome.entry.train, outcome.entry.test) == (3, 1)


def test_a_table_that_names_an_image_for_both_parts_teaches_it_and_does_not_ask_for_it(project: Path) -> None:
    rows = [f"{name},blue,train" for name in list(good())[:3]] + ["blue/0.png,blue,test", "blue/3.png,blue,test"]
    _lay(project / "in", {**good(), "t.csv": "\n".join(["image,label,split", *rows]).encode()})
    outcome = set_aside(project, Source(project / "in" / "t.csv", "new"), "duplicate")
    assert (outcome.entry.train, outcome.entry.test) == (3, 1)


def test_an_image_under_two_classes_is_in_neither(project: Path) -> None:
    outcome = set_aside(project, Source(_lay(project / "in", {**good(), "red/x.png": png(2, 500)}), "new"), "label conflict", GOOD - 1)
    assert {problem.where for problem in outcome.problems} == {"blue/0.png", "red/x.png"}


def test_a_class_with_test_images_alone_is_left_out(project: Path) -> None:
    files = {f"train/blue/{i}.png": png(2, 500 + i) for i in range(3)} | {"test/blue/8.png": png(2, 508), "test/red/1.png": png(0, 501)}
    set_aside(project, Source(_lay(project / "in", files), "new"), "class without a training image")


# --- rows of tables

ROW = b"".join(f"{name},blue,a blue square\n".encode() for name in good())
ROWS: dict[str, tuple[bytes, str]] = {
    "too few cells": (b"one\n", "unusable value"),
    "too many cells": (b"one,two,three,four\n", "unusable value"),
    "not UTF-8 in a caption": (b"x.png,blue,na\xefve\n", "not UTF-8"),
    "UTF-16 in a caption": (b"x.png,blue,\xff\xfea\x00b\x00\n", "not UTF-8"),
    "UTF-8 read as Windows' letters": ("x.png,blue,the â€™dogâ€™\n".encode(), "unusable caption"),
    "a path that climbs out": (b"../data/inbox/0001-may/session.json,blue,words\n", "outside the folder"),
    "an absolute path": (b"/etc/hostname,blue,words\n", "outside the folder"),
    "a path to a folder": (b"blue,blue,words\n", "not a regular file"),
    "an image that is not there": (b"gone.png,blue,words\n", "missing"),
    "a path with a zero byte": (b"x\x00.png,blue,words\n", "unusable name"),
    "a path that no file can have": (b"x" * 5000 + b".png,blue,words\n", "missing"),
    "no image": (b",blue,words\n", "no image"),
    "the same row twice": (ROW[: ROW.index(b"\n") + 1], "duplicate"),
    "a label called NaN": (b"x.png,NaN,words\n", "no label"),
    "a label called None": (b"x.png,None,words\n", "no label"),
    "a label with control characters": (b"x.png,bl\x07ue,words\n", "unusable label"),
    "a label of 10,000 characters": (b"x.png," + b"b" * 10_000 + b",words\n", "unusable label"),
    "no label": (b"x.png,,words\n", "no label"),
    "a data: image that is not base64": (b"data:image/png;base64;%%%,blue,words\n", "unreadable"),
}


@pytest.mark.parametrize("what", ROWS)
def test_a_bad_row_is_set_aside_and_never_loses_the_rest(project: Path, what: str) -> None:
    row, reason = ROWS[what]
    _lay(project / "in", {**good(), "x.png": png(4, 4), "t.csv": b"image,label,caption\n" + row + ROW})
    kept = GOOD + 1 if reason == "unusable caption" else GOOD  # a bad caption does not take its image with it
    set_aside(project, Source(project / "in" / "t.csv", "new", labels="label"), reason, kept)


@pytest.mark.parametrize("what", ROWS)
def test_a_row_that_ingest_sets_aside_data_add_refuses_or_tells(tmp_path: Path, what: str) -> None:
    row, reason = ROWS[what]
    source = _lay(tmp_path / "in", {**good(), "x.png": png(4, 4), "t.csv": b"image,label,caption\n" + row + ROW}) / "t.csv"
    if reason in ("no label", "duplicate"):
        told = {each.topic for each in take(source, {})[1]}
        assert reason == "no label" or Topic.REPEATED in told
        assert (Topic.BLANK in told) == ("called" in what)
    else:
        not_added(source, reason)


@pytest.mark.parametrize(
    ("caption", "reason"),
    [
        ("", "no caption"),
        ("   ", "no caption"),
        ("word " * 300, "caption too long"),
        ("a \x1b[2J square", "unusable caption"),
        ("a \ufffd square", "unusable caption"),
        ("a cafÃ©", "unusable caption"),
    ],
)
def test_a_caption_that_is_none_is_set_aside(project: Path, caption: str, reason: str) -> None:
    lines = [{"image": name, "caption": f"a blue square, {name}"} for name in good()] + [{"image": "x.png", "caption": caption}]
    _lay(project / "in", {**good(), "x.png": png(4, 4), "t.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    set_aside(project, Source(project / "in" / "t.jsonl", "new"), reason)


def test_one_bad_caption_of_two_goes_alone(project: Path) -> None:
    lines = [{"image": name, "captions": ["a blue square", "b" * 2000]} for name in good()]
    _lay(project / "in", {**good(), "t.jsonl": "\n".join(map(json.dumps, lines)).encode()})
    outcome = set_aside(project, Source(project / "in" / "t.jsonl", "new"), "caption too long")
    assert len(outcome.problems) == GOOD


LINES: dict[str, tuple[bytes, str]] = {
    "half a line": (b'{"image": "x.png", "label": "bl', "unusable value"),
    "a list": (b'["x.png", "blue"]', "unusable value"),
    "not UTF-8": (b'{"image": "x.png", "label": "blue", "caption": "caf\xe9"}', "not UTF-8"),
    "100,000 brackets": (b"[" * 100_000, "unusable value"),
    "an inline image that is not base64": (b'{"image": "data:image/png;base64,%%%", "label": "blue"}', "unreadable"),
    "an inline image that is none": (b'{"image": "data:image/png;base64,' + base64.b64encode(b"x") + b'", "label": "blue"}', "unreadable"),
    "no image": (b'{"label": "blue"}', "no image"),
    "a date that is none": (b'{"image": "x.png", "label": "blue", "time": "yesterday"}', "unusable value"),
    "an id that is empty": (b'{"id": "", "image": "x.png", "label": "blue"}', "unusable id"),
    "an id with a line break": (b'{"id": "a\\nb", "image": "x.png", "label": "blue"}', "unusable id"),
    "an id of another row": (b'{"id": "blue/0.png", "image": "x.png", "label": "blue"}', "duplicate"),
    "an id of another row with another label": (b'{"id": "blue/0.png", "image": "x.png", "label": "red"}', "label conflict"),
    "a split that does not exist": (b'{"image": "x.png", "label": "blue", "split": "holdout"}', "unusable value"),
}


@pytest.mark.parametrize("what", LINES)
def test_a_bad_line_is_set_aside_and_never_loses_the_rest(project: Path, what: str) -> None:
    line, reason = LINES[what]
    split = {"split": "train"} if b'"split"' in line else {}
    lines = [json.dumps({"id": name, "image": name, "label": "blue", **split}).encode() for name in good()]
    line = line if b'"id"' in line else line.replace(b'{"', b'{"id": "x", "', 1)
    _lay(project / "in", {**good(), "x.png": png(4, 4), "t.jsonl": b"\n".join([*lines[:2], line, *lines[2:]])})
    kept = GOOD - 1 if reason == "label conflict" else GOOD
    set_aside(project, Source(project / "in" / "t.jsonl", "new"), reason, kept)


@pytest.mark.parametrize("what", LINES)
def test_a_line_that_ingest_sets_aside_data_add_refuses_or_tells(tmp_path: Path, what: str) -> None:
    line, reason = LINES[what]
    lines = [
        json.dumps({"id": name, "image": name, "label": "blue"} | ({"split": "train"} if b'"split"' in line else {})) for name in good()
    ]
    line = line if b'"id"' in line else line.replace(b'{"', b'{"id": "x", "', 1)
    data = b"\n".join([*map(str.encode, lines[:2]), line, *map(str.encode, lines[2:])])
    source = _lay(tmp_path / "in", {**good(), "x.png": png(4, 4), "t.jsonl": data}) / "t.jsonl"
    if reason == "duplicate":
        assert Topic.REPEATED in {each.topic for each in take(source, {})[1]}
    else:
        not_added(source, reason)


def test_100000_rows_that_say_the_same_are_one_image_and_a_report(project: Path) -> None:
    rows = b"image,label\n" + ROW.replace(b",a blue square", b"") + b"blue/0.png,blue\n" * 100_000
    _lay(project / "in", {**good(), "t.csv": rows})
    outcome = set_aside(project, Source(project / "in" / "t.csv", "new"), "duplicate")
    assert len(outcome.problems) == 100_000 == outcome.entry.quarantined


def _parquet(**columns: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(pa.table({"image": list(good().values()), "label": ["blue"] * GOOD, **columns}), sink)
    return sink.getvalue()


def _classes() -> bytes:
    table = pa.table({"image": [*good().values(), png(4, 4)], "label": pa.array([0, 0, 0, 0, 7], pa.int64())})
    notes = {"huggingface": json.dumps({"info": {"features": {"label": {"names": ["blue"]}}}})}
    sink = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(notes), sink)
    return sink.getvalue()


CELLS: dict[str, tuple[bytes, str]] = {
    "a class number beyond the names": (_classes(), "unusable value"),
    "a label that is NaN": (_parquet(image=[*good().values(), png(4, 4)], label=[1.0, 1.0, 1.0, 1.0, float("nan")]), "no label"),
    "a label that is 1.5": (_parquet(image=[*good().values(), png(4, 4)], label=[1.0, 1.0, 1.0, 1.0, 1.5]), "unusable value"),
    "a row without an image": (_parquet(image=[*good().values(), None], label=["blue"] * 5), "no image"),
    "an image of no bytes": (_parquet(image=[*good().values(), b""], label=["blue"] * 5), "unreadable"),
}


@pytest.mark.parametrize("what", CELLS)
def test_a_bad_cell_of_a_parquet_file_is_set_aside(project: Path, what: str) -> None:
    data, reason = CELLS[what]
    _lay(project / "in", {"t.parquet": data})
    set_aside(project, Source(project / "in" / "t.parquet", "new"), reason)


@pytest.mark.parametrize("what", CELLS)
def test_a_cell_that_ingest_sets_aside_data_add_refuses_or_takes_for_empty(tmp_path: Path, what: str) -> None:
    data, reason = CELLS[what]
    source = _lay(tmp_path / "in", {"t.parquet": data}) / "t.parquet"
    if reason == "no label":
        assert sum(rows.labels.count(None) for rows in take(source, {})[0].values()) == 1
    else:
        not_added(source, reason)


TABLES: dict[str, tuple[str, bytes, str]] = {
    "empty csv": ("t.csv", b"", "cannot be read as .csv"),
    "csv of a header": ("t.csv", b"image,label\n", "the table has no rows"),
    "csv without images": ("t.csv", b"label,number\nblue,1\n", "no image column among label, number"),
    "csv with two columns of a name": ("t.csv", b"image,label,label\nx.png,blue,red\n", "two columns share a name"),
    "csv whose header is not UTF-8": ("t.csv", b"im\xe9ge,label\nx.png,blue\n", "cannot be read as .csv"),
    "csv in UTF-16": ("t.csv", "image,label\nx.png,blue\n".encode("utf-16"), "t.csv"),
    "noise called csv": ("t.csv", random.Random(0).randbytes(5000), "t.csv"),
    "csv of which a class is not UTF-8": (
        "t.csv",
        b"image,label\n" + ROW.replace(b",a blue square", b"") + b"x.png,caf\xe9\n",
        "no row would be left of",
    ),
    "csv of which no row can be used": ("t.csv", b"image,label\ngone.png,blue\n", "none of 1 row can be used"),
    "empty parquet": ("t.parquet", b"", "cannot be read as .parquet"),
    "parquet that is cut short": ("t.parquet", _parquet()[:-30], "cannot be read as .parquet"),
    "parquet with a flipped bit": ("t.parquet", flipped(_parquet(), 0.98), "t.parquet"),
    "text called parquet": ("t.parquet", b"PAR1 is how it starts", "cannot be read as .parquet"),
    "parquet whose labels are not UTF-8": (
        "t.parquet",
        _parquet(label=pa.array([b"caf\xe9"] * GOOD, pa.binary()).view(pa.string())),
        "cannot be read as .parquet",
    ),
    "parquet whose images are numbers": ("t.parquet", _parquet(image=[1, 2, 3, 4]), "expected paths or encoded bytes"),
    "parquet whose captions are numbers": ("t.parquet", _parquet(caption=[1, 2, 3, 4]), "expected a text or a list of texts"),
    "empty json lines": ("t.jsonl", b"", "no line holds a JSON mapping"),
    "json lines that differ in kind": (
        "t.jsonl",
        b'{"image": "x.png", "label": 1}\n{"image": "x.png", "label": "blue"}',
        "cannot be read as .jsonl",
    ),
    "json that is no split file": ("t.json", b'{"images": [1]}', "JSON of no kind that is read"),
    "json of 100,000 brackets": ("t.json", b"[" * 100_000, "cannot be read as .json"),
    "empty zip file": ("t.zip", b"", "cannot be read as .zip"),
    "noise called zip": ("t.zip", random.Random(0).randbytes(5000), "cannot be read as .zip"),
    "empty tar file": ("t.tar", b"", "cannot be read as .tar"),
    "noise called tar": ("t.tar", random.Random(0).randbytes(5000), "cannot be read as .tar"),
    "tar of zeros": ("t.tar", bytes(10240), "no sample"),
    "a kind that is not read": ("t.docx", b"x", "unknown kind of file"),
    "gzipped tar by its own name": ("t.tar.gz", gzip.compress(bytes(10240)), "unknown kind of file"),
}


@pytest.mark.parametrize("what", TABLES)
def test_a_file_that_cannot_be_read_at_all_is_refused(project: Path, what: str) -> None:
    name, data, told = TABLES[what]
    _lay(project / "in", {name: data})
    refused(project, Source(project / "in" / name, "new"), told)
    not_added(project / "in" / name, told)


@pytest.mark.parametrize("name", ["t.parquet", "t.csv", "t.jsonl", "t.json", "t.tar", "t.zip"])
def test_a_pickle_under_any_name_is_refused_and_never_loaded(project: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_TEST_MARK", str(project / "in"))
    _lay(project / "in", {name: payload()})
    refused(project, Source(project / "in" / name, "new"), name)
    assert not (project / "in" / "unpickled").exists()


def test_a_chosen_column_that_is_not_there_is_refused_with_the_nearest(project: Path) -> None:
    _lay(project / "in", {**good(), "t.csv": b"image,label,caption\n" + ROW})
    refused(
        project, Source(project / "in" / "t.csv", "new", labels="labl"), "no column 'labl' for the label; there are image, label, caption"
    )


def test_places_that_are_no_data_are_refused(project: Path) -> None:
    os.mkfifo(project / "pipe.csv")
    for path, told in (("nowhere", "does not exist"), ("pipe.csv", "neither a folder nor a regular file"), ("in", "found nothing")):
        refused(project, Source(project / path, "new"), told)
    refused(project, Source(Path("/dev/zero"), "new"), "neither a folder nor a regular file")
    refused(project, Source(project / ("x" * 300), "new"), "does not exist or cannot be read")


@pytest.mark.parametrize("name", ["../up", "/abs", "a/b", ".hidden", "", "a\0b", "x" * 200])
def test_names_that_are_paths_are_refused(project: Path, name: str) -> None:
    _lay(project / "in", good())
    refused(project, Source(project / "in", name), "a session's name is made of")
    refused(project, Source(project / "in", "new", into=name), "a collection's name is made of")


def test_a_session_of_which_nothing_can_be_used_is_refused_with_a_report(project: Path) -> None:
    _lay(project / "in", {f"blue/{i}.png": b"no picture %d" % i for i in range(3)})
    refused(project, Source(project / "in", "new"), "set aside: 3 unreadable, see ")
    assert len((project / "mlruns/ingest/inbox-new/refused.csv").read_text().splitlines()) == 4


def test_a_session_that_leaves_nothing_to_examine_with_is_refused(project: Path) -> None:
    refused(project, Source(_lay(project / "in", {"blue/1.png": png(2, 501)}), "new"), "no image is left to examine with")
    refused(project, Source(_lay(project / "in", good()), "new", test_share=0.0), "no image is left to examine with")


# --- archives


def _zip(folder: Path, spoil: Callable[[zipfile.ZipFile], None], kind: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(folder / "t.zip", "w", kind) as archive:
        for name, data in good().items():
            archive.writestr(name, data)
        spoil(archive)
    return folder / "t.zip"


def _zip_link(archive: zipfile.ZipFile) -> None:
    info = zipfile.ZipInfo("red/x.png")
    info.external_attr = 0o120777 << 16
    archive.writestr(info, "/etc/hostname")


@pytest.mark.filterwarnings("ignore:Duplicate name")
@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: a.writestr("../x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("red/../../x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("/tmp/x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("C:/x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("red\\..\\x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("..\\x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("\\\\host\\x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("C:\\x.png", png(4, 4)), "outside the folder"),
        (lambda a: a.writestr("red\\" + "x" * 5000, png(4, 4)), "unusable name"),
        (lambda a: a.writestr("blue\\0.png", png(4, 4)), "duplicate"),
        (lambda a: a.writestr("train.tar", gzip.compress(bytes(10240))), "unreadable"),
        (lambda a: a.writestr("red/a\x1bb.png", png(4, 4)), "unusable name"),
        (_zip_link, "link"),
        (lambda a: a.writestr("red/x.png", bytes(30_000_000)), "decompression bomb"),
        (lambda a: a.writestr("blue/0.png", png(4, 4)), "duplicate"),
        (lambda a: a.writestr("blue/0.png/x.png", png(4, 4)), "duplicate"),
        (lambda a: a.writestr("red/" + "x" * 400 + ".png", png(4, 4)), "unreadable"),
        (lambda a: a.writestr("red/inner.zip", b"PK\5\6" + bytes(18)), "no kind of image that is read"),
    ],
)
def test_a_zip_is_believed_nothing(project: Path, spoil: Callable[[zipfile.ZipFile], None], reason: str) -> None:
    around = {path.name for path in project.parent.iterdir()}
    set_aside(project, Source(_zip(project / "in", spoil), "new"), reason)
    assert {path.name for path in project.parent.iterdir()} == around


def test_a_member_of_a_zip_that_is_damaged_is_set_aside(project: Path) -> None:
    file = _zip(project / "in", lambda archive: None, zipfile.ZIP_STORED)
    file.write_bytes(flipped(file.read_bytes(), 0.1))
    set_aside(project, Source(file, "new"), "unreadable", GOOD - 1)


def test_a_zip_that_is_encrypted_is_refused(project: Path) -> None:
    file = _zip(project / "in", lambda archive: None)
    file.write_bytes(file.read_bytes().replace(b"\x14\x00\x00\x00", b"\x14\x00\x01\x00"))  # the flag, in both headers of each
    refused(project, Source(file, "new"), "set aside: 4 unreadable")


def test_a_zip_that_is_cut_short_is_refused(project: Path) -> None:
    file = _zip(project / "in", lambda archive: None)
    file.write_bytes(file.read_bytes()[:-100])
    refused(project, Source(file, "new"), "cannot be read as .zip")


def _tar(file: Path, spoil: Callable[[tarfile.TarFile], None] = lambda archive: None) -> Path:
    with tarfile.open(file, "w") as archive:
        for number, data in enumerate(good().values()):
            _member(archive, f"{number}.png", data)
            _member(archive, f"{number}.cls", b"blue")
        spoil(archive)
    return file


def _member(archive: tarfile.TarFile, name: str, data: bytes = b"", kind: bytes = tarfile.REGTYPE, target: str = "") -> None:
    info = tarfile.TarInfo(name)
    info.size, info.type, info.linkname = len(data), kind, target
    archive.addfile(info, io.BytesIO(data))


def _sample(**members: bytes) -> Callable[[tarfile.TarFile], None]:
    def add(archive: tarfile.TarFile) -> None:
        for kind, data in members.items():
            _member(archive, f"x.{kind}", data)

    return add


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda a: _member(a, "../x.png", png(4, 4)), "outside the folder"),
        (lambda a: _member(a, "/tmp/x.png", png(4, 4)), "outside the folder"),
        (lambda a: _member(a, "x.png", kind=tarfile.SYMTYPE, target="/etc/hostname"), "link"),
        (lambda a: _member(a, "x.png", kind=tarfile.LNKTYPE, target="0.png"), "link"),
        (lambda a: _member(a, "x.png", kind=tarfile.FIFOTYPE), "not a regular file"),
        (lambda a: _member(a, "x.png", kind=tarfile.CHRTYPE), "not a regular file"),
        (_sample(txt=b"no image"), "unusable value"),
        (_sample(png=png(4, 4), json=b"{"), "unusable value"),
        (_sample(png=png(4, 4), json=b"[1]"), "unusable value"),
        (_sample(png=png(4, 4), json=b"[" * 50_000), "unusable value"),
        (_sample(png=png(4, 4), txt=b"caf\xe9"), "unusable value"),
        (_sample(png=png(4, 4)), "no label"),
        (_sample(png=b"no picture", cls=b"blue"), "unreadable"),
    ],
)
def test_a_tar_is_believed_nothing(project: Path, spoil: Callable[[tarfile.TarFile], None], reason: str) -> None:
    set_aside(project, Source(_tar(project / "in" / "t.tar", spoil), "new"), reason)


def test_of_a_tar_that_is_cut_short_what_is_whole_is_taken(project: Path) -> None:
    file = _tar(project / "in" / "t.tar", lambda archive: _member(archive, "x.png", bytes(3000)))
    data = file.read_bytes()
    file.write_bytes(data[: data.rindex(b"x.png") + 1500])
    set_aside(project, Source(file, "new"), "cut short")


def test_a_tar_that_unpacks_to_thousands_of_times_its_size_is_refused(project: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        _member(archive, "x.png", bytes(40_000_000))
    _lay(project / "in", {"t.tar": gzip.compress(plain.getvalue())})
    refused(project, Source(project / "in" / "t.tar", "new"), "a decompression bomb")


def test_class_names_of_tars_that_are_not_utf8_are_refused(project: Path) -> None:
    _lay(project / "in", {"classnames.txt": b"caf\xe9\n"})
    refused(project, Source(_tar(project / "in" / "t.tar"), "new"), "classnames.txt: not UTF-8 but Latin-1")


# --- what is there already is damaged


@pytest.mark.parametrize(
    ("file", "data", "told"),
    [
        ("session.json", b"", "not what describes a session"),
        ("session.json", b"{}", "this setting is required"),
        ("session.json", b"[" * 100_000, "not what describes a session"),
        ("session.json", b'{"name": "may", "number": "one"}', "not what describes a session"),
        ("index.parquet", b"", "index.parquet: cannot be read"),
        ("index.parquet", pickle.dumps(1), "index.parquet: cannot be read"),
        ("index.parquet", _parquet(), "index.parquet: cannot be read"),
    ],
)
def test_a_damaged_collection_takes_nothing_in_and_says_what_restores_it(project: Path, file: str, data: bytes, told: str) -> None:
    (project / "data" / "inbox" / "0001-may" / file).write_bytes(data)
    _lay(project / "in", good())
    refused(project, Source(project / "in", "new"), told)
    refused(project, Source(project / "in", "new"), "`dvc checkout` restores")


# --- configs

CONFIG = "name: x\nmodel: {name: tiny}\nstream: {kind: collection, sources: {inbox: inbox}}\n"
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{n}: &{n} [{', '.join(f'*{m}' for _ in range(9))}]\n" for m, n in zip("abcdefgh", "bcdefghi", strict=True)
)

CONFIGS: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "expected a mapping"),
    "a list": (b"- a\n- b\n", "expected a mapping"),
    "not YAML": (b"name: [x", "not valid YAML"),
    "tabs": (b"name:\n\t- x", "not valid YAML"),
    "not UTF-8": (b"name: caf\xe9", "cannot be read"),
    "noise": (random.Random(0).randbytes(500), "cannot be read"),
    "an object of Python": (b"name: !!python/object/apply:os.system ['true']\n", "not valid YAML"),
    "3,000 brackets": (b"name: " + b"[" * 3_000, "nested too deeply"),
    "a thousand million words": (f"{LAUGHS}name: *i\n".encode(), "aliases make over 100,000 values of it"),
    "a misspelt key": (f"{CONFIG}methud: finetune\n".encode(), "methud: unknown setting"),
    "a misspelt key further down": (f"{CONFIG}train: {{lrr: 1}}\n".encode(), "train.lrr: unknown setting"),
    "a wrong type": (f"{CONFIG}train: {{epochs: many}}\n".encode(), "train.epochs: expected a whole number"),
    "NaN": (f"{CONFIG}train: {{lr: .nan}}\n".encode(), "train.lr"),
    "infinity": (f"{CONFIG}train: {{lr: .inf}}\n".encode(), "train.lr"),
    "out of range": (f"{CONFIG}seed: -1\n".encode(), "seed: expected a number of at least 0"),
    "an unknown method": (f"{CONFIG}method: best\n".encode(), "unknown method 'best'"),
    "a method that is a number": (f"{CONFIG}method: 3\n".encode(), "method"),
    "an unknown kind of stream": (b"name: x\nstream: {kind: river, sources: {a: a}}\n", "stream"),
    "a name that is a path": (CONFIG.replace("name: x", "name: ../x").encode(), "name: expected a name that begins with a letter or digit"),
    "an unset variable": (CONFIG.replace("inbox: inbox", "inbox: ${NOWHERE_SET}").encode(), "NOWHERE_SET is not set"),
    "no stream": (b"name: x\n", "stream: this setting is required"),
    "until no session": (CONFIG.replace("collection,", "collection, until: 0,").encode(), "stream.until"),
    "a key twice": (f"{CONFIG}seed: 1\nseed: 2\n".encode(), "'seed' stands twice"),
}


@pytest.mark.parametrize("what", CONFIGS)
def test_a_bad_config_is_one_sentence(tmp_path: Path, what: str) -> None:
    text, told = CONFIGS[what]
    (tmp_path / "x.yaml").write_bytes(text)
    with pytest.raises(ConfigError) as caught:
        read_config(tmp_path / "x.yaml")
    assert told in str(caught.value) and len(str(caught.value)) < 1000 and "\n" not in str(caught.value)


# --- learned states


@pytest.fixture(scope="module")
def learned(before: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Any, Path]:
    """A plan with one session, and the store in which it is learned."""
    config = {"name": "x", "model": {"name": "tiny"}, "train": {"epochs": 1, "batch_size": 4, "device": "cpu"}}
    made = plan(parse_config({**config, "stream": {"kind": "collection", "sources": {"inbox": "inbox"}}}, "x"), before / "data", "v")
    store = tmp_path_factory.mktemp("store")
    for index in (0, 1):
        advance(made, index, store)
    return made, store


DAMAGE: dict[str, tuple[str, Callable[[bytes], bytes]]] = {
    "weights that are cut short": ("state.safetensors", lambda data: data[: len(data) // 2]),
    "weights with a flipped bit": ("state.safetensors", lambda data: flipped(data, 0.7)),
    "weights of no bytes": ("state.safetensors", lambda data: b""),
    "a pickle for weights": ("state.safetensors", lambda data: payload()),
    "notes that are cut short": ("state.json", lambda data: data[: len(data) // 2]),
    "notes of no bytes": ("state.json", lambda data: b""),
    "notes of something else": ("state.json", lambda data: b'{"name": "may"}'),
    "notes that are a list": ("state.json", lambda data: b"[1, 2]"),
    "notes of 100,000 brackets": ("state.json", lambda data: b"[" * 100_000),
    "notes that are not UTF-8": ("state.json", lambda data: b"\xff" + data),
}


@pytest.mark.parametrize("what", DAMAGE)
def test_a_damaged_state_is_not_taken_for_learned(
    learned: tuple[Any, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str
) -> None:
    made, whole_store = learned
    monkeypatch.setenv("EVERGREEN_TEST_MARK", str(tmp_path))
    store = shutil.copytree(whole_store, tmp_path / "store")
    file, change = DAMAGE[what]
    path = store / "states" / made.states[1] / file
    path.write_bytes(change(path.read_bytes()))
    assert whole(path.parent) is None and find(made, 1, store) is None and find(made, 0, store) is not None
    assert not (tmp_path / "unpickled").exists()


@pytest.mark.parametrize("text", ["", "{", "[1]", '{"row": 3}', "null", "[" * 100_000])
def test_a_damaged_row_is_measured_again_from_the_same_weights(learned: tuple[Any, Path], tmp_path: Path, text: str) -> None:
    made, whole_store = learned
    store = shutil.copytree(whole_store, tmp_path / "store")
    wanted = find(made, 1, store)
    (store / "steps" / made.keys[1] / "result.json").write_text(text)
    assert find(made, 1, store) is None
    weights = (store / "states" / made.states[1] / "state.safetensors").read_bytes()
    again = advance(made, 1, store)
    assert wanted and again.row == wanted.row
    assert (store / "states" / made.states[1] / "state.safetensors").read_bytes() == weights


def test_tensors_of_something_else_are_refused_and_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl.methods.presets.finetune import FinetuneConfig

    monkeypatch.setenv("EVERGREEN_TEST_MARK", str(tmp_path))
    for name, data in {"pickle": payload(), "zip": b"PK\5\6" + bytes(18), "long header": b"\xff" * 16, "text": b"{}"}.items():
        (tmp_path / name).write_bytes(data)
        with pytest.raises(StoreError, match="not a safetensors file"):
            read_tensors(tmp_path / name)
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(StoreError, match="not JSON"):
        read_json(tmp_path / "deep.json")
    method = FinetuneConfig().build(make.tiny(), 0)
    old = {key: value.clone() for key, value in method.state_dict().items()}
    with pytest.raises(StoreError, match="do not fit the method"):
        restore(method, {"weight": old[next(iter(old))]}, "foreign")
    assert all((method.state_dict()[key] == value).all() for key, value in old.items())
    assert not (tmp_path / "unpickled").exists()


# --- through the command line


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["ingest", "in/t.zip", "--session", "new"], "cannot be read as .zip"),
        (["ingest", "in", "--session", "../up"], "a session's name is made of"),
        (["ingest", "in", "--session", "new", "--unlabelled", "--labels", "x"], "--unlabelled teaches neither"),
        (["ingest", "in", "--session", "new", "--commit"], "no git repository with DVC"),
        (["watch", "nowhere"], "no such folder"),
        (["data", "add", "new", "in/t.zip"], "cannot be read as .zip"),
        (["data", "add", "new", "half"], "2 unreadable"),
    ],
)
def test_the_command_line_says_it_in_a_line_and_exits_with_2(
    project: Path, words: list[str], told: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import signal

    handlers = [(number, signal.getsignal(number)) for number in (signal.SIGINT, signal.SIGTERM)]
    monkeypatch.setenv("EVERGREEN_ROOT", str(project))
    monkeypatch.chdir(project)
    _lay(project / "in", {"t.zip": b"PK", **good()})
    _lay(project / "half", {**good(), "blue/x.png": b"no picture", "blue/y.png": b"none either"})
    old = contents(project / "data")
    monkeypatch.setattr(sys, "argv", ["evergreen", *words])
    with pytest.raises(SystemExit) as left:
        main()
    for number, handler in handlers:
        signal.signal(number, handler)
    error = capfd.readouterr().err.splitlines()[-1]
    assert left.value.code == 2 and error.startswith("evergreen: ") and told in error
    assert contents(project / "data") == old


def test_the_table_has_at_least_sixty_bad_inputs() -> None:
    assert sum(map(len, (FILES, ROWS, LINES, CELLS, TABLES, CONFIGS, DAMAGE))) >= 60
