"""A model learned anew: the head's line and what waits, under the settings of now, beside the champion; and then the gate judges."""

from collections.abc import Sequence
from dataclasses import replace

from cl.errors import DataError
from cl.onward import go_on
from cl.text import plural, some
from flows.history.entries import Adopted, Champion, Learned, Rebuilt, note
from flows.history.standing import Standing
from flows.learn.job import Job
from flows.learn.session import tracker_of
from flows.line.effect import changed
from flows.line.entered import enter, name_of, publish, say
from flows.line.grow import examine, recorded, stepped
from flows.line.line_page import page
from flows.line.ruling import best, rule
from flows.line.work import Work, work
from flows.pace import Ended, span
from flows.registry.champion import CHALLENGER, CHAMPION, change
from flows.watch import watch


def wanted(at: Work, standing: Standing) -> list[str]:
    """The sessions that a rebuild learns, in order: those of the line, and those that wait; not what is aside, skipped or withdrawn.

    Raises:
        DataError: some of the line are not there any more.
    """
    there = at.arrivals.there()
    line = [learned.session for learned in standing.line if learned.session not in standing.tombstones]
    if gone := [name for name in line if name not in there]:
        raise DataError(
            f"{at.config.name}: {some(gone)} of its line cannot be learned anew: their data are not there; bring them back, "
            f"or go on from the champion with `evergreen update`"
        )
    return line + [arrival.name for arrival in at.waiting(standing) if arrival.name not in line]


def planned(at: Work, standing: Standing) -> str:
    """What a rebuild would do, and about how long it would take."""
    names = wanted(at, standing)
    took = sum(learned.seconds for learned in standing.line)
    images = sum(learned.images for learned in standing.line) or 1
    every = sum(arrival.images for name, arrival in at.arrivals.there().items() if name in names)
    about = took * every / images
    return (
        f"{at.config.name}: learns {plural(len(names), 'session')} anew from the base model ({some(names)}), beside champion "
        f"{standing.champion.version if standing.champion else 'none'}; about {span(about)} of learning, by what it took before"
        if standing.line
        else f"{at.config.name}: nothing is learned yet, so there is nothing to learn anew"
    )


def rebuild(job: Job, run: str) -> list[str]:
    """Learn the line and what waits from the base model, let the gate judge, and put it in the champion's place if it may take that.

    Killed anywhere it goes on with what is learned: states are found by their names. Returns the sessions.
    """
    at = work(job)
    standing = at.standing()
    names = wanted(at, standing)
    path: tuple[Learned, ...] = ()
    for name in names:
        path = (*path, _anew(job, name, path, len(names)))
    note(at.journal, Adopted(version="", line=path))
    for learned in path:
        enter(job, run, learned.session, learned.state)
    _judge(job, run, path)
    return names


def _anew(job: Job, session: str, path: Sequence[Learned], last: int) -> Learned:
    at = work(job)
    step = stepped(at, session, path, job.settings)
    watch().begin(at.config.name, len(path) + 1, last, session)
    state, dropped = go_on(step, at.place.steps, progress=watch().progress)
    learned = replace(recorded(at, step, job.settings, path, [str(each) for each in dropped]), seconds=state.cost.seconds)
    examine(at, step, learned, path)
    changes = changed(at, at.standing(), (*path, learned))
    watch().end(Ended(at.config.name, len(path) + 1, last, session, False, state.cost.steps, state.cost.seconds, changes))
    return learned


def _judge(job: Job, run: str, path: Sequence[Learned]) -> None:
    at, client = work(job), tracker_of(job).client
    standing, last = at.standing(), path[-1]
    ruled = rule(at, client, standing, last, at.config.gate)
    decision = ruled.decision
    child, version = publish(job, run, last.session, last.state)
    name, beside = name_of(at), best(standing)
    if decision.promote and not at.config.gate.approval:
        note(at.journal, Rebuilt(version=version, state=last.state, line=tuple(path), why="learned anew", by="the gate"))
        change(at.place, client, name, CHAMPION, version, f"learned anew; the gate: {decision.reason}")
        note(at.journal, Champion(version=version, state=last.state, how="rebuild", by="the gate"))
        say(job, [child, run], "promoted", decision.reason, ruled)
        page(job, run, last.session, last.state, beside)
        watch().tell(f"{at.config.name}: version {version}, learned anew, is champion: {decision.reason}")
        return
    change(at.place, client, name, CHALLENGER, version, f"learned anew; the gate: {decision.reason}")
    word = "waiting" if decision.promote else "refused"
    say(job, [child], word, decision.reason, ruled)
    page(job, run, last.session, last.state, beside)
    how = f"evergreen promote {name} {version} makes it champion"
    watch().tell(f"{at.config.name}: version {version}, learned anew, is challenger: {decision.reason}; {how}, with its whole line")
