"""The report of a model's line as people read it: with its version, the gate's word, its loss, and the images that broke."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from prefect import task

from cl.evaluation.ask import Question, names
from cl.evaluation.cells import Cells
from cl.evaluation.evaluate import unpack
from cl.reports.figures import LINES, thinned
from cl.reports.gallery import Comparison
from cl.reports.report import Losses, Report
from cl.reports.sides import Side
from cl.reports.write import write
from cl.streams.stream import EvalSet
from flows.history.entries import Learned
from flows.history.standing import Standing, chain
from flows.learn.job import Job
from flows.learn.session import RETRIED, tracker_of
from flows.line.entered import name_of, session_run
from flows.line.grow import method_of
from flows.line.view import report_of_line, step
from flows.line.work import Work, work
from flows.registry.cards import tell
from flows.registry.pages import compared, judged, loss_of
from flows.tracking.runs import Tracker

_SETS = 40  # sets whose images are looked at one by one: those that changed most


@task(task_run_name="write the report of {session}", **RETRIED)
def page(job: Job, run_id: str, session: str, state: str, before: str | None) -> dict[str, Any]:
    """Write the report of a state's line, and keep it with the session's run; `before`: the state that it was judged against."""
    at, tracker = work(job), tracker_of(job)
    standing, child = at.standing(), session_run(tracker, run_id, state, session)
    path = chain(standing, state)
    report = told(tracker, child, report_of_line(at, standing, path), path, standing)
    folder = job.place.reports / run_id
    write([report], folder, images(at, standing, path, before, report))
    tracker.client.log_artifacts(child, str(folder), "report")
    tell(tracker, child, report, folder, above=run_id)
    return report.to_json()


def told(tracker: Tracker, child: str, report: Report, path: Sequence[Learned], standing: Standing) -> Report:
    """A report with what MLflow knows: which version it became, what the gate said of that, and the loss of some sessions.

    And with what the history knows: what was said of every session, those of the line and those that are not.
    """
    losses: list[Losses] = []
    for learned in (path[place] for place in thinned(len(path), LINES)):
        # below whichever run it was learned: one that `run` learned has none below the model's
        known = (loss_of(tracker, learned.session, run) for run in tracker.learned(learned.state))
        losses += next(filter(None, known), [])
    report = replace(judged(tracker, child, report), losses=tuple(losses))
    said = [[each.session, each.word, each.version or "", each.reason] for *_, each in standing.verdicts.values()]
    return replace(report, gate=report.gate | {"session": path[-1].session, "said": said}) if report.gate else report


def images(at: Work, standing: Standing, path: Sequence[Learned], before: str | None, report: Report) -> dict[str, Comparison]:
    """What became of single images since the champion of then, or else since the start; nothing where models are gone."""
    line = at.line(path, at.sets(standing, path).judged)
    questions = line.questions(len(path))
    known = {name: unpack(hits) for name, hits in step(at, line, path, len(path)).hits.items()}

    def both() -> tuple[Side, Side, Sequence[EvalSet]]:
        was = _before(at, standing, before, questions)
        most = sorted(known, key=lambda name: -_changed(was.hits.get(name), known[name]))[:_SETS]
        after = Side(report.version or "the model now", method_of(at, path[-1]), known)
        return was, after, [each.examined() for each in questions if each.name in most]

    return compared(at.config.name, report.method, both, at.config)


def _changed(before: np.ndarray | None, after: np.ndarray) -> int:
    return int((before != after).sum()) if before is not None and len(before) == len(after) else 0


def _before(at: Work, standing: Standing, before: str | None, questions: Sequence[Question]) -> Side:
    wanted = dict(zip([each.name for each in questions], names(questions, at.config.evaluate), strict=True))
    held = before in standing.tree
    kept = (Cells(at.place.steps, str(before)) if held else at.start.cells).read()
    hits = {name: unpack(kept[cell].hits) for name, cell in wanted.items() if cell in kept}
    if held:
        return Side(_called(at, standing, str(before)), method_of(at, standing.tree[str(before)]), hits)
    return Side("the model before any session", at.start.method, hits)


def _called(at: Work, standing: Standing, state: str) -> str:
    """A state as people know it: by its version, or by its last session where it was accepted without one."""
    version = next((said.version for said in reversed(standing.verdicts.get(state, ())) if said.version), None)
    return f"{name_of(at)}/{version}" if version else f"the model after {standing.tree[state].session}"
