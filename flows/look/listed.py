"""The sessions of a model's history as people read them, with those that its data have and the history does not know."""

from collections.abc import Iterator, Sequence
from datetime import datetime

from cl.errors import StoreError
from cl.text import plural, some
from flows.history.standing import Standing, Word
from flows.history.standing import rows as rows_of
from flows.learn.far import moment
from flows.settings import Place


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
