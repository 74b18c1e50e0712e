"""Who hears how learning goes: Prefect's run log by default, or whoever watches from the same process."""

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Protocol

from prefect import get_run_logger
from prefect.exceptions import MissingContextError

if TYPE_CHECKING:
    from cl.run import Step


class Watch(Protocol):
    """What can be heard, in the order it happens."""

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """A session of a stream starts (index 0: the model before any session is measured)."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Steps of the session, or evaluation sets, so far."""

    def end(self, stream: str, last: int, step: "Step", known: bool) -> None:
        """The session is finished, now or (known) before."""

    def tell(self, text: str) -> None:
        """Anything else, in one line."""


class LogWatch:
    """One line per session in the log of the Prefect run."""

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """Nothing: the line at the end says it all."""

    def progress(self, done: int, total: int, what: str) -> None:
        """Nothing: a log is no place for a bar."""

    def end(self, stream: str, last: int, step: "Step", known: bool) -> None:
        """One line."""
        self.tell(line(stream, last, step, known))

    def tell(self, text: str) -> None:
        """The same line."""
        log(text)


def line(stream: str, last: int, step: "Step", known: bool) -> str:
    """A finished step in one line: its place, its name, the mean headline score over all sets, and its time."""
    from cl.evaluate import HEADLINE

    values = [scores[metric] for scores in step.row.values() for metric in HEADLINE.values() if metric in scores]
    mean = sum(values) / len(values) if values else float("nan")
    took = ", learned before" if known else f", {step.cost.steps} steps in {step.cost.seconds:.0f} s" if step.cost.steps else ""
    return f"{stream}: {step.index}/{last} {step.session}: mean score {mean:.3f} over {len(values)} sets{took}"


def log(text: str) -> None:
    """Write to the log of the Prefect run, if this is part of one."""
    try:
        get_run_logger().info(text)
    except MissingContextError:
        return


_watch: ContextVar[Watch | None] = ContextVar("watch", default=None)


def watch() -> Watch:
    """Who listens here."""
    return _watch.get() or LogWatch()


@contextmanager
def watched_by(listener: Watch) -> Iterator[None]:
    """Everything learned inside is told to `listener` too, in this process and thread only."""
    token = _watch.set(listener)
    try:
        yield
    finally:
        _watch.reset(token)
