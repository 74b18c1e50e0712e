"""A model's history as people read it: an entry a line, oldest first."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, assert_never

from cl.disk.journal import Entry
from cl.text import plural, some
from flows.history import entries as facts
from flows.history.entries import Champion, How, fact, moment_of

_HOW: dict[How, str] = {
    "gate": "champion",
    "promote": "champion",
    "outside_confirmed": "champion, as MLflow has it",
    "rollback": "champion again",
    "withdraw": "champion, without what is withdrawn",
    "rebuild": "champion, learned anew",
    "taken_over": "champion",
}
_WISH: dict[type[facts.Fact], str] = {facts.Skipped: "skipped", facts.Retry: "to retry", facts.Accept: "accepted by a person"}


class Line(NamedTuple):
    """What happened: when (UTC), to which session and version, by whom, why."""

    when: str
    what: str
    session: str = ""
    version: str = ""
    who: str = ""
    why: str = ""


def story(entries: Iterable[Entry]) -> Iterator[Line]:
    """What the entries tell; what only says that another is going to be, or is done, is left out.

    Raises:
        StoreError: a later release wrote one of them.
    """
    intended: Champion | None = None
    for entry in entries:
        said = fact(entry)
        follows = isinstance(said, Champion) and intended is not None and (said.version, said.how) == (intended.version, intended.how)
        if isinstance(said, Champion):
            intended = said if said.phase == "intent" else None
        if (line := _line(moment_of(entry, said)[:19].replace("T", " "), said)) and not follows:
            yield line


def _line(when: str, said: facts.Fact) -> Line | None:
    match said:
        case facts.Verdict():
            return Line(when, said.word, said.session, said.version or "", said.by, said.reason)
        case facts.Champion():
            if said.how in ("gate", "rebuild"):  # the verdict, or that it was learned anew, has said so
                return None
            return Line(when, _HOW[said.how], "", said.version, said.by, said.why)
        case facts.Skipped() | facts.Retry() | facts.Accept():
            return Line(when, _WISH[type(said)], said.session, "", said.by, "" if isinstance(said, facts.Retry) else said.why)
        case facts.Withdrawn() | facts.Pruned():
            return _gone(when, said)
        case _:
            return _learned(when, said)


def _learned(when: str, said: facts.Opened | facts.Began | facts.Learned | facts.Adopted | facts.Rebuilt | facts.Abandoned) -> Line | None:
    match said:
        case facts.Opened():
            return Line(when, "history begins", why=_taken(said.taken_over) if said.taken_over else "")
        case facts.Began():
            return None
        case facts.Learned():
            dropped = f"left behind: {some(said.dropped)}" if said.dropped else ""
            return Line(when, "learned", said.session, why=dropped)
        case facts.Adopted() if not said.version:
            return Line(when, "learned anew", _sessions(said.line), why="beside the champion; the gate has not spoken yet")
        case facts.Adopted():
            return Line(when, "adopted", _sessions(said.line), said.version, why="learned by `run`")
        case facts.Rebuilt():
            return Line(when, "promoted", _sessions(said.line), said.version, said.by, said.why)
        case facts.Abandoned():
            return Line(when, "abandoned", said.session, why=said.why)
        case _:
            assert_never(said)


def _gone(when: str, said: facts.Withdrawn | facts.Pruned) -> Line | None:
    if isinstance(said, facts.Pruned):
        weights = f"the weights of {plural(len(said.states), 'state')}"
        return None if said.phase == "intent" else Line(when, "pruned", "", some(said.versions, 10), why=weights)
    part = "" if said.images is None else f"{plural(len(said.images), 'image')} of "
    what = "withdrawn" if said.phase == "done" else "being withdrawn"
    return Line(when, what, f"{part}{said.session}", some(said.versions, 10), said.by, said.why)


def _sessions(line: Sequence[facts.Learned]) -> str:
    return some([each.session for each in line], 10)


def _taken(over: Mapping[str, Any]) -> str:
    """How a line was taken over, in words.

    >>> _taken({"how": "by name only", "why": "the data of s1 are not here any more", "states": 2, "release": "", "code": "5e5e"})
    'taken over from Evergreen 0.1.0 with 2 states, by name only: the data of s1 are not here any more'
    """
    release, why = over.get("release") or "0.1.0", over.get("why")
    return f"taken over from Evergreen {release} with {plural(int(over.get('states', 0)), 'state')}, {over.get('how')}{why and f': {why}'}"
