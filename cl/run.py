"""The whole loop with no orchestrator: each step is addressed by its content, found or learned, and kept whole on disk."""

from collections.abc import Sequence
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch.loggers import Logger

from cl.bundle import Bundle
from cl.checkpoint import code_version, left_out, memory, new_folder, put, read_tensors, restore, write_json, write_tensors
from cl.errors import StoreError
from cl.evaluate import Score, evaluate, headline, headline_row, pack, unpack
from cl.gains import gains
from cl.geometry import Pairs, geometry, pairs
from cl.host import keep_memory, threads
from cl.interim import Interim
from cl.learner import Learned, Progress, learn
from cl.matrix import Matrix
from cl.methods import Method
from cl.plan import Plan, plan
from cl.release import made_with
from cl.report import Cost, Provenance, Report
from cl.run_config import RunConfig, label, methods, parse_config, read_config, train_config, variants
from cl.seal import sealed
from cl.store import NOTE, WEIGHTS, State, Step, beneath, checked, foundation, read_step, tell, whole

__all__ = [
    "Plan",
    "RunConfig",
    "Step",
    "advance",
    "bundle",
    "find",
    "label",
    "load_method",
    "methods",
    "parse_config",
    "plan",
    "read_config",
    "report",
    "revive",
    "run",
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
    state = find_state(plan, index, store)
    if state:
        method = load_method(plan, index, store)
    else:
        method = load_method(plan, index - 1, store) if index else plan.build()
        learned, record = Learned(0, 0, 0.0, 0), []
        if index:
            session = plan.stream.sessions[index - 1]
            settings = train_config(plan.config, session)
            interim = Interim(store / "interim" / plan.states[index], settings.checkpoint)
            learned = learn(method, session, settings, plan.config.seed, logger=logger, progress=progress, interim=interim)
            record = method.record(session, plan.stream.withheld)
        state = _keep_state(plan, index, store, method, learned, record)
    Interim(store / "interim" / plan.states[index], 0).clear()  # also one that a kill between the two left behind
    asked = method if index else plan.frozen()
    scores = _unchanged(plan, index, store, state) or evaluate(asked, plan.stream.exam(index), plan.config.evaluate, progress)
    return _keep_step(plan, index, store, state, scores, _pairs(plan, index, asked), float(asked.clip.scale().detach()))


def load_method(plan: Plan, index: int, store: Path) -> Method:
    """The method as it was after a step.

    Raises:
        StoreError: that state is not in this store.
    """
    return revive(plan.build(), plan.states[index], store)


def revive(method: Method, state: str, store: Path) -> Method:
    """A freshly built method with the memory of a state that it learned.

    Raises:
        StoreError: that state, or one that it stands on, is not in this store, or belongs to another method or model.
    """
    folder = store / "states" / state
    try:
        checked(folder)
    except StoreError as error:
        raise StoreError(f"{folder}: this state is not there or was damaged ({error}); run the stream again to make it") from error
    put(method, beneath(folder), str(folder))
    restore(method, read_tensors(folder / WEIGHTS), str(folder))
    return method.eval()


def bundle(plan: Plan, index: int, store: Path) -> Bundle:
    """The method as `load_method` gives it, ready to leave: with the classes it had learned by then, asked as they were."""
    classes = plan.stream.sessions[index - 1].vocabulary if index else ()
    return Bundle(load_method(plan, index, store), plan.config.method, plan.config.seed, tuple(plan.config.stream.template), classes)


def report(plan: Plan, steps: Sequence[Step]) -> Report:
    """What the steps so far say together."""
    sets = plan.stream.exam(0)
    names = headline(sets)
    taught = plan.stream.taught
    metrics = sorted({metric for step in steps for scores in step.row.values() for metric in scores})
    nan = float("nan")

    def matrix(pick: Any) -> Matrix:
        return Matrix(np.array([pick(step) for step in steps], dtype=np.float64), tuple(names), taught)

    details = {metric: matrix(lambda step, m=metric: [step.row[name].get(m, nan) for name in names]) for metric in metrics}
    for kind in ("geometry", "equity"):
        found = sorted({metric for step in steps for values in getattr(step, kind).values() for metric in values})
        for metric in found:
            picked = [[getattr(step, kind).get(name, {}).get(metric, nan) for name in names] for step in steps]
            details[f"{kind}/{metric}"] = Matrix(np.array(picked, dtype=np.float64), tuple(names), taught)
    return Report(
        method=label(plan.config),
        stream=plan.config.name,
        sessions=tuple(step.session for step in steps[1:]),
        matrix=matrix(lambda step: headline_row(step.row, names)),
        details=details,
        headline=names,
        costs=tuple(step.cost for step in steps[1:]),
        scales=tuple(step.scale for step in steps),
        hits=steps[-1].hits,
        records=tuple(tuple(step.record) for step in steps[1:]),
        provenance=_provenance(plan, steps),
    )


def run(plan: Plan, store: Path, *, logger: Logger | None = None, progress: Progress | None = None) -> Report:
    """All steps in order."""
    return report(plan, [advance(plan, index, store, logger=logger, progress=progress) for index in range(len(plan.keys))])


def _unchanged(plan: Plan, index: int, store: Path, state: State) -> dict[str, Score] | None:
    """The scores of the step before, if neither the weights nor the questions have changed since."""
    if index == 1 and plan.config.method.name != "zero_shot":  # the first row is of the base model, whatever the method begins as
        return None
    before = find_state(plan, index - 1, store) if index else None
    if before is None or (before.sha256, before.stands_on) != (state.sha256, state.stands_on):
        return None
    if [asked.digest for asked in plan.stream.exam(index)] != [asked.digest for asked in plan.stream.exam(index - 1)]:
        return None
    step = find(plan, index - 1, store)
    return {name: Score(metrics, unpack(step.hits[name])) for name, metrics in step.row.items()} if step else None


def _keep_state(plan: Plan, index: int, store: Path, method: Method, learned: Learned, record: list[dict[str, Any]]) -> State:
    kept, states = memory(method), store / "states"
    parent = plan.states[index - 1] if index else None
    below = foundation(states, parent, left_out(method))
    cost = Cost(
        trainable=sum(parameter.numel() for parameter in method.trainable()),
        stored_bytes=sum(tensor.nbytes for tensor in kept.values()),
        seconds=learned.seconds,
        steps=learned.steps,
        samples=learned.samples,
        flops=learned.flops,
    )
    with new_folder(states / plan.states[index]) as folder:
        state = State(
            sha256=write_tensors(kept, folder / WEIGHTS),
            cost=cost,
            record=record,
            code=code_version(),
            stands_on=below,
            method=plan.config.method.called(),
            parent=parent,
            session=_session(plan, index),
            index=index,
            finished=_now(),
            versions=made_with(),
        )
        write_json(sealed(asdict(state)), folder / NOTE)
    return state


def _pairs(plan: Plan, index: int, method: Method) -> dict[str, Pairs]:
    limit = plan.config.evaluate.geometry
    return {examined.name: pairs(method, examined, limit) for examined in plan.stream.exam(index)} if limit else {}


def _keep_step(plan: Plan, index: int, store: Path, state: State, scores: dict[str, Score], found: dict[str, Pairs], scale: float) -> Step:
    # set by set: what it scores, and how far its images and texts have turned since the start
    first = store / "steps" / plan.keys[0]
    start = _features(first) if index else found
    right = {name: unpack(hits) for name, hits in read_step(first).hits.items()} if index else {}
    turned = {name: geometry(start[name], now) for name, now in found.items() if name in start}
    step = Step(
        key=plan.keys[index],
        parent=plan.keys[index - 1] if index else None,
        state=plan.states[index],
        index=index,
        session=_session(plan, index),
        row={name: score.metrics for name, score in scores.items()},
        hits={name: pack(score.hits) for name, score in scores.items()},
        geometry=turned,
        scale=scale,
        equity=_gains(plan, index, right, {name: score.hits for name, score in scores.items()}),
        cost=state.cost,
        record=state.record,
        finished=_now(),
        code=state.code,
    )
    with new_folder(store / "steps" / step.key) as folder:
        if not index:
            both = [(f"{kind}/{name}", getattr(pair, kind)) for name, pair in found.items() for kind in Pairs._fields]
            step = replace(step, features=write_tensors(dict(both), folder / "features.safetensors"))
        write_json(sealed(step.to_json()), folder / "result.json")
    return step


def _session(plan: Plan, index: int) -> str:
    return plan.stream.sessions[index - 1].name if index else "start"


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _gains(plan: Plan, index: int, before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> dict[str, dict[str, float]]:
    sessions, limit = plan.stream.sessions[:index], plan.config.evaluate.limit
    sets = [examined for examined in plan.stream.exam(index) if examined.name in before]
    found = {each.name: gains(each, sessions, before[each.name], after[each.name], limit) for each in sets}
    return {name: values for name, values in found.items() if values}


def _features(folder: Path) -> dict[str, Pairs]:
    kept = read_tensors(folder / "features.safetensors")
    names = [key.removeprefix("images/") for key in kept if key.startswith("images/")]
    return {name: Pairs(kept[f"images/{name}"], kept[f"texts/{name}"]) for name in names}


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
