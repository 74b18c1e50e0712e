"""What a run found: the matrix, with what it cost and where it comes from."""

from dataclasses import asdict, dataclass, field
from typing import Any, NamedTuple

from cl.evaluation.matrix import Matrix
from cl.learning.cost import Cost

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
    hits: dict[str, str]  # which samples of each set the last model gets right, of `cl.evaluation.evaluate.pack`
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
            losses=tuple(Losses(name, tuple(steps), tuple(losses)) for name, steps, losses in value.get("losses", ())),
            version=value.get("version", ""),
            gate=value.get("gate", {}),
        )
