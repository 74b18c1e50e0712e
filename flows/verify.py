"""Proof that a stream which is killed and started again ends as one that never was, on anybody's own config."""

import hashlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from mlflow import MlflowClient

from cl.checkpoint import read_json, sha256
from cl.errors import LearningError
from flows.settings import Place
from flows.tracking import KIND, slug

_TIMED = ("cost/seconds",)  # what no two runs share
_OWN = ("PREFECT_API_URL", "PREFECT_HOME", "MLFLOW_TRACKING_URI", "EVERGREEN_ARTIFACTS", "EVERGREEN_EMBEDDED", "EVERGREEN_ROOT")
_POLL = 0.02  # seconds


@dataclass(frozen=True)
class Trial:
    """A stream to learn in scratch projects: its name, the words behind `evergreen run`, where those are meant, and the data's folder."""

    name: str
    words: tuple[str, ...]
    here: Path
    data: str


class Check(NamedTuple):
    """Something that has to be the same: what, how it is when undisturbed and after the kills, in a few words, and whether it is."""

    what: str
    whole: str
    broken: str
    equal: bool


class Verdict(NamedTuple):
    """What was found, how many kills struck a living process, and seconds of learning when undisturbed."""

    checks: list[Check]
    kills: int
    seconds: float


def verify(trial: Trial, scratch: Path, kills: int, seed: int, tell: Callable[[str], None]) -> Verdict:
    """Learn a stream once undisturbed and once killed `kills` times, at moments drawn uniformly over the undisturbed run, and compare.

    A kill is SIGKILL to the process that learns; each is followed by a new start, the last one goes through. Where a stream is
    through before all of its kills have struck, another one is killed the rest of the times.

    Raises:
        LearningError: a run that nobody killed failed.
    """
    whole = Place(scratch / "whole")
    _, seconds = run(trial, whole)
    tell(f"undisturbed: {seconds:.0f} s")
    expected, checks, struck, chance = facts(whole, trial.name), list[Check](), 0, random.Random(seed)
    while struck < kills:
        broken = Place(scratch / f"killed-{struck}")
        for wait in gaps(kills - struck, seconds, chance):
            killed, _ = run(trial, broken, wait)
            if not killed:
                break
            struck += 1
            tell(f"kill {struck} of {kills}, {wait:.1f} s after the start; {learned(broken)} states learned")
        else:
            run(trial, broken)
        checks += compare(expected, facts(broken, trial.name))
    return Verdict(checks, struck, seconds)


def gaps(kills: int, seconds: float, chance: random.Random) -> list[float]:
    """Times between so many moments, drawn uniformly over a run: since a killed run goes on where it was, they add up along it."""
    moments = sorted(chance.uniform(0, seconds) for _ in range(kills))
    return [moment - before for before, moment in zip([0.0, *moments], moments, strict=False)]


def run(trial: Trial, place: Place, kill_after: float | None = None) -> tuple[bool, float]:
    """Learn until the end, or kill it so many seconds after its flow has begun; whether it was killed, and how many seconds it took.

    Raises:
        LearningError: it ended by itself, and not well.
    """
    lock = place.runs / "locks" / f"learner-{slug(trial.name)}.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    lock.unlink(missing_ok=True)  # nobody holds it; it is there again when the flow has begun
    environment = {name: value for name, value in os.environ.items() if name not in _OWN} | {"EVERGREEN_ROOT": str(place.root)}
    command = [sys.executable, "-m", "flows", "run", *trial.words, "--data-root", trial.data, "--set", "train.checkpoint=0.5"]
    with (place.root / "log").open("ab") as log:
        process = subprocess.Popen(command, cwd=trial.here, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        try:
            while process.poll() is None and not lock.exists():
                time.sleep(_POLL)
            begun = time.monotonic()
            process.wait(kill_after)
        except subprocess.TimeoutExpired:
            return True, time.monotonic() - begun
        finally:
            if process.poll() is None:
                process.send_signal(signal.SIGKILL)
                process.wait()
    if process.returncode:
        last = (place.root / "log").read_text(errors="replace").strip().rpartition("\n")[2]
        raise LearningError(f"a run that was not killed ended with code {process.returncode}: {last}")
    return False, time.monotonic() - begun


def learned(place: Place) -> int:
    """How many states are on disk."""
    return len(list((place.steps / "states").glob("[!.]*")))


def facts(place: Place, name: str) -> dict[str, Any]:
    """What must not depend on interruptions, by what it is called."""
    states = sorted((place.steps / "states").glob("[!.]*"))
    steps = sorted((place.steps / "steps").glob("[!.]*/result.json"))
    results = [read_json(path) for path in steps]
    for result in results:
        result.pop("finished")
        result["cost"].pop("seconds")
    return {
        "weights and buffers (SHA-256)": {path.name: sha256(path / "state.safetensors") for path in states},
        "matrix, hits, geometry, costs": {path.parent.name: result for path, result in zip(steps, results, strict=True)},
        "half-learned sessions left": [path.name for path in (place.steps / "interim").glob("[!.]*")],
        **mlflow_facts(MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}"), name),
        "Prefect runs that have not ended": unfinished(place.root / ".prefect" / "prefect.db"),
    }


def mlflow_facts(client: MlflowClient, name: str) -> dict[str, Any]:
    """Runs, their metric points and the versions of the model."""
    experiment = client.get_experiment_by_name(name)
    runs = client.search_runs([experiment.experiment_id], order_by=["attributes.start_time"]) if experiment else []
    points = Counter(point for run in runs for point in points_of(client, run))
    return {
        "MLflow runs": sorted((run.data.tags.get(KIND, ""), run.info.run_name, run.info.status) for run in runs),
        "MLflow metric points": sorted(points),
        "MLflow metric points told twice": [point for point, times in points.items() if times > 1],
        "model versions": sorted(str(found.version) for found in client.search_model_versions(f"name='{slug(name)}'")),
    }


def points_of(client: MlflowClient, run: Any) -> Iterator[tuple[str, str, int, float]]:
    """The points of a run's charts: run, metric, step, value; but for times."""
    for metric in run.data.metrics:
        history = client.get_metric_history(run.info.run_id, metric) if metric not in _TIMED else []
        yield from ((run.info.run_name, metric, point.step, point.value) for point in history)


def unfinished(database: Path) -> list[str]:
    """Names of Prefect's flow runs that are neither over nor crashed; asked of its database, since its server ended with the run."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        asked = "select name from flow_run where state_type in ('RUNNING', 'PENDING', 'CANCELLING') order by name"
        return [str(name) for (name,) in connection.execute(asked)]


def compare(whole: Mapping[str, Any], broken: Mapping[str, Any]) -> list[Check]:
    """One check for each fact."""
    return [Check(what, brief(value), brief(broken[what]), value == broken[what]) for what, value in whole.items()]


def brief(value: Sequence[Any] | Mapping[str, Any]) -> str:
    """How many there are, and the start of a hash over them."""
    return f"{len(value)}, {hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:8]}" if value else "none"
