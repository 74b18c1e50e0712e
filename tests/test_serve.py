"""Serving: deployments as Prefect will run them, ports, and servers that end with the command that started them."""

import base64
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow import MlflowClient
from prefect import Flow
from prefect.client.schemas.schedules import CronSchedule

from cl.errors import ConfigError, StoreError
from flows.serve import deployments
from flows.servers.servers import HOST, Server, announced, answers, check_free, find_server, run_servers
from flows.settings import ENVIRONMENT, Place
from tests.conftest import lay_out
from tests.serving import free
from tests.test_cli import EVERGREEN, left


@contextmanager
def occupied() -> Iterator[int]:
    with socket.socket() as other:
        other.bind((HOST, 0))
        other.listen()
        yield int(other.getsockname()[1])


def listing(port: int, *command: str) -> Server:
    """A server that needs no second to start: it lists the files of the current folder."""
    return Server("Prefect", "--prefect-port", port, command or (sys.executable, "-m", "http.server", "--bind", HOST, str(port)), "/")


def test_every_flow_is_offered_and_only_update_has_a_schedule() -> None:
    offered = deployments("glyphs", "0 3 * * *")
    names = [("update", "update"), ("learn-stream", "learn-stream"), ("compare", "compare"), ("approve", "approve")]
    assert [(each.flow_name, each.name) for each in offered] == names
    assert [each.parameters for each in offered] == [*[{"config": "glyphs"}] * 3, {}]
    assert [each.concurrency_limit for each in offered] == [1, 1, 1, None]  # who waits for a person could not renew its place
    (schedule,) = offered[0].schedules or []
    assert isinstance(schedule.schedule, CronSchedule) and schedule.schedule.cron == "0 3 * * *"
    assert not any(each.schedules for each in offered[1:]) and not any(each.triggers for each in offered)
    assert not deployments("glyphs", None)[0].schedules


def test_the_deployments_for_work_pools_are_the_same_flows() -> None:
    pools = yaml.safe_load((Path(__file__).parents[1] / "flows" / "prefect.yaml").read_text())
    served = {each.name: each.entrypoint for each in deployments("glyphs", None)}
    assert {each["name"]: each["entrypoint"] for each in pools["deployments"]} == served
    limits = {each["name"]: each.get("concurrency_limit") for each in pools["deployments"]}
    assert limits == {name: {"limit": 1, "collision_strategy": "ENQUEUE"} for name in served} | {"approve": None}
    for each in pools["deployments"]:  # a worker starts them, and not `evergreen`: nothing is sent home from there either
        given = each["work_pool"]["job_variables"]["env"]
        own = ENVIRONMENT.keys() - {"PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"}  # what they log is read in the worker's terminal
        assert given == {name: ENVIRONMENT[name] for name in own} | {"EVERGREEN_ROOT": "{{ $EVERGREEN_ROOT }}"}


def test_an_entrypoint_is_a_module_so_that_it_is_found_from_any_folder() -> None:
    for each in deployments("glyphs", None):
        module, _, name = str(each.entrypoint).rpartition(".")
        flow = getattr(importlib.import_module(module), name)
        assert isinstance(flow, Flow) and flow.name == each.flow_name


def test_a_schedule_that_is_none_is_told_with_an_example() -> None:
    with pytest.raises(ConfigError, match=r'--cron 0 25 \* \* \*: not a schedule; expected five fields such as "0 3 \* \* \*"'):
        deployments("glyphs", "0 25 * * *")


def test_a_taken_port_is_told_with_the_option_that_changes_it_and_a_free_one_is_not() -> None:
    check_free([listing(free())])
    with occupied() as port, pytest.raises(ConfigError, match=f"port {port} for Prefect .* choose another with --prefect-port"):
        check_free([listing(free()), listing(port)])


def test_a_port_can_be_used_again_at_once_after_its_server_ended() -> None:
    with occupied() as port, socket.create_connection((HOST, port)):
        pass
    check_free([listing(port)])


def run_until(place: Place, server: Server, number: int) -> dict[str, Any]:
    """Run a server, note what can be seen once it is ready, and send ourselves a signal."""
    seen: dict[str, Any] = {}

    def ready() -> None:
        seen.update(answers=answers(server.address), notice=json.loads((place.root / ".prefect" / "up.json").read_text()))
        threading.Timer(0.1, os.kill, (os.getpid(), number)).start()

    (place.root / ".prefect").mkdir(exist_ok=True)
    run_servers(place, [server], ready)
    return seen


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_servers_run_until_a_signal_and_are_found_while_they_do(project: Path, number: int) -> None:
    place, server, before = Place(project), listing(free()), signal.getsignal(number)
    assert run_until(place, server, number) == {"answers": True, "notice": {"prefect": server.address}}
    assert not answers(server.address) and not (project / ".prefect" / "up.json").exists()
    assert signal.getsignal(number) == before and left(project) == []


def test_a_server_and_its_own_children_end_together(project: Path) -> None:
    port = free()
    child = f"import subprocess, sys; subprocess.run([sys.executable, '-m', 'http.server', '--bind', '{HOST}', '{port}'])"
    run_until(Place(project), listing(port, sys.executable, "-c", child), signal.SIGTERM)
    assert not answers(f"http://{HOST}:{port}/") and left(project) == []


def test_a_server_that_ends_by_itself_is_told_with_its_log(project: Path) -> None:
    failing = listing(free(), sys.executable, "-c", "import sys; sys.exit('out of memory')")
    with pytest.raises(StoreError, match=r"Prefect ended by itself; see .*up-prefect.log"):
        run_servers(Place(project), [failing], lambda: None)
    assert (project / ".prefect" / "up-prefect.log").read_text() == "out of memory\n"


def test_a_server_that_was_announced_and_is_gone_is_not_used(project: Path) -> None:
    place = Place(project)
    assert announced(place) is None and find_server(place) is None
    (project / ".prefect").mkdir()
    (project / ".prefect" / "up.json").write_text(json.dumps({"prefect": f"http://{HOST}:{free()}"}))
    assert announced(place) is None
    (project / ".prefect" / "up.json").write_text("{")
    assert find_server(place) is None


class Program:
    """`evergreen` as a process that is not ours to clean up after, and what it says."""

    def __init__(self, *words: str) -> None:
        self.notes = Path(f"{words[0]}.txt").absolute()
        with self.notes.open("wb") as file:
            self.process = subprocess.Popen([EVERGREEN, *words], stdout=file, stderr=subprocess.STDOUT, start_new_session=True)

    def said(self) -> str:
        return self.notes.read_text()

    def wait_for(self, text: str) -> None:
        until(lambda: text in self.said() or self.process.poll() is not None, text)
        assert text in self.said(), self.said()

    def stop(self) -> int:
        """Ctrl-C; the exit code."""
        self.process.send_signal(signal.SIGINT)
        try:
            return self.process.wait(60)
        finally:
            self.process.kill()


def until(holds: Callable[[], bool], what: str, seconds: float = 240) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.5)


def secret() -> str:
    """What the server of `evergreen up` in the current folder asks for, read as the README says."""
    return subprocess.run(["cat", ".prefect/secret"], check=True, capture_output=True, text=True).stdout.strip()


def api(address: str, path: str, method: str = "POST", **body: Any) -> Any:
    headers = {"Content-Type": "application/json", "Authorization": f"Basic {base64.b64encode(secret().encode()).decode()}"}
    request = urllib.request.Request(f"{address}{path}", json.dumps(body).encode(), headers, method=method)
    for again in range(10, -1, -1):
        try:
            with urllib.request.urlopen(request, timeout=30) as reply:
                return json.loads(reply.read() or b"null")
        except urllib.error.HTTPError as error:
            if error.code != 503 or not again:  # its database is busy: Prefect's own client asks again too
                raise
            time.sleep(1)
    raise AssertionError("not reached")


def order(address: str, *words: str) -> None:
    """Start a deployment by Prefect's own command."""
    environment = os.environ | {"PREFECT_API_URL": address, "PREFECT_API_AUTH_STRING": secret()}
    command = [str(EVERGREEN.with_name("prefect")), "deployment", "run", *words]
    subprocess.run(command, env=environment, check=True, capture_output=True, timeout=120)


def bear_harm(address: str, name: str, file: Path) -> None:
    """Have a deployment run a script before its flow, which makes `file`: what one who can write to the API may ask for."""
    (deployment,) = api(address, "/deployments/filter", deployments={"name": {"any_": [name]}})
    steps = [{"prefect.deployments.steps.run_shell_script": {"script": f"touch {file}"}}]
    api(address, f"/deployments/{deployment['id']}", "PATCH", pull_steps=steps)
    (deployment,) = api(address, "/deployments/filter", deployments={"name": {"any_": [name]}})
    assert deployment["pull_steps"] == steps


def state_of_the_only_run(address: str) -> str | None:
    """The state that the run of the deployment ended in; None as long as it has not."""
    runs = api(address, "/flow_runs/filter", flows={"name": {"any_": ["learn-stream"]}})
    (state,) = [run["state_type"] for run in runs]
    return state if state in ("COMPLETED", "FAILED", "CRASHED", "CANCELLED") else None


@pytest.mark.slow
def test_a_deployment_is_served_started_by_prefects_own_command_and_completes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lay_out(project)
    monkeypatch.setenv("PREFECT_HOME", str(project / ".prefect"))
    monkeypatch.delenv("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
    prefect_port, mlflow_port = free(), free()
    address = f"http://{HOST}:{prefect_port}/api"
    up = Program("up", "--prefect-port", str(prefect_port), "--mlflow-port", str(mlflow_port))
    codes = []
    try:
        up.wait_for("Ctrl-C stops them")
        assert find_server(Place(project)) == address and answers(f"http://{HOST}:{mlflow_port}/health")
        serving = Program("serve", "colours.yaml", "--cron", "0 3 * * *")
        try:
            serving.wait_for("Start one: ")
            until(lambda: len(api(address, "/deployments/filter")) == 4, "the deployments are not registered")
            harm = project / "harm"
            bear_harm(address, "learn-stream", harm)
            order(address, "learn-stream/learn-stream", "--param", 'overrides=["seed=7"]')
            until(lambda: state_of_the_only_run(address) is not None, "the run does not end")
            assert state_of_the_only_run(address) == "COMPLETED", serving.said()
            assert not harm.exists()  # what the API says is to be run before the flow
            scheduled = {"flows": {"name": {"any_": ["update"]}}, "flow_runs": {"state": {"type": {"any_": ["SCHEDULED"]}}}}
            until(lambda: bool(api(address, "/flow_runs/filter", **scheduled)), "the schedule makes no run")
        finally:
            codes.append(serving.stop())
        assert answers(f"{address}/health")  # the servers go on
    finally:
        codes.append(up.stop())
    assert codes == [0, 0] and left(project) == []
    for program in (serving, up):
        assert program.said().endswith("Stopped.\n") and "Traceback" not in program.said(), program.said()
    assert "colours finetune seed 7: 2/2 classes 3-4: taught " in serving.said()
    assert len([*(project / "mlruns" / "steps" / "steps").iterdir()]) == 3


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_run_that_is_under_way_saves_and_leaves_before_serve_ends(project: Path, monkeypatch: pytest.MonkeyPatch, number: int) -> None:
    config, place = lay_out(project), Place(project)
    config.write_text(config.read_text().replace("epochs: 1", "max_steps: 20000"))
    monkeypatch.setenv("PREFECT_HOME", str(project / ".prefect"))
    prefect_port = free()
    address = f"http://{HOST}:{prefect_port}/api"
    up = Program("up", "--prefect-port", str(prefect_port), "--mlflow-port", str(free()))
    try:
        up.wait_for("Ctrl-C stops them")
        serving = Program("serve", "colours.yaml")
        serving.wait_for("Start one: ")
        order(address, "learn-stream/learn-stream")
        states = place.steps / "states"
        until(lambda: states.exists() and bool([*states.iterdir()]), "the start is not learned")
        client = MlflowClient(f"sqlite:///{place.runs / 'mlflow.db'}")

        def steps() -> int:
            runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
            return sum("batch/loss" in run.data.metrics for run in runs)

        until(lambda: bool(steps()), "no step is logged")
        serving.process.send_signal(number)
        assert serving.process.wait(90) == 0 and serving.said().endswith("Stopped.\n"), serving.said()
        assert [*(place.steps / "interim").rglob("cursor.json")], "what was learned is not saved"
        assert state_of_the_only_run(address) in ("CRASHED", "CANCELLED"), serving.said()
        runs = client.search_runs([each.experiment_id for each in client.search_experiments()])
        assert sorted({run.info.status for run in runs}) == ["FINISHED", "KILLED"]
    finally:
        codes = [up.stop()]
    assert codes == [0] and left(project) == []
