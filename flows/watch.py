"""Who hears how learning goes: Prefect's run log by default, or whoever watches from the same process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from prefect import get_run_logger
from prefect.context import FlowRunContext, TaskRunContext
from prefect.exceptions import MissingContextError
from prefect.logging.loggers import flow_run_logger

from flows.pace import MINUTE, Beat, Ended, going, line


class Watch(Protocol):
    """What can be heard, in the order it happens."""

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """A session of a stream starts (index 0: the model before any session is measured)."""

    def progress(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """Steps of the session, or evaluation sets, so far; see `cl.learning.progress`."""

    def heard(self, beat: Beat) -> None:
        """Where a stream is, with rate and time left."""

    def end(self, ended: Ended) -> None:
        """A session is finished, now or before."""

    def tell(self, text: str) -> None:
        """Anything else, in one line."""


class LogWatch:
    """A line per session in the log of the Prefect run, and between them one a minute."""

    def __init__(self) -> None:
        self.told = time.monotonic()

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """Nothing: `heard` says it."""

    def progress(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """Nothing: a log is no place for a bar."""

    def heard(self, beat: Beat) -> None:
        """One line, if there was none for a minute."""
        if time.monotonic() - self.told > MINUTE:
            self.tell(going(beat))

    def end(self, ended: Ended) -> None:
        """One line."""
        self.tell(line(ended))

    def tell(self, text: str) -> None:
        """The same line."""
        self.told = time.monotonic()
        log(text)


def log(text: str) -> None:
    """Write to the log of the Prefect run, if this is part of one; of the innermost, where a task runs a flow."""
    flow, task = FlowRunContext.get(), TaskRunContext.get()
    if flow and flow.flow_run and task and task.task_run.flow_run_id != flow.flow_run.id:  # `get_run_logger` would take the task's
        flow_run_logger(flow.flow_run, flow.flow).info(text)
        return
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
