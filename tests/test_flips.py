"""Images that two models answer differently: who broke, who took whose place, and what of it stands on a page."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.evaluation.answers import Asker
from cl.evaluation.evaluate import evaluate, pack
from cl.evaluation.flips import Answer, Change, class_scores, flipped, grouped
from cl.evaluation.matrix import Matrix
from cl.methods import CONFIGS, Method
from cl.reports.gallery import Comparison, Seen, compare, look
from cl.reports.heat import LEVELS, contrast, heat, shade
from cl.reports.thumbnails import LARGEST, thumbnail, thumbnails
from cl.reports.verdict import points, verdicts
from cl.reports.write import html
from cl.streams.stream import EvalSet
from tests.make import png as drawn
from tests.make import tiny
from tests.test_report import make_report


def png(number: int) -> bytes:
    return drawn(number % 8, number)


def tiny_method(seed: int) -> Method:
    torch.manual_seed(seed)
    clip = tiny()
    with torch.no_grad():
        for weight in clip.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return CONFIGS["zero_shot"]().build(clip, 0)


HARM = '<img src=x onerror="alert(1)">'


def seen(name: str = "birds", labels: tuple[str, ...] = ("wren", "wren", "robin", HARM)) -> Seen:
    classes = tuple(ClassName(each, (each,)) for each in dict.fromkeys(labels))
    data = ImageTable.of([f"{HARM}{row}" for row in range(4)], [png(row) for row in range(4)], labels)
    then, now = np.array([True, True, False, True]), np.array([False, False, True, True])
    before = {0: Answer("wren", 0.9), 1: Answer("wren", 0.8), 2: Answer("wren", 0.7)}
    after = {0: Answer("robin", 0.6), 1: Answer("robin", 0.95), 2: Answer("robin", 0.5)}
    return Seen(EvalSet(name, "classify", data, classes), name, data, (then, now), before, after)


def test_what_broke_is_grouped_by_who_took_whose_place_surest_first() -> None:
    comparison = compare(("version 1", "version 2"), [seen()])
    (broke,), (mended,) = comparison.broke, comparison.mended
    assert (broke.was, broke.now, broke.images) == ("wren", "robin", 2) and [shot.after.share for shot in broke.shots] == [0.95, 0.6]
    assert (mended.was, mended.now, [shot.truth for shot in mended.shots]) == ("wren", "robin", ["robin"])
    (summed,) = comparison.sets
    assert (summed.images, summed.before, summed.after, summed.broke, summed.mended, summed.asked) == (4, 0.75, 0.5, 2, 1, 3)
    assert [tuple(each) for each in summed.confusions] == [("wren", "robin", 2)]
    assert [tuple(each)[1:] for each in summed.classes] == [(2, 1.0, 0.0), (1, 0.0, 1.0), (1, 1.0, 1.0)]


def test_groups_and_images_of_a_direction_are_bounded_and_counted() -> None:
    many = [Change(row, f"c{row % 30}", Answer(f"c{row % 30}", 0.5), Answer("x", row / 1000)) for row in range(300)]
    assert [len(group.changes) for group in grouped(many)] == [10] * 30
    labels = tuple(f"c{row % 30}" for row in range(300))
    classes = tuple(ClassName(name, (name,)) for name in dict.fromkeys([*labels, "x"]))
    data = ImageTable.of([str(row) for row in range(300)], [png(row % 9) for row in range(300)], labels)
    hits = np.ones(300, bool), np.zeros(300, bool)
    before, after = ({change.row: getattr(change, side) for change in many} for side in ("before", "after"))
    comparison = compare(("a", "b"), [Seen(EvalSet("s", "classify", data, classes), "s", data, hits, before, after)])
    assert len(comparison.broke) == 12 and all(len(block.shots) == 6 and block.images == 10 for block in comparison.broke)
    assert comparison.groups == {"broke": 30, "mended": 0, "differ": 0}


def test_images_of_which_nobody_knows_the_truth_show_where_two_models_differ() -> None:
    comparison = compare(("a", "b"), [seen()._replace(examined=None, hits=None)])
    assert comparison.broke == comparison.mended == () and [(block.was, block.now, block.images) for block in comparison.differ] == [
        ("wren", "robin", 3)
    ]
    assert comparison.sets[0].differ == 3 and comparison.sets[0].before is None


def test_a_comparison_survives_json() -> None:
    comparison = compare(("a", "b"), [seen()])
    assert Comparison.from_json(comparison.to_json()) == comparison


def test_models_are_asked_about_what_flipped_and_what_is_wrong_and_answer_as_they_were_scored() -> None:
    before, after = tiny_method(seed=0), tiny_method(seed=1)
    labels = tuple("abc"[row % 3] for row in range(12))
    data = ImageTable.of([str(row) for row in range(12)], [png(row) for row in range(12)], labels)
    examined = EvalSet("s", "classify", data, tuple(ClassName(name, (f"a {name}",)) for name in "abc"))
    config = EvalConfig(batch_size=5)
    then, now = (evaluate(method, [examined], config)["s"].hits for method in (before, after))
    for method, hits in ((before, then), (after, now)):
        told = Asker(method, config).answers(data, list(range(12)), examined.classes)
        assert [told[row].name == labels[row] for row in range(12)] == hits.tolist()
        assert all(1 / 3 <= answer.share <= 1 for answer in told.values())
    (shown,) = look([examined], {"s": (then, now)}, before, after, config)
    flips = flipped(then, now)
    assert set(shown.before) == {*flips.broke.tolist(), *flips.mended.tolist()}
    assert set(shown.after) == set(shown.before) | set(np.flatnonzero(~now).tolist())


def test_images_that_were_asked_about_before_are_not_decoded_again(monkeypatch) -> None:
    method, config = tiny_method(seed=0), EvalConfig(batch_size=5)
    data = ImageTable.of([str(row) for row in range(12)], [png(row) for row in range(12)], ["a", "b", "c"] * 4)
    examined = EvalSet("s", "classify", data, tuple(ClassName(name, (f"a {name}",)) for name in "abc"))
    rows = [11, 0, 3, 4, 5, 7, 9]
    fresh = Asker(method, config).answers(data.take(range(12)), rows, examined.classes)
    evaluate(method, [examined], config)
    monkeypatch.setattr(ImageTable, "image", lambda *_: pytest.fail("decoded again"))
    assert Asker(method, config).answers(data, rows, examined.classes) == fresh


def test_of_many_sets_those_are_asked_about_in_which_most_flipped() -> None:
    method = tiny_method(seed=0)
    data = ImageTable.of(["0", "1"], [png(0), png(1)], ["a", "b"])
    sets = [EvalSet(f"s{number}", "classify", data, tuple(ClassName(name, (name,)) for name in "ab")) for number in range(60)]
    wrong, right = np.zeros(2, bool), np.ones(2, bool)
    hits = {each.name: (right, wrong if number % 2 else np.array([True, False])) for number, each in enumerate(sets)}
    looks = list(look(sets, hits, method, method, EvalConfig()))
    asked = [each.name for each in looks if each.before]
    assert len(looks) == 60 and len(asked) == 40 and set(asked) >= {f"s{number}" for number in range(1, 60, 2)}
    told = compare(("a", "b"), looks)
    assert [each.broke for each in told.sets] == [1, 2] * 30 and sum(each.asked for each in told.sets) == 70


def test_what_is_for_retrieval_answers_with_the_nearest_caption() -> None:
    method = tiny_method(seed=0)
    data = ImageTable.of(["0", "1"], [png(0), png(1)], captions=[["a cat", "a pet"], ["a dog"]])
    answers = Asker(method, EvalConfig()).answers(data, [1, 0], None)
    assert list(answers) == [1, 0] and {answer.name for answer in answers.values()} <= {"a cat", "a pet", "a dog"}


def test_classes_with_no_image_or_other_samples_before() -> None:
    (score,) = class_scores(["a", None], np.array([True]), np.array([False, True]))
    assert (score.name, score.images, score.after) == ("a", 1, 0.0) and score.before != score.before


def test_a_thumbnail_is_made_of_pixels_alone() -> None:
    file, chance = io.BytesIO(), np.random.default_rng(0)
    noise = Image.fromarray(chance.integers(0, 256, (500, 300, 3), dtype=np.uint8))
    exif = Image.Exif()
    exif[270] = HARM
    noise.save(file, "JPEG", exif=exif, comment=HARM.encode())
    data = ImageTable.of(["a", "b"], [file.getvalue() + HARM.encode(), b"<svg onload=alert(1)>"])
    pictures = thumbnails(data, [0, 1])
    assert list(pictures) == [0]  # the other is no image: there is no picture of it
    encoded = base64.b64decode(pictures[0])
    assert len(encoded) <= LARGEST and b"onerror" not in encoded
    small = Image.open(io.BytesIO(encoded))
    assert small.format == "WEBP" and max(small.size) <= 96 and not small.getexif()
    assert len(base64.b64decode(thumbnail(noise.resize((3000, 40))))) <= LARGEST


def test_names_and_ids_on_a_page_stay_text() -> None:
    report = make_report(sets=(HARM, "b", "c"))
    page = html([report], {"finetune": compare((HARM, HARM), [seen(HARM)])})
    assert HARM not in page and "<img src=x" not in page and page.count("&lt;img src=x") > 5
    assert page.count("<img ") == page.count('<img width="96" height="96" decoding="async" alt="&lt;img') == 3


def test_ten_methods_with_the_worst_of_images_are_a_page_of_3_mb() -> None:
    chance = np.random.default_rng(0)

    def noise() -> bytes:
        file = io.BytesIO()
        Image.fromarray(chance.integers(0, 256, (96, 96, 3), dtype=np.uint8)).save(file, "PNG")
        return file.getvalue()

    pictures = [noise() for _ in range(72)]
    labels = tuple(f"class {row % 12}" for row in range(144))
    data = ImageTable.of([str(row) for row in range(144)], pictures * 2, labels)
    classes = tuple(ClassName(name, (name,)) for name in dict.fromkeys([*labels, "other"]))
    then = np.arange(144) < 72
    names = {row: Answer(labels[row] if then[row] else "other", 0.5) for row in range(144)}
    others = {row: Answer("other" if then[row] else labels[row], 0.5) for row in range(144)}
    comparison = compare(("a", "b"), [Seen(EvalSet("s", "classify", data, classes), "s", data, (then, ~then), names, others)])
    reports = [make_report(f"method {number}") for number in range(10)]
    page = html(reports, {report.method: comparison for report in reports})
    assert len(page.encode()) < 3_000_000 and page.count("<img ") == 10 * 2 * 24
    assert html(reports[:1], {"method 0": comparison}).count("<img ") == 144


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_shade_can_be_read(scheme: str) -> None:
    assert all(contrast(*shade(level, scheme)) >= 4.5 for level in range(LEVELS))


def test_colours_of_a_page_can_be_read_in_the_light_and_in_the_dark() -> None:
    page = html([make_report()])
    schemes = re.findall(r":root \{([^}]*)\}", page)
    assert len(schemes) == 2
    for scheme in schemes:
        colours = {name: tuple(bytes.fromhex(value)) for name, value in re.findall(r"--(\w+): #(\w{6})", scheme)}
        for ground in ("paper", "band"):
            assert all(contrast(colours[name], colours[ground]) >= 4.5 for name in ("ink", "soft", "leaf")), ground
        assert all(contrast(colours[name], colours["band"]) >= 3 for name in ("gain", "loss", "vermilion", "blue", "green")), (
            "bars and lines"
        )


def test_a_matrix_is_a_table_that_frames_what_was_just_taught() -> None:
    shaded = heat(Matrix(np.array([[0.0, 1.0], [0.95, np.nan]]), ("a", "b"), (1, 0)), ("one",))
    assert shaded.sets == [("a", False), ("b", True)] and [name for name, _ in shaded.rows] == ["start", "one"]
    assert [[tuple(cell) for cell in cells] for _, cells in shaded.rows] == [
        [("0", "h0", False), ("100", "h10", False)],
        [("95", "h10", True), ("–", "", False)],
    ]


def test_a_method_is_one_line_of_what_it_gained_and_lost() -> None:
    (verdict,) = verdicts({"finetune": [make_report()]})
    # taught 0.1, 0.2 before and 0.5, 0.95 now; greek fell from 0.9; the probe from 0.8 to 0.6
    assert (
        verdict.sentence == "Gained 57.5 points on 2 taught sets (15.0 to 72.5); forgot 40.0 of what it had learned; lost 20.0 on 1 probe."
    )
    assert points(verdict.gained.by) == "57.5" and verdict.gained.low != verdict.gained.low


def test_what_was_gained_has_an_interval_where_the_same_images_were_asked() -> None:
    report = make_report()
    firsts = {name: pack(np.zeros(20, bool)) for name in report.hits}  # ten of twenty are right now
    (verdict,) = verdicts({"finetune": [replace(report, firsts=firsts)]})
    assert verdict.gained.low < verdict.gained.by < verdict.gained.high and verdict.gained.by == pytest.approx(0.575)
    assert verdict.gained.high - verdict.gained.low == pytest.approx(2 * 1.96 * np.sqrt(0.25 / 40), abs=0.03)  # of two sets of twenty
