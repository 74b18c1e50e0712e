"""Drift: against a plain double loop, with the false-alarm rate that was asked for, and the power to see a shift."""

import numpy as np
import pytest

from cl.evaluation.drift import _discrepancies, _halves, drift


def test_the_discrepancy_agrees_with_a_double_loop() -> None:
    random = np.random.default_rng(0)
    one, two = random.normal(size=(7, 3)), random.normal(size=(5, 3))

    def kernel(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.exp(-((a - b) ** 2).sum() / 2.5))

    plain = np.mean([kernel(a, b) for a in one for b in one]) + np.mean([kernel(a, b) for a in two for b in two])
    plain -= 2 * np.mean([kernel(a, b) for a in one for b in two])
    rows = np.concatenate([one, two])
    gram = np.array([[kernel(a, b) for b in rows] for a in rows])
    weights = np.array([[1 / 7] * 7 + [-1 / 5] * 5])
    np.testing.assert_allclose(_discrepancies(gram, weights), [plain], atol=1e-11)


def test_divisions_take_what_they_are_asked_to() -> None:
    weights = _halves(10, 3, 50, np.random.default_rng(0))
    assert ((weights < 0).sum(1) == 3).all() and np.allclose(weights.sum(1), 0)
    assert len({tuple(row) for row in weights}) > 25


def test_false_alarms_come_as_often_as_asked_and_shifts_are_found() -> None:
    alarms, shifts = 0, 0
    for trial in range(200):
        random = np.random.default_rng(trial)
        known = random.normal(size=(120, 6))
        alarms += drift(known, random.normal(size=(40, 6)), 0.1, draws=200, seed=trial).found
        shifts += drift(known, random.normal(0.6, 1, size=(40, 6)), 0.1, draws=200, seed=trial).found
    assert 8 <= alarms <= 34  # 20 expected; outside with a chance of 1 in 300
    assert shifts >= 190


def test_the_calibration_is_measured_on_other_draws_than_it_was_made_on() -> None:
    random = np.random.default_rng(1)
    seen = [drift(random.normal(size=(80, 4)), random.normal(size=(30, 4)), 0.05, draws=400, seed=seed) for seed in range(10)]
    assert 0.02 < np.mean([each.false_alarms for each in seen]) < 0.09 and len({each.false_alarms for each in seen}) > 1


@pytest.mark.parametrize(("known", "fresh"), [(3, 10), (10, 1)])
def test_too_few_images_are_refused(known: int, fresh: int) -> None:
    with pytest.raises(ValueError, match=f"{known} known and {fresh} new"):
        drift(np.zeros((known, 2)), np.zeros((fresh, 2)))


def test_features_that_are_all_the_same_are_no_drift() -> None:
    assert not drift(np.ones((10, 4)), np.ones((5, 4))).found
