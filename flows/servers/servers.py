"""Servers as child processes on loopback: `evergreen up`'s Prefect and MLflow, and the Prefect of a single command."""

import atexit
import errno
import fcntl
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

from cl.errors import ConfigError, StoreError
from flows.addresses import request, shown
from flows.servers.children import child
from flows.servers.guard import NAMES, PARENT
from flows.servers.secret import CLIENT, SERVER, fresh, kept, refused
from flows.settings import ENVIRONMENT, Place

HOST = "127.0.0.1"
_ANY = ("0.0.0.0", "")
_START = 120.0  # seconds a server may take to answer; 10 are usual
_CODE = str(Path(__file__).parents[2])


@dataclass(frozen=True)
class Server:
    """A server as a child process: how it is started, where it answers, and what of our environment it is not to see."""

    name: str
    option: str
    port: int
    command: tuple[str, ...]
    health: str
    host: str = HOST
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)  # passwords go here: other users can read a command
    hidden: tuple[str, ...] = ()  # how the names of variables begin that are not its own

    @property
    def address(self) -> str:
        """Where a browser of this machine finds it."""
        return f"http://{HOST if self.host in _ANY else self.host}:{self.port}"


class Api(NamedTuple):
    """A Prefect API of our own: its address, what it wants of whoever calls, and a function that waits until it answers."""

    address: str
    secret: str
    ready: Callable[[], None]


def prefect_server(port: int, secret: str, *, host: str = HOST, pages: bool = True) -> Server:
    """Prefect's API, which asks for `secret`, and with `pages` its UI and scheduler; behind the guard."""
    command = _uvicorn("prefect_app", host, port)
    environment = {
        SERVER: secret,
        "PREFECT_SERVER_CORS_ALLOWED_ORIGINS": f"http://{HOST}:{port}",
        "PREFECT_SERVER_UI_API_URL": "/api",  # else its pages ask this machine's port 4200, whatever asked for them
        "PREFECT_SERVER_UI_ENABLED": str(pages),
        "PREFECT_SERVER_SERVICES_SCHEDULER_ENABLED": str(pages),
        "PREFECT_SERVER_SERVICES_LATE_RUNS_ENABLED": str(pages),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "WARNING",
        "PREFECT__SERVER_FINAL": "1",
    }
    return Server("Prefect", "--prefect-port", port, command, "/api/health", host, environment, ("MLFLOW_", "AWS_", "EVERGREEN_ARTIFACTS"))


def mlflow_server(port: int, uri: str, artifacts: str, host: str = HOST) -> Server:
    """MLflow's UI over the project's database; behind the guard, which pyproject.toml names to it."""
    options = ("--app-name", "evergreen", "--host", host, "--port", str(port), "--workers", "1")
    environment = {"MLFLOW_BACKEND_STORE_URI": uri, "MLFLOW_ARTIFACTS_DESTINATION": artifacts}
    if warning(host) or os.environ.get(NAMES):  # the guard asks already, and knows more names than MLflow's own check
        environment |= {name: os.environ.get(name, "*") for name in ("MLFLOW_SERVER_ALLOWED_HOSTS", "MLFLOW_SERVER_CORS_ALLOWED_ORIGINS")}
    command = (sys.executable, "-m", "mlflow", "server", *options)
    return Server("MLflow", "--mlflow-port", port, command, "/health", host, environment, ("PREFECT_",))


def _uvicorn(factory: str, host: str, port: int) -> tuple[str, ...]:
    options = ("--app-dir", _CODE, "--host", host, "--port", str(port), "--timeout-keep-alive", "5", "--log-level", "warning")
    return (sys.executable, "-m", "uvicorn", "--factory", f"flows.servers.guard:{factory}", *options)


def warning(host: str) -> str:
    """What follows from listening there: nothing where only this machine can ask.

    >>> warning("127.0.0.1"), warning("localhost"), warning("0.0.0.0")[:44]
    ('', '', 'Other machines can reach these servers at 0.')
    """
    if host in ("localhost", "::1") or host.startswith("127."):
        return ""
    told = f"Other machines can reach these servers at {host}. Prefect asks for the secret, unencrypted; MLflow asks nobody: whoever can"
    names = f"Both answer to addresses and to this machine's name; to other names if {NAMES} lists them."
    return f"{told} may change every run and model. Let only machines that you trust through, or put a proxy that asks in front. {names}"


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


def embedded(place: Place) -> Api:
    """A Prefect API until this process exits, with a secret that only this process and its children know.

    Prefect would start one by itself, but only when the first flow runs, after importing all of its server into this
    process, and it would leave it behind on SIGTERM. This one starts while we import torch. It ends after everything
    that Prefect, imported later, still sends at exit.
    """
    server = prefect_server(_free_port(), fresh(), pages=False)
    stack = ExitStack()
    atexit.register(stack.close)
    process = stack.enter_context(_running(server, place))
    ready = lambda: _wait(server, process, place, threading.Event())  # noqa: E731
    return Api(f"{server.address}/api", server.environment[SERVER], ready)


def find_server(place: Place) -> str | None:
    """The API address of the server to work with: PREFECT_API_URL, else the one that `evergreen up` runs; None: embedded.

    What the server of `evergreen up` wants of whoever calls is put where Prefect's client looks for it; no other server is sent it.

    Raises:
        StoreError: PREFECT_API_URL is set and nothing answers there, or the server does not let us in.
    """
    given = os.environ.get("PREFECT_API_URL", "").rstrip("/")
    if given and not answers(f"{given}/health"):
        told = f"PREFECT_API_URL is {shown(given)}, and no Prefect server answers there"
        raise StoreError(f"{told}; start one (`evergreen up`) or unset it")
    ours = noticed(place)
    if given and given.replace("//localhost:", f"//{HOST}:") != ours:
        from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY  # of a profile too; it has its address already

        _admitted(given, os.environ.get(CLIENT) or PREFECT_API_AUTH_STRING.value(), PREFECT_API_KEY.value())
        return given
    if ours and answers(f"{ours}/health"):
        if CLIENT not in os.environ and (secret := kept(place)):
            os.environ[CLIENT] = secret
        _admitted(ours, os.environ.get(CLIENT))
        return given or ours
    return None


def _admitted(address: str, secret: str | None, key: str | None = None) -> None:
    if refused(address, secret, key):
        told = f"the Prefect server at {shown(address)} does not let us in; set {CLIENT} to what it asks for"
        raise StoreError(f"{told} (of `evergreen up`: what .prefect/secret in its project holds)")


def announced(place: Place) -> str | None:
    """The address of the API of a Prefect server that `evergreen up` runs for this project, None if there is none."""
    address = noticed(place)
    return address if address and answers(f"{address}/health") else None


def noticed(place: Place) -> str | None:
    """The API address of the Prefect server that this project's `evergreen up` runs now; None where none does."""
    try:
        with _notice(place).open() as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:  # held by the `evergreen up` that wrote it: nobody else has its port, and is sent its secret
        try:
            return f"{json.loads(_notice(place).read_text())['prefect']}/api"
        except (OSError, ValueError, KeyError, TypeError):
            return None
    except OSError:
        return None
    return None


def answers(url: str) -> bool:
    """Whether a server says within two seconds that it is well."""
    try:
        with urllib.request.urlopen(request(url), timeout=2) as reply:
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
    notice.unlink(missing_ok=True)  # of one that was killed; never what another one holds: the port would be taken
    with notice.open("x") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        json.dump({server.name.lower(): server.address for server in servers}, file)
        file.flush()
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


def _running(server: Server, place: Place) -> AbstractContextManager[subprocess.Popen[bytes]]:
    hidden = ("PREFECT_API_URL", "PREFECT_API_KEY", CLIENT, SERVER, "MLFLOW_TRACKING_", *server.hidden)
    known = {key: value for key, value in os.environ.items() if not key.startswith(hidden) or key in ENVIRONMENT}
    return child(server.command, known | dict(server.environment) | {PARENT: str(os.getpid())}, _log(server, place))


def _wait(server: Server, process: subprocess.Popen[bytes], place: Place, stop: threading.Event) -> None:
    deadline = time.monotonic() + _START
    while not stop.is_set() and not answers(f"{server.address}{server.health}"):
        _check_alive(server, process, place)
        if time.monotonic() > deadline:
            raise StoreError(f"{server.name} does not answer at {server.address} after {_START:.0f} s; see {_log(server, place)}")
        stop.wait(0.2)


def _check_alive(server: Server, process: subprocess.Popen[bytes], place: Place) -> None:
    if process.poll() is not None:
        raise StoreError(f"{server.name} ended by itself; see {_log(server, place)}")


def _log(server: Server, place: Place) -> Path:
    return place.root / ".prefect" / f"up-{server.name.lower()}.log"
