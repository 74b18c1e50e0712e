"""Equity of accuracies over classes: the worked example, the edges, and why the gap needs a control."""

import math

import numpy as np
import pytest

from cl.evaluation.equity import equity, gini, harmonic_mean, per_class, worst_tenth

BEFORE, AFTER = np.array([0.9, 0.8, 0.3, 0.2]), np.array([0.85, 0.82, 0.5, 0.45])


def test_the_worked_example_gives_the_published_numbers() -> None:
    change = equity(BEFORE, AFTER)
    assert change.mean == pytest.approx((0.55, 0.655))
    assert (change.rich, change.poor, change.robin_hood) == pytest.approx((-0.015, 0.225, 0.24))
    assert change.gini == pytest.approx((0.2955, 0.1450), abs=5e-5)
    assert change.spread == pytest.approx((0.3041, 0.1812), abs=5e-5)
    assert change.worst_tenth == pytest.approx((0.2, 0.45))


def test_helping_the_strong_turns_the_gap_negative() -> None:
    assert equity(BEFORE, np.array([1.0, 0.95, 0.3, 0.1])).robin_hood < 0


def test_classes_that_were_all_equal_have_no_poor() -> None:
    change = equity(np.full(3, 0.5), np.array([0.5, 0.6, 0.7]))
    assert change.rich == pytest.approx(0.1) and math.isnan(change.poor) and math.isnan(change.robin_hood)


def test_gini_is_half_the_relative_mean_difference() -> None:
    values = np.random.default_rng(0).random(50)
    ordered = np.sort(values)
    by_rank = 2 * (np.arange(1, 51) * ordered).sum() / (50 * ordered.sum()) - 51 / 50
    assert gini(values) == pytest.approx(by_rank)
    assert gini(np.array([0.0, 0.0, 0.0, 1.0])) == pytest.approx(0.75) and gini(np.zeros(4)) == 0.0


def test_the_worst_tenth_is_one_class_of_ten_and_two_of_eleven() -> None:
    values = np.arange(11) / 10
    assert worst_tenth(values[:10]) == 0.0 and worst_tenth(values) == pytest.approx(0.05)


def test_the_harmonic_mean_of_seen_and_unseen_is_zero_without_either() -> None:
    assert harmonic_mean(0.8, 0.4) == pytest.approx(0.5333, abs=5e-5)
    assert harmonic_mean(0.8, 0.0) == harmonic_mean(0.0, 0.8) == harmonic_mean(0.0, 0.0) == 0.0


def test_accuracy_per_class_is_nan_for_a_class_without_samples() -> None:
    accuracy = per_class(np.array([True, False, True, True]), np.array([0, 0, 2, 2]), 4)
    assert accuracy[[0, 2]].tolist() == [0.5, 1.0] and np.isnan(accuracy[[1, 3]]).all()


def test_noise_alone_makes_the_gap_positive() -> None:
    rng = np.random.default_rng(1)
    first, second = (rng.binomial(20, 0.5, 200) / 20 for _ in range(2))
    assert equity(first, second).robin_hood > 0.05
