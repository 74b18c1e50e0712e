"""Rows of matrices that release 0.1.0 measured, as cells of their states: what was asked then is not asked again.

A row is taken where its name, computed again, says that these images were asked among these classes in this way. Settings of today do not
matter: a cell is named by how it was asked, and whoever asks otherwise finds none.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

from pydantic import ValidationError

from cl.config import EvalConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.disk.tensors import read_tensors
from cl.errors import DataError, EvergreenError
from cl.evaluation.ask import Question, Start, names
from cl.evaluation.cells import Cell, Cells
from cl.evaluation.geometry import Pairs
from cl.evaluation.line import Exam, Line
from cl.steps import Step
from cl.store.first_names import set_digest, step_name
from cl.streams.stream import EvalSet
from flows.history.entries import Learned
from flows.line.work import Work, classes
from flows.takeover.held import Held
from flows.takeover.past import Past, steps_to
from flows.takeover.proof import Proof
from flows.takeover.seen import SeenSet


def carry(at: Work, held: Held, version: Past, line: Sequence[Learned], proof: Proof) -> None:
    """Write the rows of a proven line down as cells; nothing where it is not proven, not of release 0.1.0, or rows are not there."""
    candidates = version.config["stream"]["candidates"]
    if not proof.start or candidates == "all":
        return
    try:
        steps = steps_to(at.place, version.key)
        how = EvalConfig(**version.config["evaluate"])
        arrivals = at.then(line[-1])
        probes = arrivals.probes() if arrivals else ()
    except (ValidationError, EvergreenError):
        return
    known = [held.vocabulary(learned.state) for learned in line]
    sets = [(place, each) for place, learned in enumerate(line, start=1) for each in _sets(held, learned)]
    sets += [(0, _probe(each)) for each in probes]
    exams = [Exam(each.name, each.kind, each.content, each.classes, place, _unread) for place, each in sets]
    asked, start = Line([classes(learned.classes) for learned in line], exams, candidates), replace(at.start, config=how)
    for number, step in enumerate(steps):
        rows = [set_digest(each.name, each.kind, each.rows, _among(each, place, number, known, candidates)) for place, each in sets]
        if step.key != step_name(line[number - 1].state if number else proof.start, rows, version.config):
            continue
        questions = asked.questions(number)
        if number:
            Cells(at.place.steps, step.state).add(dict(_cells(step, questions, how, {})))
        else:
            kept = _features(at.place.steps / "steps" / step.key, start, questions)
            start.cells.add(dict(_cells(step, questions, how, kept)))


def _cells(step: Step, questions: Sequence[Question], how: EvalConfig, kept: dict[str, str]) -> Iterator[tuple[str, Cell]]:
    for asked, name in zip(questions, names(questions, how, first=not step.index), strict=True):
        yield (
            name,
            Cell(
                step.row[asked.name],
                step.hits[asked.name],
                step.geometry.get(asked.name, {}),
                step.equity.get(asked.name, {}),
                step.scale,
                kept.get(asked.name),
            ),
        )


def _features(folder: Path, start: Start, questions: Sequence[Question]) -> dict[str, str]:
    """What angles are measured against, from the one file that 0.1.0 kept it in to a file for each set."""
    file = folder / "features.safetensors"
    tensors = read_tensors(file) if file.exists() else {}
    named = zip(questions, names(questions, start.config, first=True), strict=True)
    return {
        asked.name: start.keep(name, Pairs(tensors[f"images/{asked.name}"], tensors[f"texts/{asked.name}"]))
        for asked, name in named
        if f"images/{asked.name}" in tensors
    }


def _among(each: SeenSet, place: int, number: int, known: Sequence[tuple[ClassName, ...]], candidates: str) -> tuple[ClassName, ...]:
    """The classes that a set was asked among after so many sessions."""
    alone = each.kind == "retrieve" or candidates == "own" or not place
    return each.classes if alone else known[max(place, number) - 1]


def _sets(held: Held, learned: Learned) -> tuple[SeenSet, ...]:
    seen = held.seen[learned.state]
    return seen.sets if seen else ()


def _probe(probe: EvalSet) -> SeenSet:
    return SeenSet(probe.name, probe.kind, probe.data.digest(), probe.data.content(), probe.classes, len(probe.data))


def _unread() -> ImageTable:
    raise DataError("a row that was measured before is read from no image")
