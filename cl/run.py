"""The whole loop with no orchestrator: each step is addressed by its content, found or learned, and kept whole on disk."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from lightning.pytorch.loggers import Logger

from cl.data.classes import ClassName
from cl.errors import StoreError
from cl.evaluation.ask import ask, ask_known, ask_start, names
from cl.evaluation.cells import Cell, Cells
from cl.evaluation.evaluate import headline, headline_row
from cl.evaluation.matrix import Matrix
from cl.learning.host import keep_memory, threads
from cl.learning.interim import Interim
from cl.learning.learner import Learned, learn
from cl.learning.progress import Progress
from cl.methods import Method
from cl.plan import Plan, plan
from cl.release import code_version, made_with
from cl.reports.report import Provenance, Report
from cl.run_config import RunConfig, label, parse_config, read_config, train_config, variants
from cl.steps import Asked, Step, read_step, step_of, summed, write_step
from cl.store.bundle import Bundle
from cl.store.states import Origin, keep_state, load_state, revive
from cl.store.store import State, now, numbers, tell, whole
from cl.streams.stream import EvalSet

__all__ = [
    "Plan",
    "RunConfig",
    "Step",
    "advance",
    "bundle",
    "find",
    "label",
    "load_method",
    "load_state",
    "measured",
    "parse_config",
    "plan",
    "read_config",
    "report",
    "revive",
    "run",
    "scores",
    "variants",
]


def find(plan: Plan, index: int, store: Path) -> Step | None:
    """The finished step, if its row and its weights are both there and whole; None if it has to be made."""
    try:
        step = read_step(store / "steps" / plan.keys[index])
    except StoreError as error:
        tell(store / "steps" / plan.keys[index], error, "it is measured again")
        return None
    return step if find_state(plan, index, store) else None


def measured(plan: Plan, index: int, store: Path) -> Step | None:
    """The finished step, also where the weights of its state were dropped since: numbers stay."""
    try:
        return read_step(store / "steps" / plan.keys[index]) if numbers(store / "states" / plan.states[index]) else None
    except StoreError:
        return None


def find_state(plan: Plan, index: int, store: Path) -> State | None:
    """The learned state, if its weights are what they were when it was written."""
    return whole(store / "states" / plan.states[index])


def advance(plan: Plan, index: int, store: Path, *, logger: Logger | None = None, progress: Progress | None = None) -> Step:
    """The step at `index`, found or made. Calling it again changes nothing; being killed leaves nothing half-written.

    Raises:
        StoreError: the step before it is not there, or the store cannot be written.
        LearningError: learning failed.
    """
    done = find(plan, index, store)
    if done:
        return done
    keep_memory()
    with threads(plan.config.threads):
        return _make(plan, index, store, logger, progress)


def _make(plan: Plan, index: int, store: Path, logger: Logger | None, progress: Progress | None) -> Step:
    state, method = find_state(plan, index, store), None
    if state is None:
        method = load_method(plan, index - 1, store) if index else plan.build()
        learned, record = Learned(0, 0, 0.0, 0), []
        if index:
            session = plan.stream.sessions[index - 1]
            settings = train_config(plan.config, session)
            interim = Interim(store / "interim" / plan.states[index], settings.checkpoint)
            learned = learn(method, session, settings, plan.config.seed, logger=logger, progress=progress, interim=interim)
            record = method.record(session, plan.stream.withheld)
        before = plan.states[index - 1] if index else None
        origin = Origin(plan.config.method.called(), before, _session(plan, index), index)
        state = keep_state(store, plan.states[index], method, learned, record, origin)
    Interim(store / "interim" / plan.states[index], 0).clear()  # also one that a kill between the two left behind
    return _examine(plan, index, store, state, method, progress)


def _examine(plan: Plan, index: int, store: Path, state: State, method: Method | None, progress: Progress | None) -> Step:
    start, questions = plan.start(store), plan.questions(index)
    if index:
        same = _unchanged(plan, index, store, state)
        cells = ask(plan.states[index], lambda: method or load_method(plan, index, store), start, questions, progress, same)
    else:
        cells = ask_start(start, questions, progress)
    asked = Asked(
        key=plan.keys[index],
        parent=plan.keys[index - 1] if index else None,
        state=plan.states[index],
        index=index,
        session=_session(plan, index),
        finished=now(),
        owner=plan.states[index] if index else start.name,
        cells=dict(zip([each.name for each in questions], names(questions, plan.config.evaluate, first=not index), strict=True)),
    )
    if index and plan.config.evaluate.known_unknown:
        known, beside = ask_known(plan.states[index], lambda: method or load_method(plan, index, store), start, *_met(plan, index))
        asked, cells = replace(asked, known=known), cells | beside
    write_step(asked, store / "steps" / asked.key)
    return step_of(asked, state, cells)


def _met(plan: Plan, index: int) -> tuple[list[EvalSet], list[EvalSet], tuple[ClassName, ...]]:
    """The sets of what was learned by a step and all others, and the classes known by then."""
    sessions = plan.stream.sessions
    ours, others = ([test for each in part for test in each.tests] for part in (sessions[:index], sessions[index:]))
    return ours, [*others, *plan.stream.probes], sessions[index - 1].vocabulary


def load_method(plan: Plan, index: int, store: Path) -> Method:
    """The method as it was after a step.

    Raises:
        StoreError: that state is not in this store.
    """
    return revive(plan.build(), plan.states[index], store)


def bundle(plan: Plan, index: int, store: Path) -> Bundle:
    """The method as `load_method` gives it, ready to leave: with the classes it had learned by then, asked as they were."""
    classes = plan.stream.sessions[index - 1].vocabulary if index else ()
    return Bundle(load_method(plan, index, store), plan.config.method, plan.config.seed, tuple(plan.config.stream.template), classes)


def scores(plan: Plan, steps: Sequence[Step]) -> Matrix:
    """The headline score of each set after each of the first steps."""
    names = headline(plan.stream.exam(0))
    return Matrix(np.array([headline_row(step.row, names) for step in steps], dtype=np.float64), tuple(names), plan.stream.taught)


def report(plan: Plan, steps: Sequence[Step]) -> Report:
    """What the steps so far say together."""
    return summed(label(plan.config), plan.config.name, steps, headline(plan.stream.exam(0)), plan.stream.taught, _provenance(plan, steps))


def run(plan: Plan, store: Path, *, logger: Logger | None = None, progress: Progress | None = None) -> Report:
    """All steps in order."""
    return report(plan, [advance(plan, index, store, logger=logger, progress=progress) for index in range(len(plan.keys))])


def _unchanged(plan: Plan, index: int, store: Path, state: State) -> dict[str, Cell]:
    """The cells of the step before, if the weights have not changed since."""
    if index == 1:  # the first row is of the base model, whatever the method begins as
        return plan.start(store).cells.read() if plan.config.method.name == "zero_shot" else {}
    before = find_state(plan, index - 1, store)
    same = before and (before.sha256, before.stands_on) == (state.sha256, state.stands_on)
    return Cells(store, plan.states[index - 1]).read() if same else {}


def _session(plan: Plan, index: int) -> str:
    return plan.stream.sessions[index - 1].name if index else "start"


def _provenance(plan: Plan, steps: Sequence[Step]) -> Provenance:
    return Provenance(
        data=plan.data,
        stream=plan.stream.digest,
        code=", ".join(dict.fromkeys(step.code for step in steps[1:] if step.code)) or code_version(),
        seed=plan.config.seed,
        base_model=f"{plan.config.model.name} ({plan.base})",
        config=plan.config.model_dump(mode="json", exclude={"compare"}),
        versions=made_with(),
        started=steps[0].finished if steps else "",
    )
