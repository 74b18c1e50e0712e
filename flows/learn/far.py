"""How far a session is: by its checkpoint on disk, and by the pulse of who learns it."""

import time
from datetime import UTC, datetime
from pathlib import Path

from cl.learning.interim import Interim
from cl.text import plural
from flows.learn.pulse import seen
from flows.pace import standing
from flows.settings import Place


def half(store: Path, state: str) -> str:
    """How far a session is whose state is not learned, nothing if no checkpoint of it is there."""
    cursor = Interim(store / "interim" / state, 0).cursor()
    if cursor is None:
        return ""
    return f"{cursor.done} of {plural(cursor.steps, 'step')}" + (f" of round {cursor.turn + 1}" if cursor.turn else "")


def where(place: Place, key: str) -> str:
    """Where a stream is that a process learns now, by the key of its last step: session, rate, time left; nothing if it told nobody."""
    pulse = seen(place, key)
    return f"{pulse.beat.session}: {standing(pulse.beat, time.time())}" if pulse else ""


def moment(when: datetime) -> str:
    """A time as tables show it, to the minute (UTC)."""
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
