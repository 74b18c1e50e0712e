"""Passwords reach the process that needs them, by its environment, and are told nobody else: no message, command line, log or file."""

import base64
import json
import os
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest
from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY, temporary_settings

from cl.errors import StoreError
from flows.addresses import hushed, request, shown
from flows.servers.secret import CLIENT, SERVER, fresh, kept, made
from flows.servers.servers import HOST, Server, _announced, _running, answers, find_server
from flows.settings import Place
from flows.tracking.runs import connect
from tests.test_serve import free

HUSH = "hush-hush"
ADDRESSES = {
    "postgresql://ann:hush-hush@host:5432/db": "postgresql://ann:***@host:5432/db",
    "postgresql://user:hush-hush/word@host/db": "postgresql://user:***@host/db",
    "postgresql://user:hush-hush@word@host/db": "postgresql://user:***@host/db",
    "postgresql://user:a/hush-hush?b#c@d@host/db": "postgresql://user:***@host/db",
    "postgresql://hush-hush@host/db": "postgresql://***@host/db",
    "postgresql://:hush-hush@host/db": "postgresql://:***@host/db",
    "postgresql://host/db?user=ann&password=hush-hush&sslmode=require": "postgresql://host/db?user=ann&password=***&sslmode=require",
    "postgresql://host/db?PassWord=hush-hush": "postgresql://host/db?PassWord=***",
    "postgresql+asyncpg://ann:hush-hush%40x@host/prefect": "postgresql+asyncpg://ann:***@host/prefect",
    "http://ann:hush-hush@host:4200/api": "http://ann:***@host:4200/api",
    "https://host/api?token=hush-hush#hush-hush": "https://host/api?token=***#***",
    "s3://key:hush-hush@bucket/folder": "s3://key:***@bucket/folder",
    "sqlite:////home/ann@work/mlflow.db": "sqlite:////home/ann@work/mlflow.db",
    "http://127.0.0.1:5000": "http://127.0.0.1:5000",
    "/mnt/data:1/x@y": "/mnt/data:1/x@y",
    "ann:hush-hush@host": "ann:***@host",
}


@pytest.mark.parametrize("address", ADDRESSES)
def test_an_address_is_shown_without_what_lets_one_in(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert shown(address) == ADDRESSES[address]
    for name in ("MLFLOW_TRACKING_URI", "PREFECT_API_URL", "PREFECT_SERVER_DATABASE_CONNECTION_URL"):
        with monkeypatch.context() as patch:
            patch.setenv(name, address)
            if HUSH in address and "://" in address:
                told = hushed(f"cannot connect to {address} as ann with 'hush-hush'; it asked for more")
                assert HUSH not in told and told.endswith("; it asked for more")


WRONG = (f"ann:{HUSH}@host", f"http://ann:{HUSH}/x@host", f"http://ann:{HUSH}@host:port")


class Doorman(BaseHTTPRequestHandler):
    """Lets in who says the word."""

    def do_GET(self) -> None:
        _, _, given = self.headers.get("Authorization", "").partition(" ")
        self.send_response(200 if base64.b64decode(given) == b"ann:hush/hush@" else 401)
        self.end_headers()

    def log_message(self, *_: object) -> None: ...


@contextmanager
def doorman() -> Iterator[int]:
    server = ThreadingHTTPServer((HOST, 0), Doorman)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1]
    finally:
        server.shutdown()
        server.server_close()


def test_the_password_of_a_web_address_is_sent_to_it() -> None:
    with doorman() as port:
        assert answers(f"http://ann:hush%2Fhush%40@{HOST}:{port}/health") and not answers(f"http://{HOST}:{port}/health")
    for wrong in (
        "http://",
        "http://ann:hush-hush@",
        "file:///etc/passwd",
        "http://host:0/",
        f"ann:{HUSH}@host",
        f"http://ann:{HUSH}/x@host",
        f"http://ann:{HUSH}@host:port",
    ):
        with pytest.raises(ValueError) as told:
            request(wrong)
        assert HUSH not in str(told.value)


@pytest.mark.parametrize("password", [HUSH, f"{HUSH}/word", f"{HUSH}@word", f"{HUSH}%2Fword"])
def test_a_server_that_is_away_is_told_without_its_password(project: Path, monkeypatch: pytest.MonkeyPatch, password: str) -> None:
    monkeypatch.setenv("PREFECT_API_URL", f"http://ann:{password}@{HOST}:9/api")
    with pytest.raises(StoreError, match=r"PREFECT_API_URL is http://ann:\*\*\*@127.0.0.1:9/api, and no Prefect server answers") as told:
        find_server(Place(project))
    assert HUSH not in str(told.value)
    uris = [f"http://ann:{password}@{HOST}:9", f"postgresql://ann:{password}@{HOST}:9/db", f"nonsense://ann:{password}@{HOST}:9"]
    for uri in (*uris, f"postgresql://{HOST}:9/db?password={HUSH}"):
        monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
        with pytest.raises(StoreError) as told:
            connect(Place(project))
        assert HUSH not in str(told.value) and "***" in str(told.value)


@contextmanager
def listener() -> Iterator[tuple[int, list[str | None]]]:
    """A port, and what each request to it said of who asks."""
    heard: list[str | None] = []

    class Listener(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            heard.append(self.headers.get("Authorization"))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: object) -> None: ...

    server = ThreadingHTTPServer((HOST, 0), Listener)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_address[1], heard
    finally:
        server.shutdown()
        server.server_close()


def test_the_secret_is_sent_to_the_server_that_up_runs_now_and_to_no_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(project)
    secret = made(place)
    basic = f"Basic {base64.b64encode(secret.encode()).decode()}"
    other_tests = temporary_settings(restore_defaults={PREFECT_API_AUTH_STRING, PREFECT_API_KEY})  # may have given Prefect a secret
    with other_tests, listener() as (port, heard):
        ours = Server("Prefect", "--prefect-port", port, (), "/")
        (project / ".prefect" / "up.json").write_text(json.dumps({"prefect": ours.address}))  # of one that was killed
        assert find_server(place) is None and heard == []  # another program may have its port by now
        monkeypatch.setenv("PREFECT_API_URL", f"http://{HOST}:{port}/api")
        assert find_server(place) == f"http://{HOST}:{port}/api" and heard and not any(heard) and CLIENT not in os.environ
        monkeypatch.delenv("PREFECT_API_URL")
        with _announced(place, [ours]):
            assert find_server(place) == f"{ours.address}/api" and heard[-1] == basic and os.environ[CLIENT] == secret
            monkeypatch.setenv(CLIENT, "someone:else")  # what the user has set stays as it is
            assert find_server(place) == f"{ours.address}/api" and heard[-1] != basic
        assert find_server(place) is None


SHOW = "import os, sys, time; print(sorted(os.environ), flush=True); time.sleep(600)"


def everywhere(folder: Path, secret: str) -> list[Path]:
    return [file for file in folder.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]


def others_can_read(secret: str) -> list[str]:
    """Command lines, which every user of a machine can list, that hold a secret."""
    return [" ".join(line) for process in psutil.process_iter() if secret in " ".join(line := _line(process))]


def _line(process: psutil.Process) -> list[str]:
    try:
        return list(process.cmdline())
    except psutil.Error:
        return []


def test_a_real_child_gets_its_own_secret_by_its_environment_and_no_other(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    secret, foreign = fresh(), f"{HUSH}-{fresh()}"
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_TRACKING_PASSWORD", "PREFECT_API_KEY", CLIENT, "AWS_SECRET_ACCESS_KEY", SERVER):
        monkeypatch.setenv(name, foreign)
    command = (sys.executable, "-c", SHOW)
    server = Server("Prefect", "--prefect-port", free(), command, "/", environment={SERVER: secret}, hidden=("MLFLOW_", "AWS_"))
    with _running(server, Place(project)) as process:
        log = project / ".prefect" / "up-prefect.log"
        deadline = time.monotonic() + 20
        while not log.read_text() and time.monotonic() < deadline:
            time.sleep(0.05)
        environment = psutil.Process(process.pid).environ()
        assert environment[SERVER] == secret and not [name for name, value in environment.items() if foreign in value]
        assert others_can_read(secret) == others_can_read(foreign) == []
    assert everywhere(project, secret) == everywhere(project, foreign) == []


@pytest.mark.usefixtures("prefect_server")
def test_the_secret_of_the_server_that_run_starts_is_known_to_that_process_alone() -> None:
    from prefect.settings import PREFECT_API_AUTH_STRING

    secret = str(PREFECT_API_AUTH_STRING.value())
    holding = [child for child in psutil.Process().children(recursive=True) if child.environ().get(SERVER) == secret]
    assert len(holding) == 1 and "flows.servers.guard:prefect_app" in holding[0].cmdline()
    assert others_can_read(secret) == []
    assert everywhere(Path(os.environ["HOME"]), secret) == []


@pytest.mark.slow
def test_the_servers_of_up_know_their_own_secrets_alone(up: SimpleNamespace) -> None:
    secret = str(kept(up.place))
    below = psutil.Process(up.pid).children(recursive=True)
    prefect = [child for child in below if "flows.servers.guard:prefect_app" in child.cmdline()]
    mlflow = [child for child in below if "evergreen_clip:mlflow_app" in child.cmdline()]
    assert len(prefect) == len(mlflow) == 1
    assert prefect[0].environ()[SERVER] == secret and "MLFLOW_BACKEND_STORE_URI" not in prefect[0].environ()
    assert not [name for child in below if child not in prefect for name, value in child.environ().items() if secret in value]
    uri = mlflow[0].environ()["MLFLOW_BACKEND_STORE_URI"]
    assert uri.startswith("sqlite://") and others_can_read(uri) == others_can_read(secret) == []
    files = everywhere(up.place.root, secret)
    assert {file.name for file in files} | {"open.html"} == {"secret", "open.html"} and secret not in up.said()  # what `--open` opens
    assert all(file.stat().st_mode & 0o077 == 0 for file in files)
