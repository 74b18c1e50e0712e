"""What the gate says of a learned session, over cells: the candidate against the champion, on the same questions."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, NamedTuple

from mlflow import MlflowClient

from cl.errors import EvergreenError
from cl.evaluation.ask import Question, ask, ask_start, names
from cl.evaluation.cells import Cell
from cl.evaluation.evaluate import evaluate, pack, spread, unpack
from cl.evaluation.gate import Decision, GateConfig, Judged, decide
from cl.names import slug
from cl.reports.kinds import worst
from cl.store.store import read_state
from flows.history.entries import Learned
from flows.history.standing import Standing, chain
from flows.line.grow import method_of
from flows.line.view import headlines, report_of_line
from flows.line.work import Sets, Work, classes
from flows.registry.judge import row, worst_of
from flows.registry.predict import served
from flows.watch import watch


def best(standing: Standing) -> str | None:
    """The state to beat: what is going to be champion, or is."""
    return standing.unpublished or (standing.champion.state if standing.champion else None)


class Ruled(NamedTuple):
    """What the gate says, and the headline score of each set, the candidate's and that of what it was held against.

    That is the `champion`, a version, or the state after the session `accepted`, which is going to be champion and has no version yet.
    """

    decision: Decision
    scores: dict[str, list[float | None]]
    champion: str | None = None
    accepted: str | None = None


def rule(at: Work, client: MlflowClient, standing: Standing, learned: Learned, bounds: GateConfig) -> Ruled:
    """Whether a learned session's state may become champion."""
    path, go = chain(standing, learned.state), len(standing.gos.get(learned.state, (learned.session,)))
    sets = at.sets(standing, path)
    line = at.line(path, sets.every)
    questions = line.questions(len(path), sets.judged)
    cells = _row(at, questions, ask(path[-1].state, lambda: method_of(at, path[-1]), at.start, questions, watch().progress))
    bounds = _asked(bounds, sets, standing)
    candidate = _judged(cells, sets, path)
    numbers = _numbers(at, standing, path, bounds, go)
    worst = (
        {
            each.name: worst_of(spread(each.rows(), at.config.evaluate.limit), candidate.hits[each.name])
            for each in sets.judged
            if each.kind == "classify"
        }
        if bounds.worst_class is not None
        else {}
    )
    candidate = replace(candidate, summary=numbers, worst=worst)
    champion = _champion(at, client, standing, questions, sets)
    if champion is None:  # so that a first champion worse than what it began as is told
        start = _row(at, questions, ask_start(at.start, questions, watch().progress), first=True)
        candidate = replace(candidate, start=_judged(start, sets, path).headline)
    before = champion.headline if isinstance(champion, Judged) else {}
    scores = {name: [_plain(value), _plain(before.get(name))] for name, value in candidate.headline.items()}
    accepted = _accepted(standing)
    if accepted and isinstance(champion, Judged):
        champion = replace(champion, called=f"the model after {accepted}")
    version = standing.champion.version if standing.champion and not accepted else None
    return Ruled(decide(candidate, champion, bounds), scores, version, accepted)


def _accepted(standing: Standing) -> str | None:
    """The session of the state to beat where no version holds that."""
    return standing.tree[standing.unpublished].session if standing.unpublished else None


def _plain(value: float | None) -> float | None:
    return None if value is None or value != value else float(value)


def _row(at: Work, questions: Sequence[Question], cells: Mapping[str, Cell], *, first: bool = False) -> dict[str, Cell]:
    wanted = names(questions, at.config.evaluate, first=first)
    return {each.name: cells[name] for each, name in zip(questions, wanted, strict=True)}


def _judged(row: Mapping[str, Cell], sets: Sets, path: Sequence[Learned]) -> Judged:
    known = {each.name for learned in path for each in classes(learned.classes)}
    return Judged(
        {},
        {name: row[name].metrics[metric] for name, metric in headlines(sets.judged).items()},
        {name: cell.metrics for name, cell in row.items()},
        {name: unpack(cell.hits) for name, cell in row.items()},
        frozenset(row),
        frozenset(known),
    )


def _numbers(at: Work, standing: Standing, path: Sequence[Learned], bounds: GateConfig, go: int) -> dict[str, float]:
    states = [read_state(at.place.steps / "states" / learned.state) for learned in path[-go:]]
    numbers = {"seconds": sum(state.cost.seconds for state in states), "stored_mb": max(state.cost.stored_bytes for state in states) / 1e6}
    if bounds.forgetting is not None or bounds.zero_shot_drop is not None:  # which take the whole matrix
        report = report_of_line(at, standing, path)
        numbers |= {name: worst(report, name) for name in ("forgetting", "zero_shot_drop")}
    return numbers


def _champion(at: Work, client: MlflowClient, standing: Standing, questions: Sequence[Question], sets: Sets) -> Judged | str | None:
    """The champion asked the same, or why that cannot be had; None where there is none."""
    state = best(standing)
    if state is not None:
        path = chain(standing, state)
        try:
            cells = ask(state, lambda: method_of(at, path[-1]), at.start, questions, watch().progress)
        except EvergreenError as error:
            if standing.champion is None or standing.champion.state != state:
                return f"state {state[:8]}: {error}"
            return _served(at, client, standing.champion.version, questions, at.sets(standing, path), sets)
        judged = _judged(_row(at, questions, cells), sets, path)
        there = frozenset(each.name for each in at.sets(standing, path).judged)
        return replace(judged, sets=there, classes=judged.classes - _withdrawn(standing, path))
    if standing.champion is not None:
        return _served(at, client, standing.champion.version, questions, None, sets)
    return None


def _withdrawn(standing: Standing, path: Sequence[Learned]) -> set[str]:
    """Classes that only a withdrawn session has brought: nobody is held to know them."""
    return {each.name for learned in path if learned.session in standing.tombstones for each in classes(learned.classes)}


def _served(at: Work, client: MlflowClient, version: str, questions: Sequence[Question], own: Sets | None, sets: Sets) -> Judged | str:
    """The champion as it is served, where its state is not at hand."""
    try:
        model = served(at.place, client, f"{slug(at.config.name)}/{version}")
        scores = evaluate(model.bundle.method, [each.examined() for each in questions], at.config.evaluate, watch().progress)
    except (EvergreenError, OSError) as error:
        return f"version {version}: {error}"
    row = {name: Cell(score.metrics, pack(score.hits), {}, {}, 0.0) for name, score in scores.items()}
    there = frozenset(each.name for each in own.judged) if own else frozenset[str]()
    return replace(_judged(row, sets, ()), sets=there, classes=frozenset(each.name for each in model.bundle.classes))


def _asked(bounds: GateConfig, sets: Sets, standing: Standing) -> GateConfig:
    """The bounds without those on sets that are left out, or gone."""
    judged = {each.name for each in sets.judged}
    out = {name for name in bounds.scores if name not in judged and (name in standing.sessions or name in sets.gone)}
    return bounds.model_copy(update={"scores": {name: value for name, value in bounds.scores.items() if name not in out}})


def told_of(ruled: Ruled) -> dict[str, Any]:
    """What the gate says, as `gate.json` keeps it."""
    checks = [row(check) for check in ruled.decision.checks]
    told = {"reason": ruled.decision.reason, "promote": ruled.decision.promote}
    return {**told, "champion": ruled.champion, "accepted": ruled.accepted, "checks": checks, "scores": ruled.scores}
