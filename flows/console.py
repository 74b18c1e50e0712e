"""What the terminal shows: a bar for what is done, a line per finished session, tables at the end. Tables to stdout, the rest to stderr."""

import os
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from contextvars import copy_context
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cl.errors import EvergreenError
from cl.names import visible
from flows.pace import MINUTE, Beat, Ended, going, line, span, standing

_WIDE = 110  # columns, below which words take the bar's place
_TOLD = 54  # columns of a session's step, rate and times
_NUMBER = frozenset("0123456789–")  # a dash stands for what was not measured


class _Plain(Console):
    """A console that shows text as it is: nothing in it is markup, and what a terminal would obey is written out."""

    def render_str(self, text: str, **named: Any) -> Text:
        return super().render_str(visible(text, keep="\n"), **named | {"markup": False, "emoji": False, "highlight": False})


def out() -> Console:
    """Results; wide enough for any table where no terminal says otherwise."""
    return _Plain(width=None if sys.stdout.isatty() or "COLUMNS" in os.environ else 120)


def err() -> Console:
    """How it goes, and what went wrong."""
    return _Plain(stderr=True)


class BarWatch:
    """A bar for each session at hand and a line for each that is over; without a terminal, between the lines one a minute."""

    def __init__(self, progress: Progress, start: str) -> None:
        self.bar = progress
        self.task = progress.add_task(start, total=None, told="")
        self.now = start  # what is done where no session is under way
        self.beats: dict[str, tuple[Beat, TaskID]] = {}  # by stream, of those that are under way
        self.told = self.began = time.monotonic()

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """Nothing: `heard` says it."""

    def progress(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """The bar of what is no session: a base model that is trained, a candidate that is examined, streams of a comparison."""
        self.now = f"{what}: {done} of {total}"
        self.bar.update(self.task, completed=done, total=total, description=visible(what), told=f"{done} of {total}", visible=True)

    def heard(self, beat: Beat) -> None:
        """The bar of a session grows, through its steps and then through the sets it is examined on."""
        name = visible(f"{beat.number}/{beat.last} {beat.session} ({beat.stream})")  # in this order: of a narrow terminal the end falls off
        room = max(12, self.bar.console.width - _TOLD)
        if self.bar.console.width < _WIDE and len(name) > room:
            name = f"{name[: room - 1]}…"
        task = self.beats[beat.stream][1] if beat.stream in self.beats else self.bar.add_task(name, total=None, told="")
        self.beats[beat.stream] = beat, task
        self._meanwhile()
        self.bar.update(task, description=name, completed=beat.done, total=beat.total or None, told=standing(beat, brief=True))

    def end(self, ended: Ended) -> None:
        """A line about it."""
        if ended.stream in self.beats:
            self.bar.remove_task(self.beats.pop(ended.stream)[1])
        self._meanwhile(f"{ended.stream}: writing it down")
        self.tell(line(ended))

    def tell(self, text: str) -> None:
        """A line above the bars, and in Prefect's log."""
        from flows.watch import log  # brings Prefect: seconds

        self._print(text)
        log(text)

    def minute(self) -> None:
        """Say how it stands, if nothing was said for a minute."""
        if time.monotonic() - self.told < MINUTE:
            return
        for told in [going(beat) for beat, _ in list(self.beats.values())] or [f"{self.now} ({span(time.monotonic() - self.began)})"]:
            self._print(told)

    def _meanwhile(self, what: str = "") -> None:
        """The first bar, where it counts nothing, is there while no session is."""
        if self.bar.tasks[0].total is None:
            self.now, self.began = (what, time.monotonic()) if what else (self.now, self.began)
            self.bar.update(self.task, visible=not self.beats, description=visible(self.now))

    def _print(self, text: str) -> None:
        self.told = time.monotonic()
        self.bar.console.print(text, soft_wrap=True)


@contextmanager
def watching(start: str) -> Iterator[BarWatch]:
    """Bars at the foot of the terminal; without a terminal only lines appear."""
    console = err()
    bar = (BarColumn(bar_width=20),) if console.width >= _WIDE else ()
    words = [TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[told]")]
    columns = (SpinnerColumn(), words[0], *bar, words[1], *((TimeElapsedColumn(),) if bar else ()))
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        watch = BarWatch(progress, start)
        with nullcontext() if console.is_interactive else every(1.0, watch.minute):
            yield watch


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A callback (done, total, ...) that moves one bar."""
    with watching(what) as watch:
        yield lambda done, total, *_, **__: watch.progress(done, total, what)


@contextmanager
def every(seconds: float, action: Callable[[], None]) -> Iterator[None]:
    """Call `action` every so often while inside, in a thread that sees what we see."""
    stop = threading.Event()

    def go() -> None:
        while not stop.wait(seconds):
            with suppress(OSError, EvergreenError):  # a terminal that is gone, a project that is
                action()

    thread = threading.Thread(target=copy_context().run, args=(go,), daemon=True)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table whose columns of numbers are set right; fractions to three decimals."""
    result = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numbers = index > 0 and all(str(row[index]).lstrip("-")[:1] in _NUMBER for row in rows)
        result.add_column(name, justify="right" if numbers else "left")
    for row in rows:
        result.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return result
