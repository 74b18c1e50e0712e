"""What is in the name of a learned state, and what is not: an upgrade that computes the same renames nothing."""

from dataclasses import replace
from pathlib import Path

import pytest

from cl.data import images
from cl.data.table import ImageTable
from cl.methods import CONFIGS
from cl.methods.memories.exemplars import Rehearsal
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import Fit
from cl.store.units import units
from tests import make, test_run
from tests.test_run import TREE, planned

data = test_run.data  # the same small data set


def names(folder: Path, method: object) -> tuple[str, ...]:
    return planned(folder, method=method).states


def test_other_sources_rename_nothing(data, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(data)
    monkeypatch.setattr("cl.run.code_version", lambda: "of another release")
    monkeypatch.setattr("cl.release.code_version", lambda: "of another release")
    assert (planned(data).states, planned(data).keys) == (before.states, before.keys)


def test_a_raised_version_renames_what_takes_part_and_nothing_else(data, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = ("finetune", "vr_lwf", "replay", "ridge")
    before = {method: names(data, method) for method in asked}

    def renamed() -> set[str]:
        return {method for method in asked if names(data, method)[1] != before[method][1]}

    with monkeypatch.context() as patch:
        patch.setattr(Fit, "version", 2)
        assert renamed() == {"finetune", "vr_lwf", "replay"}
    with monkeypatch.context() as patch:
        patch.setattr(Rehearsal, "version", 2)
        assert renamed() == {"replay"}
    with monkeypatch.context() as patch:
        patch.setattr(images, "VERSION", 2)
        assert renamed() == set(asked)
    assert renamed() == set()


def test_what_scores_mean_renames_rows_and_no_weights(data, monkeypatch: pytest.MonkeyPatch) -> None:
    before = planned(data)
    monkeypatch.setattr("cl.evaluation.evaluate.VERSION", 2)
    after = planned(data)
    assert after.states == before.states and not set(after.keys) & set(before.keys)


def test_a_default_that_is_spelled_out_is_the_default(data) -> None:
    assert names(data, "replay") == names(data, {"name": "replay", "policy": "reservoir", "capacity": CONFIGS["replay"]().capacity})
    assert planned(data, train={**TREE["train"], "warmup": 0.1, "clip_grad": 1.0}).states == planned(data).states


def test_what_a_session_and_its_rows_are_called_is_in_no_name() -> None:
    session = make.session(1, (0, 1), (0, 1))
    table = session.data.table
    renamed = ImageTable(table.set_column(0, table.schema.field("id"), [[f"other-{row}" for row in range(len(session.data))]]))
    assert replace(session, name="may", index=4, data=renamed).digest == session.digest
    swapped = session.data.take([1, 0, *range(2, len(session.data))])
    assert replace(session, data=swapped).digest != session.digest
    assert replace(session, vocabulary=make.names((0, 2)), data=session.data.without("label")).digest != session.digest


def test_a_version_is_of_the_very_class_and_one_where_nobody_raised_it(monkeypatch: pytest.MonkeyPatch) -> None:
    method = CONFIGS["zscl"]().build(make.tiny(), 0)
    before = units(method)
    assert {"Recipe", "Method", "Whole", "Fit", "Reference", "L2", "Ensemble", "learner"} <= set(before)
    monkeypatch.setattr(Recipe, "version", 3)
    monkeypatch.setattr(Fit, "version", 4)
    assert units(method) == before | {"Recipe": 3, "Fit": 4}
