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

from cl.disk.seal import sha256
from cl.errors import LearningError
from cl.steps import read_step
from cl.text import plural
from flows.learn.far import half
from flows.learn.pulse import PULSES, pulses
from flows.servers.children import die_with_parent
from flows.settings import Place
from flows.tracking.runs import KIND, slug

_TIMED = ("cost/seconds",)  # what no two runs share
_OWN = (
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "PREFECT_HOME",
    "MLFLOW_TRACKING_URI",
    "EVERGREEN_ARTIFACTS",
    "EVERGREEN_EMBEDDED",
    "EVERGREEN_ROOT",
)
_STREAM = "[0-9a-f]" * 16 + "*.lock"  # of a stream that is open, named by its key
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


class Moment(NamedTuple):
    """A point of a stream's course: so many seconds after the first so many steps were told of, found or learned."""

    steps: int
    wait: float


class Run(NamedTuple):
    """How a run went: whether it was killed, how many seconds it learned, and when each step was told of."""

    killed: bool
    seconds: float
    times: list[float]


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
    course = run(trial, whole)
    if not course.times:
        raise LearningError("a run that was not killed told of no step, so that nobody knows when to kill one")
    tell(f"undisturbed: {course.seconds:.0f} s")
    expected, checks, struck, chance = facts(whole, trial.name), list[Check](), 0, random.Random(seed)
    for number in range(2 * kills):  # more than one only where a moment near the end was missed
        if struck == kills:
            break
        broken = Place(scratch / f"killed-{number}")
        for moment in moments(kills - struck, course, chance):
            if not run(trial, broken, moment).killed:
                break
            struck += 1
            tell(f"kill {struck} of {kills}: {plural(learned(broken), 'state')} learned, {half_learned(broken)}")
        else:
            run(trial, broken)
        checks += compare(expected, facts(broken, trial.name))
    told = {check.what: check for check in sorted(checks, key=lambda check: not check.equal)}  # where there are several, the worst
    return Verdict(list(told.values()), struck, course.seconds)


def moments(kills: int, course: Run, chance: random.Random) -> list[Moment]:
    """So many points of an undisturbed run, drawn uniformly over its seconds, in order.

    >>> [(moment.steps, round(moment.wait, 1)) for moment in moments(2, Run(False, 8.0, [0.5, 4.5]), random.Random(3))]
    [(1, 1.4), (1, 3.9)]
    """
    drawn = sorted(chance.uniform(0, course.seconds) for _ in range(kills))
    there = [sum(time <= moment for time in course.times) for moment in drawn]
    return [Moment(steps, at - (course.times[steps - 1] if steps else 0.0)) for steps, at in zip(there, drawn, strict=True)]


def run(trial: Trial, place: Place, kill_at: Moment | None = None) -> Run:
    """Learn until the end, or until a moment at which it is killed.

    Raises:
        LearningError: it ended by itself, and not well.
    """
    locks = place.runs / "locks"
    locks.mkdir(parents=True, exist_ok=True)
    for left in (*locks.glob(_STREAM), *locks.glob(PULSES)):
        left.unlink()  # nobody holds or writes it; it is there again when learning has begun
    environment = {name: value for name, value in os.environ.items() if name not in _OWN} | {"EVERGREEN_ROOT": str(place.root)}
    command = [sys.executable, "-m", "flows", "run", *trial.words, "--data-root", trial.data, "--set", "train.checkpoint=0.5"]
    path = place.root / "log"
    with path.open("ab") as log:
        process = subprocess.Popen(
            command, cwd=trial.here, env=environment, stdin=subprocess.DEVNULL, stdout=log, stderr=log, preexec_fn=die_with_parent
        )
        try:
            course = _watched(process, place, kill_at)
        finally:
            process.kill()  # whatever else interrupts us: no learner is left behind
            process.wait()
    course = course._replace(killed=process.returncode == -signal.SIGKILL)  # it may just have ended by itself
    if process.returncode and not course.killed:
        last = path.read_text(errors="replace").strip().rpartition("\n")[2]
        raise LearningError(f"a run that was not killed ended with code {process.returncode}: {last}")
    return course


def ended(place: Place) -> int:
    """How many steps of the stream that is being learned are over, as its process tells."""
    return sum(len(pulse.ended) for pulse in pulses(place))


def _watched(process: "subprocess.Popen[bytes]", place: Place, kill_at: Moment | None) -> Run:
    begun, times, due = 0.0, list[float](), float("inf")
    while process.poll() is None:
        now = time.monotonic()
        if not begun and any((place.runs / "locks").glob(_STREAM)):
            begun = now
        if begun:
            steps = ended(place)
            times += [now - begun] * (steps - len(times))
            if kill_at and steps >= kill_at.steps:
                due = min(due, now + kill_at.wait)
            if now >= due:
                return Run(True, now - begun, times)
        time.sleep(_POLL)
    return Run(False, time.monotonic() - begun, times)


def learned(place: Place) -> int:
    """How many states are on disk."""
    return len(list((place.steps / "states").glob("[!.]*")))


def half_learned(place: Place) -> str:
    """How far the session is that was cut short."""
    halves = [half(place.steps, path.name) for path in (place.steps / "interim").glob("[!.]*")]
    return halves[0] if halves else "none under way"


def facts(place: Place, name: str) -> dict[str, Any]:
    """What must not depend on interruptions, by what it is called."""
    states = sorted((place.steps / "states").glob("[!.]*"))
    steps = sorted((place.steps / "steps").glob("[!.]*/result.json"))
    results = [read_step(path.parent).to_json() for path in steps]  # with what its cells and its state hold
    for result in results:
        result.pop("finished")
        result["cost"].pop("seconds")
    return {
        "weights and buffers (SHA-256)": {path.name: " ".join(map(sha256, sorted(path.glob("[!.]*.safetensors")))) for path in states},
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
        "model versions": sorted(str(each.version) for each in client.search_model_versions(f"name='{slug(name)}'")),
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
