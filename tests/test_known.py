"""How well a model tells images of classes it has learned from others: the ranks, and what a run says of them."""

from pathlib import Path

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score, roc_curve

from cl.evaluation.cells import measured
from cl.evaluation.known import auroc, fpr95
from cl.evaluation.line import Exam, Line, exam_of
from cl.reports.sections import strangers
from cl.run import find, run
from cl.steps import noted
from cl.streams.stream import Stream
from tests.test_run import TREE, data, planned

assert data  # the same small data set


def test_ranks_are_the_worked_ones_and_those_of_scikit_learn() -> None:
    known, unknown = np.sin(7 * np.arange(20.0)) + 1, np.cos(3 * np.arange(10.0)) + 0.2
    assert (auroc(known, unknown), fpr95(known, unknown)) == pytest.approx((0.775, 0.5), abs=1e-12)
    drawn = np.random.default_rng(0)
    for most in (6, 6, 60, 60, 1000):  # with ties, many and few
        known, unknown = drawn.integers(0, most, 40).astype(float), drawn.integers(0, most - 1, 30).astype(float)
        truth, both = [1] * 40 + [0] * 30, np.concatenate([known, unknown])
        assert auroc(known, unknown) == pytest.approx(roc_auc_score(truth, both), abs=1e-12)
        wrong, right, _ = roc_curve(truth, both, drop_intermediate=False)
        assert fpr95(known, unknown) == pytest.approx(wrong[(right >= 0.95).argmax()], abs=1e-12)


def _probe(stream: Stream) -> Exam:
    return exam_of(stream.probes[0], 0)


@pytest.mark.slow
def test_a_run_tells_known_from_unknown_after_each_session_where_it_is_asked_to(data: Path, tmp_path: Path) -> None:
    gda = {"method": {"name": "gda", "alpha": 1.0}, "stream": TREE["stream"] | {"probes": [{"name": "all"}]}}
    plain, asked = planned(data, **gda), planned(data, **gda, evaluate={"known_unknown": True})
    assert asked.states == plain.states and not set(asked.keys) & set(plain.keys)
    report = run(asked, tmp_path)
    for score in ("mahalanobis", "relative", "mcm", "energy", "max_cosine"):
        curve = report.details[f"known/auroc_{score}"].rows
        assert np.isnan(curve[0]).all() and np.isnan(curve[1, 0]) and np.isnan(curve[3]).all()  # after the last there is no other class
        assert (
            np.isfinite(curve[1, 1:]).all() and np.isfinite(curve[2, 2]) and np.isfinite(report.details[f"known/fpr95_{score}"].rows[2, 2])
        )
    assert report.details["known/auroc_mahalanobis"].rows[1, 1:].min() > 0.95  # colours lie apart
    section = strangers({"gda": [report]})
    assert {row[1] for row in section.rows} == {"mahalanobis", "relative", "mcm", "energy", "max cosine"}
    again = find(asked, 2, tmp_path)
    assert again and again.known["classes 5-6"]["auroc_mcm"] == report.details["known/auroc_mcm"].rows[2, 2]
    line = Line(
        [asked.stream.sessions[0].vocabulary],
        [exam_of(test, 1) for test in asked.stream.sessions[0].tests] + [_probe(asked.stream)],
        "seen",
    )
    cells = line.known_cells(1, measured(asked.config.evaluate))
    assert cells == {"all": noted(tmp_path / "steps" / asked.keys[1])["known"]["all"]}  # a line of updates asks by the same name
    assert not any(name.startswith("known/") for name in run(plain, tmp_path).details)
