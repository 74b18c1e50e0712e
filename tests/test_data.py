import io
from datetime import UTC, datetime
from time import process_time

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image

from cl.data.faults import Reason
from cl.data.formats import read
from cl.data.schema import SCHEMA
from cl.data.screen import screen
from cl.data.table import ImageTable, concat, hold_out, write
from cl.data.told import Topic
from cl.errors import DataError
from cl.streams.doubts import doubts


def png(color=(200, 30, 30), size=(4, 4), mode="RGB", **options):
    sink = io.BytesIO()
    Image.new(mode, size, color).save(sink, "PNG", **options)
    return sink.getvalue()


def table(n=6):
    return ImageTable.of(
        [f"i{i}" for i in range(n)],
        [png((i, 0, 0)) for i in range(n)],
        ["cat" if i % 3 else None for i in range(n)],
        [["a cat", "ein Kater"][: i % 3] for i in range(n)],
        ["photo" if i % 2 else None for i in range(n)],
        [datetime(2024, 1, 1 + i, tzinfo=UTC) if i % 4 else None for i in range(n)],
    )


def test_the_digest_does_not_depend_on_chunks_slices_or_what_lies_under_a_null():
    rows = table()
    pieces = pa.concat_tables([rows.table.slice(0, 1), rows.table.slice(1, 3), rows.table.slice(4)])
    assert ImageTable(pieces).digest() == rows.digest()
    assert ImageTable(rows.table.slice(2, 3)).digest() == rows.take([2, 3, 4]).digest() != rows.digest()
    validity, offsets, data = pa.py_buffer(b"\x01"), pa.py_buffer(np.array([0, 3, 6], np.int32)), pa.py_buffer(b"catdog")
    hidden = pa.Array.from_buffers(pa.string(), 2, [validity, offsets, data])
    plain = rows.take([1, 2])
    dirty = ImageTable(plain.table.set_column(2, SCHEMA.field("label"), hidden))
    clean = ImageTable(plain.table.set_column(2, SCHEMA.field("label"), pa.array(["cat", None])))
    assert dirty.digest() == clean.digest()


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("id", "i1x"),
        ("image", b"x"),
        ("label", None),
        ("label", "cats"),
        ("captions", ["a", " cat"]),
        ("captions", []),
        ("domain", ""),
        ("time", datetime(2024, 1, 2, 0, 0, 1, tzinfo=UTC)),
    ],
)
def test_the_digest_changes_with_any_value(column, value):
    rows = table()
    values = rows.table[column].to_pylist()
    assert values[1] != value
    values[1] = value
    changed = rows.table.set_column(SCHEMA.get_field_index(column), SCHEMA.field(column), pa.array(values, SCHEMA.field(column).type))
    assert ImageTable(changed).digest() != rows.digest()


def test_text_that_moves_from_one_cell_to_the_next_changes_the_digest():
    one = ImageTable.of(["a", "b"], [b"xy", b"z"], captions=[["p", "q"], []])
    assert one.digest() != ImageTable.of(["a", "b"], [b"x", b"yz"], captions=[["p", "q"], []]).digest()
    assert one.digest() != ImageTable.of(["a", "b"], [b"xy", b"z"], captions=[["p"], ["q"]]).digest()


def test_the_digest_of_many_rows_is_much_faster_than_a_look_at_every_cell():
    rows = ImageTable.of([str(i) for i in range(20_000)], [bytes(200)] * 20_000, ["a"] * 20_000, [["x", "y"]] * 20_000)
    start = process_time()
    rows.digest()
    middle = process_time()
    for column in rows.table.columns:
        for cell in column:
            cell.as_py()
    assert 3 * (middle - start) < process_time() - middle


def test_written_files_are_byte_for_byte_the_same_and_read_back_equal(tmp_path):
    rows = table()
    write({"train": rows}, tmp_path / "a")
    write({"train": ImageTable(pa.concat_tables([rows.table.slice(0, 2), rows.table.slice(2)]))}, tmp_path / "b")
    assert (tmp_path / "a" / "train.parquet").read_bytes() == (tmp_path / "b" / "train.parquet").read_bytes()
    assert ImageTable(pq.read_table(tmp_path / "a" / "train.parquet")).digest() == rows.digest()
    assert [file.name for file in (tmp_path / "a").iterdir()] == ["train.parquet"]


def test_an_unknown_split_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(DataError, match="unknown split trian; expected some of train, val, test"):
        write({"trian": table()}, tmp_path / "a")
    assert not (tmp_path / "a").exists()


def test_a_table_refuses_missing_columns_wrong_types_and_empty_images():
    rows = table().table
    with pytest.raises(DataError, match="column image missing"):
        ImageTable(rows.drop_columns(["image"]))
    with pytest.raises(DataError, match="do not have the expected types"):
        ImageTable(rows.set_column(5, "time", pa.array([["no"]] * len(rows))))
    with pytest.raises(DataError, match="column image has empty cells"):
        ImageTable(rows.set_column(1, "image", pa.nulls(len(rows), pa.binary())))


def test_columns_can_be_selected_forgotten_and_joined():
    rows = table()
    assert rows.take([4, 1]).ids == ["i4", "i1"]
    assert rows.where([False, True] * 3).ids == ["i1", "i3", "i5"]
    assert rows.classes() == ["cat"]
    bare = rows.without("label", "captions")
    assert bare.classes() == [] and not any(bare.captions) and bare.ids == rows.ids and any(rows.captions)
    assert concat([rows, bare]).ids == rows.ids * 2 and len(concat([])) == 0


def test_held_out_rows_are_a_share_of_each_class_and_hardly_move_when_data_is_added():
    rows = ImageTable.of([f"r{i}" for i in range(60)], [png()] * 60, ["abc"[i % 3] for i in range(60)])
    learned, held = hold_out(rows, 0.25)
    assert sorted(learned.ids + held.ids) == sorted(rows.ids) and not set(learned.ids) & set(held.ids)
    assert [held.labels.count(label) for label in "abc"] == [5, 5, 5]
    more = ImageTable.of([f"r{i}" for i in range(66)], [png()] * 66, ["abc"[i % 3] for i in range(66)])
    assert len(set(held.ids) - set(hold_out(more, 0.25)[1].ids)) <= 3
    assert hold_out(rows, 0.25, seed=1)[1].ids != held.ids


def test_a_class_of_one_image_is_learned_and_never_only_examined():
    learned, held = hold_out(ImageTable.of(["a", "b", "c"], [png()] * 3, ["one", "two", "two"]), 0.2)
    assert "one" in learned.labels and len(held) == 1


EXTRA = {
    "identity": ["rex", None, "tom"],
    "rewrites": [["another cat", "a tom"], [], []],
    "counterfactuals": [[], ["no cat"], []],
}


def three(**extras):
    rows = table(3)
    return ImageTable.of(rows.ids, rows.table["image"].to_pylist(), rows.labels, rows.captions, rows.domains, **extras)


def test_a_table_that_says_nothing_in_a_column_is_the_table_that_never_had_it():
    plain = three()
    empty = three(identity=[None] * 3, rewrites=[[]] * 3, counterfactuals=[[], [], []])
    assert plain.digest() == empty.digest() and empty.table.column_names == SCHEMA.names
    days = [datetime(2024, 1, 1, tzinfo=UTC), None, None]
    words = [["a cat"], [], ["dog", "it runs"]]
    known = ImageTable.of(["a", "b", "c"], [b"x", b"yy", b"z"], ["cat", None, "dog"], words, ["photo", None, None], days)
    assert known.digest() == "f928f286a68671b9425139bb26781099"  # as it was before there were such columns
    assert plain.content() == empty.content() and plain.identities == [None] * 3 and plain.rewrites == plain.counterfactuals == [[]] * 3


@pytest.mark.parametrize("name", EXTRA)
def test_what_a_column_says_is_part_of_the_digest_and_goes_where_its_row_goes(name):
    rows = three(**{name: EXTRA[name]})
    attribute = {"identity": "identities"}.get(name, name)
    assert getattr(rows, attribute) == EXTRA[name] and rows.digest() != three().digest() and rows.content() != three().content()
    assert getattr(rows.take([2, 0]), attribute) == [EXTRA[name][2], EXTRA[name][0]]
    bare = [row for row in range(3) if not EXTRA[name][row]]
    assert rows.take(bare).digest() == three().take(bare).digest()
    both = concat([three(), rows.under("other")])
    assert getattr(both, attribute) == [None if name == "identity" else []] * 3 + EXTRA[name]
    outlined = ImageTable.outlined(rows.index, lambda: rows)
    again = concat([outlined.take([0, 1, 2]), three().under("other")])
    assert getattr(again, attribute)[:3] == EXTRA[name] and again.digest() == concat([rows, three().under("other")]).digest()


def test_the_same_words_in_another_column_are_another_table():
    assert three(rewrites=EXTRA["rewrites"]).digest() != three(counterfactuals=EXTRA["rewrites"]).digest()


def test_what_says_what_a_label_or_a_caption_says_is_forgotten_with_it():
    rows = three(**EXTRA)
    assert rows.without("label").table.column_names == [*SCHEMA.names, "rewrites", "counterfactuals"]
    assert rows.without("captions").table.column_names == [*SCHEMA.names, "identity"]
    assert rows.without("label", "captions").digest() == three().without("label", "captions").digest()
    assert rows.unlabelled([2]).identities == ["rex", None, None] and rows.unlabelled([2]).rewrites == rows.rewrites


def test_such_columns_are_written_and_read_again(tmp_path):
    rows = three(**EXTRA)
    write({"train": rows}, tmp_path)
    assert read(tmp_path).digest() == rows.digest()


def test_a_table_brings_them_by_their_names(tmp_path):
    for place in range(2):
        (tmp_path / f"{place}.png").write_bytes(png((place, 90, 0), (20, 20)))
    lines = [
        "path,caption,identity,rewrites,counterfactuals",
        '0.png,a dog,rex,"[""a hound"", ""one dog""]",no dog',
        "1.png,a cat,,,",
        "0.png,it runs,rex,,no run",
    ]
    (tmp_path / "t.csv").write_text("\n".join(lines))
    rows = read(tmp_path / "t.csv")
    assert rows.captions == [["a dog", "it runs"], ["a cat"]] and rows.identities == ["rex", None]
    assert rows.rewrites == [["a hound", "one dog"], []] and rows.counterfactuals == [["no dog", "no run"], []]


def test_a_rewrite_of_no_caption_is_told():
    rows = three(rewrites=[["a tom"], ["two cats", "a cat"], []])
    assert [(each.topic, each.names) for each in doubts({"train": rows}) if each.topic is Topic.UNSAID] == [(Topic.UNSAID, ("i0",))]


def test_a_rewrite_that_cannot_be_read_is_told_and_left_out():
    rows = ImageTable.of(["a"], [png(size=(20, 20))], None, [["a cat"]], rewrites=[["a\x00cat", "a tom"]])
    problems = []
    kept = screen({"train": rows}, problems)["train"]
    assert kept.rewrites == [["a tom"]] and [problem.reason for problem in problems] == [Reason.CAPTION]
