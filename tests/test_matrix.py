"""The metrics against the worked example, plain loops and Avalanche's own."""

import numpy as np
import pytest
import scipy.stats

from cl.errors import DataError
from cl.evaluation import matrix as m

A = np.array([[80.0, 50.0, 40.0], [70.0, 85.0, 42.0], [66.0, 78.0, 90.0]])
EXAMPLE = m.Matrix(np.vstack([[55.0, 52.0, 45.0], A]), ("one", "two", "three"), (1, 2, 3))
RANDOM = np.random.default_rng(0).uniform(size=(5, 5))


def test_the_worked_example_comes_out() -> None:
    assert m.last(EXAMPLE) == 78.0
    assert m.backward_transfer(EXAMPLE) == -10.5
    assert m.forgetting(EXAMPLE) == 10.5
    assert m.transfer(EXAMPLE) == 45.5
    assert m.forward_transfer(EXAMPLE) == -2.5
    assert m.learned(EXAMPLE) == 85.0
    assert m.average(EXAMPLE) == pytest.approx((80 + (70 + 85) / 2 + 78) / 3)


def test_each_dialect_gives_its_own_answer_on_the_worked_example() -> None:
    assert m.zscl(A) == pytest.approx({"transfer": 45.5, "average": 66.7778, "last": 78.0}, abs=1e-4)
    assert m.clclip(A) == {"bwt": -7.0}
    assert m.avalanche(A) == {"forgetting": 10.5, "bwt": -10.5}
    assert m.mammoth(A) == {"forgetting": 10.5, "bwt": -10.5}
    assert m.renate(A) == {"forgetting": 10.5, "bwt": -10.5}
    assert m.continuum(A)["bwt"] == pytest.approx((-10 - 14 - 7) / 3)


def test_continuum_and_libcontinual_say_what_their_code_says_where_definitions_part() -> None:
    # a set that was better before it was taught than ever since, and sets that gain and lose between the first and the last session
    scores = m.continuum(np.array([[0.5, 0.9, 0.1], [0.4, 0.6, 0.1], [0.4, 0.5, 0.7]]))
    assert scores["forgetting"] == pytest.approx(0.10)
    scores = m.libcontinual(np.array([[0.6, 0, 0, 0], [0.7, 0.5, 0, 0], [0.5, 0.6, 0.8, 0], [0.4, 0.4, 0.7, 0.9]]))
    assert scores == pytest.approx({"forgetting": 0.10, "bwt": -0.8 / 12})


def test_avalanche_itself_agrees_with_its_dialect() -> None:
    from avalanche.evaluation.metrics import BWT, Forgetting

    lost, moved = Forgetting(), BWT()
    for j in range(5):
        for metric in (lost, moved):
            metric.update(j, RANDOM[j, j], initial=True)
            metric.update(j, RANDOM[4, j])
    old = range(4)
    assert m.avalanche(RANDOM)["forgetting"] == pytest.approx(np.mean([lost.result_key(k=j) for j in old]))
    assert m.avalanche(RANDOM)["bwt"] == pytest.approx(np.mean([moved.result_key(k=j) for j in old]))


def test_dialects_agree_with_plain_loops() -> None:
    a = RANDOM
    assert m.mammoth(a)["forgetting"] == pytest.approx(sum(max(a[i][j] for i in range(5)) - a[4][j] for j in range(4)) / 4)
    assert m.renate(a)["forgetting"] == pytest.approx(sum(max(a[i][j] for i in range(4)) - a[4][j] for j in range(4)) / 4)
    assert m.continuum(a)["forgetting"] == pytest.approx(sum(max(a[i][j] for i in range(j, 4)) - a[4][j] for j in range(4)) / 4)
    assert m.libcontinual(a)["forgetting"] == pytest.approx(sum(a[j][j] - a[4][j] for j in range(3)) / 4)
    assert m.libcontinual(a)["bwt"] == pytest.approx(sum(a[i][j] - a[j][j] for i in range(2, 5) for j in range(i - 1)) / 10)
    ours = m.Matrix(np.vstack([np.zeros(5), a]), tuple("abcde"), (1, 2, 3, 4, 5))
    assert m.forgetting(ours) == pytest.approx(sum(max(a[i][j] for i in range(j, 4)) - a[4][j] for j in range(4)) / 4)
    assert m.backward_transfer(ours) == pytest.approx(m.avalanche(a)["bwt"])


def test_the_order_of_sets_changes_transfer_but_not_last() -> None:
    order = [2, 0, 1]
    other = m.Matrix(EXAMPLE.rows[:, order], ("three", "one", "two"), (1, 2, 3))
    assert m.last(other) == m.last(EXAMPLE) and m.transfer(other) != m.transfer(EXAMPLE)


def test_probes_count_for_the_zero_shot_drop_and_for_nothing_else() -> None:
    probed = m.Matrix(np.column_stack([EXAMPLE.rows, [60.0, 50.0, 40.0, 45.0]]), (*EXAMPLE.sets, "probe"), (1, 2, 3, 0))
    assert m.zero_shot_drop(probed) == 15.0
    assert {k: v for k, v in m.summary(probed).items() if k != "zero_shot_drop"} == {
        k: v for k, v in m.summary(EXAMPLE).items() if k != "zero_shot_drop"
    }


def test_what_is_not_defined_is_nan_and_not_zero() -> None:
    joint = m.Matrix(np.array([[0.1, 0.2], [0.8, 0.9]]), ("a", "b"), (1, 1))
    assert np.isnan([m.forgetting(joint), m.backward_transfer(joint), m.transfer(joint), m.zero_shot_drop(joint)]).all()
    assert m.last(joint) == m.average(joint) == pytest.approx(0.85)


def test_two_sets_taught_together_are_forgotten_together() -> None:
    pair = m.Matrix(np.array([[0, 0, 0], [0.8, 0.6, 0], [0.4, 0.4, 0.9]]), ("a", "b", "c"), (1, 1, 2))
    assert m.forgetting(pair) == pytest.approx(0.3)


def test_a_matrix_survives_json_to_the_last_bit() -> None:
    odd = m.Matrix(np.array([[1 / 3, np.nan], [0.1, 2 / 7]]), ("a", "b"), (1, 0))
    back = m.Matrix.from_json(odd.to_json())
    np.testing.assert_array_equal(back.rows, odd.rows)
    assert (back.sets, back.taught) == (odd.sets, odd.taught)


def test_a_matrix_of_the_wrong_shape_is_refused() -> None:
    with pytest.raises(DataError, match="expected one each"):
        m.Matrix(np.zeros((2, 3)), ("a", "b"), (1, 2))


def test_the_bootstrap_interval_covers_the_difference_and_shrinks_with_samples() -> None:
    random = np.random.default_rng(1)
    few, many = (random.uniform(size=(2, n)) < np.array([[0.7], [0.5]]) for n in (50, 5000))
    for hits in (few, many):
        mean, low, high = m.bootstrap([hits[0]], [hits[1]])
        assert low <= mean <= high and mean == pytest.approx(hits[0].mean() - hits[1].mean())
    wide, narrow = (np.diff(m.bootstrap([hits[0]], [hits[1]])[1:]) for hits in (few, many))
    assert narrow < wide / 5
    assert m.bootstrap([few[0]], [few[0]]) == (0.0, 0.0, 0.0)


def test_the_bootstrap_weighs_sets_alike_and_agrees_with_scipy() -> None:
    random = np.random.default_rng(2)
    mine, theirs = ([random.uniform(size=n) < p for n in (400, 50)] for p in (0.8, 0.6))
    mean, low, high = m.bootstrap(mine, theirs)
    differences = [one.astype(float) - other for one, other in zip(mine, theirs, strict=True)]
    assert mean == pytest.approx(np.mean([d.mean() for d in differences]))
    interval = scipy.stats.bootstrap(
        differences, lambda a, b, axis: (a.mean(axis) + b.mean(axis)) / 2, method="percentile", n_resamples=4000, rng=0
    )
    np.testing.assert_allclose((low, high), interval.confidence_interval, atol=0.01)


def test_the_bootstrap_refuses_other_samples() -> None:
    with pytest.raises(DataError, match="expected the same"):
        m.bootstrap([np.ones(3)], [np.ones(4)])
    with pytest.raises(DataError, match="expected the same"):
        m.bootstrap([], [])


def test_accuracy_over_all_classes_seen_counts_samples_not_sets() -> None:
    rows = np.array([[0.1, 0.1], [0.9, 0.2], [0.6, 0.8]])
    assert m.seen_accuracy(m.Matrix(rows, ("base", "new"), (1, 2)), [300, 100]) == pytest.approx([0.9, 0.65])


def test_few_shot_drop_is_first_minus_last() -> None:
    assert m.performance_drop([90.0, 80.0, 70.0]) == 20.0
