"""From how a model stands to the next thing to be done, one entry of its history at a time, until nothing is left to do.

Whatever is done ends in an entry, and what comes next is read from the entries again: a run that was killed anywhere is gone on with
by the same loop, with no other way through the code.
"""

from typing import Any

from cl.errors import StoreError
from cl.learning.learner import steps_over
from cl.text import plural, some
from flows.history.conclude import conclude
from flows.history.entries import Abandoned, Opened, Verdict, history_of, note, open_with
from flows.history.standing import Standing, Word, chain
from flows.learn.job import Job, prepared
from flows.learn.pulse import Pulse, pulse_file
from flows.learn.session import tracker_of
from flows.line.entered import enter, model_run, name_of
from flows.line.grow import begin, learn
from flows.line.policy import Ruling, note_ruling, whether
from flows.line.rebuild import rebuild
from flows.line.verdict import crown, judge, settle
from flows.line.work import Work, identity_of, look, work
from flows.registry.champion import CHAMPION, change, find, holder, versions_of
from flows.registry.lost import lost
from flows.registry.question import WAITING
from flows.removal.withdraw import finish
from flows.settings import Place
from flows.takeover.takeover import take_over
from flows.watch import watch, watched_by

REBUILD = "`evergreen update --rebuild` learns it anew beside the champion"


def catch_up(job: Job, anew: bool = False) -> dict[str, Any]:
    """Take what waits, session by session; says what was learned, and why not more. `anew`: all that is in the line too, see `rebuild`."""
    at = work(job)
    opened = open_history(at)
    finish(at)
    for remark in at.remarks(at.standing()):
        watch().tell(f"{at.config.name}: {remark}")
    pulse = Pulse(watch(), pulse_file(at.place, f"history-{opened}"), at.config.name, _sizes(at))
    with model_run(job, opened) as run, watched_by(pulse):
        follow(at, run)
        learned = rebuild(job, run) if anew else []
        if told := tainted(at.standing(), at.config.name):
            raise StoreError(told)
        since, ruling = _one_by_one(job, run)
        crown(job, run)
        if ruling and ruling.learn:
            note_ruling(job, run, ruling)
    return _outcome(at, run, [*learned, *since], ruling)


def _one_by_one(job: Job, run: str) -> tuple[list[str], Ruling | None]:
    """Whatever comes next, until nothing does: the sessions learned, and the policy's word on those that waited, if it was asked."""
    at, learned = work(job), list[str]()
    ruling: Ruling | None = None
    while True:
        standing = at.standing()
        if standing.waiting:
            if not settle(job, run):
                return learned, ruling
        elif standing.unjudged:
            judge(job, run, standing.unjudged.session, standing.unjudged.state)
        elif standing.open:
            _go_on(job, run, standing)
            learned.append(standing.open.session)
        elif standing.partway:
            go = standing.gos[standing.partway.state]
            following = go[go.index(standing.partway.session) + 1]
            begin(job, following, chain(standing, standing.partway.state), go)
        elif waiting := at.waiting(standing):
            ruling = ruling or whether(job, standing, waiting)
            if not ruling.learn:
                return learned, ruling
            go = (*standing.with_next, waiting[0].name)
            begin(job, go[0], standing.line, go if len(go) > 1 else ())
        else:
            return learned, ruling


def tainted(standing: Standing, name: str) -> str | None:
    """Why nothing grows from a head that holds what was withdrawn: whatever did could not be served either; None where it does not."""
    if standing.head is None or standing.head not in standing.tainted:
        return None
    clean = [version for version in reversed(standing.champions) if version not in standing.barred]
    back = f", or go back to a version without: evergreen rollback {name} --to {clean[0]}" if clean else ""
    return (
        f"{name}: what it learned last holds data that were withdrawn, and so would whatever grows from it: learn it anew without them: "
        f"evergreen update CONFIG --rebuild{back}"
    )


def _sizes(at: Work) -> list[int]:
    """The steps that each session takes, as far as the settings tell: none of those that are learned."""
    standing = at.standing()
    return (
        [0] * len(standing.line)
        + [steps_over(each.images, at.config.train) for each in at.waiting(standing)]
        + [0] * (1 + len(standing.sessions))
    )


def answered(place: Place, model: str, verdict: Verdict, data_root: str | None) -> str:
    """What becomes of a candidate once a person has answered: judged again by the bounds that it was asked about with; the word for it."""
    learned = conclude(history_of(place, model).read()).tree[verdict.state]
    job = prepared({**learned.config, "gate": verdict.bounds}, (), data_root, look)
    at = work(job)
    with model_run(job, open_history(at)) as run:
        follow(at, run)
        if at.standing().waiting and settle(job, run):
            crown(job, run)
    last = at.standing().verdicts[verdict.state][-1].word
    return "refused" if last == "declined" else last


def _go_on(job: Job, run: str, standing: Standing) -> None:
    """Learn what is begun, under the settings it was begun with; abandon it where the model has moved on meanwhile."""
    at, began = work(job), standing.open
    assert began
    if not standing.grows(began):
        note(at.journal, Abandoned(state=began.state, session=began.session, why="the model it was to grow from is the head no longer"))
        return
    learn(job, run, began.session)
    now = at.standing()
    if began.state in now.tree:
        enter(job, run, began.session, began.state)


def open_history(at: Work) -> str:
    """The id of the first entry of a model's history, which is opened, or taken over from what earlier releases learned.

    Raises:
        StoreError: it is of another stream or base model, or there is a champion and nothing that says what it learned.
    """
    entries = at.journal.read()
    if not entries:
        tracker = tracker_of(at.job)
        facts = take_over(at, tracker.client)
        if not facts and holder(tracker.client, name_of(at), CHAMPION):
            raise StoreError(
                lost(at.place, tracker.client, name_of(at))
                or f"model {name_of(at)} has a champion, and {at.journal.path} and the states it was learned with are not here; share the "
                f"folder {at.place.runs} of the machine that learned it, or give the config another name"
            )
        opening = Opened(model=name_of(at), stream=identity_of(at.config.stream), base=at.base)
        open_with(at.journal, facts or [opening])
        entries = at.journal.read()
    opened = at.standing().opened
    assert opened
    mine = identity_of(at.config.stream)
    if opened.stream.get("kind") != mine["kind"] or not set(opened.stream.get("sources", ())) <= set(mine["sources"]):
        raise StoreError(
            f"{at.config.name}: its history is of a stream of kind {opened.stream.get('kind')} over "
            f"{some(opened.stream.get('sources', ()))}, "
            f"and this config has {mine['kind']} over {some(mine['sources'])}; give the config another name, or {REBUILD}"
        )
    if opened.base != at.base:
        raise StoreError(
            f"{at.config.name}: its history began with another base model ({opened.base[:8]}, and model.name is {at.config.model.name}, "
            f"{at.base[:8]}); put that model back, give the config another name, or {REBUILD}"
        )
    return entries[0].id


def follow(at: Work, run: str) -> None:
    """Let the alias say what the history says, where a crash came between the two.

    Raises:
        StoreError: it was moved by somebody else.
    """
    standing, client = at.standing(), tracker_of(at.job).client
    if standing.champion is None:
        return
    name, version = name_of(at), standing.champion.version
    now = holder(client, name, CHAMPION)
    if now and str(now.version) == version:
        crown(at.job, run)
        return
    there = {str(each.version) for each in versions_of(client, name)}
    if version not in there:
        if now is None:
            return  # it was deleted in MLflow: `crown` makes another of its state
    elif not standing.confirmed:
        change(at.place, client, name, CHAMPION, version, "as the history says")
        crown(at.job, run)
        return
    mlflow_has = f"version {now.version}" if now else "none"
    raise StoreError(
        f"model {name}: its history has version {version} as champion, and MLflow has {mlflow_has}: somebody moved the alias there. "
        f"Confirm one: evergreen promote {name} {now.version if now else version}, or evergreen promote {name} {version}"
    )


def _every(sessions: int) -> str:
    return f"all {sessions} sessions are learned" if sessions > 1 else f"{plural(sessions, 'session is', 'sessions are')} learned"


def _outcome(at: Work, run: str, learned: list[str], ruling: Ruling | None) -> dict[str, Any]:
    standing = at.standing()
    waiting = [arrival.name for arrival in at.waiting(standing)]
    words = {name: str(standing.sessions[name].word) for name in learned if name in standing.sessions}
    outcome: dict[str, Any] = {"run": run, "learned": learned, "sessions": words, "waiting": len(waiting)}
    if standing.waiting:
        verdict = standing.waiting
        version = find(tracker_of(at.job).client, name_of(at), str(verdict.version))
        return outcome | {"gate": WAITING, "run": str(version.run_id), "why": f"version {verdict.version} waits for a person"}
    if not learned:
        why = ruling.why if ruling else "up to date"
        every = [name for name, each in standing.sessions.items() if each.word == Word.LEARNED]
        hint = "" if at.arrivals.grows else "; it reads no collection, so what `evergreen ingest` takes in is for another config"
        told = (
            f"{plural(len(waiting), 'session waits', 'sessions wait')}; left waiting: {why}"
            if waiting
            else f"{_every(len(every))}; {why}{hint}"
        )
        watch().tell(f"{at.config.name}: {told}")
    else:
        why = ruling.why if ruling else "what was begun is learned"
    return outcome | {"why": why, "gate": "promoted" if standing.champion and not standing.unpublished else ""}
