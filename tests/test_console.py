"""What the terminal shows while something goes on: bars where there is one, else a line a minute."""

import io
import re
import threading
import time
from collections.abc import Iterator

import pytest

from cl.evaluation.matrix import Change
from flows import console
from flows.console import BarWatch, every, watching
from flows.pace import Beat, Ended

BEAT = Beat("birds", 2, 5, "[b]may", "learning", 23, 40, rate=310.4, left=12.3, all_left=250.0)
OVER = Ended("birds", 2, 5, "[b]may", False, 40, 11.9, (Change("taught", 0.385, 0.02), Change("probes", 0.41, 0.9)))


@pytest.fixture
def shown(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[io.StringIO]:
    """What is written to a terminal (or not one) of 150 columns."""
    sink, terminal = io.StringIO(), bool(getattr(request, "param", False))
    made = console._Plain(
        file=sink, force_terminal=terminal, force_interactive=terminal, width=150, color_system=None, legacy_windows=False
    )
    monkeypatch.setattr(console, "err", lambda: made)
    yield sink


@pytest.mark.parametrize("shown", [True], indirect=True)
def test_a_terminal_shows_rate_time_left_and_the_last_scores_above(shown: io.StringIO) -> None:
    with watching("reading") as watch:
        watch.bar.refresh()
        assert "reading" in shown.getvalue()
        watch.heard(BEAT._replace(stream="cats"))
        watch.end(OVER)
        watch.heard(BEAT)
        watch.bar.refresh()
        assert not watch.bar.tasks[0].visible
        last = shown.getvalue().rpartition("probes")[2]
    assert "birds: 2/5 [b]may: taught 38.5 (before: 2.0), probes 41.0 (before: 90.0); 40 steps in 12 s" in shown.getvalue()
    told = "23/40 steps, 310 images/s, 12 s left, stream 4 min"
    assert "2/5 [b]may (cats)" in last and "2/5 [b]may (birds)" in last and last.count(told) >= 2


def test_eighty_columns_show_the_session_its_rate_and_the_time_left(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    narrow = console._Plain(file=shown, force_terminal=True, width=80, color_system=None, legacy_windows=False)
    monkeypatch.setattr(console, "err", lambda: narrow)
    with watching("reading") as watch:
        watch.heard(BEAT._replace(stream="glyphs vr_lwf seed 0", session="cyrillic"))
        watch.bar.refresh()
    assert re.search(r"2/5 cyrillic \(glyphs vr_.… 23/40 steps, 310 images/s, 12 s left, stream 4 min", shown.getvalue())


def lines(sink: io.StringIO) -> list[str]:
    return sink.getvalue().splitlines()


def test_without_a_terminal_there_is_a_line_per_session_and_between_them_one_a_minute(
    shown: io.StringIO, monkeypatch: pytest.MonkeyPatch
) -> None:
    with watching("reading settings") as watch:
        clock = watch.told
        monkeypatch.setattr(time, "monotonic", lambda: clock)
        for _ in range(200):  # seconds
            clock += 1
            watch.heard(BEAT)
            watch.minute()
        watch.end(OVER)
        clock += 59
        watch.minute()
        clock += 2
        watch.minute()
    going = "birds: 2/5 [b]may: 23 of 40 steps, 310 images/s, 12 s left; about 4 min for the whole stream"
    over = "birds: 2/5 [b]may: taught 38.5 (before: 2.0), probes 41.0 (before: 90.0); 40 steps in 12 s"
    assert lines(shown) == [going, going, going, over, "birds: writing it down (61 s)"]


def test_what_is_no_session_is_told_each_minute_too(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    with watching("waiting for Prefect") as watch:
        clock = watch.told
        monkeypatch.setattr(time, "monotonic", lambda: clock)
        clock += 61
        watch.minute()
        watch.progress(1, 5, "streams learned, 2 at once")
        clock += 61
        watch.minute()
    assert lines(shown) == ["waiting for Prefect (61 s)", "streams learned, 2 at once: 1 of 5 (2 min)"]


def test_a_log_has_a_line_per_session_and_between_them_one_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    from flows.watch import LogWatch

    said: list[str] = []
    monkeypatch.setattr("flows.watch.log", said.append)
    watch = LogWatch()
    clock = watch.told
    monkeypatch.setattr(time, "monotonic", lambda: clock)
    for _ in range(130):  # seconds
        clock += 1
        watch.heard(BEAT)
    watch.end(OVER)
    assert [line.partition("may: ")[2][:5] for line in said] == ["23 of", "23 of", "taugh"]


def test_a_thread_says_it_while_nothing_is_heard(shown: io.StringIO, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(console, "MINUTE", 0.0)
    said = threading.Event()
    monkeypatch.setattr(BarWatch, "minute", lambda self: said.set())
    with watching("reading"):
        assert said.wait(5)


def test_every_goes_on_where_a_terminal_is_gone_and_ends_with_its_block() -> None:
    calls = []

    def fails() -> None:
        calls.append(threading.current_thread())
        raise BrokenPipeError

    with every(0.01, fails):
        while len(calls) < 3:
            time.sleep(0.01)
    assert not calls[0].is_alive()
