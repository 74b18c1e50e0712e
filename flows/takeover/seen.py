"""What the data of today say of sessions that an earlier release learned, read one at a time."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from cl.data.classes import ClassName
from cl.errors import EvergreenError
from cl.store.first_names import session_digest
from cl.streams.arrivals import Arrivals
from cl.streams.stream import Kind, Session


@dataclass(frozen=True)
class SeenSet:
    """An evaluation set of today: digests of its rows with their ids and without, its own classes, and how many rows there are."""

    name: str
    kind: Kind
    rows: str
    content: str
    classes: tuple[ClassName, ...]
    size: int


@dataclass(frozen=True)
class Seen:
    """A session of today, at a place in a line; `digest` as it is named now, `first` as release 0.1.0 named it."""

    name: str
    index: int
    digest: str
    first: str
    classes: tuple[ClassName, ...]  # that it teaches or asks about
    vocabulary: tuple[ClassName, ...]  # with those before it
    sets: tuple[SeenSet, ...]
    images: int


def look(arrivals: Arrivals, name: str, index: int, known: Mapping[str, ClassName]) -> Seen | None:
    """A session as the `index`-th on top of known classes; None where its data are gone, or are not what could be learned."""
    try:
        if name not in arrivals.there():
            return None
        session, _ = arrivals.session(name, index, known)
        return Seen(
            name,
            index,
            session.digest,
            session_digest(session),
            tuple(session.vocabulary[place] for place in session.classes),
            session.vocabulary,
            tuple(_sets(session)),
            len(session.data),
        )
    except EvergreenError:
        return None


def fits(sets: SeenSet, hits: str, settings: Mapping[str, Any]) -> bool:
    """Whether a set has as many rows as were asked; `hits` of `cl.evaluation.evaluate.pack`, `settings`: the `evaluate` section of then."""
    limit = settings.get("limit")
    return int(hits.partition(":")[0]) == (sets.size if limit is None else min(limit, sets.size))


def _sets(session: Session) -> Iterator[SeenSet]:
    for test in session.tests:
        yield SeenSet(test.name, test.kind, test.data.digest(), test.data.content(), test.classes, len(test.data))
