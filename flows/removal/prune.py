"""What of a model's past has to stay: pure, over how it stands; everything else may lose its weights, and nothing loses a number."""

from collections.abc import Collection, Iterable, Mapping
from typing import NamedTuple

from cl.disk.journal import Entry
from flows.history.entries import Adopted, Champion, Rebuilt, Verdict, fact
from flows.history.standing import Standing, Word
from flows.registry.champion import before

_UNSETTLED = (Word.ASKED, Word.BEGUN, Word.UNJUDGED, Word.AGAIN)


class Kept(NamedTuple):
    """States and versions that stay."""

    states: frozenset[str]
    versions: frozenset[str]


def keeps(standing: Standing, held: Mapping[str, str], aliased: Collection[str], back: int) -> Kept:
    """What a model needs to go on, to be rolled back and to be asked by name; what those states stand on is for the disk to say.

    Champion and head; the `back` champions before, one rollback after the other; whatever has an alias; what waits, is begun or not
    judged yet; and whatever grew from the head, which a person may still accept.

    Args:
        standing: how the model stands.
        held: the state of each version, by number.
        aliased: versions that MLflow knows by a name.
        back: how many champions.
    """
    versions = {*aliased, *_past(standing, back)} - standing.barred
    states = {held[version] for version in versions if version in held}
    states |= {status.state for status in standing.sessions.values() if status.word in _UNSETTLED and status.state}
    states |= {learned.state for learned in standing.tree.values() if learned.parent == standing.head}
    states |= {state for state in (standing.head, standing.unpublished) if state}
    states |= {standing.champion.state} if standing.champion and standing.champion.state else set()
    states |= {state for each in standing.unfinished for state in (getattr(each, "into", None),) if state}
    if standing.open:
        states |= {state for state in (standing.open.state, standing.open.parent) if state}
    # a version goes with its state, so that what can be gone on with can also be asked
    return Kept(frozenset(states), frozenset(versions | {version for version, state in held.items() if state in states}))


def _past(standing: Standing, back: int) -> list[str]:
    """The champion and those that rollback leads to, one after the other; what is barred or pruned does not count."""
    past: list[str] = []
    now = standing.champion.version if standing.champion else None
    while now is not None and len(past) <= back:
        if standing.unfit(now) is None:
            past.append(now)
        now = before(standing.champions, now)
    return past


def versions_in(entries: Iterable[Entry]) -> dict[str, str]:
    """The state that each version holds, as a history says."""
    states: dict[str, str] = {}
    for said in map(fact, entries):
        match said:
            case Verdict() | Champion() | Rebuilt() if said.version and said.state:
                states[said.version] = said.state
            case Adopted() if said.version:
                states[said.version] = said.line[-1].state
            case _:
                pass
    return states
