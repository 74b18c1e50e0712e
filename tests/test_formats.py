import io
import json
import tarfile
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl.data.formats import read, read_splits
from cl.data.table import write
from cl.errors import DataError


def png(colour: int) -> bytes:
    sink = io.BytesIO()
    Image.new("RGB", (4, 4), (colour, 0, 0)).save(sink, "PNG")
    return sink.getvalue()


def put(folder: Path, *names: str) -> Path:
    for colour, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(png(colour))
    return folder


def text(file: Path, content: str) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(content, encoding="utf-8")
    return file


def tar(file: Path, members: dict[str, bytes]) -> Path:
    file.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(file, "w") as archive:
        for name, data in members.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    return file


def hugging_face(file: Path, labels=(0, 1), names=("cat", "dog"), **columns) -> Path:
    features = {"label": {"names": list(names), "_type": "ClassLabel"}, "domain": {"names": ["photo", "sketch"], "_type": "ClassLabel"}}
    cells = [{"bytes": png(i), "path": f"{i}.png"} for i in range(len(labels))]
    table = pa.table({"image": cells, "label": pa.array(labels, pa.int64()), **columns})
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})}), file)
    return file


def pairs(table):
    return list(zip(table.ids, table.labels, strict=True))


# folders


def test_a_folder_per_class_names_the_classes(tmp_path):
    put(tmp_path, "cat/1.png", "cat/more/2.png", "dog/1.png")
    text(tmp_path / "cat/notes.txt", "not an image")
    text(tmp_path / ".hidden/x.png", "")
    table = read(tmp_path)
    assert pairs(table) == [("cat/1.png", "cat"), ("cat/more/2.png", "cat"), ("dog/1.png", "dog")]
    assert table.table["image"][2].as_py() == png(2)


def test_a_folder_with_spaces_around_its_name_is_read(tmp_path):
    put(tmp_path, " cat /1.png", "dog/ 1.png")
    assert pairs(read(tmp_path)) == [(" cat /1.png", "cat"), ("dog/ 1.png", "dog")]


def test_split_folders_hold_folders_of_classes(tmp_path):
    put(tmp_path, "train/cat/1.png", "train/dog/1.png", "validation/dog/3.png", "test/cat/1.png")
    splits = read_splits(tmp_path)
    assert list(splits) == ["train", "val", "test"]
    assert pairs(splits["train"]) == [("train/cat/1.png", "cat"), ("train/dog/1.png", "dog")]
    assert splits["test"].ids == ["test/cat/1.png"]  # another image than the training one of that name


def test_train_among_cars_and_buses_is_a_class(tmp_path):
    put(tmp_path, "bus/1.png", "car/1.png", "train/1.png")
    assert read_splits(tmp_path)["train"].classes() == ["bus", "car", "train"]


def test_classes_without_an_image_are_counted_and_named(tmp_path):
    put(tmp_path, "cat/1.png")
    for name in ("hat", "polo", "top", "sock"):
        (tmp_path / name).mkdir()
    with pytest.raises(DataError, match=r"4 class without an image \(hat/, polo/, sock/ and 1 more\): add images or remove"):
        read(tmp_path)


def test_a_kind_of_image_that_is_not_read_is_told_and_not_skipped(tmp_path):
    put(tmp_path, "cat/1.png", "cat/2.heic")
    with pytest.raises(DataError, match=r"no kind of image that is read \(cat/2\.heic: \.heic\): convert it"):
        read(tmp_path)


def test_a_damaged_image_is_told_on_reading(tmp_path):
    put(tmp_path, "cat/1.png", "cat/2.png")
    (tmp_path / "cat/2.png").write_bytes(b"<html>")
    with pytest.raises(
        DataError,
        match=r"1 of 2 images cannot be used\. cat/2\.png: not a readable image \(6 bytes that start with 3c68746d",
    ):
        read(tmp_path)
    assert len(read(tmp_path, check=False)) == 2


def test_empty_and_absent_places_say_what_is_expected(tmp_path):
    with pytest.raises(
        DataError, match=r"found nothing; expected a folder per class, images with texts or tables beside them, or files .parquet, .csv"
    ):
        read(tmp_path)
    with pytest.raises(DataError, match="does not exist; give a folder"):
        read(tmp_path / "nowhere")
    with pytest.raises(DataError, match=r"notes\.docx: unknown kind of file"):
        read(text(tmp_path / "notes.docx", "x"))


def test_a_split_that_does_not_exist_is_told_with_those_that_do(tmp_path):
    put(tmp_path, "train/cat/1.png", "test/cat/1.png")
    assert len(read(tmp_path)) == 2 and len(read(tmp_path, split="test")) == 1
    with pytest.raises(DataError, match="no split 'val'; there are train, test"):
        read(tmp_path, split="val")


# Parquet


def test_the_hugging_face_layout_turns_indices_into_names(tmp_path):
    columns = {"domain": pa.array([1, 0, 1]), "captions": [["x", "y"], [], None]}
    table = read(hugging_face(tmp_path / "train.parquet", (1, -1, 0), **columns))
    assert table.labels == ["dog", None, "cat"] and table.domains == ["sketch", "photo", "sketch"]
    assert table.captions == [["x", "y"], [], []] and table.ids == ["train/0.png", "train/1.png", "train/2.png"]


def test_shards_of_a_split_are_one_table(tmp_path):
    hugging_face(tmp_path / "data" / "train-00000-of-00002.parquet", (0, 1))
    hugging_face(tmp_path / "data" / "train-00001-of-00002.parquet", (1, 1, 0), names=("cat", "emu"))
    hugging_face(tmp_path / "data" / "test-00000-of-00001.parquet", (0,))
    splits = read_splits(tmp_path)
    assert splits["train"].labels == ["cat", "dog", "emu", "emu", "cat"]
    assert splits["train"].ids == [f"train/00000{i}" for i in range(5)]  # base names stand twice, so rows are numbered
    assert len(splits["test"]) == 1


@pytest.mark.parametrize("index", [2, -2])
def test_a_label_index_without_a_name_is_refused(tmp_path, index):
    with pytest.raises(DataError, match=rf"t\.parquet row 2: column 'label': index {index}, but the file names 2 classes; expected 0 to 1"):
        read(hugging_face(tmp_path / "t.parquet", (0, index)))


def test_an_image_struct_without_bytes_is_read_from_its_path(tmp_path):
    put(tmp_path, "a.png")
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    cells = pa.array([{"bytes": None, "path": "a.png"}, {"bytes": png(9), "path": None}], kind)
    pq.write_table(pa.table({"image": cells}), tmp_path / "t.parquet")
    assert read(tmp_path / "t.parquet").table["image"].to_pylist() == [png(0), png(9)]


def test_what_was_written_is_read_back_unchanged(tmp_path):
    put(tmp_path / "in", "train/cat/1.png", "test/cat/1.png")
    splits = read_splits(tmp_path / "in")
    write(splits, tmp_path / "out")
    again = read_splits(tmp_path / "out")
    assert {name: table.digest() for name, table in again.items()} == {name: table.digest() for name, table in splits.items()}


def test_unusable_columns_say_what_they_hold(tmp_path):
    file = tmp_path / "t.parquet"
    for columns, message in [
        ({"image": [1, 2]}, "the image column holds int64; expected paths or encoded bytes"),
        ({"image": [png(0)], "label": [0.5]}, "holds numbers that are not whole"),
        ({"image": [png(0)], "captions": [[1]]}, "expected a text or a list of texts"),
        ({"image": [png(0)], "label": [["a"]]}, "column 'label': holds list<.*>; expected text"),
    ]:
        pq.write_table(pa.table(columns), file)
        with pytest.raises(DataError, match=message):
            read(file)
    with pytest.raises(DataError, match=r"bad\.parquet: cannot be read as \.parquet"):
        read(text(tmp_path / "bad.parquet", "no"))


# WebDataset


def test_webdataset_shards_hold_captions_classes_and_json(tmp_path):
    tar(tmp_path / "a-000.tar", {"x/1.png": png(1), "x/1.txt": b"a dog\na hound\n", "x/1.cls": b"1\n"})
    tar(tmp_path / "a-001.tar", {"1.jpg": png(2), "1.json": json.dumps({"label": "cat", "domain": "photo", "size": [4, 4]}).encode()})
    text(tmp_path / "classnames.txt", "cat\ndog\n")
    table = read(tmp_path)
    assert table.labels == ["dog", "cat"] and table.domains == [None, "photo"]
    assert table.captions == [["a dog", "a hound"], []]
    assert table.ids == ["a-000/x/1", "a-001/1"]  # the same wherever the folder lies


def test_webdataset_splits_are_folders_or_file_names(tmp_path):
    for split, colour in (("train", 1), ("test", 2)):
        tar(tmp_path / "folders" / split / "0.tar", {"0.png": png(colour), "0.cls": b"cat"})
        tar(tmp_path / "files" / f"{split}-0.tar", {"0.png": png(colour), "0.cls": b"cat"})
    for layout in ("folders", "files"):
        splits = read_splits(tmp_path / layout)
        assert splits["test"].table["image"].to_pylist() == [png(2)]
        assert set(splits["train"].ids).isdisjoint(splits["test"].ids)


@pytest.mark.parametrize(
    ("members", "message"),
    [
        ({}, "no sample that can be used; expected files such as 0001.jpg"),
        ({"1.txt": b"x"}, "t/1: no image, only txt"),
        ({"1.png": b"x", "1.cls": b"5"}, "t/1: has class 5, but classnames.txt names 1"),
        ({"1.png": b"x", "1.json": b"{"}, "t/1: cannot be read"),
        ({"1.png": b"x", "1.txt": b"\xff"}, "t/1: cannot be read"),
    ],
)
def test_a_bad_tar_says_which_sample(tmp_path, members, message):
    text(tmp_path / "classnames.txt", "cat\n")
    with pytest.raises(DataError, match=message):
        read(tar(tmp_path / "t.tar", members))


def test_a_truncated_tar_is_told(tmp_path):
    file = tar(tmp_path / "t.tar", {"1.png": png(0) * 50})
    file.write_bytes(file.read_bytes()[:900])
    with pytest.raises(DataError, match=r"t\.tar: no sample that can be used \(t\.tar: unexpected end of data\)"):
        read(file)
