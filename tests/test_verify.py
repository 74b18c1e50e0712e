"""`evergreen verify-resume` finds what differs; killed for real, a stream ends as one that never was, and stopped, as one that goes on."""

import json
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl.disk.files import write_json
from cl.errors import LearningError
from cl.reports.items import Metric
from flows.learn.pulse import Pulse, pulse_file
from flows.learn.verify import Run, Trial, compare, ended, facts, moments, verify
from flows.pace import Ended
from flows.settings import Place
from flows.tracking.runs import Tracker
from flows.watch import LogWatch
from tests.test_resume import five_sessions


@pytest.fixture
def learned(stored: Path) -> Place:
    """What a stream of one session leaves behind, as far as it is compared."""
    place = Place(stored)
    for folder, name in (("states", "s1"), ("steps", "k1")):
        (place.steps / folder / name).mkdir(parents=True)
    (place.steps / "states" / "s1" / "state.safetensors").write_bytes(b"weights")
    cost = {"trainable": 1, "stored_bytes": 1, "seconds": 1.0, "steps": 3, "samples": 3, "flops": 1}
    told = {"key": "k1", "parent": None, "state": "s1", "index": 0, "session": "start", "hits": {}, "geometry": {}, "scale": 1.0}
    told |= {"row": {"set": {"top1": 0.5}}, "equity": {}, "cost": cost, "record": [], "finished": "now"}  # as 0.1.0 wrote it, unsealed
    write_json(told, place.steps / "steps/k1/result.json")
    tracker = Tracker(place, "colours")
    run, _ = tracker.open("k1", "stream", "colours", {}, {})
    tracker.write(run, [Metric("top1", 0.5, 1), Metric("cost/seconds", 1.0, 1)], "2026-01-01T00:00:00+00:00")
    tracker.client.set_terminated(run, "FINISHED")
    (stored / ".prefect").mkdir()
    with sqlite3.connect(stored / ".prefect" / "prefect.db") as database:
        database.execute("create table flow_run (name text, state_type text)")
        database.execute("insert into flow_run values ('first', 'COMPLETED'), ('second', 'CRASHED')")
    return place


def differing(one: Place, two: Place) -> list[str]:
    return [check.what for check in compare(facts(one, "colours"), facts(two, "colours")) if not check.equal]


def test_what_differs_is_named_and_times_do_not_count(learned: Place, tmp_path_factory: pytest.TempPathFactory) -> None:
    other = Place(tmp_path_factory.mktemp("other") / "project")
    shutil.copytree(learned.root, other.root)
    result = other.steps / "steps" / "k1" / "result.json"
    noted = json.loads(result.read_text())
    write_json(noted | {"finished": "later", "cost": noted["cost"] | {"seconds": 9.0}}, result)
    assert differing(learned, other) == []

    (other.steps / "states" / "s1" / "state.safetensors").write_bytes(b"other weights")
    write_json(noted | {"row": {"set": {"top1": 0.25}}}, result)
    (other.steps / "interim" / "s2").mkdir(parents=True)
    tracker = Tracker(other, "colours")
    earlier = tracker.find("k1", "stream")
    assert earlier is not None
    tracker.write(earlier.info.run_id, [Metric("top1", 0.5, 1)])  # as it would be without a date of its own
    tracker.client.update_run(earlier.info.run_id, status="RUNNING")
    tracker.client.create_registered_model("colours")
    tracker.client.create_model_version("colours", "file:/nowhere")
    with sqlite3.connect(other.root / ".prefect" / "prefect.db") as database:
        database.execute("insert into flow_run values ('third', 'RUNNING')")
    assert differing(learned, other) == [
        "weights and buffers (SHA-256)",
        "matrix, hits, geometry, costs",
        "half-learned sessions left",
        "MLflow runs",
        "MLflow metric points told twice",
        "model versions",
        "Prefect runs that have not ended",
    ]


def test_moments_are_drawn_over_the_whole_course_and_know_how_much_was_learned_by_then() -> None:
    course = Run(False, 10.0, [1.0, 4.0, 4.5])
    drawn = moments(200, course, random.Random(0))
    assert {moment.steps for moment in drawn} == {0, 1, 2, 3}
    seconds = [moment.wait + [0.0, *course.times][moment.steps] for moment in drawn]
    assert seconds == sorted(seconds) and 0 <= seconds[0] < 0.5 and 9.5 < seconds[-1] <= 10


def test_how_many_steps_are_over_is_told_by_the_process_that_learns_and_not_by_what_it_prints(tmp_path: Path) -> None:
    place = Place(tmp_path)
    pulse = Pulse(LogWatch(), pulse_file(place, "key"), "colours", [2, 2])
    pulse.file.parent.mkdir(parents=True)
    assert ended(place) == 0
    pulse.begin("colours", 0, 2, "start")
    for number, name in enumerate(("start", "one")):
        pulse.end(Ended("colours", number, 2, name, number == 0, 2, 1.0, ()))
        assert ended(place) == number + 1


def test_a_run_that_tells_of_no_step_proves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.learn.verify.run", lambda *_: Run(False, 3.0, []))
    with pytest.raises(LearningError, match="told of no step"):
        verify(Trial("colours", (), tmp_path, "data"), tmp_path, 1, 0, lambda _: None)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replay", "vr_lwf"])
def test_a_stream_that_is_killed_fifteen_times_ends_as_one_that_never_was(method: str, project: Path) -> None:
    five_sessions(project)
    words = ("colours.yaml", "--set", f"method={method}", "--set", "train.max_steps=40")
    told: list[str] = []
    trial = Trial("colours", words, project, str(project / "data"))
    verdict = verify(trial, project / "scratch", 15, 0, told.append)
    assert verdict.kills == 15 == len(told) - 1
    assert [check for check in verdict.checks if not check.equal] == []


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_stream_that_is_stopped_keeps_its_steps_and_goes_on_from_there(number: int, code: int, project: Path) -> None:
    five_sessions(project)
    steps = project / "mlruns" / "steps"

    def begun() -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-m", "flows", "run", "colours.yaml", "--set", "train.max_steps=60"]
        own = {"EVERGREEN_ROOT": str(project), "PREFECT_HOME": str(project / ".prefect"), "PYTHONPATH": str(Path(__file__).parents[1])}
        return subprocess.Popen(command, cwd=project, env=os.environ | own, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL)

    with begun() as process:
        while process.poll() is None and not [*steps.glob("steps/[!.]*")]:
            time.sleep(0.05)  # the model at the start is measured: the first session begins
        time.sleep(1)
        process.send_signal(number)
        told = process.communicate(timeout=60)[1].decode()
        assert process.returncode == code and "the same command goes on from there" in told
    (noted,) = steps.glob("interim/[!.]*/cursor.json")
    done = json.loads(noted.read_text())["done"]
    assert done > 0
    with begun() as process:
        told = process.communicate(timeout=300)[1].decode()
        assert process.returncode == 0 and f"goes on after {done} of 60 steps" in told
    assert not [*steps.glob("interim/[!.]*")] and len([*steps.glob("states/[!.]*")]) == 6
