"""Finished steps of a run: a row of the matrix, as a view over the cells that it is made of."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from cl.disk.files import new_folder, read_json, write_json
from cl.disk.seal import sealed, unsealed
from cl.errors import StoreError
from cl.evaluation.cells import Cell, Cells
from cl.evaluation.matrix import Matrix
from cl.learning.cost import Cost
from cl.reports.report import Provenance, Report
from cl.store.store import State, read_state

# what version 0.1.0 wrote of a step
_STEP = ("key", "parent", "state", "index", "session", "row", "hits", "geometry", "scale", "equity", "cost", "record", "finished")


@dataclass(frozen=True)
class Step:
    """A finished step: its matrix row, what it cost, and the name of the state it measured."""

    key: str
    parent: str | None
    state: str
    index: int
    session: str
    row: dict[str, dict[str, float]]
    hits: dict[str, str]  # by set: which samples it gets right, of `cl.evaluation.evaluate.pack`
    geometry: dict[str, dict[str, float]]  # by set: angles to the start in degrees, of `cl.evaluation.geometry.geometry`
    scale: float  # the logit scale, by which cosines are multiplied
    equity: dict[str, dict[str, float]]  # by set that classifies: who gained since the start, of `cl.evaluation.equity.equity`
    cost: Cost
    record: list[dict[str, Any]]  # what the method noted
    finished: str
    code: str = ""  # as in `State`
    known: dict[str, dict[str, float]] = field(default_factory=dict)  # by set of other classes, of `cl.evaluation.known.known_unknown`

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Step":
        """What `to_json` gave."""
        return cls(**{**value, "cost": Cost(**value["cost"])})


@dataclass(frozen=True)
class Asked:
    """What a finished step's file holds: whose cells its row is made of. Numbers lie with the cells, and are never written twice."""

    key: str
    parent: str | None
    state: str
    index: int
    session: str
    finished: str
    owner: str  # of the cells: the state, or the model before any session
    cells: dict[str, str]  # by set: the name of its cell
    known: dict[str, str] = field(default_factory=dict)  # by set of other classes: the cell about telling it from what was learned


def step_of(asked: Asked, state: State, cells: Mapping[str, Cell]) -> Step:
    """A step as a view over cells.

    Raises:
        KeyError: one is not there.
    """
    row = {name: cells[cell] for name, cell in asked.cells.items()}
    return Step(
        key=asked.key,
        parent=asked.parent,
        state=asked.state,
        index=asked.index,
        session=asked.session,
        row={name: cell.metrics for name, cell in row.items()},
        hits={name: cell.hits for name, cell in row.items()},
        geometry={name: cell.geometry for name, cell in row.items() if cell.geometry},
        scale=next(iter(row.values())).scale,
        equity={name: cell.equity for name, cell in row.items() if cell.equity},
        cost=state.cost,
        record=state.record,
        finished=asked.finished,
        code=state.code,
        known={name: cells[cell].metrics for name, cell in asked.known.items()},
    )


def write_step(asked: Asked, folder: Path) -> None:
    """Keep what a step is made of, whole or not at all.

    Raises:
        StoreError: the place cannot be written.
    """
    with new_folder(folder) as part:
        write_json(sealed(asdict(asked)), part / "result.json")


def noted(folder: Path) -> dict[str, Any]:
    """What the file of a finished step says: among it `parent` (a key), `state` and `session`, whether that state is there or not.

    Raises:
        StoreError: missing, or not what was written.
    """
    file = folder / "result.json"
    told = unsealed(read_json(file), str(file), _STEP)
    if not {"parent", "state", "session", "index"} <= told.keys():
        raise StoreError(f"{file}: damaged, it is not what was written")
    return told


def read_step(folder: Path) -> Step:
    """The finished step in a folder of `steps/`, its cells and what its state says of itself beside it; also as earlier releases wrote it.

    Raises:
        StoreError: missing, or not what was written.
    """
    file, store = folder / "result.json", folder.parent.parent
    told = noted(folder)
    try:
        if "row" in told:
            return Step.from_json({name: value for name, value in told.items() if name != "features"})
        asked = Asked(**told)
        return step_of(asked, read_state(store / "states" / asked.state), Cells(store, asked.owner).read())
    except (KeyError, TypeError, AttributeError, OSError) as error:  # JSON of something else, or a cell that is gone
        raise StoreError(f"{file}: damaged, it is not what was written ({error})") from error


def summed(
    method: str, stream: str, steps: Sequence[Step], headlines: Mapping[str, str], taught: Sequence[int], provenance: Provenance
) -> Report:
    """What steps say together, the first of them about the model before any session.

    Args:
        method: what the method is called in tables.
        stream: the name of the stream.
        steps: in order; a set that one was not asked is NaN in its row.
        headlines: the metric that stands in the matrix, by set.
        taught: by set, the place of the session that teaches it; 0: a probe, -1: a session that is not among the steps.
        provenance: what has to be the same for the numbers to be the same.
    """

    def matrix(part: str, metric: Mapping[str, str]) -> Matrix:
        rows = [[getattr(step, part).get(name, {}).get(metric[name], np.nan) for name in headlines] for step in steps]
        return Matrix(np.array(rows, dtype=np.float64).reshape(len(steps), len(headlines)), tuple(headlines), tuple(taught))

    details = {}
    for part, prefix in (("row", ""), ("geometry", "geometry/"), ("equity", "equity/"), ("known", "known/")):
        for metric in sorted({metric for step in steps for values in getattr(step, part).values() for metric in values}):
            details[f"{prefix}{metric}"] = matrix(part, dict.fromkeys(headlines, metric))
    return Report(
        method=method,
        stream=stream,
        sessions=tuple(step.session for step in steps[1:]),
        matrix=matrix("row", headlines),
        details=details,
        headline=dict(headlines),
        costs=tuple(step.cost for step in steps[1:]),
        scales=tuple(step.scale for step in steps),
        hits=steps[-1].hits,
        records=tuple(tuple(step.record) for step in steps[1:]),
        provenance=provenance,
        firsts=steps[0].hits,
    )
