"""The tables below a report's overview: what they print for numbers worked by hand."""

from dataclasses import replace

import numpy as np

from cl.evaluation.matrix import Matrix, zscl
from cl.reports.sections import bounded, costs, dialects, gains, picks, retrieval, sections
from cl.reports.tables import Section
from tests.test_report import make_report

SETS, TAUGHT = ("greek", "arrows", "latin"), (1, 2, 0)


def matrix(last: float, first: float = 0.0) -> Matrix:
    return Matrix(np.array([[first] * 3, [0.5] * 3, [last] * 3]), SETS, TAUGHT)


def test_recall_stands_by_direction_and_depth_and_against_the_start() -> None:
    names = [f"{way}@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10)]
    details = {name: matrix(place / 10) for place, name in enumerate(names, start=1)}
    section = retrieval({"a": [replace(make_report("a"), details=details, matrix=matrix(0.7, first=0.9))]})
    assert section.rows[0] == ["a", "greek", "10.0", "20.0", "30.0", "40.0", "50.0", "60.0", "-20.0"] and len(section.rows) == 3
    assert retrieval({"a": [make_report("a")]}).rows == []  # nothing here is for retrieval


def test_gains_of_weak_and_strong_classes_are_shown_as_far_as_they_were_measured() -> None:
    details = {"equity/rich": matrix(-0.1), "equity/poor": matrix(0.2), "equity/harmonic": matrix(0.5)}
    section = gains({"a": [replace(make_report("a"), details=details)], "b": [make_report("b")]})
    assert section.columns == ["method", "set", "rich", "poor", "harmonic"]
    assert section.rows == [["a", name, "-10.0", "20.0", "50.0"] for name in SETS]


def test_pseudolabels_are_told_round_by_round() -> None:
    def noted(turn: int, picked: int, minimum: float | None, accuracy: float | None) -> dict[str, object]:
        return {"round": turn, "class": "x", "picked": picked, "minimum": minimum, "shared": 1, "accuracy": accuracy}

    records = ((noted(1, 2, 0.5, 1.0), noted(1, 4, 0.25, 0.5), noted(2, 0, None, None)), ())
    section = picks({"a": [replace(make_report("a"), records=records)]})
    assert section.rows == [["a", "greek", "1", "3.0", "0.250", "1.0", "75.0"], ["a", "greek", "2", "0.0", "–", "1.0", "–"]]


def test_costs_are_told_session_by_session() -> None:
    section = costs({"finetune": [make_report()]})
    assert section.columns == ["method", "of", "greek", "arrows"]
    assert [row[1:] for row in section.rows] == [
        ["seconds", "2.5", "2.5"],
        ["TFLOPs", "2.00", "2.00"],
        ["stored MB", "4.0", "4.0"],
        ["trainable", "1,000", "1,000"],
    ]


def test_dialects_are_named_and_say_what_those_code_bases_would() -> None:
    scores = np.array([[0.1, 0.1, 0.1], [0.9, 0.2, 0.3], [0.6, 0.8, 0.4], [0.5, 0.7, 1.0]])
    report = replace(make_report(), sessions=("greek", "arrows", "latin"), matrix=Matrix(scores[:, ::-1], SETS, (3, 2, 1)))
    section = dialects({"finetune": [report]})
    told = dict(zip(section.columns, section.rows[0], strict=True))
    assert told["zscl transfer"] == f"{100 * zscl(scores[1:])['transfer']:.1f}" == "27.5"  # (0.2 + (0.3 + 0.4) / 2) / 2
    assert told["zscl last"] == "73.3" and told["mammoth forgetting"] == "25.0" and told["clclip bwt"] == "-16.7"
    assert dialects({"finetune": [make_report()]}).rows == []  # two sessions and a probe


def test_only_what_has_something_to_say_is_printed() -> None:
    assert [section.title for section in sections({"finetune": [make_report()]})] == ["Cost of each session"]


def test_equity_and_the_words_of_others_are_shown_to_who_asks() -> None:
    scores = np.array([[0.1, 0.1, 0.1], [0.9, 0.2, 0.3], [0.6, 0.8, 0.4], [0.5, 0.7, 1.0]])
    report = replace(make_report(), sessions=("greek", "arrows", "latin"), matrix=Matrix(scores, SETS, (1, 2, 3)))
    report = replace(report, costs=report.costs[:1] * 3, records=((),) * 3)
    report = replace(report, details={"equity/rich": matrix(-0.1)})

    def titles(**asked: bool) -> list[str]:
        provenance = replace(report.provenance, config={"report": asked})
        return [section.title for section in sections({"a": [replace(report, provenance=provenance)]})]

    assert titles() == ["Cost of each session"]
    assert titles(equity=True) == ["Weak and strong classes", "Cost of each session"]
    assert titles(dialects=True) == ["Cost of each session", "In other code bases' words"]


def test_a_table_is_bounded_and_says_so() -> None:
    wide = Section("t", "note.", [str(name) for name in range(100)], [[str(cell) for cell in range(100)]] * 500)
    section = bounded(wide)
    assert (
        len(section.columns) == len(section.rows[0]) == 44
        and section.columns[:3] == ["0", "1", "2"]
        and section.columns[-2:] == ["98", "99"]
    )
    assert section.note == "note. 44 of 100 columns are shown, evenly spread. 200 of 500 rows are shown, evenly spread."
    assert bounded(wide._replace(columns=["a", "b"], rows=[["1", "2"]])).rows == [["1", "2"]]
