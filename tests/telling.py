"""A model's history for tests: facts in few words, the entries they make, and what holds of every standing."""

from collections.abc import Sequence
from typing import Any

from cl.disk.journal import Entry
from flows.history.conclude import conclude
from flows.history.entries import Began, Champion, Fact, Learned, Opened, Verdict, entry_of
from flows.history.standing import Standing, Word

Step = Fact | Sequence["Step"]
OPENED = Opened(model="colours", stream={"kind": "collection"}, base="b" * 8)
BOUNDS = {"drop": 0.05}


def began(session: str, state: str, parent: str | None = None, *together: str) -> Began:
    made = {"identity": "i", "config": {"method": "replay"}, "content": f"c{session}", "number": 1}
    return Began(session=session, source="inbox", parent=parent, state=state, together=together, **made)


def learned(session: str, state: str, parent: str | None = None, **more: Any) -> Learned:
    made = {"identity": "i", "config": {"method": "replay"}, "content": f"c{session}", "number": 1}
    return Learned(session=session, source="inbox", parent=parent, state=state, **made | more)


def learn(session: str, state: str, parent: str | None = None, *together: str) -> list[Fact]:
    return [began(session, state, parent, *together), learned(session, state, parent)]


def says(session: str, state: str, word: Any, version: str | None = None, **more: Any) -> Verdict:
    return Verdict(state=state, session=session, word=word, version=version, bounds=BOUNDS, reason=f"because of {session}", **more)


def crown(version: str, state: str | None, how: Any = "gate", phase: Any = "done", why: str = "why") -> Champion:
    return Champion(version=version, state=state, how=how, phase=phase, why=why)


def good(session: str, state: str, parent: str | None, version: str) -> list[Step]:
    """A session from its beginning to the alias that follows."""
    return [learn(session, state, parent), says(session, state, "promoted", version), crown(version, state)]


def bad(session: str, state: str, parent: str | None, version: str, **more: Any) -> list[Step]:
    return [learn(session, state, parent), says(session, state, "refused", version, **more)]


def flat(steps: Sequence[Step]) -> list[Fact]:
    return [each for step in steps for each in (flat(step) if isinstance(step, Sequence) else [step])]


def entries(steps: Sequence[Step]) -> list[Entry]:
    return [
        Entry(number, f"{number}", f"2026-01-01T00:00:{number:02}", *entry_of(said))
        for number, said in enumerate([OPENED, *flat(steps)], 1)
    ]


def stand(*steps: Step) -> Standing:
    standing = conclude(entries(steps))
    sound(standing)
    return standing


def sound(standing: Standing) -> None:
    """What holds whatever was written."""
    parent = None
    for each in standing.line:
        assert each.parent == parent and standing.tree[each.state] == each
        parent = each.state
    assert standing.head == parent
    in_line = {each.session for each in standing.line}
    for name, status in standing.sessions.items():
        if status.word in (Word.LEARNED, Word.KEPT):
            assert name in in_line
        else:
            assert name not in in_line or name in standing.tombstones
    assert in_line <= set(standing.sessions)
    assert standing.open is None or standing.sessions[standing.open.session].word == Word.BEGUN
    assert [status.word for status in standing.sessions.values()].count(Word.BEGUN) == (standing.open is not None)
    assert standing.unjudged is None or standing.grows(standing.unjudged)
    assert set(standing.with_next) <= {name for name, status in standing.sessions.items() if status.word == Word.ASIDE}
    assert standing.unpublished is None or standing.unpublished in {each.state for each in standing.line}
