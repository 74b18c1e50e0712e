"""Update: what waits is learned once, in order, when the policy says so, whoever asks and however many at once."""

import fcntl
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

from cl.collection import append
from cl.errors import DataError
from flows.alone import alone
from flows.failures import failures
from flows.job import collections, job_of, planned, settings
from flows.serve import deployments
from flows.settings import Place
from flows.tracking import locked
from flows.update import unlearned, update
from tests.make import table

pytestmark = pytest.mark.usefixtures("prefect_server")
CONFIG = """
name: growing
model: {name: tiny}
stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}
method: finetune
train: {epochs: 1, batch_size: 8, lr: 1.0e-3}
"""


@pytest.fixture
def config(stored: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project with one session in its collection, without the figures and pages that take seconds."""
    monkeypatch.setattr("cl.report.whole", lambda report: iter(()))
    monkeypatch.setattr("flows.pages.write", lambda reports, folder, seen: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr("flows.pages.images", lambda *_: {})
    monkeypatch.setattr("flows.package._log", lambda run_id, *_: mlflow.MlflowClient().log_text(run_id, "x", "x") or "m-none")
    monkeypatch.setattr("flows.stream.publish", _published)
    (stored / "growing.yaml").write_text(CONFIG)
    arrive(stored, "first", (0, 1))
    return str(stored / "growing.yaml")


def _published(job: Any, run_id: str, steps: list[dict[str, Any]]) -> None:
    from flows.session import tracker_of

    tracker_of(job).mark(run_id)


def arrive(project: Path, name: str, colours: tuple[int, ...], each: int = 8, seed: int = 0) -> None:
    rows = {"train": table(colours, each, seed=seed), "test": table(colours, 4, seed=seed + 50)}
    append(project / "data" / "inbox", name, rows, "labels")


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sessions that are really learned, and no gate."""
    import cl.run

    names: list[str] = []
    real = cl.run.learn

    def learn(method: Any, session: Any, *arguments: Any, **options: Any) -> Any:
        names.append(session.name)
        return real(method, session, *arguments, **options)

    monkeypatch.setattr(cl.run, "learn", learn)
    monkeypatch.setattr("flows.stream.judge", _judged)
    monkeypatch.setattr("flows.update.same", lambda *_: True)  # no version is registered here that it could look for
    return names


def _judged(job: Any, run_id: str, steps: list[dict[str, Any]]) -> str:
    from flows.judge import BOUNDS
    from flows.session import tracker_of

    client, bounds = tracker_of(job).client, planned(job).config.gate
    client.set_tag(run_id, "evergreen.gate", word := "refused" if bounds.flips == 0 else "promoted")
    client.set_tag(run_id, BOUNDS, bounds.model_dump_json())
    return word


def test_what_waits_is_learned_once_and_in_the_order_it_came(config: str, stored: Path, learned: list[str]) -> None:
    assert update(config)["gate"] == "promoted" and learned == ["first"]
    assert update(config) == {"waiting": 0, "why": "up to date"}
    arrive(stored, "third", (4, 5), seed=1)
    arrive(stored, "second", (2, 3), seed=2)
    assert [turn.session for turn in unlearned(job_of(config))] == ["third", "second"]
    assert len(update(config)["report"]["matrix"]["rows"]) == 4 and learned == ["first", "third", "second"]
    assert update(config)["waiting"] == 0 and len(learned) == 3
    for flips, word in ((0, "refused"), (0.1, "promoted")):  # other bounds are asked, and nothing is learned for it
        assert update(config, [f"gate.flips={flips}"])["gate"] == word and len(learned) == 3
        assert update(config, [f"gate.flips={flips}"]) == {"waiting": 0, "why": "up to date"}


def test_the_policy_counts_what_waits_and_never_holds_the_first_session_back(config: str, stored: Path, learned: list[str]) -> None:
    policy = ["update.policy=samples", "update.samples=20"]
    update(config, policy)
    assert learned == ["first"]
    arrive(stored, "second", (2, 3), each=5)
    assert update(config, policy) == {"waiting": 1, "why": "10 new images, and the policy wants 20"} and learned == ["first"]
    arrive(stored, "third", (4,), each=10, seed=1)
    assert update(config, policy)["gate"] == "promoted" and learned == ["first", "second", "third"]


def test_the_policy_waits_for_images_that_look_new(config: str, stored: Path, learned: list[str]) -> None:
    policy = ["update.policy=drift", "update.false_alarms=0.02"]
    arrive(stored, "base", (0, 1), each=40, seed=3)
    update(config, policy)
    arrive(stored, "more", (0, 1), each=20, seed=9)
    held = update(config, policy)
    assert held["waiting"] == 1 and held["why"].startswith("new images are like known ones") and learned == ["first", "base"]
    assert "false alarms measured, 2.0% asked for" in held["why"]
    arrive(stored, "other", (6, 7), each=40)
    outcome = update(config, policy)
    assert learned == ["first", "base", "more", "other"]
    why = mlflow.artifacts.load_dict(f"runs:/{outcome['run']}/update.json")
    assert why["drift"]["drift"] == "yes" and why["drift"]["distance"] > why["drift"]["threshold"]


def test_a_night_that_fails_before_anything_is_learned_is_kept_for_status_until_it_succeeds(
    config: str, stored: Path, learned: list[str]
) -> None:
    (stored / "data").rename(stored / "away")
    with pytest.raises(DataError):
        update(config)
    (failed,) = failures(Place(stored))
    assert (failed.stream, failed.command) == ("growing", f"evergreen update {config}") and "no data there" in failed.error
    (stored / "away").rename(stored / "data")
    assert update(config)["gate"] == "promoted" and failures(Place(stored)) == []


def test_a_session_that_comes_in_while_another_learns_is_found_by_the_next_in_line(config: str, stored: Path, learned: list[str]) -> None:
    held = threading.Event()

    def another() -> None:
        with locked(Place(stored), "learner-growing.lock"):
            held.set()
            time.sleep(1)
            arrive(stored, "second", (2, 3))
            assert learned == []

    learning = threading.Thread(target=another)
    learning.start()
    held.wait()
    assert len(update(config)["report"]["matrix"]["rows"]) == 3 and learned == ["first", "second"]
    learning.join()


def test_the_lock_of_a_dead_learner_is_free_and_prefect_knows_of_the_limit(stored: Path) -> None:
    place = Place(stored)
    (place.runs / "locks").mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
    file = place.runs / "locks" / "learner-growing.lock"
    with subprocess.Popen([sys.executable, "-c", hold, str(file)], stdout=subprocess.PIPE, text=True) as holder:
        assert holder.stdout and holder.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(file.open("w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder.kill()
    with alone(place, "growing"), get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("evergreen-growing")
        assert (limit.limit, limit.active_slots) == (1, 1)
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("evergreen-growing").active_slots == 0


def test_who_waits_for_another_machine_says_so_and_how_to_free_what_nobody_holds(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("flows.alone._WAIT", 0.5)
    monkeypatch.setattr("flows.alone.watch", lambda: SimpleNamespace(tell=told.append))
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("evergreen-growing", 1)

        def slots(count: int) -> None:
            client.update_global_concurrency_limit("evergreen-growing", GlobalConcurrencyLimitUpdate(active_slots=count))

        slots(1)  # held on another machine
        timer = threading.Timer(3.0, slots, [0])
        timer.start()
        with alone(Place(stored), "growing"):
            timer.join()
    (line,) = told
    assert "another machine learns it; waiting" in line and "`prefect gcl update evergreen-growing --active-slots 0` frees it" in line


def test_a_collection_starts_its_update_by_event_and_other_streams_by_schedule_alone(config: str, stored: Path) -> None:
    run = settings(config, [], Place(stored))
    updating, learning, comparing, _ = deployments(config, "0 3 * * *", collections(run))
    (trigger,) = updating.triggers
    assert trigger.expect == {"evergreen.session.ingested"} and trigger.match.root == {"prefect.resource.id": "evergreen.collection.inbox"}
    assert (
        [schedule.schedule.cron for schedule in updating.schedules] == ["0 3 * * *"] and not learning.schedules and not comparing.schedules
    )
    assert collections(settings("glyphs", [], Place(stored))) == [] and planned(job_of(config)).stream.sessions[0].name == "first"
