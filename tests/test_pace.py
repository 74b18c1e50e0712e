"""Rates and times left: what was heard of a stream, with times that are given, and what is said of it."""

import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.config import TrainConfig
from cl.evaluation.matrix import Change, Matrix, changes
from cl.learning.learner import learn
from cl.methods.lesson import Lesson
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.pseudolabel import PseudolabelConfig
from cl.methods.rounds import Rounds
from cl.methods.view import Site
from flows.learn.pulse import Pulse, followed, seen
from flows.pace import Beat, Ended, Pace, going, line, standing
from flows.settings import Place, quiet
from tests import make
from tests.test_flows import Heard

NAN = float("nan")


def test_what_a_session_changed_is_told_of_the_sets_it_is_about() -> None:
    rows = np.array([[0.1, 0.2, 0.9], [0.8, 0.3, 0.7], [0.5, 0.6, 0.4]])
    m = Matrix(rows, ("first", "second", "probe"), (1, 2, 0))
    assert changes(m.upto(0)) == [Change("untaught", pytest.approx(0.15), None), Change("probes", 0.9, None)]
    assert changes(m.upto(1)) == [Change("taught", 0.8, 0.1), Change("probes", 0.7, 0.9)]
    assert changes(m) == [Change("taught", 0.6, 0.3), Change("forgotten", pytest.approx(0.3), 0.0), Change("probes", 0.4, 0.7)]


def test_what_was_forgotten_is_since_the_best_and_what_was_not_asked_before_has_no_before() -> None:
    rows = np.array([[0.1, NAN, NAN], [0.4, NAN, NAN], [0.7, 0.6, NAN], [0.5, 0.3, 0.2]])
    told = changes(Matrix(rows, ("a", "b", "c"), (1, 2, 3)))
    assert told == [Change("taught", 0.2, None), Change("forgotten", pytest.approx((0.2 + 0.3) / 2), pytest.approx(0.0))]
    assert line(Ended("s", 3, 3, "c", True, 9, 1.0, tuple(told))) == "s: 3/3 c: taught 20.0, forgotten 25.0 (before: 0.0); learned before"


def learning(number: int, done: int, total: int = 10, **more: Any) -> Beat:
    return Beat("s", number, 3, "x", "learning", done, total, **more)


def test_a_rate_is_of_what_was_heard_and_not_of_what_came_before() -> None:
    pace = Pace([10, 10, 10])
    pace.begin(0.0)
    first = pace.hear(learning(1, 4), 32, 100.0)  # resumed at step 3, after a long start
    assert (first.rate, first.left) == (None, None)
    second = pace.hear(learning(1, 6), 32, 101.0)
    assert (second.rate, second.left, second.all_left) == (64.0, 2.0, None)  # nothing is known of sessions to come


def test_the_whole_stream_is_estimated_by_the_sessions_learned_here() -> None:
    pace = Pace([10, 10, 30])
    pace.begin(0.0)
    for step in range(1, 11):
        pace.hear(learning(1, step), 32, float(step))
    pace.hear(Beat("s", 1, 3, "x", "examining", 1, 2), 0, 12.0)
    pace.end(1, 15.0)  # ten steps and five seconds of examining: 1.5 s for each step
    pace.begin(20.0)
    pace.hear(learning(2, 1), 32, 21.0)
    assert pace.hear(learning(2, 5), 32, 25.0).all_left == pytest.approx(5 + 5 + 30 * 1.5)
    pace.hear(Beat("s", 2, 3, "x", "examining", 1, 3), 0, 31.0)
    assert pace.hear(Beat("s", 2, 3, "x", "examining", 2, 3), 0, 32.0).all_left == pytest.approx(1 + 30 * 1.5)


@pytest.mark.parametrize(
    ("turn", "turns", "told"),
    [
        (0, 1, "6 of 10 steps, 64 images/s, 2 s left"),
        (1, 4, "6 of 10 steps of round 2 of 4, 64 images/s, 2 s left of this round"),
        (1, None, "6 of 10 steps of round 2 of nobody knows how many, 64 images/s, 2 s left of this round"),
    ],
)
def test_rounds_of_an_unknown_number_are_told_as_such(turn: int, turns: int | None, told: str) -> None:
    pace = Pace([10])
    pace.begin(0.0)
    pace.hear(learning(1, 4, turn=turn, turns=turns), 32, 1.0)
    assert standing(pace.hear(learning(1, 6, turn=turn, turns=turns), 32, 2.0)) == told


def test_where_nothing_was_heard_for_a_while_no_time_left_is_told() -> None:
    beat = learning(1, 6)._replace(rate=64.0, left=2.0, all_left=9.0, heard=1000.0)
    assert standing(beat, 1010.0) == "6 of 10 steps, 64 images/s, 2 s left; about 9 s for the whole stream"
    assert standing(beat, 1600.0) == "6 of 10 steps, last heard of 10 min ago"


def told_of(method: Any, session: Any) -> list[tuple[int, int, int, int, int | None]]:
    heard = []

    def progress(done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        heard.append((done, total, images, turn, turns))

    learn(method, session, TrainConfig(max_steps=2, batch_size=4, lr=1e-3, device="cpu", accumulate=1), 0, progress=progress)
    return heard


def test_the_learner_tells_of_each_step_its_images_and_rounds() -> None:
    session = make.session(1, (0, 1), (0, 1))
    assert told_of(FinetuneConfig().build(make.tiny(), 0), session) == [(1, 2, 4, 0, 1), (2, 2, 4, 0, 1)]
    settings = {"strategy": "none", "modality": "text", "length": 2}
    assert told_of(PseudolabelConfig(**settings).build(make.tiny(), 0), session) == [(1, 2, 4, 0, 1), (2, 2, 4, 0, 1)]


class Twice(Rounds):
    def lessons(self, first: Lesson, at: Site) -> Iterator[Lesson]:
        yield first
        yield first


def test_rounds_that_say_no_number_have_none() -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    method.several = Twice()
    assert told_of(method, make.session(1, (0, 1), (0, 1))) == [
        (1, 2, 4, 0, None),
        (2, 2, 4, 0, None),
        (1, 2, 4, 1, None),
        (2, 2, 4, 1, None),
    ]


def pulse(place: Place, inner: Heard, key: str = "key", stream: str = "s") -> Pulse:
    (place.runs / "locks").mkdir(parents=True, exist_ok=True)
    return Pulse(inner, place.runs / "locks" / f"{key}.pulse", stream, [2, 2])


OVER = Ended("s", 1, 2, "may", False, 2, 1.0, (Change("taught", 0.5, None),))


def test_another_process_reads_where_a_stream_is(tmp_path: Path) -> None:
    place, heard = Place(tmp_path), Heard()
    own = pulse(place, heard)
    assert seen(place, "key") is None
    own.begin("s", 1, 2, "may")
    own.progress(1, 2, "may", images=8)
    assert heard.begun == ["may"] and [beat.doing for beat in heard.beats] == ["beginning", "learning"]
    own.end(OVER)
    pace = seen(place, "key")
    assert pace is not None and pace.beat[:7] == ("s", 1, 2, "may", "learning", 1, 2) and pace.ended == (OVER,)
    own.progress(1, 3, "a candidate")  # once all is learned
    assert heard.told == ["a candidate: 1 of 3"] and len(heard.beats) == 2
    assert [path.name for path in (tmp_path / "mlruns" / "locks").iterdir()] == ["key.pulse"]


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"beat": [], "ended": []}', '{"beat": 1, "ended": 2}', '{"beat": ["s"], "ended": [[1]]}']
)
def test_a_pulse_that_cannot_be_read_is_none(content: str, tmp_path: Path) -> None:
    (tmp_path / "mlruns" / "locks").mkdir(parents=True)
    (tmp_path / "mlruns" / "locks" / "key.pulse").write_text(content)
    assert seen(Place(tmp_path), "key") is None


def test_a_pulse_that_is_a_link_is_not_followed(tmp_path: Path) -> None:
    pulse(Place(tmp_path), Heard()).begin("s", 1, 2, "may")
    locks = tmp_path / "mlruns" / "locks"
    os.symlink(locks / "key.pulse", locks / "other.pulse")
    assert seen(Place(tmp_path), "other") is None and seen(Place(tmp_path), "key") is not None


def test_who_follows_hears_each_session_once_and_nothing_of_before_or_of_others(tmp_path: Path) -> None:
    place, heard = Place(tmp_path), Heard()
    old = pulse(place, Heard(), "old", "t")
    old.begin("t", 1, 2, "may")
    old.end(OVER._replace(stream="t"))
    time.sleep(0.01)
    with followed(place, ["s", "t"], heard):
        other = pulse(place, Heard(), "other", "else")
        other.begin("else", 1, 2, "may")
        own = pulse(place, Heard())
        own.begin("s", 1, 2, "may")
        deadline = time.monotonic() + 10
        while not heard.beats and time.monotonic() < deadline:
            time.sleep(0.05)
        own.end(OVER)
    assert heard.over == [OVER] and {beat.stream for beat in heard.beats} == {"s"}


def test_a_line_about_what_is_under_way_names_it() -> None:
    assert going(learning(2, 3)) == "s: 2/3 x: 3 of 10 steps"


class Terminal:
    """What a library takes for a terminal."""

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> None:
        raise AssertionError(f"a bar of another's: {text!r}")

    flush = isatty


def test_dvc_shows_no_bars_of_its_own() -> None:
    import dvc.progress
    import dvc_data.callbacks

    quiet()
    for library in (dvc.progress, dvc_data.callbacks):
        with library.Tqdm(total=3, desc="files", file=Terminal()) as bar:
            bar.update(1)
            assert bar.disable
