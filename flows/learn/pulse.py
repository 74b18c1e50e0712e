"""The pulse of a stream: a small file beside its lock that says where it is, for who looks from another process."""

import json
import os
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from cl.disk import beneath
from cl.errors import StoreError
from cl.evaluation.matrix import Change
from flows.console import every
from flows.pace import Beat, Ended, Pace
from flows.settings import Place

if TYPE_CHECKING:
    from flows.watch import Watch

_EVERY = 1.0  # seconds between two writes
_LOOK = 0.5  # seconds between two looks
PULSES = "*.pulse"
_MOST = 1 << 22  # bytes; nobody has so many sessions


class Seen(NamedTuple):
    """What a pulse's file says: where the stream is, and the sessions finished so far, in order."""

    beat: Beat
    ended: tuple[Ended, ...]


class Pulse:
    """A watch that keeps the time, writes the pulse, and tells another watch. Nothing is lost with the file: it is not flushed."""

    def __init__(self, inner: "Watch", file: Path, stream: str, sizes: Sequence[int]) -> None:
        self.inner, self.file, self.stream, self.pace = inner, file, stream, Pace(sizes)
        self.beat, self.ended, self.written = Beat(stream, 0, len(sizes), "start"), list[Ended](), 0.0
        self.under_way = False

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        """A session begins."""
        self.inner.begin(stream, index, last, session)
        self.under_way = True
        self.pace.begin(time.monotonic())
        self._tell(Beat(stream, index, last, session))

    def progress(self, done: int, total: int, what: str, *, images: int = 0, turn: int = 0, turns: int | None = 1) -> None:
        """Steps and sets of the session, with their rate and the time left."""
        if not self.under_way:  # of the candidate, when all are learned
            return self.inner.progress(done, total, what)
        now = self.beat._replace(
            doing="learning" if images else "examining", done=done, total=total, turn=turn, turns=turns, rate=None, left=None
        )
        self._tell(self.pace.hear(now, images, time.monotonic()))

    def heard(self, beat: Beat) -> None:
        """Another stream's: handed on."""
        self.inner.heard(beat)

    def end(self, ended: Ended) -> None:
        """A session is finished."""
        self.under_way = False
        if not ended.known:
            self.pace.end(ended.number, time.monotonic())
        self.ended.append(ended)
        self._write()
        self.inner.end(ended)

    def tell(self, text: str) -> None:
        """Anything else."""
        self.inner.tell(text)

    def _tell(self, beat: Beat) -> None:
        self.beat = beat._replace(heard=time.time())
        if time.monotonic() - self.written > _EVERY or beat.doing == "beginning":
            self._write()
        self.inner.heard(self.beat)

    def _write(self) -> None:
        part = self.file.with_name(f".{self.file.name}.{uuid.uuid4().hex}.part")
        with suppress(OSError):  # a full disk is told by what has to be kept
            part.write_text(json.dumps({"beat": self.beat, "ended": self.ended}))
            os.replace(part, self.file)
        part.unlink(missing_ok=True)
        self.written = time.monotonic()


def seen(place: Place, key: str) -> Seen | None:
    """The pulse of a stream by the key of its last step; None where none was written, or nothing that can be read."""
    return _read(pulse_file(place, key))


def pulses(place: Place) -> Iterator[Seen]:
    """The pulses of all streams of a project, as far as they can be read."""
    yield from filter(None, map(_read, sorted((place.runs / "locks").glob(PULSES))))


@contextmanager
def followed(place: Place, streams: Sequence[str], watch: "Watch") -> Iterator[None]:
    """While inside, `watch` hears what other processes learn of the streams with these titles."""
    since, known = time.time(), dict.fromkeys(streams, 0)
    last: dict[str, float] = {}

    def look() -> None:
        for pulse in pulses(place):
            name, heard = pulse.beat.stream, pulse.beat.heard
            if name not in known or heard < since:
                continue
            for ended in pulse.ended[known[name] :]:
                watch.end(ended)
            known[name] = max(known[name], len(pulse.ended))
            if heard != last.get(name) and known[name] <= pulse.beat.number:  # not of one that is over
                watch.heard(pulse.beat)
            last[name] = heard

    with every(_LOOK, look):
        yield
    look()


def pulse_file(place: Place, key: str) -> Path:
    """Where the pulse of a stream lies, by the key of its lock."""
    return place.runs / "locks" / PULSES.replace("*", key)


def _read(path: Path) -> Seen | None:
    with suppress(OSError, StoreError, ValueError, TypeError, KeyError, AttributeError):
        with beneath.plain(path, os.O_RDONLY, "the pulse of a stream; remove it") as file:
            noted = json.loads(file.read(_MOST))
        return Seen(Beat(*noted["beat"]), tuple(_ended(each) for each in noted["ended"]))
    return None


def _ended(values: Sequence[Any]) -> Ended:
    ended = Ended(*values)
    return ended._replace(changes=tuple(Change(*change) for change in ended.changes))
