"""What a run found: the matrix with where it comes from, described as items that any tracker can write, and as pages to read."""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from matplotlib.figure import Figure as Picture

from cl.durable import beside
from cl.errors import StoreError
from cl.figures import curves, heat_map
from cl.gallery import Comparison
from cl.kinds import summaries
from cl.markdown import markdown
from cl.matrix import Matrix, mean
from cl.page import render
from cl.seal import sealed
from cl.tables import grouped

# what version 0.1.0 wrote of a report
FIRST = ("method", "stream", "sessions", "matrix", "details", "headline", "costs", "scales", "hits", "records", "provenance")


@dataclass(frozen=True)
class Provenance:
    """Everything that has to be the same for the numbers to be the same."""

    data: str  # DVC md5, or a content digest where there is no DVC
    stream: str
    code: str  # hash of the sources of `cl`; several where sessions were learned by several
    seed: int
    base_model: str
    config: dict[str, Any]
    versions: dict[str, str]
    started: str  # ISO 8601


@dataclass(frozen=True)
class Cost:
    """What a session took: trainable parameters, bytes kept after it, seconds, optimizer steps, samples seen, FLOPs.

    FLOPs are those of matrix products and convolutions, forward and backward, teachers included: of the first step, times the steps,
    and of what comes before and after them, such as features that are computed once.
    """

    trainable: int
    stored_bytes: int
    seconds: float
    steps: int
    samples: int
    flops: int


class Losses(NamedTuple):
    """The loss of some steps of a session."""

    session: str
    steps: tuple[int, ...]
    values: tuple[float, ...]


@dataclass(frozen=True, eq=False)
class Report:
    """One method on one stream with one seed. `matrix` holds each set's headline metric, `details` one matrix per metric."""

    method: str
    stream: str
    sessions: tuple[str, ...]
    matrix: Matrix
    details: dict[str, Matrix]
    headline: dict[str, str]
    costs: tuple[Cost, ...]
    scales: tuple[float, ...]  # the logit scale at the start and after each session
    hits: dict[str, str]  # which samples of each set the last model gets right, of `cl.evaluate.pack`
    records: tuple[tuple[dict[str, Any], ...], ...]  # what the method noted in each session
    provenance: Provenance
    firsts: dict[str, str] = field(default_factory=dict)  # as `hits`, of the model before any session
    losses: tuple[Losses, ...] = ()  # of some sessions, in order
    version: str = ""  # what it became in the registry: "birds/3"
    gate: dict[str, Any] = field(default_factory=dict)  # what the gate said of it: word, reason, champion, checks, scores

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "method": self.method,
            "stream": self.stream,
            "sessions": list(self.sessions),
            "matrix": self.matrix.to_json(),
            "details": {metric: matrix.to_json() for metric, matrix in self.details.items()},
            "headline": self.headline,
            "costs": [asdict(cost) for cost in self.costs],
            "scales": list(self.scales),
            "hits": self.hits,
            "records": self.records,
            "provenance": asdict(self.provenance),
            "firsts": self.firsts,
            "losses": [list(each) for each in self.losses],
            "version": self.version,
            "gate": self.gate,
        }

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Report":
        """What `to_json` gave, by this version or an earlier one."""
        return cls(
            method=value["method"],
            stream=value["stream"],
            sessions=tuple(value["sessions"]),
            matrix=Matrix.from_json(value["matrix"]),
            details={metric: Matrix.from_json(matrix) for metric, matrix in value["details"].items()},
            headline=value["headline"],
            costs=tuple(Cost(**cost) for cost in value["costs"]),
            scales=tuple(value["scales"]),
            hits=value["hits"],
            records=tuple(tuple(rows) for rows in value["records"]),
            provenance=Provenance(**value["provenance"]),
            firsts=value.get("firsts", {}),
            losses=tuple(Losses(name, tuple(steps), tuple(found)) for name, steps, found in value.get("losses", ())),
            version=value.get("version", ""),
            gate=value.get("gate", {}),
        )


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
    yield Text("report.json", json.dumps(sealed(report.to_json()), indent=1))


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
    """What a comparison comes to: the mean over seeds of each method's summary, and the curves over each other."""
    groups = grouped(reports)
    for method, members in groups.items():
        found = [summaries(member) for member in members]
        for name in found[0]:
            value = float(np.mean([each[name] for each in found]))
            if not np.isnan(value):
                yield Metric(f"{name}/{method}", value, 0)
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
    return {name: float(np.mean(found)) for name, found in values.items() if found}


def html(reports: Sequence[Report], seen: Mapping[str, Comparison] | None = None) -> str:
    """The reports as one self-contained page: no script, nothing fetched. `seen`, by method: what became of single images."""
    return render(reports, seen)


def write(reports: Sequence[Report], folder: Path, seen: Mapping[str, Comparison] | None = None) -> None:
    """Write report.md, report.html and report.json, and images.json where there is something `seen`; each whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    pages = {"report.md": markdown(reports), "report.html": html(reports, seen)}
    pages["report.json"] = json.dumps([report.to_json() for report in reports], indent=1)
    if seen and len(reports) == 1:  # a comparison shows what its streams keep
        pages["images.json"] = json.dumps({method: found.to_json() for method, found in seen.items()}, indent=1)
    save(pages, folder)


def save(pages: Mapping[str, str], folder: Path) -> None:
    """Texts by file name into a folder, each whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pages.items():
            with beside(folder / name) as part:
                part.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StoreError(f"{folder}: the report cannot be written ({error.strerror}); free space or choose another folder") from error
