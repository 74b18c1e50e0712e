"""From the entries of a model's history to how it stands."""

from collections.abc import Iterable
from dataclasses import replace

from cl.disk.journal import Entry
from cl.errors import StoreError
from flows.history.entries import Learned, Pruned, Withdrawn, fact, history_of
from flows.history.standing import Standing, Status, Word
from flows.history.tale import STALE, Tale
from flows.settings import Place

_DO = "put a copy of the file from before that entry there"


def conclude(entries: Iterable[Entry]) -> Standing:
    """How the model stands after these entries, of which the first is `opened`; where there are none, there is no history.

    Raises:
        StoreError: a later release wrote one of them, or one speaks of a state that none before it learned.
    """
    tale = Tale()
    for entry in entries:
        said = fact(entry)
        try:
            tale.take(entry, said)
        except StoreError as error:
            raise StoreError(f"the model's history, entry {entry.seq} ({entry.kind}): {error}; {_DO}") from error
    return _standing(tale)


def standing_of(place: Place, model: str) -> Standing:
    """How a model of a project stands, by its history alone.

    Raises:
        StoreError: that is damaged, or of a later release.
    """
    return conclude(history_of(place, model).read())


def _standing(tale: Tale) -> Standing:
    taught = {learned.session: learned for learned in tale.line.states.values()}
    sessions = {name: _status(tale, name, taught.get(name)) for name in dict.fromkeys((*tale.marks, *taught))}
    opens = tale.open if tale.open and sessions[tale.open.session].word == Word.BEGUN else None
    phased: list[Withdrawn | Pruned] = [*tale.withdrawals.values(), *tale.prunes.values()]
    return Standing(
        opened=tale.opened,
        last=tale.last,
        line=tuple(tale.line.states.values()),
        champion=tale.champion,
        confirmed=tale.pending is None,
        champions=tuple(tale.champions),
        sessions=sessions,
        open=opens,
        tree=tale.line.tree,
        gos=tale.line.gos,
        verdicts={state: tuple(said) for state, said in tale.verdicts.items()},
        agreed=frozenset(tale.agreed),
        with_next=tuple(name for name, status in sessions.items() if status.word == Word.ASIDE and name in tale.turn),
        overruled=frozenset(tale.overruled),
        withdrawals=tuple(replace(each, versions=_with_later(tale, each)) for each in tale.withdrawals.values()),
        tainted=frozenset(state for each in tale.withdrawals.values() for state in tale.tainted_by(each)),
        unfinished=tuple(each for each in phased if each.phase == "intent"),
        pruned=frozenset(tale.pruned),
        pruned_versions=frozenset(version for each in tale.prunes.values() for version in each.versions),
    )


def _with_later(tale: Tale, withdrawn: Withdrawn) -> tuple[str, ...]:
    """The versions that hold what was withdrawn, also those that were made since of what had learned it."""
    states = tale.tainted_by(withdrawn)
    later = (version for version, state in tale.held.items() if state in states)
    return tuple(dict.fromkeys((*withdrawn.versions, *later)))


def _status(tale: Tale, name: str, taught: Learned | None) -> Status:
    mark, source = tale.marks.get(name), tale.sources.get(name, "")
    if taught and name not in tale.gone:
        kept = taught.state not in tale.agreed and any(said.word in ("refused", "declined") for said in tale.verdicts.get(taught.state, ()))
        word = Word.KEPT if kept else Word.LEARNED
        if mark and (mark.word, mark.state) == (word, taught.state):
            return Status(word, mark.why, mark.when, mark.state, source)
        why = next((said.reason for said in reversed(tale.verdicts.get(taught.state, ()))), "")
        return Status(word, why, tale.line.since[taught.state], taught.state, source)
    assert mark, "a session without a state in the line was spoken of"
    if mark.word in (Word.ASKED, Word.UNJUDGED) and mark.judged and not tale.line.stands(tale.line.known(mark.judged)):
        alone = mark.judged == mark.state and tale.line.gos.get(mark.judged, (name,))[-1] == name
        return Status(Word.AGAIN if alone else Word.ASIDE, STALE, mark.when, mark.state, source)
    return Status(mark.word, mark.why, mark.when, mark.state, source)
