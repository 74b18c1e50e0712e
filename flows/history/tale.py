"""What the entries of a history do to how a model stands, one after the other. Where several rules could hold, these do.

- The head moves to an accepted or promoted candidate that grew from it, and to a refused one where the config keeps those. A verdict on
  what grew from elsewhere moves nothing, whatever it says; nobody refused its session, so that is to be learned again.
- A candidate that waits, or is not judged yet, counts only while it stands on the head; should the head come back, it counts again.
- Whoever promotes a version by hand, or rolls back, chooses its whole line. Sessions that leave with it are rolled back and stay so.
- A session in the line is learned, whatever else was wanted of it; one that is withdrawn as a whole is that for ever.
- A refused session that goes once more, together with the next, has had its turn: refused again it is set aside, and the next goes alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import assert_never

from cl.disk.journal import Entry
from cl.errors import StoreError
from flows.history import entries as facts
from flows.history.entries import moment_of
from flows.history.line import Line, mates
from flows.history.standing import Holder, Word

STALE = "its candidate grew from what is the head no longer"


@dataclass(frozen=True)
class Mark:
    """The latest that was said of a session; `judged` is the state whose verdict settles it: another's where it goes with the next."""

    word: Word
    why: str
    when: str
    state: str | None
    judged: str | None


@dataclass
class Tale:
    """What the entries so far come to."""

    last: int = 0
    when: str = ""
    opened: facts.Opened | None = None
    line: Line = field(default_factory=Line)
    marks: dict[str, Mark] = field(default_factory=dict)
    sources: dict[str, str] = field(default_factory=dict)
    verdicts: dict[str, list[facts.Verdict]] = field(default_factory=dict)
    agreed: set[str] = field(default_factory=set)
    open: facts.Began | None = None
    champion: Holder | None = None
    pending: facts.How | None = None  # what made it champion, where the alias was not seen to follow
    champions: list[str] = field(default_factory=list)
    turn: set[str] = field(default_factory=set)  # refused sessions that may go with the next
    overruled: set[str] = field(default_factory=set)
    gone: set[str] = field(default_factory=set)  # sessions that are withdrawn as a whole
    withdrawals: dict[tuple[str, tuple[str, ...] | None], facts.Withdrawn] = field(default_factory=dict)
    prunes: dict[tuple[tuple[str, ...], tuple[str, ...]], facts.Pruned] = field(default_factory=dict)
    pruned: set[str] = field(default_factory=set)
    held: dict[str, str] = field(default_factory=dict)  # the state of each version that was spoken of
    tainted: dict[tuple[str, tuple[str, ...] | None], set[str]] = field(default_factory=dict)  # states, by what was withdrawn from them

    def take(self, entry: Entry, said: facts.Fact) -> None:
        """Go on by an entry.

        Raises:
            StoreError: it speaks of a state that none before it learned, or is the wrong one to begin with.
        """
        self._in_place(said)
        self.last, self.when = entry.seq, moment_of(entry, said)
        match said:
            case facts.Opened():
                self.opened = said
            case facts.Began():
                self._begin(said)
            case facts.Learned():
                self._learn(said)
            case facts.Verdict():
                self._judge(said)
            case facts.Champion():
                self._crown(said)
            case facts.Adopted() | facts.Rebuilt():
                self._take_over(said)
            case facts.Withdrawn() | facts.Pruned():
                self._let_go(said)
            case facts.Abandoned():
                self.open = None if self.open and self.open.state == said.state else self.open
                self._mark(said.session, Word.AGAIN, said.why)
            case facts.Skipped() | facts.Retry() | facts.Accept():
                self._obey(said)
            case _:
                assert_never(said)

    def _in_place(self, said: facts.Fact) -> None:
        if isinstance(said, facts.Opened) == (self.opened is not None):
            raise StoreError(f"a history begins with 'opened', once, and this is {'another' if self.opened else 'none'}")

    def _mark(self, session: str, word: Word, why: str, state: str | None = None, judged: str | None = None) -> None:
        if session in self.gone and word != Word.WITHDRAWN:
            return
        before = self.marks.get(session)
        self.marks[session] = Mark(word, why, self.when, state or (before.state if before else None), judged or state)

    def _settle(self, *sessions: str) -> None:
        self.turn -= set(sessions)
        self.overruled -= set(sessions)

    def _begin(self, said: facts.Began) -> None:
        if self.open and self.open.session != said.session:
            self._mark(self.open.session, Word.AGAIN, f"{said.session} was begun before it was learned")
        self.open = said
        self.sources[said.session] = said.source
        self.line.gos.pop(said.state, None)
        if said.together:
            self.line.gos[said.state] = said.together
        self._mark(said.session, Word.BEGUN, "", said.state)

    def _learn(self, said: facts.Learned) -> None:
        self.line.know(said, self.when)
        self.sources[said.session] = said.source
        self.pruned.discard(said.state)
        self.open = None if self.open and self.open.state == said.state else self.open
        self._mark(said.session, Word.UNJUDGED, "", said.state)

    def _graft(self, line: Sequence[facts.Learned]) -> None:
        self.line.graft(line, self.when)
        self.sources |= {learned.session: learned.source for learned in line}

    def _take_over(self, said: facts.Adopted | facts.Rebuilt) -> None:
        self._graft(said.line)
        if said.version:  # what is learned anew has none until it is judged
            self.held[said.version] = said.line[-1].state
        if isinstance(said, facts.Rebuilt):
            self._choose(said.state, said.why or "what is learned anew leaves it out")
            self.agreed |= {learned.state for learned in said.line}
            self._hold(said.version, said.state, "rebuild")

    def _spoken_of(self, said: facts.Verdict | facts.Champion) -> None:
        if said.version and said.state:
            self.held[said.version] = said.state

    def tainted_by(self, withdrawn: facts.Withdrawn) -> set[str]:
        """Every state that learned what was withdrawn, or grew from one that did, also since."""
        tainted, clean = set(self.tainted.get((withdrawn.session, withdrawn.images), ())), set[str]()
        for state in self.line.tree if tainted else ():
            way, now = list[str](), state
            while now in self.line.tree and now not in tainted and now not in clean:
                way.append(now)
                clean.add(now)
                now = self.line.tree[now].parent or ""
            if now in tainted:
                tainted |= set(way)
                clean -= set(way)
        return tainted

    # who leads

    def _choose(self, state: str, why: str) -> None:
        for learned in self.line.choose(state):
            self._mark(learned.session, Word.BACK, why, learned.state)
            self._settle(learned.session)

    def _hold(self, version: str, state: str | None, pending: facts.How | None) -> None:
        self.champion, self.pending = Holder(version, state), pending
        if self.champions[-1:] != [version]:
            self.champions.append(version)

    def _crown(self, said: facts.Champion) -> None:
        self._spoken_of(said)
        done = said.phase == "done"
        if done and self.pending == said.how and self.champion == Holder(said.version, said.state):
            self.pending = None
            return
        if said.state is not None and not (said.how == "gate" and said.state in self.line.states):
            self._choose(said.state, said.why)
        if said.state is not None and said.how in ("promote", "outside_confirmed"):
            self.agreed.add(said.state)  # a person has decided, whatever the gate had said
        self._hold(said.version, said.state, None if done else said.how)

    # what becomes of a candidate

    def _judge(self, said: facts.Verdict) -> None:
        self._spoken_of(said)
        learned = self._as(said.session, said.state)
        self.verdicts.setdefault(said.state, []).append(said)
        below = mates(self.line.tree, self.line.gos, learned)
        others = [each.session for each in reversed(below)]
        if said.word in ("refused", "declined", "expired") and said.state not in self.line.states:
            self.agreed.discard(said.state)
        stands = self.line.stands(learned) and not {*others, learned.session} & self.gone
        match said.word:
            case "accepted" | "promoted" if stands or said.state in self.line.states:
                self._agree(said, learned, below)
            case "accepted" | "promoted" | "stale":
                for mate in others:
                    self._mark(mate, Word.ASIDE, "refused before, and not yet judged together with another")
                self._mark(learned.session, Word.AGAIN, said.reason if said.word == "stale" and said.reason else STALE)
            case "waiting":
                for mate in others:
                    self._mark(mate, Word.ASKED, said.reason, judged=said.state)
                self._mark(learned.session, Word.ASKED, said.reason, said.state)
            case "refused" | "declined" if said.policy == "keep" and stands:
                self.line.grow(learned)
                self._mark(learned.session, Word.KEPT, said.reason, said.state)
            case "refused" | "declined" | "expired":
                self._refuse(said, learned.session, others)
            case _:
                assert_never(said.word)

    def _as(self, session: str, state: str) -> facts.Learned:
        """A state as that of a session: two that teach the same share one."""
        learned = self.line.known(state)
        if learned.session != session and state not in self.line.states:
            learned = replace(learned, session=session)
            self.line.know(learned, self.when)
        return learned

    def _agree(self, said: facts.Verdict, learned: facts.Learned, below: Sequence[facts.Learned]) -> None:
        if said.state not in self.line.states:
            self.line.grow(learned)
        for each in (learned, *below):
            self._settle(each.session)
            self._mark(each.session, Word.LEARNED, said.reason, each.state)
            self.agreed.add(each.state)
        if said.word == "promoted" and said.version is not None:
            self._hold(said.version, said.state, "gate")

    def _refuse(self, said: facts.Verdict, session: str, others: Sequence[str]) -> None:
        self._settle(session, *others)
        for mate in others:
            self._mark(mate, Word.ASIDE, f"together with {session}: {said.reason}")
        if others and said.word != "expired":
            self._mark(session, Word.AGAIN, f"refused together with {', '.join(others)}; alone next")
            return
        self._mark(session, Word.ASIDE, said.reason, said.state)
        if said.policy == "retry_with_next" and said.word != "expired":
            self.turn.add(session)

    # what people want

    def _obey(self, said: facts.Skipped | facts.Retry | facts.Accept) -> None:
        self._settle(said.session)
        if said.session in self.gone:
            return
        match said:
            case facts.Skipped():
                self._mark(said.session, Word.SKIPPED, said.why)
            case facts.Retry():
                self._mark(said.session, Word.AGAIN, f"{said.by or 'somebody'} wants it")
            case facts.Accept():
                self._accept(said)

    def _accept(self, said: facts.Accept) -> None:
        session, mark = said.session, self.marks.get(said.session)
        why = f"{said.by or 'somebody'} accepts it" + (f": {said.why}" if said.why else "")
        taken = next((each for each in self.line.states.values() if each.session == session), None)
        candidate = self.line.tree.get(mark.state) if mark and mark.state else None
        if taken is None and candidate and candidate.parent == self.line.head and candidate.state not in self.pruned:
            taken = self._as(session, candidate.state)
            self.line.grow(taken)
        if taken:
            self.agreed.add(taken.state)
            self._mark(session, Word.LEARNED, why, taken.state)
            return
        self.overruled.add(session)  # to take its candidate would drop what was learned since
        if not (mark and mark.word == Word.BEGUN):
            self._mark(session, Word.AGAIN, why)

    def _let_go(self, said: facts.Withdrawn | facts.Pruned) -> None:
        if isinstance(said, facts.Withdrawn):
            return self._withdraw(said)
        self.prunes[said.states, said.versions] = said
        self.pruned |= set(said.states)

    def _withdraw(self, said: facts.Withdrawn) -> None:
        key = said.session, said.images
        mine = {learned.state for learned in said.line}
        self.tainted.setdefault(key, {state for state, each in self.line.tree.items() if each.session == said.session} - mine)
        self.withdrawals[key] = said
        self._graft(said.line)
        if said.into:
            self.line.known(said.into)
        if said.images is None:
            self.gone.add(said.session)
            self._mark(said.session, Word.WITHDRAWN, said.why)
            self._settle(said.session)
        if said.phase == "done" and said.into and said.into not in self.line.states:
            if self.line.head in self.agreed:
                self.agreed.add(said.into)
            self._choose(said.into, said.why)
