"""Reports: what they say, that they survive a round trip, and that a page needs nothing but itself."""

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.errors import StoreError
from cl.evaluate import pack
from cl.matrix import Matrix
from cl.report import Cost, Figure, Metric, Provenance, Report, Table, Tag, html, items, markdown, write


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
    found = list(items(make_report()))
    metrics = {(item.name, item.step): item.value for item in found if isinstance(item, Metric)}
    assert metrics["cl/last", 1] == 0.9 and metrics["cl/last", 2] == pytest.approx(0.725)
    assert metrics["cl/forgetting", 2] == pytest.approx(0.4) and ("cl/forgetting", 1) not in metrics
    assert metrics["geometry/logit_scale", 1] == 12.5
    assert metrics["top1/latin", 0] == 0.8 and metrics["cl/zero_shot_drop", 2] == pytest.approx(0.2)
    assert not any(np.isnan(value) for value in metrics.values())
    assert {item.name: item.value for item in found if isinstance(item, Tag)}["data"] == "d" * 32 + ".dir"
    table, record = (item for item in found if isinstance(item, Table))
    assert record.rows == (("arrows", 1, "a", 3),) and metrics["record/picked", 2] == 3
    assert table.columns == ("after", "greek", "arrows", "latin") and table.rows[2][:2] == ("arrows", 0.5)
    assert sum(isinstance(item, Figure) for item in found) == 2


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
    assert not re.search(r"(src|href)=\"(?!data:)", page) and "<script" not in page and "url(" not in page
    assert page.count("data:image/png;base64,") == 4 and page.count("<img alt=") == 4


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
