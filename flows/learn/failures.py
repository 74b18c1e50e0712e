"""Runs that failed where MLflow cannot say so, as before a stream's run was open: one note per command, until the same command succeeds."""

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cl.disk.files import read_json, write_json
from cl.errors import EvergreenError, StoreError, again
from flows.learn.configs import settings
from flows.settings import Place


class Failure(NamedTuple):
    """What failed last: the stream's name, what to type to try again, why it failed in one line, and when (ISO)."""

    stream: str
    command: str
    error: str
    when: str
    again: bool = True  # whether the same command may go through the next time

    @property
    def moment(self) -> datetime:
        """When it failed."""
        return datetime.fromisoformat(self.when)


@contextmanager
def noted(place: Place, command: str, config: object, overrides: list[str]) -> Iterator[None]:
    """An error inside is kept for `failures`, and goes on; success takes back what was kept. An interruption is neither."""
    path = place.runs / "failures" / f"{hashlib.sha256(command.encode()).hexdigest()[:24]}.json"
    try:
        yield
    except Exception as error:
        if command and isinstance(config, str):
            told = str(error).strip().partition("\n")[0] or type(error).__name__
            path.parent.mkdir(parents=True, exist_ok=True)
            failure = Failure(_name(config, overrides, place), command, told, datetime.now(UTC).isoformat(), again(error))
            write_json(failure._asdict(), path)
        raise
    path.unlink(missing_ok=True)


def failures(place: Place) -> list[Failure]:
    """What failed last by each command and has not succeeded since, the newest first."""
    known = []
    for path in (place.runs / "failures").glob("*.json"):
        try:
            known.append(Failure(**read_json(path)))
        except (StoreError, TypeError):  # damaged: whoever fails next writes it anew
            continue
    return sorted(known, key=lambda each: each.when, reverse=True)


def _name(config: str, overrides: list[str], place: Place) -> str:
    try:
        return settings(config, overrides, place).name
    except EvergreenError:  # the config itself is what failed
        return Path(config).stem
