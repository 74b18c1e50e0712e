"""What one session of a line changed, by three rows of its matrix: the start, the state before it, and its own."""

from collections.abc import Sequence

import numpy as np

from cl.evaluation.cells import Cells, cell_name, measured
from cl.evaluation.evaluate import HEADLINE
from cl.evaluation.line import Line
from cl.evaluation.matrix import Change, Matrix, among_more, changes
from flows.history.entries import Learned
from flows.history.standing import Standing
from flows.line.view import headlines, step
from flows.line.work import Work


def changed(at: Work, standing: Standing, path: Sequence[Learned]) -> tuple[Change, ...]:
    """What the last session of a line did to what it teaches, to what was taught before, and to probes.

    Of earlier rows only the one before it counts: `forgotten` is what this session lost, and not all that was ever lost. Where sets are
    asked among all classes taught so far, what the state before it lost by being asked among as many is told apart, if it was asked that.
    """
    exams = at.sets(standing, path).judged
    line, metrics, last = at.line(path, exams), headlines(exams), len(path)
    rows = [step(at, line, path, number).row for number in (0, *([last - 1] if last > 1 else []), last)]
    scores = [[row.get(name, {}).get(metric, np.nan) for name, metric in metrics.items()] for row in rows]
    new = len(rows) - 1
    taught = tuple(0 if each.taught == 0 else new if each.taught == last else 1 for each in exams)
    told = tuple(changes(Matrix(np.array(scores, dtype=np.float64).reshape(len(rows), len(exams)), tuple(metrics), taught)))
    return among_more(told, _wider(at, line, path)) if line.candidates == "seen" and last > 1 else told


def _wider(at: Work, line: Line, path: Sequence[Learned]) -> float | None:
    """How much lower the state before the last session scores on the sets taught by then, asked among the classes known after it."""
    was, last, how = Cells(at.place.steps, path[-2].state).read(), len(path), measured(at.config.evaluate)
    both = zip(line.exams, line.asked(last - 1), line.asked(last), strict=True)
    pairs = [
        (cell_name(before, how), cell_name(now, how), HEADLINE[each.kind]) for each, before, now in both if 0 < (each.taught or 0) < last
    ]
    falls = [was[before].metrics[metric] - was[now].metrics[metric] for before, now, metric in pairs if {before, now} <= was.keys()]
    return float(np.mean(falls)) if falls and len(falls) == len(pairs) else None
