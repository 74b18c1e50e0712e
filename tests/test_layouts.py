"""What people's folders look like: nothing beside the images is ignored in silence; it is read, told, or refused with what to do."""

import json
import os
import unicodedata
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cl.data.formats import Look, look
from cl.data.told import Topic
from cl.errors import DataError
from cl.streams.intake import take
from tests.test_formats import png, put, tar, text

NAMES = [f"{i}.png" for i in range(4)]
SAYS = {name: f"a tile, number {name[0]}" for name in NAMES}


def said(seen: Look) -> dict[str, list[str]]:
    """Captions by the name of the image's file."""
    return {Path(row).name: texts for rows in seen.splits.values() for row, texts in zip(rows.ids, rows.captions, strict=True)}


def called(seen: Look, split: str = "train") -> dict[str, str | None]:
    rows = seen.splits[split]
    return {Path(row).name: label for row, label in zip(rows.ids, rows.labels, strict=True)}


def remarks(seen: Look) -> dict[Topic, tuple[str, ...]]:
    return {each.topic: each.names for each in seen.told}


# captions beside one folder of images


def _comma(folder: Path) -> None:  # Flickr8k as Kaggle keeps it
    put(folder / "Images", *NAMES)
    text(folder / "captions.txt", "image,caption\n" + "".join(f'{name},"{words}"\n' for name, words in SAYS.items()))


def _pipe(folder: Path) -> None:  # Flickr30k as Kaggle keeps it, with its one broken row and a quotation mark
    put(folder / "flickr30k_images", *NAMES)
    rows = [f"{name}| 0| {words}" for name, words in SAYS.items()]
    rows[2] = rows[2].replace("| 0| ", "| 0   ")
    text(folder / "results.csv", "image_name| comment_number| comment\n" + "\n".join(rows))


def _token(folder: Path) -> None:  # as their authors keep them
    put(folder / "Flicker8k_Dataset", *NAMES)
    text(folder / "Flickr8k.token.txt", "".join(f"{name}#0\t{words}\n" for name, words in SAYS.items()))
    text(folder / "Flickr8k.lemma.token.txt", "".join(f"{name}#0\ttile number\n" for name in NAMES))
    text(folder / "readme.txt", "thanks")


def _coco(folder: Path) -> None:
    put(folder / "train2017", *NAMES)
    images = [{"id": 10 + i, "file_name": name} for i, name in enumerate(NAMES)]
    marks = [{"id": i, "image_id": 10 + i, "caption": words} for i, words in enumerate(SAYS.values())]
    text(folder / "annotations" / "captions_train2017.json", json.dumps({"images": images, "annotations": marks}))
    text(folder / "annotations" / "instances_train2017.json", json.dumps({"images": images, "annotations": [{"bbox": [0, 0, 1, 1]}]}))


def _records(folder: Path) -> None:
    put(folder / "imgs", *NAMES)
    text(folder / "data.json", json.dumps([{"image": f"imgs/{name}", "caption": words} for name, words in SAYS.items()]))


def _mapping(folder: Path) -> None:
    put(folder / "imgs", *NAMES)
    text(folder / "data.json", json.dumps({name: [words] for name, words in SAYS.items()}))


def _metadata_csv(folder: Path) -> None:  # Hugging Face's image folders
    put(folder, *NAMES)
    text(folder / "metadata.csv", "file_name,text\n" + "".join(f'{name},"{words}"\n' for name, words in SAYS.items()))


def _metadata_jsonl(folder: Path) -> None:
    put(folder, *NAMES)
    text(folder / "metadata.jsonl", "\n".join(json.dumps({"file_name": name, "text": words}) for name, words in SAYS.items()))


def _beside(folder: Path) -> None:
    put(folder, *NAMES)
    for name, words in SAYS.items():
        text((folder / name).with_suffix(".txt"), words + "\n")


def _wrapped_beside(folder: Path) -> None:
    _beside(folder / "10_style")


def _img2dataset_files(folder: Path) -> None:
    for shard in ("00000", "00001"):
        names = NAMES[:2] if shard == "00000" else NAMES[2:]
        for name in names:
            text(folder / shard / f"{name[0]}.txt", SAYS[name])
            (folder / shard / name).write_bytes(png(int(name[0])))
            text(folder / shard / f"{name[0]}.json", json.dumps({"caption": SAYS[name], "url": "x", "key": name[0]}))
        text(folder / f"{shard}_stats.json", "{}")
        pq.write_table(pa.table({"caption": list(SAYS.values())}), folder / f"{shard}.parquet")


def _img2dataset_tars(folder: Path) -> None:
    for shard in ("00000", "00001"):
        names = NAMES[:2] if shard == "00000" else NAMES[2:]
        members = {name: png(int(name[0])) for name in names}
        members |= {f"{name[0]}.txt": SAYS[name].encode() for name in names}
        members |= {f"{name[0]}.json": json.dumps({"caption": SAYS[name], "key": name[0]}).encode() for name in names}
        tar(folder / f"{shard}.tar", {name: members[name] for name in sorted(members)})
        text(folder / f"{shard}_stats.json", "{}")
        pq.write_table(pa.table({"caption": list(SAYS.values()), "url": ["x"] * 4}), folder / f"{shard}.parquet")


def _img2dataset_parquet(folder: Path) -> None:
    folder.mkdir()
    for shard in ("00000", "00001"):
        names = NAMES[:2] if shard == "00000" else NAMES[2:]
        columns = {"jpg": [png(int(name[0])) for name in names], "caption": [SAYS[n] for n in names], "key": [n for n in names]}
        pq.write_table(pa.table(columns), folder / f"{shard}.parquet")


CAPTIONED = [
    *(_comma, _pipe, _token, _coco, _records, _mapping, _metadata_csv, _metadata_jsonl, _beside, _wrapped_beside),
    *(_img2dataset_files, _img2dataset_tars, _img2dataset_parquet),
]


@pytest.mark.parametrize("lay", CAPTIONED)
def test_captions_are_read_from_where_people_keep_them(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path / "in")
    seen = look(tmp_path / "in")
    rows = [rows for rows in seen.splits.values()]
    texts = {texts[0] for each in rows for texts in each.captions}
    assert texts == set(SAYS.values()) and sum(map(len, rows)) == 4 and not seen.problems
    assert not any(each.classes() for each in rows)
    by_image = {each.table["image"][row].as_py(): texts[0] for each in rows for row, texts in enumerate(each.captions)}
    assert by_image == {png(i): SAYS[name] for i, name in enumerate(NAMES)}


def test_splits_that_lists_of_paths_say_are_splits(tmp_path: Path) -> None:
    _token(tmp_path)
    for split, names in {"train": NAMES[:2], "dev": NAMES[2:3], "test": NAMES[3:]}.items():
        text(tmp_path / f"Flickr_8k.{split}Images.txt", "\n".join(names))
    seen = look(tmp_path)
    assert {split: [Path(row).name for row in rows.ids] for split, rows in seen.splits.items()} == {
        "train": NAMES[:2],
        "val": NAMES[2:3],
        "test": NAMES[3:],
    }
    text(tmp_path / "more.token", "0.png#0\ta tile\n")
    with pytest.raises(DataError, match=r"several texts say what its images are \(Flickr8k\.token\.txt, more\.token\)"):
        look(tmp_path)


def test_what_is_beside_captions_and_not_read_is_told(tmp_path: Path) -> None:
    _coco(tmp_path)
    seen = look(tmp_path)
    assert remarks(seen)[Topic.UNREAD] == ("annotations/instances_train2017.json",) and list(seen.splits) == ["train"]


# lists, and labels


def test_lists_of_paths_with_a_class_are_read_with_the_names_of_classes(tmp_path: Path) -> None:
    put(tmp_path / "images", *NAMES)
    text(tmp_path / "train.txt", "images/0.png 0\nimages/1.png 1\n")
    text(tmp_path / "test.txt", "images/2.png 0\nimages/3.png 1\n")
    text(tmp_path / "classes.txt", "polar bear\nhorse\n")
    seen = look(tmp_path)
    assert called(seen) == {"0.png": "polar bear", "1.png": "horse"} and called(seen, "test") == {"2.png": "polar bear", "3.png": "horse"}
    text(tmp_path / "test.txt", "images/2.png 5\n")
    with pytest.raises(DataError, match=r"test\.txt: holds class 5, but the list of classes beside it names 0 to 1"):
        look(tmp_path)


def _food101(folder: Path) -> None:
    put(folder / "food-101" / "images", "pizza/1.png", "pizza/2.png", "sushi/3.png", "sushi/4.png")
    text(folder / "food-101/meta/train.txt", "pizza/1\nsushi/3\n")
    text(folder / "food-101/meta/test.txt", "pizza/2\nsushi/4\n")
    text(folder / "food-101/meta/classes.txt", "pizza\nsushi\n")


def _indoor(folder: Path) -> None:
    put(folder / "Images", "pizza/1.png", "pizza/2.png", "sushi/3.png", "sushi/4.png")
    text(folder / "TrainImages.txt", "pizza/1.png\nsushi/3.png\n")
    text(folder / "TestImages.txt", "pizza/2.png\nsushi/4.png\n")


@pytest.mark.parametrize("lay", [_food101, _indoor])
def test_lists_beside_a_folder_per_class_say_what_is_in_which_split(tmp_path: Path, lay: Callable[[Path], None]) -> None:
    lay(tmp_path)
    seen = look(tmp_path)
    assert called(seen) == {"1.png": "pizza", "3.png": "sushi"} and called(seen, "test") == {"2.png": "pizza", "4.png": "sushi"}
    put(tmp_path, *(f"{next(iter(tmp_path.rglob('pizza'))).relative_to(tmp_path)}/{name}" for name in ("9.png",)))
    assert [Path(name).name for name in remarks(look(tmp_path))[Topic.UNNAMED]] == ["9.png"]


def test_texts_that_are_pipes_or_lead_out_are_not_opened(tmp_path: Path) -> None:
    text(tmp_path / "secret.txt", "a secret\n")
    put(tmp_path / "in", "a.png", "b.png", "c.png")
    text(tmp_path / "in" / "a.txt", "a tile\n")
    os.symlink(tmp_path / "secret.txt", tmp_path / "in" / "b.txt")
    os.mkfifo(tmp_path / "in" / "c.txt")
    os.mkfifo(tmp_path / "in" / "t.csv")
    seen = look(tmp_path / "in", links=False)
    assert {problem.where: str(problem.reason) for problem in seen.problems} == {
        "b.txt": "link",
        "c.txt": "not a regular file",
        "t.csv": "not a regular file",
    }
    assert said(seen) == {"a.png": ["a tile"], "b.png": [], "c.png": []}


def test_a_text_beside_an_image_that_is_not_utf8_is_one_problem(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    text(tmp_path / "a.txt", "a tile\n")
    (tmp_path / "b.txt").write_bytes("“a tile”".encode("cp1252"))
    seen = look(tmp_path)
    assert [(problem.where, problem.detail) for problem in seen.problems] == [("b.txt", "reads as cp1252")]
    assert said(seen) == {"a.png": ["a tile"], "b.png": []}


def test_a_name_that_stands_twice_in_a_list_of_classes_is_told(tmp_path: Path) -> None:
    members = {f"{i}.png": png(i) for i in range(3)} | {f"{i}.cls": f"{i}".encode() for i in range(3)}
    tar(tmp_path / "a.tar", {name: members[name] for name in sorted(members)})
    text(tmp_path / "classnames.txt", "sunglasses\nmissile\nsunglasses\n")
    seen = look(tmp_path)
    assert seen.splits["train"].labels == ["sunglasses", "missile", "sunglasses"] and remarks(seen)[Topic.TWICE] == ("sunglasses",)


def test_names_are_found_in_folders_of_images_without_their_kind_and_in_either_form_of_unicode(tmp_path: Path) -> None:
    decomposed, composed = unicodedata.normalize("NFD", "café.png"), unicodedata.normalize("NFC", "café.png")
    put(tmp_path / "pictures" / "2024", "a.png", "b.png", decomposed, "d.png")
    text(tmp_path / "labels.csv", f"image,label\na.png,x\npictures\\2024\\b.png,y\n{composed},z\nd,w\n")
    seen = look(tmp_path)
    assert [label for _, label in sorted(called(seen).items())] == ["x", "y", "z", "w"] and not seen.problems
    assert decomposed in called(seen)


def test_images_that_no_row_names_are_told(tmp_path: Path) -> None:
    put(tmp_path, "images/a.png", "images/b.png")
    text(tmp_path / "labels.csv", "image,label,price\nimages/a.png,x,3\n")
    assert remarks(look(tmp_path)) == {
        Topic.COLUMNS: ("image as image", "label as label"),
        Topic.UNUSED: ("price",),
        Topic.LAYOUT: ("a CSV table",),
        Topic.UNNAMED: ("images/b.png",),
    }


# exports of boxes and of labelling programs


def _yolo(folder: Path) -> None:
    put(folder / "images" / "train", *NAMES)
    for name in NAMES:
        text(folder / "labels" / "train" / f"{name[0]}.txt", "0 0.5 0.5 0.2 0.2\n")


def _yolo_yaml(folder: Path) -> None:
    put(folder / "train" / "images", *NAMES)
    text(folder / "data.yaml", "train: ../train/images\nnc: 1\nnames: ['a']\n")


def _yolo_beside(folder: Path) -> None:
    put(folder / "obj_train_data", *NAMES)
    for name in NAMES:
        text(folder / "obj_train_data" / f"{name[0]}.txt", "0 0.5 0.5 0.2 0.2\n1 0.1 0.1 0.1 0.1\n")


def _roboflow(folder: Path) -> None:
    put(folder / "train", *NAMES)
    text(folder / "train" / "_annotations.coco.json", "{}")


def _instances(folder: Path) -> None:
    put(folder / "images", *NAMES)
    text(folder / "result.json", json.dumps({"images": [], "annotations": [{"bbox": [0, 0, 1, 1], "category_id": 1}]}))


def _cvat(folder: Path) -> None:
    put(folder / "images", *NAMES)
    text(folder / "annotations.xml", '<?xml version="1.0"?>\n<annotations><image name="0.png"><tag label="blue"/></image></annotations>')


def _voc(folder: Path) -> None:
    put(folder / "JPEGImages", *NAMES)
    text(folder / "Annotations" / "0.xml", "<annotation><object/></annotation>")


def _label_studio(folder: Path) -> None:
    put(folder / "images", *NAMES)
    text(folder / "project-1.json", json.dumps([{"id": 1, "image": "/data/upload/1/ab-0.png", "choice": "blue"}]))


def _label_studio_tasks(folder: Path) -> None:
    put(folder / "images", *NAMES)
    text(folder / "project-1.json", json.dumps([{"id": 1, "data": {"image": "x"}, "annotations": [{"result": []}]}]))


def _labelme(folder: Path) -> None:
    put(folder / "images", *NAMES)
    text(folder / "images" / "0.json", json.dumps({"shapes": [], "imagePath": "0.png"}))


@pytest.mark.parametrize(
    ("lay", "program", "do"),
    [
        (_yolo, "YOLO", "export for classification"),
        (_yolo_yaml, "YOLO", "export for classification"),
        (_yolo_beside, "YOLO", "export for classification"),
        (_roboflow, "Roboflow", "`Folder Structure`"),
        (_instances, "COCO instances", "a folder per class"),
        (_cvat, "CVAT", "`ImageNet 1.0`"),
        (_voc, "Pascal VOC", "a folder per class"),
        (_label_studio, "Label Studio", "export it as CSV"),
        (_label_studio_tasks, "Label Studio", "export it as CSV"),
        (_labelme, "LabelMe", "a folder per class"),
    ],
)
def test_exports_of_boxes_are_refused_by_name_with_what_to_do(tmp_path: Path, lay: Callable[[Path], None], program: str, do: str) -> None:
    lay(tmp_path)
    with pytest.raises(DataError, match=f"an export of {program}, which is not read") as caught:
        look(tmp_path)
    assert do in str(caught.value) and "write a CSV with the columns image and label" in str(caught.value)


def test_a_text_that_nobody_can_read_beside_one_folder_of_images_is_refused_and_beside_classes_told(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png")
    text(tmp_path / "answers.txt", "42\n")
    with pytest.raises(DataError, match=r"one folder of images, cat, and beside it answers\.txt, which cannot be read: write a CSV"):
        look(tmp_path)
    put(tmp_path, "dog/1.png", "dog/2.png")
    text(tmp_path / "dog/notes.json", "{}")
    text(tmp_path / "README.md", "hello")
    (tmp_path / "dog" / "Thumbs.db").write_bytes(b"x")
    assert remarks(look(tmp_path))[Topic.UNREAD] == ("answers.txt", "dog/notes.json")


# folders that wrap, and splits


@pytest.mark.parametrize("zipped", [False, True])
def test_a_lone_folder_of_folders_is_gone_through_and_is_no_part_of_an_id(tmp_path: Path, zipped: bool) -> None:
    put(tmp_path / "in" / "animals-10" / "raw-img", "cane/1.png", "gatto/1.png")
    text(tmp_path / "in" / "animals-10" / "translate.py", "x = {}")
    seen = look(archive(tmp_path / "in") if zipped else tmp_path / "in")
    assert seen.splits["train"].ids == ["cane/1.png", "gatto/1.png"] and seen.splits["train"].labels == ["cane", "gatto"]


def archive(folder: Path) -> Path:
    import shutil

    return Path(shutil.make_archive(str(folder), "zip", folder))


def test_a_lone_folder_that_holds_images_is_the_class_it_is(tmp_path: Path) -> None:
    put(tmp_path, "cat/1.png", "cat/more/2.png")
    assert look(tmp_path).splits["train"].labels == ["cat", "cat"]


@pytest.mark.parametrize(
    "words", ["train val test", "training valid testing", "training_set dev test_set", "seg_train validation seg_test"]
)
@pytest.mark.parametrize("above", ["", "pets/", "pets/images/"])
def test_split_folders_stay_splits_wherever_they_stand(tmp_path: Path, words: str, above: str) -> None:
    names = words.split()
    put(tmp_path, *(f"{above}{name}/{kind}/{i}.png" for i, name in enumerate(names) for kind in ("cat", "dog")))
    seen = look(tmp_path)
    assert {split: rows.labels for split, rows in seen.splits.items()} == {split: ["cat", "dog"] for split in ("train", "val", "test")}


def test_splits_inside_classes_are_splits(tmp_path: Path) -> None:
    put(tmp_path, *(f"{kind}/{split}/{i}.png" for kind in ("cat", "dog") for i, split in enumerate(("train", "test"))))
    assert {split: rows.labels for split, rows in look(tmp_path).splits.items()} == {"train": ["cat", "dog"], "test": ["cat", "dog"]}


def test_classes_that_are_called_as_splits_are_classes(tmp_path: Path) -> None:
    put(tmp_path, "train station/1.png", "test tube/1.png", "dev board/1.png")
    assert look(tmp_path).splits["train"].classes() == ["dev board", "test tube", "train station"]


def test_folders_beside_splits_are_told_and_rubbish_is_none(tmp_path: Path) -> None:
    put(tmp_path, "train/cat/1.png", "test/cat/2.png", "pred/3.png", "__MACOSX/train/cat/1.png")
    seen = look(tmp_path)
    assert remarks(seen)[Topic.UNREAD] == ("pred/",) and sum(map(len, seen.splits.values())) == 2
    put(tmp_path / "flat", "cat/1.png", "dog/1.png", "__MACOSX/cat/1.png")
    assert look(tmp_path / "flat").splits["train"].classes() == ["cat", "dog"]


# links


def test_links_that_lead_out_are_followed_for_who_owns_the_folder_and_told(tmp_path: Path) -> None:
    put(tmp_path / "elsewhere", "1.png")
    put(tmp_path / "in", "cat/0.png", "dog/0.png")
    os.symlink(tmp_path / "elsewhere" / "1.png", tmp_path / "in" / "cat" / "1.png")
    seen = look(tmp_path / "in")
    assert len(seen.strictly()["train"]) == 3 and remarks(seen)[Topic.LINKED] == ("cat/1.png",)
    refused = look(tmp_path / "in", links=False)
    assert [problem.reason for problem in refused.problems] == ["link"] and len(refused.splits["train"]) == 2
    os.symlink(tmp_path / "elsewhere", tmp_path / "in" / "cat" / "more")
    with pytest.raises(DataError, match=r"1 link \(cat/more: a folder\): put the file itself there"):
        look(tmp_path / "in").strictly()


# cells


@pytest.mark.parametrize("mark", [";", "\t", "|", ","])
def test_cells_end_where_the_header_says_also_when_they_hold_commas(tmp_path: Path, mark: str) -> None:
    put(tmp_path, "a.png", "b.png")
    words = '"a dog, running"' if mark == "," else "a dog, running"
    seen = look(text(tmp_path / "t.csv", f"path{mark}label{mark}caption\na.png{mark}x{mark}{words}\nb.png{mark}y{mark}{words}\n"))
    assert seen.splits["train"].captions == [["a dog, running"]] * 2 and seen.splits["train"].labels == ["x", "y"]


@pytest.mark.parametrize("cell", ['["a dog", "it\'s here"]', "['a dog', \"it's here\"]", "['a dog' \"it's here\"]"])
def test_a_list_inside_a_cell_is_a_list(tmp_path: Path, cell: str) -> None:
    put(tmp_path, "a.png")
    seen = look(text(tmp_path / "t.tsv", f"path\tcaption\na.png\t{cell}\n"))
    assert seen.splits["train"].captions == [["a dog", "it's here"]]


def test_a_list_of_one_class_is_the_class_and_one_of_several_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    assert look(text(tmp_path / "t.csv", "path,label\na.png,['x']\nb.png,[y]\n")).splits["train"].labels == ["x", "[y]"]
    with pytest.raises(DataError, match=r"row 1: column 'label': holds several labels \(x, y\); an image is of one class"):
        look(text(tmp_path / "t.tsv", "path\tlabel\na.png\t['x', 'y']\nb.png\tz\n")).strictly()


@pytest.mark.parametrize("word", ["", "NaN", "nan", "None", "NULL", "<NA>"])
def test_a_cell_that_says_nothing_is_empty_to_both_commands(tmp_path: Path, word: str) -> None:
    put(tmp_path, "a.png", "b.png")
    seen = look(text(tmp_path / "t.csv", f"path,label,caption\na.png,x,{word}\nb.png,{word},hello\n"))
    assert seen.splits["train"].labels == ["x", None] and seen.splits["train"].captions == [[], ["hello"]]
    assert (Topic.BLANK in remarks(seen)) == bool(word)


def test_a_folder_called_none_is_a_class_and_stays_one(tmp_path: Path) -> None:
    from cl.data.table import write

    put(tmp_path / "in", "None/1.png", "cat/1.png")
    write(look(tmp_path / "in").strictly(), tmp_path / "out")
    assert look(tmp_path / "out").splits["train"].classes() == ["None", "cat"]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-8-sig"])
def test_tables_in_other_encodings_of_unicode_are_read_and_the_encoding_told(tmp_path: Path, encoding: str) -> None:
    put(tmp_path, "a.png")
    (tmp_path / "t.csv").write_bytes("path,label\na.png,Käse\n".encode(encoding))
    seen = look(tmp_path / "t.csv")
    assert seen.splits["train"].labels == ["Käse"]
    assert remarks(seen).get(Topic.ENCODING) == (("t.csv (UTF-16)",) if encoding == "utf-16" else None)


@pytest.mark.parametrize(("encoding", "name"), [("latin-1", "Latin-1"), ("cp1252", "cp1252")])
def test_a_table_of_which_a_whole_class_is_not_utf8_is_refused_and_its_encoding_named(tmp_path: Path, encoding: str, name: str) -> None:
    put(tmp_path, "a.png", "b.png")
    word = "Käse" if name == "Latin-1" else "“Käse”"
    (tmp_path / "t.csv").write_bytes(f"path,label\na.png,{word}\nb.png,bread\n".encode(encoding))
    with pytest.raises(
        DataError, match=rf"1 of 2 rows are not UTF-8 \(column 'label' reads as {name}: '{word}'\), and no row would be left"
    ):
        look(tmp_path / "t.csv")


# what data add makes of it


def test_what_has_nothing_to_learn_from_is_taken_only_where_that_is_said(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    file = text(tmp_path / "t.csv", "path,size\na.png,1\nb.png,2\n")
    for path in (file, tmp_path / "bare"):
        put(tmp_path / "bare", "a.png", "b.png")
        columns = "; its columns size are not used" if path == file else ""
        with pytest.raises(DataError, match=rf"no image has a label or a caption; say which column .* --unlabelled{columns}$"):
            take(path, {})
        splits, _ = take(path, {}, unlabelled=True)
        assert sum(map(len, splits.values())) == 2


def test_what_is_doubtful_is_told_with_counts(tmp_path: Path) -> None:
    put(tmp_path, *(f"train/{kind}/{i}.png" for kind in ("Cat", "cat", "polar_bear") for i in range(2)), "test/cat/9.png", "test/emu/1.png")
    (tmp_path / "train/dog").mkdir()
    (tmp_path / "train/dog/1.png").write_bytes((tmp_path / "train/Cat/0.png").read_bytes())
    (tmp_path / "test/cat/0.png").write_bytes((tmp_path / "train/cat/0.png").read_bytes())
    told: dict[Topic, Any] = {each.topic: each.names for each in take(tmp_path, {})[1]}
    assert told[Topic.ALIKE] == ("'Cat' = 'cat'",) and told[Topic.SINGLE] == ("dog", "emu") and told[Topic.UNTAUGHT] == ("emu",)
    assert told[Topic.CONFLICT] == ("train/Cat/0.png (Cat) = train/dog/1.png (dog)",) and told[Topic.LEAK] == ("test/cat/0.png",)


def test_captions_that_clip_cuts_are_counted(tmp_path: Path) -> None:
    put(tmp_path, "a.png", "b.png")
    table = text(tmp_path / "t.csv", f"path,caption\na.png,{'dog ' * 76}\nb.png,{'dog ' * 75}\n")
    told = {each.topic: str(each) for each in take(table, {})[1]}
    assert told[Topic.CUT] == "captions longer than the 77 tokens that CLIP can read, which are cut: 1"


def test_a_zip_and_the_folder_in_it_are_read_alike(tmp_path: Path) -> None:
    put(tmp_path / "in", "cat/1.png", "cat/more/2.png")
    text(tmp_path / "in" / "README.md", "hello")
    folder, zipped = look(tmp_path / "in"), look(archive(tmp_path / "in"))
    assert folder.splits["train"].labels == zipped.splits["train"].labels == ["cat", "cat"]
    assert folder.splits["train"].digest() == zipped.splits["train"].digest()


def test_lists_that_name_none_of_the_images_are_told_and_change_nothing(tmp_path: Path) -> None:
    put(tmp_path / "Images", "cat/1.png", "dog/2.png")
    text(tmp_path / "train.txt", "elsewhere/7.png\n")
    text(tmp_path / "test.txt", "elsewhere/8.png\n")
    seen = look(tmp_path)
    assert called(seen) == {"1.png": "cat", "2.png": "dog"} and len(remarks(seen)[Topic.UNREAD]) == 2


def test_lists_beside_a_table_of_captions_whose_columns_have_other_names_say_the_splits(tmp_path: Path) -> None:
    put(tmp_path / "flickr30k_images", *NAMES)
    text(tmp_path / "results.txt", "image_name|comment\n" + "".join(f"{name}|{words}\n" for name, words in SAYS.items()))
    text(tmp_path / "train.txt", "\n".join(NAMES[:3]))
    text(tmp_path / "test.txt", NAMES[3])
    assert {split: len(rows) for split, rows in look(tmp_path).splits.items()} == {"train": 3, "test": 1}
