"""A model's line as a report: every row and number read from cells, none computed again."""

from collections.abc import Sequence
from datetime import datetime, timedelta

from cl.evaluation.cells import Cell, Cells, cell_name, measured
from cl.evaluation.evaluate import HEADLINE
from cl.evaluation.line import Exam, Line
from cl.learning.cost import Cost
from cl.release import made_with
from cl.reports.report import Provenance, Report
from cl.run_config import called, label, parse_config
from cl.steps import Step, summed
from cl.store.store import State, read_state
from flows.history.entries import Learned
from flows.history.standing import Standing
from flows.line.work import Work

_NOTHING = Cost(0, 0, 0.0, 0, 0, 0)


def report_of_line(at: Work, standing: Standing, path: Sequence[Learned]) -> Report:
    """What the states of a line answered, each to the sets it was asked; kept, since who publishes it asks twice."""
    sets = at.sets(standing, path)
    key = (path[-1].state, *(each.name for each in sets.every))
    if at.report is None or at.report[0] != key:
        line, exams = at.line(path, sets.every), sets.every
        steps = [step(at, line, path, number) for number in range(len(path) + 1)]
        taught = [-1 if each.taught is None else each.taught for each in exams]
        at.report = key, summed(_method(at, path), at.config.name, steps, headlines(exams), taught, _provenance(at, path))
    return at.report[1]


def headlines(exams: Sequence[Exam]) -> dict[str, str]:
    """The metric of each set that stands in the matrix."""
    return {each.name: HEADLINE[each.kind] for each in exams}


def step(at: Work, line: Line, path: Sequence[Learned], number: int) -> Step:
    """The row of a line's n-th state; 0: the base model."""
    how = measured(at.config.evaluate)
    wanted = [cell_name(asked, how) for asked in line.asked(number)]
    cells = (Cells(at.place.steps, path[number - 1].state) if number else at.start.cells).read()
    row = {each.name: cells[name] for each, name in zip(line.exams, wanted, strict=True) if name in cells}
    noted = read_state(at.place.steps / "states" / path[number - 1].state) if number else None
    beside = line.known_cells(number, how) if number and at.config.evaluate.known_unknown else {}
    return Step(
        key=path[number - 1].state if number else "",
        parent=None,
        state=path[number - 1].state if number else "",
        index=number,
        session=path[number - 1].session if number else "start",
        row={name: cell.metrics for name, cell in row.items()},
        hits={name: cell.hits for name, cell in row.items()},
        geometry={name: cell.geometry for name, cell in row.items() if cell.geometry},
        scale=_scale(row),
        equity={name: cell.equity for name, cell in row.items() if cell.equity},
        cost=noted.cost if noted else _NOTHING,
        record=noted.record if noted else [],
        finished=_finished(noted),
        code=noted.code if noted else "",
        known={name: cells[cell].metrics for name, cell in beside.items() if cell in cells},
    )


def _finished(noted: State | None) -> str:
    return noted.finished if noted else ""


def _scale(row: dict[str, Cell]) -> float:
    return next((cell.scale for cell in row.values()), float("nan"))


def _method(at: Work, path: Sequence[Learned]) -> str:
    """What the methods of a line are called, in the order in which they took over."""
    used = [called(learned.config["method"]) for learned in path]
    return ", then ".join(dict.fromkeys(used)) or label(at.config)


def _provenance(at: Work, path: Sequence[Learned]) -> Provenance:
    last = path[-1]
    config = parse_config(last.config, "the history")
    return Provenance(
        data=at.job.data,
        stream=last.state,
        code=", ".join(dict.fromkeys(learned.code for learned in path if learned.code)),
        seed=config.seed,
        base_model=f"{config.model.name} ({at.base})",
        config=last.config,
        versions=made_with(),
        started=_began(at, path[0]),
    )


def _began(at: Work, first: Learned) -> str:
    """When learning of the first session began (ISO 8601, UTC); of one that release 0.1.0 learned, about when."""
    noted = read_state(at.place.steps / "states" / first.state)
    ended = noted.finished or first.happened
    return (datetime.fromisoformat(ended) - timedelta(seconds=noted.cost.seconds)).isoformat(timespec="seconds") if ended else ""
