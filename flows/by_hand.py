"""Who is champion, changed by a person: `promote` and `rollback`, and `accept` of what grew from the head.

Where the model has a history that is written first: an entry that says what is going to be, the alias, an entry that it is. Killed
between any two of them, the next of these commands, or the next `update`, goes on from what the entries say.
"""

from dataclasses import replace
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.disk.journal import Journal
from cl.errors import StoreError
from cl.run_config import parse_config
from cl.text import some
from flows.history.conclude import conclude
from flows.history.entries import Accept, Adopted, Champion, How, Learned, Verdict, history_of, note
from flows.history.idle import idle
from flows.history.standing import Holder, Standing, Word, chain
from flows.history.wishes import candidate
from flows.line.work import identity_of
from flows.project import check_own
from flows.registry.champion import CHAMPION, before, change, earlier, find, holder, versions_of, whoami
from flows.registry.changes import Change
from flows.registry.lineage import report_of
from flows.registry.question import GATE, REASON, settle
from flows.settings import Place
from flows.takeover.chain_of import chain_of
from flows.tracking.runs import STATE


class Made(NamedTuple):
    """What a person's choice came to: the alias, and the versions that waited for a word and have one now.

    The sessions that left the line, that came into it, and those whose candidate grew from what is the head no longer.
    """

    change: Change
    answered: list[str]
    left: tuple[str, ...] = ()
    came: tuple[str, ...] = ()
    again: tuple[str, ...] = ()


def promote(place: Place, client: MlflowClient, name: str, version: str, why: str, how: How = "promote") -> Made:
    """Make a version the champion, whatever the gate said of it, and its state the head.

    Raises:
        StoreError: there is none, it must not be champion, nothing could grow from it, or a process learns the model.
    """
    wanted = find(client, name, version)
    journal = history_of(place, name)
    if not journal.read():
        made = change(place, client, name, CHAMPION, str(wanted.version), why)
        return Made(made, settle(place, client, name, made.after, made.who, why))
    check_own(place, client, name)
    with idle(place, name):
        was = conclude(journal.read())
        line = _line(place, client, was, wanted)
        _fit(was, str(wanted.version), line)
        made = _written(place, client, journal, was, wanted, line, why, how)
        now = conclude(journal.read())
        answered = settle(place, client, name, made.after, made.who, why)
        if now.waiting:  # the head has not moved, so it would still be asked about
            note(journal, _no(now.waiting, made.who, f"version {made.after} stays champion ({why})"))
        return Made(made, answered, *_moved(was, conclude(journal.read())))


def rollback(place: Place, client: MlflowClient, name: str, to: str | None, why: str) -> Made:
    """Make an earlier version the champion again; by default the one before that is.

    Raises:
        StoreError: as `promote`, or none was champion before.
    """
    if to is None:
        to = _earlier(place, client, name)
    return promote(place, client, name, to, why, "rollback")


def accept(place: Place, client: MlflowClient, name: str, wish: Accept) -> str | None:
    """Write that a person accepts a session, for who holds the model's lock; the version that is champion by it.

    None: the candidate grew from another head or is no version yet, and the next `update` sees to it.

    Raises:
        StoreError: the history was written to meanwhile.
    """
    journal = history_of(place, name)
    was = conclude(journal.read())
    said = candidate(was, wish.session)
    note(journal, wish, expect=was.last)
    now = conclude(journal.read())
    if said is None or now.unpublished != said.state or said.version not in {str(each.version) for each in versions_of(client, name)}:
        return None
    reason = f"{wish.by} accepts it" + (f": {wish.why}" if wish.why else "")
    note(
        journal,
        replace(
            said,
            word="promoted",
            champion=was.champion.state if was.champion else None,
            champion_version=_version(was),
            reason=reason,
            by=wish.by,
        ),
    )
    change(place, client, name, CHAMPION, str(said.version), reason, wish.by)
    note(journal, Champion(version=str(said.version), state=said.state, before=_version(was), why=reason, by=wish.by))
    run = str(find(client, name, str(said.version)).run_id)
    client.set_tag(run, REASON, reason)
    client.set_tag(run, GATE, "promoted")
    return said.version


def _earlier(place: Place, client: MlflowClient, name: str) -> str:
    standing = conclude(history_of(place, name).read())
    if standing.champion is None:
        return earlier(place, client, name)
    past = before(standing.champions, standing.champion.version)
    if past is None:
        raise StoreError(f"model {name}: no version was champion before {standing.champion.version}; say which with --to")
    return past


def _line(place: Place, client: MlflowClient, was: Standing, wanted: ModelVersion) -> tuple[Learned, ...]:
    """What a version has learned: as the history knows it, else as `run` left it."""
    state = wanted.tags.get(STATE)
    if state in was.tree:
        return chain(was, state)
    line = chain_of(place, client, wanted)
    assert was.opened
    called = f"model {wanted.name} version {wanted.version}"
    if not report_of(wanted).provenance.base_model.endswith(f"({was.opened.base})"):
        raise StoreError(f"{called}: it grew from another base model than the history of {wanted.name}; give its config another name")
    mine = identity_of(parse_config(line[-1].config, f"config.yaml of {wanted.name}/{wanted.version}").stream)
    if mine["kind"] != was.opened.stream.get("kind"):
        raise StoreError(
            f"{called}: it learned a stream of kind {mine['kind']}, and the history of {wanted.name} is of one of kind "
            f"{was.opened.stream.get('kind')}; give its config another name"
        )
    return line


def _fit(was: Standing, version: str, line: tuple[Learned, ...]) -> None:
    """Raise where a version must not be champion.

    Raises:
        StoreError: it holds what was withdrawn, or its weights, or those it would go on from, are gone.
    """
    if told := was.unfit(version):
        fit = [each for each in dict.fromkeys(reversed(was.champions)) if not was.unfit(each)]
        raise StoreError(
            f"version {version}: {told}; " + (f"versions that were champion and can be again: {some(fit)}" if fit else "choose another")
        )
    if line[-1].state in was.pruned:
        raise StoreError(f"version {version}: the state it holds was pruned, so nothing could grow from it; choose a later version")


def _written(
    place: Place,
    client: MlflowClient,
    journal: Journal,
    was: Standing,
    wanted: ModelVersion,
    line: tuple[Learned, ...],
    why: str,
    how: How,
) -> Change:
    """The entries and the alias between them; none where all is so already."""
    name, version, state, who = wanted.name, str(wanted.version), line[-1].state, whoami()
    alias = holder(client, name, CHAMPION)
    there = alias is not None and str(alias.version) == version
    if there and was.confirmed and (was.champion, was.head) == (Holder(version, state), state):
        return change(place, client, name, CHAMPION, version, why, who)  # which says so
    if there and was.confirmed and was.champion and was.champion.version != version:
        how = "outside_confirmed"  # somebody moved the alias in MLflow
    last = was.last
    if state not in was.tree:
        last = note(journal, Adopted(version=version, line=line), expect=last).seq
    if was.waiting and was.waiting.state == state:
        agreed = replace(was.waiting, word="promoted", reason=f"{who} agreed: {why}", by=who)
        last = note(journal, agreed, expect=last).seq
    said = Champion(version=version, state=state, before=_version(was), why=why, by=who, how=how, phase="intent")
    note(journal, said, expect=last)
    made = change(place, client, name, CHAMPION, version, why, who)
    note(journal, replace(said, phase="done"))
    return made


def _no(asked: Verdict, who: str, why: str) -> Verdict:
    return replace(asked, word="declined", reason=f"{who} said no: {why}", by=who)


def _version(standing: Standing) -> str | None:
    return standing.champion.version if standing.champion else None


def _moved(was: Standing, now: Standing) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
    """The sessions that left the line, those that came into it, and those that waited for a person and are learned again."""
    old, new = ([learned.session for learned in standing.line] for standing in (was, now))
    again = (name for name, each in now.sessions.items() if each.word == Word.AGAIN and was.sessions[name].word == Word.ASKED)
    return tuple(name for name in old if name not in new), tuple(name for name in new if name not in old), tuple(again)
