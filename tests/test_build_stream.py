from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from cl.config import Config, validate
from cl.data.table import ImageTable, concat, write
from cl.data.told import Topic
from cl.errors import ConfigError, DataError
from cl.streams.build import StreamConfig, build_stream, class_names
from cl.streams.stream import Stream, joint
from tests.make import COLOURS, png


class Holder(Config):
    stream: StreamConfig


def built(root: Path, text: str) -> Stream:
    return build_stream(validate(Holder, {"stream": yaml.safe_load(text)}, "run.yaml").stream, root)


def rows(prefix: str, colours, each: int, *, captions=False, domains=None, days=None) -> ImageTable:
    """`each` rows per colour; the i-th of a colour lies in domain i modulo their number, and on day i."""
    made = [(colour, i) for colour in colours for i in range(each)]
    return ImageTable.of(
        [f"{prefix}/{COLOURS[c]}{i}" for c, i in made],
        [png(c, sum(prefix.encode()) + i) for c, i in made],
        None if captions else [COLOURS[c] for c, _ in made],
        [[f"a {COLOURS[c]} one"] for c, _ in made] if captions else None,
        [domains[i % len(domains)] for _, i in made] if domains else None,
        days and [days[i] for _, i in made],
    )


def put(folder: Path, colours=range(4), each=6, tests=3, **columns) -> Path:
    write({"train": rows("train", colours, each, **columns), "test": rows("test", colours, tests, **columns)}, folder)
    return folder


def test_a_class_keeps_its_index_when_new_classes_arrive(tmp_path):
    put(tmp_path / "d")
    made = built(
        tmp_path, "{kind: listed, sources: {d: d}, sessions: [{classes: [blue, red]}, {classes: [red, green]}, {classes: [yellow]}]}"
    )
    known = [[c.name for c in s.vocabulary] for s in made.sessions]
    assert known == [["red", "blue"], ["red", "blue", "green"], ["red", "blue", "green", "yellow"]]
    assert [s.classes for s in made.sessions] == [(0, 1), (0, 2), (3,)]
    assert [c.name for c in made.sessions[1].tests[0].classes] == ["red", "green"]


def test_classes_are_asked_as_photographs_unless_a_template_is_given(tmp_path):
    put(tmp_path / "d")
    for settings, prompt in (("", "a photo of a red."), (", template: '{}'", "red")):
        made = built(tmp_path, f"{{kind: listed, sources: {{d: d}}, sessions: [{{classes: [red]}}]{settings}}}")
        assert made.sessions[0].vocabulary[0].prompts == made.sessions[0].tests[0].classes[0].prompts == (prompt,)


def test_domains_of_one_table_are_sessions_in_order_of_appearance(tmp_path):
    put(tmp_path / "pacs", domains=["photo", "sketch", "cartoon"])
    made = built(tmp_path, "{kind: domains, sources: {pacs: pacs}, template: 'a {} thing'}")
    assert [(s.name, len(s.data), set(s.data.domains)) for s in made.sessions] == [
        ("photo", 8, {"photo"}),
        ("sketch", 8, {"sketch"}),
        ("cartoon", 8, {"cartoon"}),
    ]
    assert made.sessions[2].classes == (0, 1, 2, 3) and made.sessions[2].vocabulary[0].prompts == ("a red thing",)


def test_domains_can_be_chosen_named_and_merged_and_others_probed(tmp_path):
    put(tmp_path / "pacs", domains=["photo", "sketch", "cartoon"])
    made = built(
        tmp_path,
        """
        kind: domains
        sources: {pacs: pacs}
        sessions: [{name: drawn, domains: [sketch, cartoon]}]
        probes: [{name: photo, domains: photo, limit: 5}, {name: red, domains: photo, classes: red}]
        """,
    )
    assert [set(s.data.domains) for s in made.sessions] == [{"sketch", "cartoon"}] and made.sessions[0].tests[0].name == "drawn"
    assert [len(probe.data) for probe in made.probes] == [4, 1]
    assert [len(probe.classes) for probe in made.probes] == [4, 1]


def test_sessions_can_come_from_folders_of_captions(tmp_path):
    for name in ("flickr", "rsicd"):
        put(tmp_path / name, captions=True)
    made = built(tmp_path, "{kind: domains, sources: {flickr: flickr, rsicd: {path: rsicd}}, supervision: captions}")
    assert [(s.name, s.tests[0].kind, s.classes, s.vocabulary) for s in made.sessions] == [
        ("flickr", "retrieve", (), ()),
        ("rsicd", "retrieve", (), ()),
    ]
    assert made.sessions[1].data.ids[0] == "rsicd/train/red0"


@pytest.mark.parametrize(
    ("order", "arrival"),
    [
        ("given", ["black", "white", "red", "blue", "green"]),
        ("alphabetical", ["black", "blue", "green", "red", "white"]),
        ("[green, red, blue]", ["green", "red", "blue"]),
    ],
)
def test_classes_arrive_in_the_order_asked_for(tmp_path, order, arrival):
    put(tmp_path / "d", colours=[7, 6, 0, 2, 1])
    made = built(tmp_path, f"{{kind: classes, sources: {{d: d}}, base: 2, increment: 2, order: {order}}}")
    assert [c.name for c in made.sessions[-1].vocabulary] == arrival
    assert [len(s.classes) for s in made.sessions] == [len(arrival[i : i + 2]) for i in range(0, len(arrival), 2)]
    for each in made.sessions:
        own = {each.vocabulary[i].name for i in each.classes}
        assert set(each.data.labels) == set(each.tests[0].data.labels) == own and len(each.data) == 6 * len(own)


def test_a_shuffled_order_follows_the_seed(tmp_path):
    put(tmp_path / "d", colours=range(8), each=1, tests=1)
    orders = [
        [
            c.name
            for c in built(tmp_path, f"{{kind: classes, sources: {{d: d}}, increment: 8, order: shuffled, seed: {seed}}}")
            .sessions[0]
            .vocabulary
        ]
        for seed in (0, 0, 1)
    ]
    assert orders[0] == orders[1] != orders[2] and sorted(orders[0]) == sorted(orders[2]) == sorted(COLOURS)


def test_few_shot_sessions_hold_k_images_of_n_classes_after_a_base(tmp_path):
    put(tmp_path / "d", colours=range(8))
    text = "{kind: fewshot, sources: {d: d}, base: 4, ways: 2, shots: 3, seed: %d}"
    made = built(tmp_path, text % 0)
    assert [len(s.data) for s in made.sessions] == [24, 6, 6] and [len(s.classes) for s in made.sessions] == [4, 2, 2]
    assert all(made.sessions[1].data.labels.count(label) == 3 for label in ("purple", "orange"))
    assert [len(s.tests[0].data) for s in made.sessions] == [12, 6, 6]  # tests stay whole
    assert built(tmp_path, text % 0).digest == made.digest != built(tmp_path, text % 1).digest
    assert len(built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 3, ways: 2, shots: 3, sessions: 2}").sessions) == 3
    with pytest.raises(DataError, match="8 classes cannot be cut into a base of 3 and whole sessions of 2"):
        built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 3, ways: 2, shots: 3}")
    with pytest.raises(DataError, match="class 'purple': 6 training images, but shots is 7"):
        built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 4, ways: 2, shots: 7}")


def test_time_is_cut_at_dates_or_into_parts_of_equal_size(tmp_path):
    put(tmp_path / "d", each=6, tests=6, days=[datetime(2024, 1, 1 + i, tzinfo=UTC) for i in range(6)])
    made = built(tmp_path, "{kind: time, sources: {d: d}, cuts: [2024-01-02, 2024-01-05]}")
    assert [(s.name, len(s.data), len(s.tests[0].data)) for s in made.sessions] == [
        ("before 2024-01-02", 4, 4),
        ("2024-01-02 to 2024-01-05", 12, 12),
        ("from 2024-01-05", 8, 8),
    ]
    assert [len(s.data) for s in built(tmp_path, "{kind: time, sources: {d: d}, parts: 3}").sessions] == [8, 8, 8]
    with pytest.raises(DataError, match="its 6 different times cannot be cut into 9 parts"):
        built(tmp_path, "{kind: time, sources: {d: d}, parts: 9}")
    with pytest.raises(ConfigError, match="give either cuts"):
        built(tmp_path, "{kind: time, sources: {d: d}}")
    put(tmp_path / "undated")
    with pytest.raises(DataError, match="24 of 24 train images have no time; add a column time"):
        built(tmp_path, "{kind: time, sources: {d: undated}, parts: 2}")


def test_listed_sessions_may_differ_in_supervision(tmp_path):
    put(tmp_path / "labels")
    put(tmp_path / "texts", captions=True)
    made = built(
        tmp_path,
        """
        kind: listed
        sources: {l: {path: labels, template: ["a {}.", "one {}."]}, t: texts}
        sessions:
          - {name: labelled, source: l, classes: [red, green]}
          - {name: captioned, source: t, supervision: captions}
          - {name: unlabelled, source: l, classes: [blue, yellow], supervision: none}
        """,
    )
    labelled, captioned, unlabelled = made.sessions
    assert labelled.data.classes() == ["red", "green"] and labelled.vocabulary[0].prompts == ("a red.", "one red.")
    assert captioned.classes == () and captioned.vocabulary == labelled.vocabulary and captioned.tests[0].kind == "retrieve"
    assert unlabelled.data.classes() == [] and unlabelled.classes == (2, 3)
    assert unlabelled.tests[0].data.classes() == ["blue", "yellow"]


def test_images_without_any_label_learn_the_classes_their_test_asks_about(tmp_path):
    write({"train": rows("train", range(2), 3).without("label"), "test": rows("test", range(2), 3)}, tmp_path / "d")
    (only,) = built(tmp_path, "{kind: domains, sources: {d: d}, supervision: none}").sessions
    assert [c.name for c in only.vocabulary] == ["red", "green"] and only.classes == (0, 1)


def test_a_limit_keeps_the_share_of_each_class_and_follows_the_seed(tmp_path):
    put(tmp_path / "d")
    made = [
        built(tmp_path, f"{{kind: domains, sources: {{d: d}}, limit: 8, test_limit: 4, seed: {seed}}}").sessions[0] for seed in (0, 0, 1)
    ]
    assert all(each.data.labels.count(name) == 2 for each in made for name in COLOURS[:4])
    assert all(sorted(each.tests[0].data.labels) == sorted(COLOURS[:4]) for each in made)
    assert made[0].data.ids == made[1].data.ids != made[2].data.ids
    with pytest.raises(DataError, match=r"2 of 4 classes have no training image .* raise limit"):
        built(tmp_path, "{kind: domains, sources: {d: d}, limit: 2}")


def test_underscores_in_names_become_spaces_in_prompts_only():
    (made,) = class_names(["polar_bear"], ["a {}", "{}"])
    assert made.name == "polar_bear" and made.prompts == ("a polar bear", "polar bear")


def test_the_same_files_and_settings_make_the_same_stream(tmp_path):
    put(tmp_path / "d")
    text = "{kind: classes, sources: {d: d}, increment: 2, order: shuffled, limit: 5, probes: [{name: p, classes: [red], limit: 2}]}"
    assert built(tmp_path, text).digest == built(tmp_path, text).digest


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{kind: domains, sources: {d: d}, sessions: [{domains: [photoo]}]}", "domain 'photoo' does not exist; .* did you mean photo"),
        (
            "{kind: listed, sources: {d: d}, sessions: [{classes: [rd]}]}",
            "session 'rd', source 'd': class 'rd' does not exist; .*did you mean red",
        ),
        ("{kind: listed, sources: {d: d}, sessions: [{source: e}]}", "source 'e' does not exist; there are d"),
        ("{kind: listed, sources: {d: d, e: d}, sessions: [{classes: [red]}]}", "which source"),
        ("{kind: listed, sources: {d: d}, sessions: [{domains: [rare]}]}", "session 'rare': no test image"),
        (
            "{kind: listed, sources: {d: d}, sessions: [{domains: [photo], supervision: captions}]}",
            "no training image has one; add a caption",
        ),
        ("{kind: listed, sources: {d: d}, sessions: [{domains: [photo]}, {domains: [photo]}]}", "two evaluation sets are called 'photo'"),
        ("{kind: listed, sources: {d: trainonly}, sessions: [{classes: red}]}", "source 'd': no test split; there are train"),
        ("{kind: domains, sources: {d: nowhere}}", "nowhere does not exist; `evergreen data add nowhere PATH` takes it in"),
        ("{kind: domains, sources: {d: texts}}", "supervision is labels, but no training image has a label"),
        ("{kind: domains, sources: {d: gaps}}", "1 of 3 training images have no domain"),
        ("{kind: domains, sources: {d: fewer}}", r"1 of 2 tested classes have no training image \(green\)"),
        ("{kind: domains, sources: {d: leaky}}", r"'d': 1 of 2 images also teach session 'd' \(d/train/red0\)"),
        (
            "{kind: listed, sources: {d: d}, sessions: [{domains: photo}], probes: [{name: p, split: train, domains: photo}]}",
            "evaluation set 'p': .* also teach session 'photo'",
        ),
        ("{kind: classes, sources: {d: texts}, increment: 1}", "no training image has a label; a stream by class needs them"),
        ("{kind: classes, sources: {d: d}, increment: 1, order: [red, gren]}", "class 'gren' does not exist; .*did you mean green"),
        ("{kind: listed, sources: {d: texts}, sessions: [{supervision: captions, test: classify}]}", "images have no label"),
    ],
)
def test_a_stream_that_cannot_be_learned_says_why(tmp_path, text, message):
    train = ["photo", "sketch", "rare"]
    write({"train": rows("train", range(2), 3, domains=train), "test": rows("test", range(2), 2, domains=train[:2])}, tmp_path / "d")
    write({"train": rows("train", range(2), 3)}, tmp_path / "trainonly")
    write({"train": rows("train", [0], 3), "test": rows("test", range(2), 2)}, tmp_path / "fewer")
    leaked = rows("test", [0], 2).table.slice(1)
    both = [rows("train", [0], 1), ImageTable(leaked)]
    write({"train": rows("train", [0], 3), "test": concat(both)}, tmp_path / "leaky")
    put(tmp_path / "gaps", [0], 3, domains=["photo", None, "sketch"])
    put(tmp_path / "texts", captions=True)
    with pytest.raises(DataError, match=message):
        built(tmp_path, text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("{kind: domains, sources: {d: d}, sesions: []}", "sesions: unknown setting"),
        ("{kind: domains, sources: {d: {path: d, lable: x}}}", "sources.d.lable: unknown setting"),
        ("{kind: domains, sources: {d: d}, probes: [{name: p, limt: 3}]}", "probes.0.limt: unknown setting"),
        ("{kind: domains, sources: {d: d}, template: 'a photo'}", "template: .*holds {} once"),
        ("{kind: classes, sources: {d: d}}", "increment: this setting is required"),
        ("{kind: classes, sources: {d: d}, increment: 0}", "increment: expected a number above 0"),
        ("{kind: domain, sources: {d: d}}", "stream.kind: there is no 'domain'; there are .*domains.*listed.*; did you mean domains"),
        ("{kind: time, sources: {d: d}, cuts: [2024-02-01, 2024-01-01]}", "cuts must rise"),
    ],
)
def test_a_misspelt_key_fails_with_its_path(text, path):
    with pytest.raises(ConfigError, match=path):
        built(Path("."), text)


def test_a_fifth_of_each_class_can_be_held_out_of_training_to_choose_settings_by(tmp_path):
    put(tmp_path / "d", each=10)
    settings = "kind: classes, sources: {d: d}, increment: 2"
    made, usual = built(tmp_path, f"{{{settings}, test_split: held_out}}"), built(tmp_path, f"{{{settings}}}")
    for session, whole in zip(made.sessions, usual.sessions, strict=True):
        taught, held = set(session.data.ids), set(session.tests[0].data.ids)
        assert len(taught) == 16 and len(held) == 4 and taught | held == set(whole.data.ids)


def test_shots_of_each_class_keep_their_label_and_the_rest_is_withheld(tmp_path):
    put(tmp_path / "d", each=6)
    settings = "kind: classes, sources: {d: d}, increment: 2, labelled: {shots: 2}"
    made = built(tmp_path, f"{{{settings}}}")
    for session in made.sessions:
        labels = session.data.labels
        assert [labels.count(session.vocabulary[i].name) for i in session.classes] == [2, 2] and labels.count(None) == 8
        for row, label in zip(session.data.ids, labels, strict=True):
            assert (label is None) == (row in made.withheld) and (label or made.withheld[row]) in row
    other = built(tmp_path, f"{{{settings}, seed: 1}}")
    assert other.sessions[0].data.labels != made.sessions[0].data.labels
    together = joint(made)
    hidden = [row for row, label in zip(together.sessions[0].data.ids, together.sessions[0].data.labels, strict=True) if label is None]
    assert set(hidden) == set(together.withheld) and len(hidden) == 16


@pytest.mark.parametrize("part", [0.62, 0.7])  # the whole part of it, as the authors' code has it: not three of four
def test_a_share_of_the_classes_keeps_all_its_labels_and_every_class_is_known(tmp_path, part):
    put(tmp_path / "d", each=3)
    session = built(tmp_path, f"{{kind: classes, sources: {{d: d}}, increment: 4, labelled: {{classes: {part}}}}}").sessions[0]
    assert len(session.data.classes()) == 2 and session.data.labels.count(None) == 6 and len(session.classes) == 4


def test_without_supervision_the_withheld_labels_stand_beside_the_stream(tmp_path):
    put(tmp_path / "d", each=3)
    made = built(tmp_path, "{kind: classes, sources: {d: d}, increment: 4, supervision: none}")
    assert set(made.sessions[0].data.labels) == {None} and len(made.withheld) == 12
    assert made.digest == replace(made, withheld={}).digest  # what judges is no part of what teaches


def test_a_stream_by_class_can_keep_to_some_domains(tmp_path):
    put(tmp_path / "d", each=6, domains=["photo", "sketch"])
    made = built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 2, ways: 1, shots: 2, domains: sketch}")
    assert [set(s.data.domains) for s in made.sessions] == [{"sketch"}] * 3
    assert {domain for s in made.sessions for domain in s.tests[0].data.domains} == {"sketch"}
    with pytest.raises(DataError, match=r"domain 'sketches' does not exist; .* did you mean sketch"):
        built(tmp_path, "{kind: classes, sources: {d: d}, increment: 2, domains: sketches}")


def test_classes_with_too_few_images_can_be_left_out(tmp_path):
    train = concat([rows("train", (0, 1, 3), 6), rows("train", (2,), 2)])
    write({"train": train, "test": rows("test", range(4), 2)}, tmp_path / "d")
    made = built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 1, ways: 1, shots: 5, at_least: 5}")
    assert [c.name for c in made.sessions[-1].vocabulary] == [COLOURS[0], COLOURS[1], COLOURS[3]]
    with pytest.raises(DataError, match="2 training images, but shots is 5"):
        built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 1, ways: 1, shots: 5}")


def told(made: Stream) -> dict[Topic, tuple[str, ...]]:
    return {each.topic: each.names for each in made.told}


def test_what_a_stream_leaves_out_is_told(tmp_path):
    train = concat([rows("train", [0, 1, 2], 3), rows("bare", [3], 1, captions=True)])
    write({"train": train, "test": rows("test", [0, 1, 2, 4], 2)}, tmp_path / "d")
    made = built(tmp_path, "{kind: classes, sources: {d: d}, increment: 1, order: [red, blue]}")
    assert told(made) == {Topic.LEFT_OUT: ("green",), Topic.UNTAUGHT: ("purple",), Topic.NO_LABEL: ("d/bare/yellow0",)}
    few = built(tmp_path, "{kind: fewshot, sources: {d: d}, base: 1, ways: 1, shots: 1, sessions: 1}")
    assert told(few)[Topic.LEFT_OUT] == ("blue",)


def test_classes_that_no_model_can_tell_apart_and_images_that_stand_for_two_things_are_told(tmp_path):
    names = ["polar_bear", "Polar bear", "polar-bear", "cat"]
    images = [png(i, 1) for i in range(4)]
    train = ImageTable.of([f"train/{i}" for i in range(4)], images, names)
    test = ImageTable.of([f"test/{i}" for i in range(4)], [png(i, 2) for i in range(3)] + [images[0]], names)
    write({"train": train, "test": test}, tmp_path / "d")
    made = built(tmp_path, "{kind: classes, sources: {d: d}, increment: 2, template: 'a photo of a {}.'}")
    assert told(made) == {
        Topic.SAME_PROMPT: ("'polar_bear' = 'Polar bear'",),
        Topic.ALIKE: ("'polar_bear' = 'Polar bear' = 'polar-bear'",),
        Topic.CONFLICT: ("d/train/0 (polar_bear) = d/test/3 (cat)",),
        Topic.LEAK: ("d/test/3",),
    }
    assert made.digest == replace(made, told=()).digest


def test_a_source_without_test_images_says_on_what_to_examine(tmp_path):
    write({"train": rows("train", [0, 1], 3), "val": rows("val", [0, 1], 2)}, tmp_path / "d")
    wanted = r"no test split; there are train, val\. Add test images, or examine on others: stream\.test_split: val \| held_out"
    with pytest.raises(DataError, match=wanted):
        built(tmp_path, "{kind: classes, sources: {d: d}, increment: 1}")
    assert len(built(tmp_path, "{kind: classes, sources: {d: d}, increment: 1, test_split: val}").sessions) == 2
