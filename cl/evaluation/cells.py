"""What a state answers to an evaluation set: a cell, named by the question, in one file per state; asked once, and then read."""

import fcntl
import functools
import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

from cl.config import EvalConfig
from cl.data import images
from cl.disk import beneath
from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, unsealed
from cl.errors import StoreError
from cl.evaluation import evaluate
from cl.models import tokens


@dataclass(frozen=True)
class Cell:
    """One state asked one set: its scores, which samples it gets right, and how it stands to the model before any session."""

    metrics: dict[str, float]
    hits: str  # of `cl.evaluation.evaluate.pack`
    geometry: dict[str, float]  # angles to the start in degrees, of `cl.evaluation.geometry.geometry`
    equity: dict[str, float]  # who gained since the start, of `cl.evaluation.gains.gains`
    scale: float  # the logit scale, by which cosines are multiplied
    features: str | None = None  # of the model before any session: SHA-256 of the file that angles are measured against


def measured(config: EvalConfig) -> str:
    """A digest of how sets are asked: settings that are not at their default, and the version of what computes a score."""
    settings = config.model_dump(mode="json", exclude_defaults=True, exclude={"known_unknown"})  # which asks something beside
    return _digest([evaluate.VERSION, images.VERSION, tokens.VERSION, settings])


@functools.lru_cache(maxsize=1 << 17)  # of a line's rows most ask the same
def cell_name(question: str, how: str) -> str:
    """The name of a cell among those of its state: what is asked (`EvalSet.digest`) and how (`measured`)."""
    return _digest([question, how])


class Cells:
    """The cells of one state. Any number of processes may add to them at once; what is there is never asked again."""

    def __init__(self, store: Path, state: str) -> None:
        self.file = store / "cells" / f"{state}.json"

    def read(self) -> dict[str, Cell]:
        """All of them by name; none where the file is missing, or damaged, which is told."""
        if not self.file.exists():
            return {}
        try:
            return {name: Cell(**cell) for name, cell in unsealed(read_json(self.file), str(self.file), ()).items()}
        except (StoreError, TypeError, AttributeError) as error:
            logging.getLogger(__name__).warning("%s; what it held is asked again", error)
            return {}

    def add(self, new: Mapping[str, Cell]) -> None:
        """Keep more of them, whole or not at all.

        Raises:
            StoreError: the place cannot be written.
        """
        if not new:
            return
        try:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            with beneath.lock(self.file.with_name(".lock")) as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                every = self.read() | dict(new)
                write_json(sealed({name: asdict(cell) for name, cell in every.items()}), self.file, indent=None)
        except OSError as error:
            raise StoreError(f"{self.file}: cannot be written ({error.strerror or error}); free space or make it writable") from error


def _digest(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:24]
