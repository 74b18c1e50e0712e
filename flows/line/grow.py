"""One session more: begun, learned, asked and noted, in the order in which a crash between any two of them does no harm."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from prefect import task
from prefect.cache_policies import NO_CACHE

from cl.config import Config, validate
from cl.errors import ConfigError, DataError, StoreError
from cl.evaluation.ask import Question, ask, ask_known, names
from cl.evaluation.cells import Cells
from cl.evaluation.line import Line
from cl.methods import AnyMethodConfig, Method
from cl.models.clip import ModelConfig, load
from cl.onward import Onward, go_on, onward
from cl.release import code_version, made_with
from cl.run_config import parse_config
from cl.store.states import revive
from flows.history.entries import Abandoned, Began, Learned, note
from flows.history.since import since
from flows.history.standing import Standing, chain
from flows.learn.far import half
from flows.learn.job import Job
from flows.learn.session import logged_to, tracker_of
from flows.line.effect import changed
from flows.line.kept import kept
from flows.line.work import Work, asked_sets, classes, told, work
from flows.pace import Ended
from flows.watch import watch


def begin(job: Job, session: str, path: Sequence[Learned], together: Sequence[str]) -> Began:
    """Note that a session is going to be learned on top of a line, after it was seen that it can be."""
    at = work(job)
    arrival = at.arrivals.there()[session]
    settings, remarks = kept(job.settings, path[-1].config) if path else (job.settings, [])
    step = stepped(at, session, path, settings)
    began = Began(
        session=session,
        source=arrival.source,
        parent=step.parent,
        state=step.state,
        number=step.session.index,
        identity=step.identity,
        config=settings,
        content=arrival.content,
        together=tuple(together),
    )
    note(at.journal, began)
    for change in (*since(path[-1], began), *remarks) if path else ():
        watch().tell(f"{at.config.name}: {change}")
    return began


def stepped(at: Work, session: str, path: Sequence[Learned], settings: dict[str, Any]) -> Onward:
    """A session as the next of a line, under settings that may be those of an earlier start.

    Raises:
        DataError, MethodError: it cannot be learned, or is not there any more.
    """
    config, known = parse_config(settings, "the history"), [each for learned in path for each in classes(learned.classes)]
    if session not in at.arrivals.there():
        raise DataError(
            f"session {session!r} is begun and not there any more; bring it back, or: evergreen skip {at.config.name} {session}"
        )
    if clash := at.arrivals.clashes(session, [learned.session for learned in path]):
        raise DataError(f"session {session!r}: {clash}; leave it out (evergreen skip {at.config.name} {session}), or choose its rows anew")
    lesson, withheld = at.arrivals.session(session, len(path) + 1, {each.name: each for each in known})
    parent = path[-1] if path else None
    state, before = (parent.state, parent.identity) if parent else (None, None)
    step = onward(config, at.root, lesson, withheld, state, before, at.place.outlines)
    return replace(step, made=parent.config["method"]["name"]) if parent else step


@task(task_run_name="learn {session}", cache_policy=NO_CACHE, retries=0)
def learn(job: Job, run_id: str, session: str) -> None:
    """Learn the session that is begun, ask everything that has not been asked, and note that it is learned."""
    at = work(job)
    standing = at.standing()
    began, path = standing.open, chain(standing, standing.open.parent if standing.open else None)
    if began is None or began.session != session:
        raise StoreError(f"session {session!r} is not begun; start again")
    step = stepped(at, session, path, began.config)
    if step.state != began.state:
        why = f"its images, or what computes, changed since it was begun ({began.state[:8]}, now {step.state[:8]})"
        note(at.journal, Abandoned(state=began.state, session=session, why=why))
        watch().tell(f"{at.config.name}: {session}: {why}; it is begun anew")
        return
    last = max(began.number, len(standing.line) + len(at.waiting(standing)))
    watch().begin(at.config.name, began.number, last, session)
    for choice in step.chosen:
        watch().tell(f"{at.config.name}: {choice}")
    if far := half(at.place.steps, step.state):
        watch().tell(f"{at.config.name}: {session}: goes on after {far}")
    with _attempt(job, run_id, step) as logger:
        state, dropped = go_on(step, at.place.steps, logger=logger, progress=watch().progress)
    for each in dropped:
        watch().tell(f"{at.config.name}: {session}: left behind: {each}")
    learned = replace(recorded(at, step, began.config, path, [str(each) for each in dropped]), seconds=state.cost.seconds)
    examine(at, step, learned, path)
    note(at.journal, learned)
    changes = changed(at, standing, (*path, learned))
    watch().end(Ended(at.config.name, began.number, last, session, False, state.cost.steps, state.cost.seconds, changes))


def recorded(at: Work, step: Onward, settings: dict[str, Any], path: Sequence[Learned], dropped: Sequence[str]) -> Learned:
    """What the history keeps of a session that is learned."""
    arrival, session = at.arrivals.there()[step.session.name], step.session
    known = sum(len(learned.classes) for learned in path)
    return Learned(
        session=session.name,
        source=arrival.source,
        parent=step.parent,
        state=step.state,
        number=session.index,
        identity=step.identity,
        config=settings,
        content=arrival.content,
        classes=told(session.vocabulary[known:]),
        exam=asked_sets(session),
        dropped=tuple(dropped),
        code=code_version(),
        versions=made_with(),
        images=len(session.data),
    )


def examine(at: Work, step: Onward, learned: Learned, path: Sequence[Learned]) -> None:
    """Ask the new state all sets, and the state before it the new ones; what the base model says is asked on the way.

    The champion before it is asked the old ones too, among as many classes: so much of a fall is not for want of memory.

    Raises:
        DataError: there is no set at all to ask.
    """
    grown = (*path, learned)
    sets = at.sets(at.standing(), grown)
    exams = [replace(each, session=step.session) if each.name == learned.session else each for each in sets.every]
    if not sets.judged:
        raise DataError(
            f"session {learned.session!r}: no test image, and no set of an earlier session or probe to examine it with; add some"
        )
    line, number = at.line(grown, exams), len(grown)
    ask(step.state, lambda: revive(step.build(), step.state, at.place.steps), at.start, line.questions(number), watch().progress)
    if at.config.evaluate.known_unknown:
        taught, probes = ([each.among(each.classes) for each in exams if each.taught in wanted] for wanted in (range(1, number + 1), (0,)))
        ask_known(step.state, lambda: revive(step.build(), step.state, at.place.steps), at.start, taught, probes, line.known(number))
    if path:
        fresh = [each for each in exams if each.taught in (0, number)]
        before = [*line.questions(number - 1, fresh), *_again(at.standing(), path[-1].state, line, number)]
        if set(names(before, at.config.evaluate)) - Cells(at.place.steps, path[-1].state).read().keys():
            try:
                ask(path[-1].state, lambda: method_of(at, path[-1]), at.start, before, watch().progress)
            except ConfigError as error:
                watch().tell(f"{at.config.name}: {path[-1].session} is not asked about what is new: {error}")


def _again(standing: Standing, parent: str, line: Line, number: int) -> list[Question]:
    """What was asked of the state before it, among the classes known now: the gate asks that too, of what it holds a candidate against."""
    held = standing.unpublished or (standing.champion.state if standing.champion else None)
    if line.candidates != "seen" or parent != held:
        return []
    return line.questions(number, [each for each in line.exams if each.kind == "classify" and 0 < (each.taught or 0) < number])


class _Made(Config):
    """What a method is built with: an earlier release may have had other settings beside it."""

    model: ModelConfig = ModelConfig()
    method: AnyMethodConfig
    seed: int = 0


def method_of(at: Work, learned: Learned) -> Method:
    """The method as it was after a session.

    Raises:
        ConfigError: its settings are of no use to this release.
        StoreError: its weights are not there.
    """
    made = {name: value for name, value in learned.config.items() if name in _Made.model_fields}
    config = validate(_Made, made, f"the settings under which {learned.session} was learned")
    return revive(config.method.located(at.root).build(load(config.model), config.seed), learned.state, at.place.steps)


@contextmanager
def _attempt(job: Job, run_id: str, step: Onward) -> Iterator[Any]:
    tracker = tracker_of(job)
    with logged_to(tracker, tracker.attempt(run_id, step.state, step.session.name, step.state)) as logger:
        yield logger
