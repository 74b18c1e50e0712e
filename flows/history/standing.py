"""How a model stands: the line, the head, the champion, each session, and what a crash left open; concluded in `conclude.py`."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

from cl.text import plural
from flows.history.entries import Began, Classes, Learned, Opened, Pruned, Verdict, Withdrawn
from flows.history.line import Gos, Tree, root


class Word(StrEnum):
    """What a session is; the value is what people read."""

    LEARNED = "learned"
    KEPT = "refused, kept"  # in the line although the gate refused it, as the config wants
    ASIDE = "set aside"
    SKIPPED = "skipped"
    BACK = "rolled back"
    ASKED = "waiting for a person"
    BEGUN = "begun"
    UNJUDGED = "not judged"
    WITHDRAWN = "withdrawn"
    AGAIN = "to retry"  # the next update learns it, by itself or because somebody wants it


class Status(NamedTuple):
    """How it stands with a session: why, since when (ISO), and its latest state where it has one."""

    word: Word
    why: str
    when: str
    state: str | None
    source: str


class Holder(NamedTuple):
    """The champion: its version, and the state it holds (None: of no known line, and nothing can grow from it)."""

    version: str
    state: str | None


@dataclass(frozen=True)
class Standing:
    """What a history comes to; nothing in here has looked at a disk, at MLflow or at a config."""

    opened: Opened | None  # None: there is no history
    last: int  # the number of the last entry, which `Journal.append` may expect
    line: tuple[Learned, ...]  # from the first session to the head
    champion: Holder | None  # as the history says, which the alias follows
    confirmed: bool  # the alias was seen to follow; where it was not, one that differs is a crash's and not a stranger's
    champions: tuple[str, ...]  # versions in the order in which they became it, for `registry.before`
    sessions: Mapping[str, Status]  # by name, in order of appearance
    open: Began | None  # begun, and neither learned nor abandoned
    tree: Tree  # every state that was ever learned, by its key
    gos: Gos  # `together` of the states that were begun so
    verdicts: Mapping[str, tuple[Verdict, ...]]  # by state, oldest first
    agreed: frozenset[str]  # states that the gate or a person accepted
    with_next: tuple[str, ...]  # sessions set aside that are to be tried once more, together with the next
    overruled: frozenset[str]  # sessions to be learned whatever the gate says
    withdrawals: tuple[Withdrawn, ...]  # the latest word on each
    unfinished: tuple[Withdrawn | Pruned, ...]  # intents without a `done`
    tainted: frozenset[str]  # states that hold what was withdrawn; while the head is one, only learning anew leaves it out
    pruned: frozenset[str]  # states without weights
    pruned_versions: frozenset[str]

    @property
    def head(self) -> str | None:
        """The state that the next session grows from; None: the base model."""
        return self.line[-1].state if self.line else None

    @property
    def vocabulary(self) -> Classes:
        """Every class that the line has learned, in order of arrival, with its prompts."""
        return tuple(each for learned in self.line for each in learned.classes)

    @property
    def unjudged(self) -> Learned | None:
        """What is learned on the head and was not judged: the gate comes next."""
        candidates = (self.tree[state] for state in self._states(Word.UNJUDGED) if self._last_of_its_go(state))
        return next(candidates, None)

    @property
    def partway(self) -> Learned | None:
        """Learned on the head together with sessions of which the next is neither learned nor begun."""
        if self.open or self.unjudged:
            return None
        return next((self.tree[state] for state in self._states(Word.UNJUDGED)), None)

    @property
    def waiting(self) -> Verdict | None:
        """What a person is asked about; nothing is learned meanwhile."""
        verdicts = (self.verdicts[state][-1] for state in self._states(Word.ASKED) if state in self.verdicts)
        return next((verdict for verdict in verdicts if verdict.word == "waiting"), None)

    @property
    def unpublished(self) -> str | None:
        """The last accepted state of the line that came after the champion's: a version of it becomes champion."""
        if self.champion and self.champion.state is None:
            return None
        states = [learned.state for learned in self.line]
        start = states.index(self.champion.state) + 1 if self.champion and self.champion.state in states else 0
        return next((state for state in reversed(states[start:]) if state in self.agreed), None)

    @property
    def tombstones(self) -> frozenset[str]:
        """Sessions that were withdrawn as a whole; a collection's numbers go on after theirs."""
        return frozenset(each.session for each in self.withdrawals if each.images is None)

    @property
    def barred(self) -> frozenset[str]:
        """Versions that hold what was withdrawn: they are not served, promoted or rolled back to."""
        return frozenset(version for each in self.withdrawals for version in each.versions)

    def unfit(self, version: str) -> str | None:
        """Why a version must not be served or become champion; None: nothing speaks against it."""
        for each in self.withdrawals:
            if version in each.versions:
                images = "" if each.images is None else f"{plural(len(each.images), 'image')} of "
                return f"it holds {images}session {each.session!r}, withdrawn" + (f" ({each.why})" if each.why else "")
        return "its weights were pruned" if version in self.pruned_versions else None

    def grows(self, what: Began | Learned) -> bool:
        """Whether a candidate, or the first session of those judged with it, stands on the head."""
        return root(self.tree, self.gos, what) == self.head

    def judged(self, state: str, champion_version: str | None, bounds: Mapping[str, Any]) -> Verdict | None:
        """What the gate said of a state by these bounds against this champion; it would say the same again."""
        said = (each for each in reversed(self.verdicts.get(state, ())) if each.word in ("accepted", "promoted", "refused"))
        return next((each for each in said if each.champion_version == champion_version and each.bounds == bounds), None)

    def _states(self, word: Word) -> list[str]:
        return [status.state for status in self.sessions.values() if status.word == word and status.state is not None]

    def _last_of_its_go(self, state: str) -> bool:
        return self.gos.get(state, (self.tree[state].session,))[-1] == self.tree[state].session


def chain(standing: Standing, state: str | None) -> tuple[Learned, ...]:
    """The sessions that a state holds, from the first to its own."""
    path: list[Learned] = []
    while state is not None and state in standing.tree:
        path.append(standing.tree[state])
        state = path[-1].parent
    return tuple(reversed(path))


def rows(standing: Standing, waiting: Sequence[str]) -> list[tuple[str, str, str, str, str]]:
    """Session, status, why, when and the start of its state's key, as people read them; `waiting`: what a config lists, known or not."""
    known = [(name, str(each.word), each.why, each.when, (each.state or "")[:8]) for name, each in standing.sessions.items()]
    return known + [(name, "waiting", "", "", "") for name in waiting if name not in standing.sessions]
