"""Everything together and for real: servers, deployments, and twenty sessions that four processes send at once, one of them twice."""

import json
import os
import re
import shlex
import signal
import sqlite3
import subprocess
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from mlflow.entities import Run

from cl.data.collection import Entry, sessions
from flows.data.versions import version
from flows.history.conclude import conclude
from flows.history.entries import history_of
from flows.intake.ingest import EVENT
from flows.registry.champion import CHAMPION, history, holder
from flows.servers.servers import HOST, answers
from flows.settings import Place
from flows.tracking.runs import KIND, LOGGED, PARENT, SESSIONS, STATE
from tests.make import COLOURS
from tests.telling import sound
from tests.test_cli import EVERGREEN, left
from tests.test_dvc import git
from tests.test_ingest import photos
from tests.test_serve import Program, api, free, until

CONFIG = """
name: growing
model: {name: tiny}
threads: 1
stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square"}
method: finetune
train: {epochs: 1, batch_size: 8, lr: 1.0e-3}
gate: {drop: 1, flips: 1}
"""  # the gate lets every version through: what it says of a model of noise would depend on the order of arrival
NAMES = [f"s{number}" for number in range(20)]
LANES = [NAMES[lane::4] for lane in range(4)]
TWICE = NAMES[0]  # the first of two lanes, so that both really send it at the same time
BUSY = 2400.0  # seconds that all of them may take on a busy machine; a few minutes are usual
ENDED = 30.0  # seconds after a signal, on a busy machine; two or three are usual


def lay_out(project: Path) -> None:
    """A git project with DVC as its README says, a config, and twenty folders of images to send."""
    git(project, "init", "-q", ".")
    for name, value in {"user.name": "a", "user.email": "a@b"}.items():
        git(project, "config", name, value)
    for words in (["init", "-q"], ["remote", "add", "-q", "-d", "here", ".dvc-remote"]):
        subprocess.run([EVERGREEN.with_name("dvc"), *words], cwd=project, check=True)
    (project / "growing.yaml").write_text(CONFIG)
    for number, name in enumerate(NAMES):
        photos(project / "new" / name, number % len(COLOURS), (number + 3) % len(COLOURS), seed=number)


@contextmanager
def running(ready: str, *words: str) -> Iterator[Program]:
    """`evergreen` in the background, once it says that it is ready; it does not outlive a test that fails."""
    program = Program(*words)
    try:
        program.wait_for(ready)
        yield program
    finally:
        if program.process.poll() is None:
            program.stop()


def end(program: Program, number: int) -> tuple[int, float]:
    """The exit code after a signal, and how many seconds it took."""
    started = time.monotonic()
    program.process.send_signal(number)
    return program.process.wait(60), time.monotonic() - started


def send(project: Path) -> None:
    """Four processes, each of which ingests five sessions in a row, and one of which ingests another's first one before."""
    processes = []
    for lane, names in enumerate(LANES):
        all_of_them = [TWICE, *names] if lane == 1 else names
        commands = [[str(EVERGREEN), "ingest", f"new/{name}", "--session", name, "--commit"] for name in all_of_them]
        script = " && ".join(map(shlex.join, commands))
        with (project / f"ingest-{lane}.txt").open("wb") as file:
            processes.append(subprocess.Popen(["sh", "-c", script], stdout=file, stderr=subprocess.STDOUT, start_new_session=True))
    try:
        codes = [process.wait(BUSY) for process in processes]
    finally:
        for process in processes:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGKILL)
    told = [(project / f"ingest-{lane}.txt").read_text() for lane in range(len(LANES))]
    assert codes == [0] * len(LANES), told
    assert sum(f"-{TWICE}: is there already" in text for text in told) == 1, told
    assert not any("was not told" in text or "no Prefect server" in text or "Traceback" in text for text in told), told


def everything_is_ingested_once_and_each_pin_holds_whole_sessions(project: Path) -> dict[str, int]:
    """Checks it, and gives how many sessions each version of the data has."""
    entries = sessions(project / "data" / "inbox")
    assert [entry.number for entry in entries] == list(range(1, len(NAMES) + 1))
    assert sorted(entry.name for entry in entries) == sorted(NAMES)
    folders = [path.name for path in (project / "data" / "inbox").iterdir() if path.is_dir()]
    assert sorted(folders) == [entry.folder for entry in entries]
    log = subprocess.run(["git", "log", "--reverse", "--format=%H %s"], cwd=project, check=True, capture_output=True, text=True).stdout
    commits = [line.partition(" ") for line in log.splitlines()]
    assert [subject for _, _, subject in commits] == [f"data: session {entry.folder} of inbox" for entry in entries]
    pins = [re.findall(r"md5: (\S+\.dir)", _show(project, f"{commit}:data.dvc")) for commit, _, _ in commits]
    versions = {pin: count for count, (pin,) in enumerate(pins, start=1)}
    seen = version(project / "data")
    assert seen.pinned and versions[seen.digest] == len(NAMES) == len(versions)
    assert _show(project, "HEAD:data.dvc") == (project / "data.dvc").read_text()
    assert (project / ".dvc-remote" / "files" / "md5" / seen.digest[:2] / seen.digest[2:]).exists()
    return versions


def _show(project: Path, what: str) -> str:
    return subprocess.run(["git", "show", what], cwd=project, check=True, capture_output=True, text=True).stdout


def everything_is_learned_once_and_in_order(project: Path, versions: dict[str, int]) -> None:
    """By the history, on disk, and in MLflow."""
    place, entries = Place(project), sessions(project / "data" / "inbox")
    said = history_of(place, "growing").read()
    kinds, line = Counter(entry.kind for entry in said), conclude(said)
    sound(line)
    assert [learned.session for learned in line.line] == [entry.name for entry in entries]
    assert kinds["began"] == kinds["learned"] == len(entries) and not line.open and not line.unjudged and not line.unpublished
    states = [learned.state for learned in line.line]
    assert sorted(path.name for path in (place.steps / "states").iterdir()) == sorted(states)
    assert not [*(place.steps / "interim").glob("*")] and not [*place.steps.rglob("*.part")]

    client = MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("growing")
    assert experiment
    runs = list(client.search_runs([experiment.experiment_id], max_results=10_000, order_by=["attributes.start_time ASC"]))
    (of_all,) = (run for run in runs if run.data.tags[KIND] == "stream")
    parts = [run for run in runs if run.data.tags[KIND] == "session"]
    assert {run.info.status for run in runs} == {"FINISHED"} and len(parts) + 1 == len(runs)
    assert [run.data.tags[STATE] for run in parts] == states and {run.data.tags[PARENT] for run in parts} == {of_all.info.run_id}
    assert all("batch/loss" in run.data.metrics and run.data.tags.get(LOGGED) in ("true", "published") for run in parts)
    _reported(place, of_all, entries)
    with sqlite3.connect(place.runs / "mlflow.db") as database:  # a second training would leave its points in a run twice
        doubled = "SELECT run_uuid, key, step, count(*) FROM metrics GROUP BY 1, 2, 3 HAVING count(*) > 1"
        assert database.execute("SELECT count(*) FROM metrics").fetchone()[0] > 0 and database.execute(doubled).fetchall() == []
    _published(place, client, states, versions)


def _reported(place: Place, of_all: Run, entries: list[Entry]) -> None:
    names = [entry.name for entry in entries]
    assert int(of_all.data.tags[SESSIONS]) == len(names)
    (learned,) = json.loads((place.reports / of_all.info.run_id / "report.json").read_text())
    assert list(learned["sessions"]) == names and len(learned["matrix"]["rows"]) == len(names) + 1


def _published(place: Place, client: MlflowClient, states: list[str], versions: dict[str, int]) -> None:
    """Each version is a later state of the line than the one before, of pinned data that held it by then; the last is champion."""
    made = sorted(client.search_model_versions("name='growing'"), key=lambda version: int(version.version))
    at = [states.index(version.tags[STATE]) + 1 for version in made]
    assert at == sorted(set(at)) and at[-1] == len(states)
    for number, each in zip(at, made, strict=True):
        assert versions[each.tags["evergreen.data"]] >= number, "what it learned is in the version of the data that it names"
        assert each.tags["evergreen.data_pinned"] == "true", "nor does it learn what is not pinned yet"
    champion = holder(client, "growing", CHAMPION)
    assert champion and champion.version == made[-1].version
    told = [(each.alias, each.after) for each in history(place, client, "growing")]
    assert told == [(CHAMPION, str(number)) for number in range(1, len(made) + 1)] == [(CHAMPION, str(each.version)) for each in made]


def updates(address: str) -> list[dict[str, Any]]:
    """The runs of the flow `update`."""
    return list(api(address, "/flow_runs/filter", flows={"name": {"any_": ["update"]}}))


def over(address: str) -> bool:
    """Whether each session's event has started a run, and all of them have ended."""
    runs = updates(address)
    return len(runs) >= len(NAMES) and all(run["end_time"] for run in runs)


def nothing_is_left_running_in_prefect(address: str) -> None:
    """Each session was told once, and each run learned, found nothing left to learn, or was taken over by one that learned."""
    told = api(address, "/events/filter", filter={"event": {"name": [EVENT]}})
    assert sorted(event["payload"]["session"] for event in told["events"]) == sorted(NAMES)
    runs = updates(address)
    assert len(runs) == len(NAMES) == len(api(address, "/flow_runs/filter"))
    kinds = Counter(run["state_type"] for run in runs)
    assert set(kinds) <= {"COMPLETED", "CANCELLED"} and kinds["COMPLETED"], kinds
    messages = [run["state"]["message"] for run in runs if run["state_type"] == "CANCELLED"]
    assert all(message.endswith(" learns what this run was to learn") for message in messages), messages
    open_states = {"state": {"type": {"any_": ["RUNNING", "PENDING", "SCHEDULED", "PAUSED", "CANCELLING"]}}}
    assert api(address, "/task_runs/filter", task_runs=open_states) == []
    held = {limit["name"]: limit["active_slots"] for limit in api(address, "/v2/concurrency_limits/filter")}
    assert "evergreen-growing" in held and not any(held.values()), held  # the others are the deployments' own


@pytest.mark.slow
def test_twenty_sessions_from_four_processes_are_learned_once_each_and_in_order(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(project)
    monkeypatch.setenv("PREFECT_HOME", str(project / ".prefect"))
    monkeypatch.delenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
    prefect, mlflow = free(), free()
    address = f"http://{HOST}:{prefect}/api"
    with running("Ctrl-C stops them", "up", "--prefect-port", str(prefect), "--mlflow-port", str(mlflow)) as up:
        with running("Start one: ", "serve", "growing.yaml") as serving:
            until(lambda: len(api(address, "/automations/filter")) == 1, "the automation is not registered")
            send(project)
            versions = everything_is_ingested_once_and_each_pin_holds_whole_sessions(project)
            until(lambda: over(address), f"the runs do not end: {serving.said()}", BUSY)
            assert len(left(project)) > 2  # what is looked for below would be found
            served = end(serving, signal.SIGINT)
        nothing_is_left_running_in_prefect(address)
        everything_is_learned_once_and_in_order(project, versions)
        upped = end(up, signal.SIGTERM)
    assert (served[0], upped[0]) == (0, 0) and max(served[1], upped[1]) < ENDED
    assert left(project) == [] and not answers(f"{address}/health") and not answers(f"http://{HOST}:{mlflow}/health")
    for program in (serving, up):
        assert program.said().endswith("Stopped.\n") and "Traceback" not in program.said(), program.said()
