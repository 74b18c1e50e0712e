"""Servers as child processes on loopback: `evergreen up`'s Prefect and MLflow, and the Prefect of a single command."""

import atexit
import contextlib
import ctypes
import errno
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from cl.errors import ConfigError, StoreError
from flows.settings import Place

HOST = "127.0.0.1"
_ANY = ("0.0.0.0", "")
_START = 120.0  # seconds a server may take to answer; 10 are usual
_STOP = 10.0  # seconds it may take to end by itself


@dataclass(frozen=True)
class Server:
    """A server as a child process: how it is started, and where it answers."""

    name: str
    option: str
    port: int
    command: tuple[str, ...]
    health: str
    host: str = HOST

    @property
    def address(self) -> str:
        """Where a browser of this machine finds it."""
        return f"http://{HOST if self.host in _ANY else self.host}:{self.port}"


def prefect_server(port: int, *options: str, host: str = HOST) -> Server:
    """Prefect's API, scheduler and UI, as far as `options` leave them on."""
    command = (sys.executable, "-m", "prefect", "server", "start", "--host", host, "--port", str(port), *options)
    return Server("Prefect", "--prefect-port", port, command, "/api/health", host)


def mlflow_server(port: int, uri: str, artifacts: str, host: str = HOST) -> Server:
    """MLflow's UI over the project's database."""
    options = ["--backend-store-uri", uri, "--artifacts-destination", artifacts, "--workers", "1"]
    if warning(host) and host not in _ANY and "MLFLOW_SERVER_ALLOWED_HOSTS" not in os.environ:
        options += ["--allowed-hosts", ",".join(f"{name}:{port}" for name in (host, "localhost", HOST))]
    command = (sys.executable, "-m", "mlflow", "server", "--host", host, "--port", str(port), *options)
    return Server("MLflow", "--mlflow-port", port, command, "/health", host)


def warning(host: str) -> str:
    """What follows from listening there: nothing where only this machine can ask.

    >>> warning("127.0.0.1"), warning("localhost"), warning("0.0.0.0")[:44]
    ('', '', 'Other machines can reach these servers at 0.')
    """
    if host in ("localhost", "::1") or host.startswith("127."):
        return ""
    told = f"Other machines can reach these servers at {host}, and neither asks who calls: whoever can may start runs and read every model."
    named = "MLflow answers to private addresses; to other names if MLFLOW_SERVER_ALLOWED_HOSTS lists them." if host in _ANY else ""
    return f"{told} Let only machines that you trust through, or put a proxy that asks in front. {named}".rstrip()


def check_free(servers: Sequence[Server]) -> None:
    """Raise before anything starts when a port is taken.

    Raises:
        ConfigError: names the port or the host, and the option that changes it.
    """
    for server in servers:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((server.host, server.port))
            except OSError as error:
                if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
                    told = f"--host {server.host}: not an IPv4 address or name of this machine; 0.0.0.0 means all that it has"
                    raise ConfigError(told) from error
                told = f"port {server.port} for {server.name} is taken by another program; stop it, or choose another with {server.option}"
                raise ConfigError(told) from error


def run_servers(place: Place, servers: Sequence[Server], ready: Callable[[], None]) -> None:
    """Run the servers until a signal asks to stop; `ready` is called once all of them answer.

    Raises:
        ConfigError: a port is taken.
        StoreError: a server does not start, or ends by itself.
    """
    check_free(servers)
    with _stopping() as stop, ExitStack() as stack:
        running = [(server, stack.enter_context(_running(server, place))) for server in servers]
        for server, process in running:
            _wait(server, process, place, stop)
        if not stop.is_set():
            stack.enter_context(_announced(place, servers))
            ready()
        while not stop.wait(0.5):
            for server, process in running:
                _check_alive(server, process, place)


def embedded(place: Place) -> tuple[str, Callable[[], None]]:
    """A Prefect API until this process exits: its address at once, and a function that waits until it answers.

    Prefect would start one by itself, but only when the first flow runs, after importing all of its server into this
    process, and it would leave it behind on SIGTERM. This one starts while we import torch. It ends after everything
    that Prefect, imported later, still sends at exit.
    """
    server = prefect_server(_free_port(), "--no-ui", "--no-scheduler", "--no-late-runs")
    stack = ExitStack()
    atexit.register(stack.close)
    process = stack.enter_context(_running(server, place))
    return f"{server.address}/api", lambda: _wait(server, process, place, threading.Event())


def find_server(place: Place) -> str | None:
    """The API address of the server to work with: PREFECT_API_URL, else the one that `evergreen up` runs; None: embedded.

    Raises:
        StoreError: PREFECT_API_URL is set and nothing answers there.
    """
    given = os.environ.get("PREFECT_API_URL")
    if given and not answers(f"{given.rstrip('/')}/health"):
        raise StoreError(f"PREFECT_API_URL is {given}, and no Prefect server answers there; start one (`evergreen up`) or unset it")
    return given or announced(place)


def announced(place: Place) -> str | None:
    """The address of the API of a Prefect server that `evergreen up` runs for this project, None if there is none."""
    try:
        address = str(json.loads(_notice(place).read_text())["prefect"])
    except (OSError, ValueError, KeyError):
        return None
    return f"{address}/api" if answers(f"{address}/api/health") else None


def answers(url: str) -> bool:
    """Whether a server says within two seconds that it is well."""
    try:
        with urllib.request.urlopen(url, timeout=2) as reply:
            return bool(reply.status == 200)
    except (OSError, ValueError):
        return False


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


def _notice(place: Place) -> Path:
    return place.root / ".prefect" / "up.json"


@contextmanager
def _announced(place: Place, servers: Sequence[Server]) -> Iterator[None]:
    notice = _notice(place)
    notice.write_text(json.dumps({server.name.lower(): server.address for server in servers}))
    try:
        yield
    finally:
        notice.unlink(missing_ok=True)


@contextmanager
def _stopping() -> Iterator[threading.Event]:
    """An event that SIGINT, SIGTERM and SIGHUP set, so that the way out is always the same."""
    stop = threading.Event()
    signals = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
    before = [signal.signal(number, lambda *_: stop.set()) for number in signals]
    try:
        yield stop
    finally:
        for number, handler in zip(signals, before, strict=True):
            signal.signal(number, handler)


@contextmanager
def _running(server: Server, place: Place) -> Iterator[subprocess.Popen[bytes]]:
    log = _log(server, place)
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {key: value for key, value in os.environ.items() if key not in ("PREFECT_API_URL", "MLFLOW_TRACKING_URI")}
    environment["PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL"] = "WARNING"
    environment["PREFECT_SERVER_UI_API_URL"] = "/api"  # else its pages ask this machine's port 4200, whatever asked for them
    with log.open("wb") as file:
        # a session of its own: Ctrl-C in the terminal reaches only us, and its own children end with it
        process = subprocess.Popen(
            server.command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=_die_with_parent if sys.platform == "linux" else None,
        )
    try:
        yield process
    finally:
        _end(process)


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG: no orphan even where we are killed with no chance to stop it


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP)
        deadline = time.monotonic() + _STOP
        while _group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not _group_lives(process.pid):
            return


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True


def _wait(server: Server, process: subprocess.Popen[bytes], place: Place, stop: threading.Event) -> None:
    deadline = time.monotonic() + _START
    while not stop.is_set() and not answers(f"{server.address}{server.health}"):
        _check_alive(server, process, place)
        if time.monotonic() > deadline:
            raise StoreError(f"{server.name} does not answer at {server.address} after {_START:.0f} s; see {_log(server, place)}")
        stop.wait(0.2)


def _check_alive(server: Server, process: subprocess.Popen[bytes], place: Place) -> None:
    if process.poll() is not None:
        raise StoreError(f"{server.name} ended by itself with code {process.returncode}; see {_log(server, place)}")


def _log(server: Server, place: Place) -> Path:
    return place.root / ".prefect" / f"up-{server.name.lower()}.log"
