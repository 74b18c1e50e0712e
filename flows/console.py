"""What the terminal shows: one bar, one line per finished session, a table at the end. Tables to stdout, the rest to stderr."""

import os
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from cl.names import visible

if TYPE_CHECKING:
    from cl.run import Step


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
    """A bar for the session at hand, and a line for each that is over."""

    def __init__(self, progress: Progress, start: str) -> None:
        self.bar = progress
        self.task = progress.add_task(start, total=None)
        self.title = ""

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """The bar starts again."""
        self.title = visible(f"{stream} {index}/{last} {session}")
        self.bar.reset(self.task, total=None, description=self.title)

    def progress(self, done: int, total: int, what: str) -> None:
        """The bar grows, through the steps of a session and then through the sets it is examined on."""
        self.bar.update(
            self.task, completed=done, total=total, description=f"{self.title} ({what})" if what not in self.title else self.title
        )

    def end(self, stream: str, last: int, step: "Step", known: bool) -> None:
        """A line about it."""
        from flows.watch import line

        self.tell(line(stream, last, step, known))

    def tell(self, text: str) -> None:
        """A line above the bar, and in Prefect's log."""
        from flows.watch import log

        self.bar.console.print(text, soft_wrap=True)
        log(text)


@contextmanager
def bars() -> Iterator[Progress]:
    """A place for bars at the foot of the terminal; without a terminal only lines appear."""
    columns = (SpinnerColumn(), TextColumn("{task.description}", markup=False), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
    console = err()
    with Progress(*columns, console=console, transient=True, disable=not console.is_interactive) as progress:
        yield progress


@contextmanager
def bar(what: str) -> Iterator[Callable[..., None]]:
    """A callback (done, total, ...) that moves one bar."""
    with bars() as progress:
        task = progress.add_task(what, total=None)

        def tell(done: int, total: int, *_: Any) -> None:
            progress.update(task, completed=done, total=total)

        yield tell


def table(title: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> Table:
    """A table whose columns of numbers are set right; fractions to three decimals."""
    result = Table(title=title or None, title_justify="left", header_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for index, name in enumerate(columns):
        numbers = index > 0 and all(str(row[index]).lstrip("-")[:1] in _NUMBER for row in rows)
        result.add_column(name, justify="right" if numbers else "left")
    for row in rows:
        result.add_row(*(f"{value:.3f}" if isinstance(value, float) else str(value) for value in row))
    return result
