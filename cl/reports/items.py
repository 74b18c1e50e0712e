"""A report described as items, that any tracker can write."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from matplotlib.figure import Figure as Picture

from cl.disk.seal import sealed
from cl.evaluation.matrix import mean
from cl.reports.figures import curves, heat_map
from cl.reports.kinds import summaries
from cl.reports.report import Report
from cl.reports.tables import grouped


@dataclass(frozen=True)
class Metric:
    """A number; `step` counts sessions."""

    name: str
    value: float
    step: int


@dataclass(frozen=True)
class Table:
    """Named columns of equal length, as rows."""

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]


@dataclass(frozen=True)
class Figure:
    """A matplotlib figure."""

    name: str
    figure: Picture


@dataclass(frozen=True)
class Tag:
    """A short text."""

    name: str
    value: str


@dataclass(frozen=True)
class Text:
    """A file's worth of text."""

    name: str
    content: str


Item = Metric | Table | Figure | Tag | Text


def items(report: Report) -> Iterator[Item]:
    """The report as items to be written by whoever knows where to: what stood after each session has that session as its step."""
    for session in range(len(report.matrix.rows)):
        yield from metrics(report, session)
    yield from whole(report)


def whole(report: Report) -> Iterator[Tag | Table | Figure | Text]:
    """Those items that are about the whole stream."""
    source = report.provenance
    yield from (Tag(name, value) for name, value in [("method", report.method), ("stream", report.stream), ("data", source.data)])
    yield from (Tag(name, value) for name, value in [("code", source.code), ("seed", str(source.seed)), ("base_model", source.base_model)])
    columns = ("after", *report.matrix.sets)
    after = ("start", *report.sessions)
    yield Table("matrix", columns, tuple((name, *map(float, row)) for name, row in zip(after, report.matrix.rows, strict=True)))
    noted = [(name, row) for name, rows in zip(report.sessions, report.records, strict=True) for row in rows]
    if noted:
        yield Table("record", ("session", *noted[0][1]), tuple((name, *row.values()) for name, row in noted))
    yield Figure("matrix", heat_map(report.matrix, report.sessions, report.method))
    yield Figure("curves", curves({report.method: report.matrix}, report.sessions))
    yield Text("report.json", json.dumps(sealed(report.to_json())))


def metrics(report: Report, session: int) -> Iterator[Metric]:
    """What is known after one session; metrics not defined yet are left out."""
    for name, value in summaries(report, session).items() if session else ():
        if not np.isnan(value):
            yield Metric(f"cl/{name}", value, session)
    yield Metric("geometry/logit_scale", report.scales[session], session)
    for metric, detail in report.details.items():
        for name, value in zip(detail.sets, detail.rows[session], strict=True):
            if not np.isnan(value):
                yield Metric(f"{metric.replace('@', '_at_')}/{name}", float(value), session)
    for name, value in last_round(report.records[session - 1]).items() if session else ():
        yield Metric(f"record/{name}", value, session)
    if session:
        yield from (Metric(f"cost/{name}", float(value), session) for name, value in asdict(report.costs[session - 1]).items())


def compared(reports: Sequence[Report]) -> Iterator[Metric | Figure]:
    """What a comparison comes to: the mean over seeds of each method's summary, and the curves over each other.

    Charts are shown in the order of their names: that of the means puts them behind the streams' curves, `cl/...`.
    """
    groups = grouped(reports)
    for method, members in groups.items():
        scores = [summaries(member) for member in members]
        for name in scores[0]:
            value = float(np.mean([each[name] for each in scores]))
            if not np.isnan(value):
                yield Metric(f"means/{name}/{method}", value, 0)
    longest = max(reports, key=lambda report: len(report.sessions))
    means = {method: mean([member.matrix for member in members]) for method, members in groups.items()}
    yield Figure("curves", curves(means, longest.sessions))


def last_round(record: Sequence[dict[str, Any]]) -> dict[str, float]:
    """Means of the numbers that a method noted in the last round of a session.

    >>> last_round([{"round": 1, "picked": 9}, {"round": 2, "picked": 1, "class": "a"}, {"round": 2, "picked": 3, "class": "b"}])
    {'picked': 2.0}
    """
    rows = [row for row in record if row["round"] == record[-1]["round"]]
    columns = [name for name, value in rows[0].items() if name != "round" and not isinstance(value, str)] if rows else []
    values = {name: [row[name] for row in rows if row[name] is not None] for name in columns}
    return {name: float(np.mean(losses)) for name, losses in values.items() if losses}
