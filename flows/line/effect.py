"""What one session of a line changed, by three rows of its matrix: the start, the state before it, and its own."""

from collections.abc import Sequence

import numpy as np

from cl.evaluation.matrix import Change, Matrix, changes
from flows.history.entries import Learned
from flows.history.standing import Standing
from flows.line.view import headlines, step
from flows.line.work import Work


def changed(at: Work, standing: Standing, path: Sequence[Learned]) -> tuple[Change, ...]:
    """What the last session of a line did to what it teaches, to what was taught before, and to probes.

    Of earlier rows only the one before it counts: `forgotten` is what this session lost, and not all that was ever lost.
    """
    exams = at.sets(standing, path).judged
    line, metrics, last = at.line(path, exams), headlines(exams), len(path)
    rows = [step(at, line, path, number).row for number in (0, *([last - 1] if last > 1 else []), last)]
    scores = [[row.get(name, {}).get(metric, np.nan) for name, metric in metrics.items()] for row in rows]
    new = len(rows) - 1
    taught = tuple(0 if each.taught == 0 else new if each.taught == last else 1 for each in exams)
    return tuple(changes(Matrix(np.array(scores, dtype=np.float64).reshape(len(rows), len(exams)), tuple(metrics), taught)))
