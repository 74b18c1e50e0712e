"""A person's word: asked once, told where and until when, settled by hand too, and a night of waiting ends in a promotion."""

import subprocess
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from flows.registry.champion import CHAMPION, history
from flows.settings import Place
from flows.tracking.runs import connect
from tests.conftest import lay_out
from tests.test_cli import EVERGREEN, left
from tests.test_serve import HOST, Program, api, free, order, until


@contextmanager
def served(project: Path, config: str) -> Iterator[tuple[str, Program]]:
    """The servers of a project and `evergreen serve`: the address of Prefect's API, and what serves."""
    prefect_port = free()
    with ExitStack() as stack:
        up = Program("up", "--prefect-port", str(prefect_port), "--mlflow-port", str(free()))
        stack.callback(up.stop)
        up.wait_for("Ctrl-C stops them")
        address = f"http://{HOST}:{prefect_port}/api"
        serving = Program("serve", config)
        stack.callback(serving.stop)
        until(lambda: len(api(address, "/deployments/filter")) == 4, "the deployments are not registered")
        yield address, serving


def runs(address: str, flow: str, *states: str) -> list[dict[str, Any]]:
    answer = api(address, "/flow_runs/filter", flows={"name": {"any_": [flow]}})
    return [run for run in answer if not states or run["state_name"] in states]


@pytest.mark.slow
def test_a_night_of_waiting_ends_in_a_promotion(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In real time, by a real server: 225 seconds after a pause Prefect ends a run that holds a place of its deployment."""
    config = lay_out(project)
    config.write_text(config.read_text() + "gate: {approval: true, drop: null, flips: null}\n")
    monkeypatch.setenv("PREFECT_HOME", str(project / ".prefect"))
    monkeypatch.delenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
    place = Place(project)
    with served(project, "colours.yaml") as (address, serving):
        order(address, "update/update")
        until(lambda: bool(runs(address, "approve", "Suspended")), "nobody is asked")
        waited = time.monotonic()
        (asking,) = runs(address, "approve")
        until(lambda: bool(runs(address, "update", "Completed")), "the run that learned holds its place")
        terminal = Program("run", "colours.yaml", "--seed", "1")
        terminal.wait_for("waits for a person until")
        (here,) = runs(address, "learn-stream")
        order(address, "update/update")  # the next night: it does not ask the same again
        until(lambda: len(runs(address, "update", "Completed")) == 2, "the second run does not end")
        assert len(runs(address, "approve")) == 1 and "all 2 sessions are learned; version 1 waits for a person until" in serving.said()
        told = subprocess.run([EVERGREEN, "status"], capture_output=True, text=True, check=True).stdout
        assert "version 1 waits for a person until" in told and asking["id"] in told and here["id"] in told.replace("\n", ""), told

        time.sleep(max(0.0, waited + 330 - time.monotonic()))
        assert [run["state_name"] for run in runs(address, "approve")] == ["Suspended"]
        assert [run["state_name"] for run in runs(address, "learn-stream")] == ["Paused"] and terminal.process.poll() is None
        nameless = api(address, f"/flow_runs/{asking['id']}/resume", run_input={"approve": True})
        assert nameless["status"] == "REJECT" and "'who' is a required property" in nameless["details"]["reason"]
        for run, who in ((asking, "Ann"), (here, "Bob")):
            api(address, f"/flow_runs/{run['id']}/resume", run_input={"approve": True, "who": who, "why": "slept on it"})
            flow = "approve" if who == "Ann" else "learn-stream"
            until(lambda flow=flow: bool(runs(address, flow, "Completed", "Failed", "Crashed")), f"the answer of {who} is not heard")
            assert runs(address, flow, "Completed"), serving.said() + terminal.said()
        assert terminal.process.wait(60) == 0, terminal.said()
        client = connect(place)
        changes = [(made.alias, made.after, made.who) for made in history(place, client, "colours")]
    assert [made for made in changes if made[0] == CHAMPION] == [(CHAMPION, "1", "Ann"), (CHAMPION, "2", "Bob")]
    assert left(project) == []
