"""Reports: what they say, that they survive a round trip, and that a page needs nothing but itself."""

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.errors import StoreError
from cl.evaluation.evaluate import pack
from cl.evaluation.matrix import Matrix, summary
from cl.learning.cost import Cost
from cl.reports.figures import curves, heat_map, losses
from cl.reports.heat import heat
from cl.reports.items import Figure, Metric, Table, Tag, compared, items
from cl.reports.kinds import worst
from cl.reports.markdown import markdown
from cl.reports.report import FIRST, Provenance, Report
from cl.reports.write import html, write


def make_report(
    method: str = "finetune", seed: int = 0, shift: float = 0.0, sets: tuple[str, ...] = ("greek", "arrows", "latin"), config: Any = None
) -> Report:
    rows = np.array([[0.1, 0.2, 0.8], [0.9, 0.2, 0.7], [0.5, 0.95, 0.6]]) + shift
    matrix = Matrix(rows, sets, (1, 2, 0))
    return Report(
        method=method,
        stream="glyphs",
        sessions=("greek", "arrows"),
        matrix=matrix,
        details={"top1": matrix, "recall@10": Matrix(rows * np.nan, sets, (1, 2, 0))},
        headline=dict.fromkeys(sets, "top1"),
        costs=(Cost(1000, 4_000_000, 2.5, 10, 640, 2_000_000_000_000),) * 2,
        scales=(10.0, 12.5, 14.0),
        hits={name: pack(np.arange(20) < 10 + seed) for name in sets},
        records=((), ({"round": 1, "class": "a", "picked": 3},)),
        provenance=Provenance(
            "d" * 32 + ".dir", "s", "c", seed, "tiny", config or {"train": {"lr": 1e-3}}, {"torch": "2"}, "2026-01-01T00:00:00+00:00"
        ),
    )


def test_a_report_survives_json() -> None:
    report = make_report()
    back = Report.from_json(report.to_json())
    assert back.to_json() == report.to_json() and markdown([back]) == markdown([report])


def test_items_hold_what_was_known_after_each_session() -> None:
    described = list(items(make_report()))
    metrics = {(item.name, item.step): item.value for item in described if isinstance(item, Metric)}
    assert metrics["cl/last", 1] == 0.9 and metrics["cl/last", 2] == pytest.approx(0.725)
    assert metrics["cl/forgetting", 2] == pytest.approx(0.4) and ("cl/forgetting", 1) not in metrics
    assert metrics["geometry/logit_scale", 1] == 12.5
    assert metrics["top1/latin", 0] == 0.8 and metrics["cl/zero_shot_drop", 2] == pytest.approx(0.2)
    assert not any(np.isnan(value) for value in metrics.values())
    assert {item.name: item.value for item in described if isinstance(item, Tag)}["data"] == "d" * 32 + ".dir"
    table, record = (item for item in described if isinstance(item, Table))
    assert record.rows == (("arrows", 1, "a", 3),) and metrics["record/picked", 2] == 3
    assert table.columns == ("after", "greek", "arrows", "latin") and table.rows[2][:2] == ("arrows", 0.5)
    assert sum(isinstance(item, Figure) for item in described) == 2


def test_seeds_of_a_method_become_mean_and_spread() -> None:
    text = markdown([make_report(seed=0), make_report(seed=1, shift=0.02)])
    assert "| finetune | 2 | 73.5 ± 1.4 |" in text


def test_references_come_first_whatever_the_order_given() -> None:
    text = markdown([make_report("vr_lwf"), make_report("zero_shot"), make_report("finetune")])
    assert [line.split(" | ")[0] for line in text.splitlines() if line.startswith("| ") and " | 1 | " in line] == [
        "| zero_shot",
        "| finetune",
        "| vr_lwf",
    ]


def test_a_page_fetches_nothing_and_runs_no_script() -> None:
    page = html([make_report(), make_report("vr_lwf")])
    assert not re.search(r"(src|href)=\"(?!data:|#)", page) and "<script" not in page
    assert not re.search(r"url\((?!#)|@import|http-equiv", page)
    assert page.count("<svg") == page.count('<svg role="img" aria-label="') == 2 and 'class="heat"' in page


def test_a_page_opens_with_pictures_and_folds_its_tables() -> None:
    page = html([make_report(), make_report("vr_lwf")])
    anchors = re.findall(r'<li><a href="#(\w+)">', page)
    places = [page.index(f'<h2 id="{anchor}">') for anchor in anchors]  # every entry of the contents leads somewhere, in order
    assert places == sorted(places) and anchors[:3] == ["glance", "curves", "matrices"] and anchors[-2:] == ["tables", "provenance"]
    unfolded = re.sub(r"<details>.*?</details>", "", page, flags=re.DOTALL)
    assert set(re.findall(r"<table[^>]*>", unfolded)) == {'<table class="heat">'} and "<table>" in page


def test_a_report_of_0_1_0_is_read() -> None:
    told = make_report().to_json()
    old = {name: told[name] for name in FIRST}
    assert set(told) - set(old) == {"firsts", "losses", "version", "gate"}
    back = Report.from_json(old)
    assert back.version == "" and back.gate == {} and markdown([back]) == markdown([make_report()])


def test_the_loss_of_a_session_of_one_step_is_seen() -> None:
    short, long = (((0,), (1.5,)), (tuple(range(20)), (1.0,) * 20))
    (panel,) = losses({"finetune": [short, long]}).axes
    drawn = [line for line in panel.lines if len(line.get_xdata()) != 2]
    assert [line.get_marker() for line in drawn] == ["o", "None"], "a line of one point is nothing"


def test_top_1_is_not_averaged_with_recall() -> None:
    report = replace(make_report(), headline={"greek": "top1", "arrows": "recall@10", "latin": "top1"})
    metrics = {(item.name, item.step): item.value for item in items(report) if isinstance(item, Metric)}
    assert metrics["cl/classify/last", 2] == 0.5 and metrics["cl/retrieve/last", 2] == 0.95 and ("cl/last", 2) not in metrics
    assert metrics["cl/classify/zero_shot_drop", 2] == pytest.approx(0.2) and ("cl/retrieve/zero_shot_drop", 2) not in metrics
    text = markdown([report])
    assert "| finetune | top-1 | 1 | 50.0 |" in text and "| finetune | R@10 | 1 | 95.0 |" in text
    assert {item.name for item in compared([report]) if isinstance(item, Metric)} >= {
        "means/classify/last/finetune",
        "means/retrieve/last/finetune",
    }
    assert worst(report, "forgetting") == pytest.approx(0.4)


def test_a_history_of_a_thousand_sessions_stays_a_page() -> None:
    sessions, chance = 1000, np.random.default_rng(0)
    rows = chance.uniform(0.2, 0.9, (sessions + 1, sessions))
    names = tuple(f"s{t}" for t in range(sessions))
    matrix = Matrix(rows, names, tuple(range(1, sessions + 1)))
    report = replace(make_report(), sessions=names, matrix=matrix, details={}, headline=dict.fromkeys(names, "top1"), hits={})
    report = replace(report, costs=report.costs[:1] * sessions, scales=(1.0,) * (sessions + 1), records=((),) * sessions)
    page, text = html([report]), markdown([report])
    assert len(page) < 600_000 and "40 of 1001 rows and 40 of 1000 sets" in page and "Drawn are 12 of 1000 sets" in page
    assert len(text) < 60_000 and "40 of 1001 rows" in text and "44 of 1002 columns" in text
    figures = heat_map(matrix, names, "t"), curves({"t": matrix}, names)
    assert max(figure.get_size_inches().max() for figure in figures) < 40


def test_methods_are_read_against_fine_tuning_with_an_interval() -> None:
    text = markdown([make_report(), make_report("vr_lwf", seed=4)])
    row = next(line for line in text.splitlines() if line.startswith("| vr_lwf | +"))
    mean, low, high = map(float, re.findall(r"[+-][\d.]+", row)[:3])
    assert mean == 20.0 and low < 20.0 < high  # 14 against 10 of 20, in each set
    assert "Against fine-tuning" not in markdown([make_report("vr_lwf")])


def test_a_stream_by_class_gets_the_table_of_few_shot_papers() -> None:
    config = {"stream": {"kind": "fewshot", "candidates": "seen"}}
    page = markdown([make_report(config=config)])
    assert "| method | 0 | 1 | Avg | PD |" in page and "| finetune | 90.0 | 72.5 | 81.2 | 17.5 |" in page
    assert "All classes seen" not in markdown([make_report()])


def test_a_hostile_name_stays_text() -> None:
    name = "<script>alert(1)</script>"
    report = make_report(name, sets=(name, "b", "c"))
    assert name not in html([report]) and name not in markdown([report])


def test_files_appear_whole_and_a_place_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    write([make_report()], tmp_path / "out")
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["report.html", "report.json", "report.md"]
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"):
        write([make_report()], tmp_path / "file" / "out")


def test_the_set_of_a_session_that_was_left_out_is_shown_as_that_and_counts_nowhere() -> None:
    rows = np.array([[0.5, 0.1, 0.2], [0.9, 0.2, np.nan], [0.8, 0.9, 0.3]])
    matrix, without = Matrix(rows, ("one", "two", "aside"), (1, 2, -1)), Matrix(rows[:, :2], ("one", "two"), (1, 2))
    assert summary(matrix) == pytest.approx(summary(without), nan_ok=True)
    assert heat(matrix, ("one", "two")).sets == [("one", False), ("two", False), ("aside (left out)", False)]
    panels = curves({"finetune": matrix}, ("one", "two")).axes
    assert [panel.get_title(loc="left") for panel in panels[:3]] == ["one", "two", "aside (left out)"]
    assert [len(panel.lines) for panel in panels[:3]] == [2, 2, 1]  # no rule marks who teaches it
