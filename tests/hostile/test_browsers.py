"""What a page that a person merely visits can do to Prefect and MLflow while they run: nothing; and what their own pages can."""

import asyncio
import json
import os
import re
import subprocess
import sys
import urllib.error
import urllib.request
from importlib.metadata import entry_points
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from uuid import uuid4

import pytest

from cl.errors import StoreError
from flows.servers.guard import NAMES, Guard
from flows.servers.secret import fresh, kept, made, opener, path
from flows.servers.servers import Server, mlflow_server, prefect_server
from flows.settings import Place
from tests.hostile.browser import Harm, needs_chromium, shows, visit
from tests.test_serve import HOST

OWN = "127.0.0.1:4200"
MALICE: list[tuple[str, list[tuple[str, str]], int]] = [
    ("a program of this machine", [("Host", OWN)], 200),
    ("its own page", [("Host", OWN), ("Origin", f"http://{OWN}"), ("Sec-Fetch-Site", "same-origin")], 200),
    ("its own page through a tunnel", [("Host", "localhost:8080"), ("Origin", "http://localhost:8080")], 200),
    ("by an address of this machine", [("Host", "10.0.0.7:4200")], 200),
    ("by an IPv6 address", [("Host", "[::1]:4200"), ("Origin", "http://[::1]:4200")], 200),
    (
        "a link that a person follows",
        [("Host", OWN), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "document")],
        200,
    ),
    ("behind a proxy whose name is listed", [("Host", "team.example")], 200),
    ("behind such a proxy that calls by address", [("Host", OWN), ("Origin", "https://team.example")], 200),
    ("a foreign page", [("Host", OWN), ("Origin", "https://evil.test")], 403),
    ("another port of this machine", [("Host", OWN), ("Origin", "http://127.0.0.1:9999")], 403),
    ("another name of this machine", [("Host", OWN), ("Origin", "http://localhost:4200")], 403),
    ("a page of no origin", [("Host", OWN), ("Origin", "null")], 403),
    ("an extension's page", [("Host", OWN), ("Origin", "chrome-extension://abc")], 403),
    ("a rebound name", [("Host", "evil.test:4200")], 403),
    ("a rebound name, as its own origin", [("Host", "evil.test:4200"), ("Origin", "http://evil.test:4200")], 403),
    ("a rebound name that begins like ours", [("Host", "127.0.0.1.evil.test:4200")], 403),
    ("a rebound name with a user before it", [("Host", "127.0.0.1@evil.test")], 403),
    ("no name", [], 403),
    ("two names", [("Host", OWN), ("Host", "evil.test")], 403),
    ("two origins", [("Host", OWN), ("Origin", f"http://{OWN}"), ("Origin", "http://evil.test")], 403),
    ("an image of a foreign page", [("Host", OWN), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "no-cors")], 403),
    (
        "a frame of a foreign page",
        [("Host", OWN), ("Sec-Fetch-Site", "cross-site"), ("Sec-Fetch-Mode", "navigate"), ("Sec-Fetch-Dest", "iframe")],
        403,
    ),
    ("a form of another port", [("Host", OWN), ("Sec-Fetch-Site", "same-site")], 403),
]


async def echo(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"reached"})


async def asked(kind: str, headers: list[tuple[str, str]]) -> list[Any]:
    scope = {"type": kind, "method": "GET", "path": "/api", "headers": [(name.lower().encode(), value.encode()) for name, value in headers]}
    sent: list[Any] = []

    async def receive() -> Any:
        return {"type": f"{kind}.connect"}

    async def send(message: Any) -> None:
        sent.append(message)

    await Guard(echo)(scope, receive, send)
    return sent


@pytest.mark.parametrize(("who", "headers", "status"), MALICE, ids=[who for who, *_ in MALICE])
def test_who_is_answered(who: str, headers: list[tuple[str, str]], status: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(NAMES, " Team.example ,")
    sent = asyncio.run(asked("http", headers))
    assert sent[0]["status"] == status and (sent[1]["body"] == b"reached") == (status == 200)
    assert not [name for name, _ in sent[0]["headers"] if name.startswith(b"access-control")]
    opened = asyncio.run(asked("websocket", headers))
    assert (opened[0]["type"] == "websocket.close") == (status == 403)


def status(address: str, method: str = "GET", body: Any = None, **headers: str) -> int:
    data = None if body is None else json.dumps(body).encode()
    request = urllib.request.Request(address, data, {name.replace("_", "-"): value for name, value in headers.items()}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=30) as reply:
            return int(reply.status)
    except urllib.error.HTTPError as error:
        assert "access-control-allow-origin" not in error.headers
        return int(error.code)


@pytest.mark.usefixtures("prefect_server")
def test_the_server_that_run_starts_by_itself_asks_for_the_secret_and_answers_no_page() -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL

    from flows.servers.secret import refused

    api, secret = str(PREFECT_API_URL.value()), str(PREFECT_API_AUTH_STRING.value())
    assert status(f"{api}/health") == 200
    assert refused(api, None) and refused(api, fresh()) and not refused(api, secret)
    pull = {"pull_steps": [{"prefect.deployments.steps.run_shell_script": {"script": "touch harm"}}]}
    for path_, method, body in (("flows/filter", "POST", {}), (f"deployments/{uuid4()}", "PATCH", pull), ("admin/version", "GET", None)):
        assert status(f"{api}/{path_}", method, body, Content_Type="application/json") == 401
        for headers in ({"Origin": "http://evil.test"}, {"Host": "evil.test"}, {"Origin": "http://localhost:9999"}):
            assert status(f"{api}/{path_}", method, body, Content_Type="application/json", **headers) == 403
    assert status(f"{api}/flows/filter", "OPTIONS", Origin="http://evil.test", Access_Control_Request_Method="POST") == 403


def test_mlflow_is_started_behind_the_guard_too(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.servers.guard.mlflow_app", lambda: "guarded")
    monkeypatch.setattr("sys.path", list(sys.path))
    (plugin,) = entry_points(group="mlflow.app", name="evergreen")
    assert plugin.load()() == "guarded"
    server = mlflow_server(5000, "sqlite://", "file:")
    assert server.command[server.command.index("--app-name") + 1] == "evergreen"


def test_the_secret_is_its_owners_alone_and_stays_the_same(project: Path) -> None:
    place = Place(project)
    assert kept(place) is None
    secret = made(place)
    assert secret == made(place) == kept(place) and len(secret) > 40 and secret != fresh()
    assert path(place).stat().st_mode & 0o777 == 0o600 and not [*path(place).parent.glob("*.part")]
    subprocess.run(["git", "init", "-q", "."], check=True)
    assert not subprocess.run(["git", "status", "--porcelain"], check=True, capture_output=True).stdout  # nor does git see it
    page = opener(place, "http://127.0.0.1:4200", secret)
    assert page.stat().st_mode & 0o777 == 0o600 and f"http://127.0.0.1:4200/enter#{secret}" in page.read_text()


def test_a_secret_that_others_could_have_read_or_placed_is_refused(project: Path) -> None:
    place = Place(project)
    made(place)
    path(place).chmod(0o644)
    with pytest.raises(StoreError, match=r"others than its owner can read or write it \(mode 644\).*delete it"):
        kept(place)
    path(place).unlink()
    (project / "elsewhere").write_text("evergreen:known-to-who-placed-the-link\n")
    (project / "elsewhere").chmod(0o600)
    path(place).symlink_to(project / "elsewhere")
    with pytest.raises(StoreError, match="cannot be read"):
        made(place)
    path(place).unlink()
    os.mkfifo(path(place), 0o600)
    with pytest.raises(StoreError, match="delete it"):
        made(place)


def test_what_a_server_is_started_with_shows_no_password_to_other_users() -> None:
    servers: list[Server] = [
        prefect_server(1, "evergreen:hush"),
        mlflow_server(1, "postgresql://ann:hush@host/db", "s3://bucket/hush"),
    ]
    for server in servers:
        assert "hush" not in " ".join(server.command) and "hush" not in repr(server) and "hush" in " ".join(server.environment.values())


def test_a_served_run_is_the_flow_that_was_registered_whatever_the_api_says(monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.runner import _starter_engine, runner

    from flows.servers.entrypoints import only

    for name in ("EngineCommandStarter", "load_flow_from_flow_run"):
        monkeypatch.setattr(runner, name, getattr(runner, name))  # put back afterwards
    seen: list[Any] = []

    async def run_process(**named: Any) -> None:
        seen.append(named["env"]["PREFECT__FLOW_ENTRYPOINT"])

    monkeypatch.setattr(_starter_engine, "run_process", run_process)
    known, run = uuid4(), SimpleNamespace(id=uuid4(), deployment_id=None)
    only({known: "flows.update.update"})
    with pytest.raises(StoreError, match="is of no deployment that is served here"):
        asyncio.run(runner.EngineCommandStarter().start(run))
    run.deployment_id = known
    asyncio.run(runner.EngineCommandStarter().start(run))
    assert seen == ["flows.update.update"]
    assert asyncio.run(runner.load_flow_from_flow_run(run, storage_base_path="/")).name == "update"


def harmless(up: SimpleNamespace, told: dict[str, Any]) -> None:
    """Nothing could be read, and nothing is there that the page wanted to put there."""
    assert len(told) == 8
    for what, got in told.items():
        # a page cannot see what became of what it sent unasked: that is looked for below
        assert str(got).startswith("refused") or got == 403 or (what.endswith("unasked") and got == "sent"), told
    from flows.tracking.runs import connect

    names = [experiment.name for experiment in connect(up.place).search_experiments()]
    assert not [name for name in names if "harm" in name]
    request = urllib.request.Request(f"http://{HOST}:{up.prefect}/api/variables/filter", b"{}", {"Content-Type": "application/json"})
    import base64

    request.add_header("Authorization", f"Basic {base64.b64encode(str(kept(up.place)).encode()).decode()}")
    with urllib.request.urlopen(request) as reply:
        assert json.load(reply) == []


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("name", ["evil.test", "localhost", HOST])
def test_a_foreign_page_in_a_real_browser_does_nothing(up: SimpleNamespace, name: str) -> None:
    targets = [f"http://{HOST}:{up.prefect}", f"http://{HOST}:{up.mlflow}", f"ws://{HOST}:{up.prefect}"]
    with Harm(targets).serving() as harm:
        harmless(up, visit(harm, f"http://{name}:{harm.port}/harm", f"MAP evil.test {HOST}"))


@pytest.mark.slow
@needs_chromium
@pytest.mark.parametrize("behind", ["prefect", "mlflow"])
def test_a_page_whose_name_was_pointed_at_this_machine_does_nothing(up: SimpleNamespace, behind: str) -> None:
    port = getattr(up, behind)
    with Harm(["", "", f"ws://evil.test:{port}"], port).serving() as harm:
        rules = f"MAP evil.test:{port} {HOST}:{harm.port}"
        harmless(up, visit(harm, f"http://evil.test:{port}/harm", rules))


@pytest.mark.slow
@needs_chromium
def test_its_own_pages_ask_for_the_secret_and_know_it_when_up_opens_them(up: SimpleNamespace) -> None:
    address = f"http://{HOST}:{up.prefect}"
    assert re.search("Log ?in", shows(address)) and "Dashboard" not in shows(address)
    secret = str(kept(up.place))
    assert str(path(up.place)) in up.said() and secret not in up.said()
    assert "Dashboard" in shows(opener(up.place, address, secret).as_uri())
    assert "Not this server's secret" in shows(f"{address}/enter#{fresh()}")
    assert "Default" in shows(f"http://{HOST}:{up.mlflow}/#/experiments?workflowType=machine_learning")
