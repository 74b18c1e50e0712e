"""What a store holds: learned states and finished steps, each in a folder of its own, checked when they are read."""

import logging
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cl.checkpoint import read_json
from cl.errors import StoreError
from cl.report import Cost
from cl.seal import sha256, unsealed

# what version 0.1.0 wrote of a step, and of a state
_STEP = ("key", "parent", "state", "index", "session", "row", "hits", "geometry", "scale", "equity", "cost", "record", "finished")
_STATE = ("sha256", "cost", "record")


@dataclass(frozen=True)
class State:
    """A learned state on disk: the hash of its weights file, what learning its session cost, what the method noted, and by what code."""

    sha256: str
    cost: Cost
    record: list[dict[str, Any]]
    code: str = ""  # hash of the sources that learned it: told, and part of no name; "": of a release that did not note it


@dataclass(frozen=True)
class Step:
    """A finished step: its matrix row, what it cost, and the name of the state it measured."""

    key: str
    parent: str | None
    state: str
    index: int
    session: str
    row: dict[str, dict[str, float]]
    hits: dict[str, str]  # by set: which samples it gets right, of `cl.evaluate.pack`
    geometry: dict[str, dict[str, float]]  # by set: angles to the start in degrees, of `cl.geometry.geometry`
    scale: float  # the logit scale, by which cosines are multiplied
    equity: dict[str, dict[str, float]]  # by set that classifies: who gained since the start, of `cl.equity.equity`
    cost: Cost
    record: list[dict[str, Any]]  # what the method noted
    finished: str
    code: str = ""  # as in `State`
    features: str | None = None  # SHA-256 of the file that lies with the first step: what angles are measured against

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Step":
        """What `to_json` gave."""
        return cls(**{**value, "cost": Cost(**value["cost"])})


def read_step(folder: Path) -> Step:
    """The finished step in a folder.

    Raises:
        StoreError: missing, or not what was written.
    """
    file = folder / "result.json"
    try:
        step = Step.from_json(unsealed(read_json(file), str(file), _STEP))
        if step.features is not None and sha256(folder / "features.safetensors") != step.features:
            raise StoreError(f"{folder / 'features.safetensors'}: damaged, it is not what was written")
    except (KeyError, TypeError, OSError) as error:  # JSON of something else, or no features
        raise StoreError(f"{file}: damaged, it is not what was written ({error})") from error
    return step


def whole(folder: Path) -> State | None:
    """What is noted about the state in a folder, if its weights are what they were when it was written."""
    file = folder / "state.json"
    try:
        noted = unsealed(read_json(file), str(file), _STATE)
        state = State(noted["sha256"], Cost(**noted["cost"]), noted["record"], noted.get("code", ""))
        if sha256(folder / "state.safetensors") != state.sha256:
            raise StoreError(f"{folder / 'state.safetensors'}: damaged, it is not what was written")
    except (StoreError, OSError, KeyError, TypeError) as error:  # damaged, or JSON of something else
        tell(folder, error, "it is learned again")
        return None
    return state


def tell(folder: Path, error: Exception, what: str) -> None:
    """What is there and cannot be used is not passed over in silence."""
    if folder.exists():
        logging.getLogger(__name__).warning("%s; %s", error, what)
