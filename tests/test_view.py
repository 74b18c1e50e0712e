"""A step as its terms see it: which image belongs to which text."""

import torch

from cl.data.table import ImageTable
from cl.methods.base import Batch
from cl.methods.lesson import Lesson, plain_batch
from cl.methods.tuners.base import Plain
from cl.methods.view import View
from tests import make

NAMES = make.names((0, 1))  # "a red square", "a green square"


def view(labels: list[str | None], captions: list[list[str]], ids: list[str] | None = None) -> View:
    """One batch of all rows, in their order."""
    count, clip = len(labels), make.tiny()
    table = ImageTable.of([str(row) for row in range(count)], [make.png(0, row) for row in range(count)], labels, captions)
    lesson = Lesson(1, table, NAMES, (0, 1))
    if ids:
        rows = table.table.set_column(0, table.table.schema.field("id"), [ids])
        lesson = Lesson(1, ImageTable(rows), NAMES, (0, 1))
    batch: Batch = plain_batch(clip, table, lesson, range(count))
    return View(batch, lesson, Plain(clip), 0)


def matches(seen: View) -> list[tuple[int, int]]:
    """The pairs of different rows that are the same."""
    return [(i, j) for i, j in seen.pairs.same.nonzero().tolist() if i < j]


def test_equal_labels_equal_captions_and_a_caption_that_is_a_prompt_are_the_same() -> None:
    assert matches(view(["red", "green", "red"], [[], [], []])) == [(0, 2)]
    assert matches(view([None] * 3, [["ink"], ["paint"], ["ink"]])) == [(0, 2)]
    assert matches(view(["red", None, None], [[], ["a red square"], ["a red square or so, in a longer caption than the others"]])) == [
        (0, 1)
    ]


def test_a_row_with_both_stands_twice_and_is_the_same_as_itself() -> None:
    seen = view(["red", "green"], [["ink"], []])  # red's prompt, green's prompt, red's caption
    assert matches(seen) == [(0, 2)] and seen.pairs.images.shape[0] == 3
    assert torch.equal(seen.pairs.images[0], seen.pairs.images[2]) and not torch.equal(seen.pairs.texts[0], seen.pairs.texts[2])


def test_captions_of_one_class_are_the_same_as_each_other_and_as_its_prompt() -> None:
    assert matches(view(["red", "red"], [["ink"], ["paint"]])) == [(i, j) for i in range(4) for j in range(i + 1, 4)]


def test_a_sample_that_is_given_twice_is_the_same_whatever_its_captions() -> None:
    twice = view([None] * 3, [["ink"], ["paint"], ["dye"]], ids=["a", "b", "a"])
    assert matches(twice) == [(0, 2)] and torch.equal(twice.captioned_pairs.same, twice.pairs.same)


def test_what_is_the_same_is_so_both_ways() -> None:
    seen = view(["red", None, "red", None], [[], ["a red square"], ["ink"], ["ink"]])
    assert torch.equal(seen.pairs.same, seen.pairs.same.T) and seen.pairs.same.diagonal().all()
