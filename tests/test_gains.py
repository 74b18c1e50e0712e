"""Who gained, as a stream reports it: nothing where nothing can be compared, seen and unseen classes apart where some had labels."""

from collections.abc import Sequence

import numpy as np
import pytest

from cl.evaluation.gains import gains
from tests import make
from tests.test_pseudolabel import some_labels

AFTER = np.array([True, True, True, False] + [True, False, False, False] * 2)  # four test images of each of three classes
BEFORE = np.zeros(12, dtype=bool)


def test_seen_and_unseen_classes_stand_apart_where_a_session_labelled_some() -> None:
    session = some_labels(shots=8, labelled=(0,))
    scores = gains(session.tests[0], [session], BEFORE, AFTER, None)
    assert (scores["seen"], scores["unseen"]) == (0.75, 0.25) and scores["harmonic"] == pytest.approx(0.375)
    assert scores["rich"] == pytest.approx(5 / 12)  # of three classes at zero, none is below the mean


@pytest.mark.parametrize("labelled", [(0, 1, 2), ()])
def test_with_all_classes_labelled_or_none_there_is_nothing_to_set_apart(labelled: Sequence[int]) -> None:
    session = some_labels(labelled=labelled)
    assert "seen" not in gains(session.tests[0], [session], BEFORE, AFTER, None)
    full = make.session(1, (0, 1, 2), (0, 1, 2))
    assert "seen" not in gains(full.tests[0], [full], BEFORE, AFTER, None) and "seen" not in gains(full.tests[0], [], BEFORE, AFTER, None)


def test_other_samples_than_before_are_not_compared() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2))
    assert gains(session.tests[0], [session], BEFORE[:6], AFTER, None) == {}
