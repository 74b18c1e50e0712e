from dataclasses import replace

import pytest

from cl.errors import DataError
from cl.streams.build import class_names
from cl.streams.stream import EvalSet, Stream, joint
from tests.make import names, session, stream, table


def test_a_stream_that_moves_a_class_is_refused():
    first = session(1, [0, 1], [0, 1])
    with pytest.raises(DataError, match="session 'session 2' moves or renames a class of 'session 1'"):
        Stream("s", (first, session(2, [2], [1, 0, 2])))
    with pytest.raises(DataError, match=r"numbered \[2\]; expected 1, 2"):
        Stream("s", (session(2, [0], [0]),))
    with pytest.raises(DataError, match=r"numbered \[\]"):
        Stream("s", ())
    with pytest.raises(DataError, match="two evaluation sets are called 'set 1'"):
        Stream("s", (first,), (first.tests[0],))


def test_a_session_needs_images_a_test_and_labels_it_knows():
    made = session(1, [0, 1], [0, 1])
    with pytest.raises(DataError, match="no evaluation set"):
        Stream("s", (replace(made, tests=()),))
    with pytest.raises(DataError, match="no training image"):
        replace(made, data=made.data.take([]))
    with pytest.raises(DataError, match="label 'green' is not among its 1 class"):
        replace(made, classes=(0,))
    with pytest.raises(DataError, match="class 7 is outside its vocabulary of 2"):
        replace(made, classes=(0, 7))


def test_an_evaluation_set_needs_what_its_kind_asks_for():
    with pytest.raises(DataError, match="8 of 8 images have no label"):
        EvalSet("x", "classify", table([0, 1], 4, labels=False), names([0, 1]))
    with pytest.raises(DataError, match="8 of 8 test images have no caption"):
        EvalSet("x", "retrieve", table([0, 1], 4))
    with pytest.raises(DataError, match="label 'green' is not among its 1 class"):
        EvalSet("x", "classify", table([0, 1], 4), names([0]))
    with pytest.raises(DataError, match="no test image"):
        EvalSet("x", "retrieve", table([], 4))


@pytest.mark.parametrize(
    ("candidates", "sizes"),
    [
        ("own", [[2, 1, 2]] * 3),
        ("seen", [[2, 3, 2], [2, 3, 2], [3, 3, 2]]),
        ("all", [[3, 3, 2]] * 3),
    ],
)
def test_candidates_are_a_sets_own_those_seen_so_far_or_all(candidates, sizes):
    made = replace(stream([0, 1], [2]), candidates=candidates)
    assert [[len(each.classes) for each in made.exam(after)] for after in range(3)] == sizes
    assert [each.name for each in made.exam(0)] == ["set 1", "set 2", "probe"]


def test_joint_holds_all_rows_once_and_keeps_every_taught_set_apart():
    made = stream([0, 1], [1, 2], [3])
    one = joint(made)
    (only,) = one.sessions
    assert only.index == 1 and one.taught == (1, 1, 1, 0) and made.taught == (1, 2, 3, 0)
    assert [each.name for each in one.exam(1)] == [each.name for each in made.exam(3)]
    assert only.vocabulary == made.sessions[-1].vocabulary and only.classes == (0, 1, 2, 3)
    assert only.data.labels == [label for each in made.sessions for label in each.data.labels]
    assert only.data.table["image"].to_pylist() == [image for each in made.sessions for image in each.data.table["image"].to_pylist()]


def test_an_image_that_two_sessions_teach_has_two_ids_once_they_are_joined():
    first, second = stream([0, 1], [0, 1]).sessions
    (only,) = joint(Stream("s", (first, replace(second, data=first.data)))).sessions
    assert len(only.data) == 2 * len(first.data) == len(set(only.data.ids))


def test_the_digest_of_a_session_changes_with_what_it_teaches_and_not_with_its_tests():
    made = session(1, [0, 1], [0, 1])
    renamed = replace(made, vocabulary=class_names([c.name for c in made.vocabulary], ["a picture of {}"]))
    changes = [
        replace(made, data=made.data.take([0, 1, 2])),
        replace(made, data=made.data.without("label")),
        renamed,
    ]
    assert len({made.digest, *(each.digest for each in changes)}) == 4
    assert replace(made, tests=(replace(made.tests[0], name="x"),)).digest == made.digest == session(1, [0, 1], [0, 1]).digest


def test_the_digest_of_a_stream_changes_with_tests_probes_and_candidates():
    made = stream([0, 1], [2])
    first = made.sessions[0]
    other_test = replace(first, tests=(replace(first.tests[0], data=first.tests[0].data.take([0, 1])),))
    changes = [
        replace(made, probes=()),
        replace(made, candidates="all"),
        replace(made, sessions=(other_test, *made.sessions[1:])),
        replace(made, sessions=made.sessions[:1]),
        joint(made),
    ]
    assert len({made.digest, *(each.digest for each in changes)}) == 6
    assert stream([0, 1], [2]).digest == made.digest
