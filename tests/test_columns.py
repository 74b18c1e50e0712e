import base64
import json
from datetime import UTC, datetime

import pytest

from cl.data.faults import Reason
from cl.data.formats import look, read, read_splits
from cl.errors import DataError
from tests.test_formats import pairs, png, put, text


def test_a_csv_names_image_files_beside_it(tmp_path):
    put(tmp_path, "img/a.png", "img/b.png")
    text(tmp_path / "labels.csv", "filename,class,domain,date\nimg/a.png, 007,photo,2024-03\nimg/b.png,NA,,2024-03-31T12:00:00+02:00\n")
    table = read(tmp_path)
    assert pairs(table) == [("img/a.png", "007"), ("img/b.png", "NA")]  # neither a number nor a missing value
    assert table.domains == ["photo", None]
    assert table.table["time"].to_pylist() == [datetime(2024, 3, 1, tzinfo=UTC), datetime(2024, 3, 31, 10, tzinfo=UTC)]


def test_a_caption_per_row_becomes_one_row_per_image(tmp_path):
    put(tmp_path, "a.png", "b.png")
    text(
        tmp_path / "captions.csv",
        'image,caption\na.png,"a dog, running"\nb.png,a cat\na.png,"two\nlines"\n',
    )
    table = read(tmp_path / "captions.csv")
    assert table.ids == ["a.png", "b.png"]
    assert table.captions == [["a dog, running", "two\nlines"], ["a cat"]]


def test_a_row_that_says_nothing_new_is_one_row_and_one_that_contradicts_is_refused(tmp_path):
    put(tmp_path, "a.png")
    seen = look(text(tmp_path / "t.csv", "path,label\na.png,cat\na.png,cat\n"))
    assert len(seen.strictly()["train"]) == 1 and [problem.reason for problem in seen.problems] == [Reason.DUPLICATE]
    with pytest.raises(DataError, match=r"2 label conflict \(t\.csv row 2: t\.csv row 1 has the same image and says otherwise"):
        read(text(tmp_path / "t.csv", "path,label,caption\na.png,cat,x\na.png,dog,y\nb.png,dog,y\n"))


def test_files_named_by_split_are_read_as_splits(tmp_path):
    put(tmp_path, "1.png", "2.png", "3.png")
    text(tmp_path / "train.csv", "path,label\n1.png,cat\n2.png,dog\n")
    text(tmp_path / "test.csv", "path,label\n3.png,cat\n")
    text(tmp_path / "classes.csv", "index,name\n0,cat\n")
    splits = read_splits(tmp_path)
    assert {name: table.ids for name, table in splits.items()} == {"train": ["1.png", "2.png"], "test": ["3.png"]}


def test_a_split_column_makes_splits(tmp_path):
    put(tmp_path, "1.png", "2.png", "3.png")
    file = text(tmp_path / "all.csv", "path,label,split\n1.png,cat,train\n2.png,dog,Validation\n3.png,cat,test\n")
    assert {name: table.ids for name, table in read_splits(file).items()} == {"train": ["1.png"], "val": ["2.png"], "test": ["3.png"]}
    with pytest.raises(DataError, match="row 2: split 'holdout'; expected train, val or test"):
        read(text(tmp_path / "bad.csv", "path,split\n1.png,train\n2.png,holdout\n"))


def test_columns_can_be_chosen_by_name(tmp_path):
    put(tmp_path, "a.png")
    file = text(tmp_path / "t.csv", "file,label,breed,alt\na.png,animal,poodle,a dog\n")
    table = read(file, label="breed", captions="alt")
    assert table.labels == ["poodle"] and table.captions == [["a dog"]]
    with pytest.raises(DataError, match="no column 'bred' for the label; there are file, label, breed, alt; did you mean breed"):
        read(file, label="bred")
    with pytest.raises(DataError, match=r"column role 'captoins' does not exist; there are .* did you mean captions"):
        read(file, captoins="alt")


def test_missing_image_files_are_counted_and_named(tmp_path):
    put(tmp_path, "a.png")
    file = text(tmp_path / "t.csv", "path,label\na.png,x\nb.png,x\nc.png,x\nd.png,x\ne.png,x\n")
    with pytest.raises(
        DataError, match=r"4 missing \(t\.csv row 2: b\.png, t\.csv row 3: c\.png, t\.csv row 4: d\.png and 1 more\): add it"
    ):
        read(file)


@pytest.mark.parametrize("path", ["../secret.png", "x/../../secret.png", "/etc/hostname"])
def test_an_image_outside_the_folder_is_refused(tmp_path, path):
    put(tmp_path, "secret.png", "data/a.png")
    with pytest.raises(DataError, match=r"1 outside the folder \(t\.csv row 2: "):
        read(text(tmp_path / "data/t.csv", f"path,label\na.png,x\n{path},x\n"))


def test_an_unlabelled_table_is_allowed(tmp_path):
    put(tmp_path, "a.png")
    table = read(text(tmp_path / "t.jsonl", '{"path": "a.png"}\n'))
    assert table.labels == [None] and table.captions == [[]]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("path,label\n", "the table has no rows"),
        ("", "cannot be read as .csv"),
        ("path,label\na.png,x\na.png\n", "t.csv row 2: 1 cells where the header has 2"),
        ("label,caption\nx,y\n", "no image column among label, caption; name it image or path"),
        ("path,label\n,x\n", "1 no image .*: every row needs a path or bytes"),
        ("path,path\na.png,x\n", "two columns share a name"),
        ("path,date\na.png,31.3.2024\n", "row 1: column 'date': '31.3.2024' is not a date; write 2024-03-31"),
        ("id,path\n,a.png\n", "1 unusable id .*row 1"),
    ],
)
def test_a_bad_csv_says_what_is_wrong(tmp_path, content, message):
    put(tmp_path, "a.png")
    with pytest.raises(DataError, match=message):
        read(text(tmp_path / "t.csv", content))


def test_a_csv_that_is_not_utf8_is_told(tmp_path):
    put(tmp_path, "a.png")
    (tmp_path / "t.csv").write_bytes("path,label\na.png,Käse\n".encode("latin-1"))
    with pytest.raises(
        DataError, match=r"1 of 1 row is not UTF-8 \(column 'label' reads as Latin-1: 'Käse'\), and no row would be left of Käse; save"
    ):
        read(tmp_path / "t.csv")


def test_json_lines_hold_paths_or_inline_images_and_lists_of_captions(tmp_path):
    put(tmp_path, "a.png")
    inline = "data:image/png;base64," + base64.b64encode(png(7)).decode()
    rows = [{"id": "1", "image": "a.png", "captions": ["one", "two"]}, {"id": "2", "image": inline, "captions": []}]
    table = read(text(tmp_path / "t.jsonl", "\n".join(map(json.dumps, rows))))
    assert table.captions == [["one", "two"], []]
    assert table.table["image"].to_pylist() == [png(0), png(7)]
    with pytest.raises(DataError, match="row 1: the image text is not base64"):
        read(text(tmp_path / "bad.jsonl", json.dumps({"image": "data:image/png;base64,###"})))
    with pytest.raises(DataError, match=r"broken\.jsonl: cannot be read as \.jsonl"):
        read(text(tmp_path / "broken.jsonl", '{"image": '))


def test_two_tables_of_one_split_in_one_folder_are_ambiguous(tmp_path):
    text(tmp_path / "a.csv", "x\n")
    text(tmp_path / "b.csv", "x\n")
    with pytest.raises(DataError, match=r"several tables \(a\.csv, b\.csv\); name them by split"):
        read(tmp_path)
