"""The sessions of a model's history as people read them, with those that its data have and the history does not know."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING

from pydantic import TypeAdapter, ValidationError

from cl.errors import DataError, StoreError
from cl.text import plural, some
from flows.history.standing import Standing, Word
from flows.history.standing import rows as rows_of
from flows.learn.progress import moment
from flows.settings import Place

if TYPE_CHECKING:
    from cl.reports.report import Report
    from flows.line.work import Work


def histories(place: Place) -> list[str]:
    """The names of the models that have a history here."""
    return sorted(path.stem for path in (place.runs / "history").glob("*.jsonl"))


def only(place: Place) -> str:
    """The one model that has a history here.

    Raises:
        StoreError: none has, or several have.
    """
    names = histories(place)
    if len(names) == 1:
        return names[0]
    raise StoreError(
        f"which model? there are {some(names, 10)}" if names else "no model has a history yet; `evergreen update CONFIG` begins one"
    )


def rows(standing: Standing, waiting: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """`standing.rows`, with times to the minute."""
    return [
        (name, word, why, moment(datetime.fromisoformat(when)) if when else "", state)
        for name, word, why, when, state in rows_of(standing, waiting)
    ]


def told(standing: Standing, name: str) -> Iterator[str]:
    """Who leads, and what a person can do, in lines."""
    if standing.champion:
        yield f"champion of {name}: version {standing.champion.version}, after {plural(len(standing.line), 'session')}"
    if standing.waiting:
        asked = standing.waiting.session
        yes = f"evergreen promote {name} {standing.waiting.version}"
        yield f"{asked} waits for a person, and nothing is learned meanwhile: {yes}, or evergreen skip {name} {asked}"
    out = [session for session, status in standing.sessions.items() if status.word in (Word.ASIDE, Word.BACK)]
    if out:
        yield f"what becomes of {some(out)}: evergreen retry {name} SESSION, or skip, or accept"


def arrivals_of(config: str, data_root: str | None) -> "Work":
    """What a config's data hold.

    Raises:
        ConfigError, DataError: it is wrong, or they are.
    """
    from flows.learn.job import job_of
    from flows.line.work import work

    return work(job_of(config, (), data_root, whole=False))


def named(place: Place, standing: Standing, data_root: str | None) -> list[str]:
    """The sessions that lie in the data of the stream that the model learned last; none where nothing says which that is."""
    from cl.streams.arrivals import Arrivals
    from cl.streams.build import StreamConfig

    last = standing.open or (standing.line[-1] if standing.line else next(reversed(list(standing.tree.values())), None))
    if last is None:
        return []
    try:
        stream = TypeAdapter[StreamConfig](StreamConfig).validate_python(last.config.get("stream"))
        return list(Arrivals(stream, place.data_in(data_root)).there())
    except (ValidationError, DataError):
        return []


def report_of_model(config: str, overrides: Sequence[str], data_root: str | None) -> "Report | None":
    """The report of the line that a config's model has grown; None where it has no history, or the config compares methods.

    Raises:
        ConfigError, DataError, StoreError: the config, its data or the history are damaged.
    """
    from flows.history.entries import history_of
    from flows.learn.job import job_of, settings
    from flows.line.view import report_of_line
    from flows.line.work import work

    place = Place.find()
    run = settings(config, overrides, place)
    if run.compare or not history_of(place, run.name).read():
        return None
    at = work(job_of(config, overrides, data_root, whole=False))
    standing = at.standing()
    return report_of_line(at, standing, standing.line) if standing.line else None
