"""Every test process has a home of its own: nothing of the user is read or changed, and nothing leaves the machine."""

import atexit
import contextlib
import multiprocessing
import os
import shutil
import sqlite3
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

_HOME = Path(tempfile.mkdtemp(prefix="evergreen-tests-"))
atexit.register(shutil.rmtree, _HOME, ignore_errors=True)

# before anything imports prefect, mlflow, dvc or torch: they read these once
os.environ.update(
    {
        "HOME": str(_HOME),
        "DVC_SITE_CACHE_DIR": str(_HOME / "dvc"),
        "PREFECT_HOME": str(_HOME / "prefect"),
        "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "MLFLOW_DISABLE_TELEMETRY": "true",
        "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
        "DO_NOT_TRACK": "true",
        "DVC_NO_ANALYTICS": "1",
        "WANDB_MODE": "disabled",
        "HF_HUB_OFFLINE": "1",
        "MPLBACKEND": "agg",
        "GIT_CONFIG_GLOBAL": os.devnull,
        "COLUMNS": "200",
        "NO_COLOR": "1",
    }
)
for _threads in ("OMP_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_threads, "1")
for _user in (
    "EVERGREEN_ROOT",
    "EVERGREEN_DATA",
    "EVERGREEN_ARTIFACTS",
    "PREFECT_API_URL",
    "PREFECT_API_AUTH_STRING",
    "MLFLOW_TRACKING_URI",
):
    os.environ.pop(_user, None)


# no test cuts the power, and what a killed process wrote the kernel still has: of these processes nothing waits for the disk, which took
# 5 ms for a file and 25 ms for a change in a database; those that tests start wait as ever
os.fsync = lambda file: None
_connect = sqlite3.connect


def _unhurried(*arguments: Any, **options: Any) -> sqlite3.Connection:
    connection = _connect(*arguments, **options)
    with contextlib.suppress(sqlite3.DatabaseError):  # of what is no database, whoever opened it is told
        connection.execute("PRAGMA synchronous=OFF")
    return connection


sqlite3.connect = sqlite3.dbapi2.connect = _unhurried


@pytest.fixture(autouse=True)
def _environment_is_put_back() -> Iterator[None]:
    before, path = dict(os.environ), [*sys.path]  # MLflow puts the code that came with a model in front of it
    yield
    os.environ.clear()
    os.environ.update(before)
    sys.path[:] = path


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty project, which is also the current folder."""
    monkeypatch.setenv("EVERGREEN_ROOT", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def prefect_server(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[None]:
    """A Prefect API on a database of its own; ten seconds, so only tests that run a whole flow ask for it."""
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, PREFECT_FLOWS_HEARTBEAT_FREQUENCY, temporary_settings

    from flows.servers.servers import embedded
    from flows.settings import Place

    own = embedded(Place(tmp_path_factory.mktemp("server")))
    import cl.run  # noqa: F401 - this and the next line take seconds, better spent while the server starts

    request.getfixturevalue("empty_store")
    own.ready()
    # no heartbeat: a flow that ends waits up to a second for it
    answering = {PREFECT_API_URL: own.address, PREFECT_API_AUTH_STRING: own.secret}
    with temporary_settings({**answering, PREFECT_FLOWS_HEARTBEAT_FREQUENCY: None}):
        yield


@pytest.fixture(scope="session")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow's database with its tables and nothing in them: making one takes seconds, copying one does not."""
    from flows.settings import Place
    from flows.tracking.runs import connect

    place = Place(tmp_path_factory.mktemp("store"))
    connect(place)
    os.environ.pop("MLFLOW_TRACKING_URI", None)  # mlflow leaves it behind for child processes
    return place.runs / "mlflow.db"


@pytest.fixture
def stored(project: Path, empty_store: Path) -> Path:
    """A project whose MLflow database exists."""
    (project / "mlruns").mkdir()
    shutil.copy(empty_store, project / "mlruns" / "mlflow.db")
    return project


def processes() -> Any:
    """Makes processes out of a clean one that has imported the slow things once: a fork of this one inherits Prefect's threads."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tests.test_resume", "tests.test_ingest"])
    os.environ["PYTHONPATH"] = str(Path(__file__).parents[1])  # it does not know where pytest found these modules
    return context


COLOURS = """
name: colours
model: {name: tiny}
stream:
  kind: classes
  sources: {colours: colours}
  increment: 2
  template: "a {} square"
method: finetune
train: {epochs: 1, batch_size: 8, lr: 1.0e-3}
compare: {methods: [zero_shot, finetune]}
"""


def lay_out(project: Path) -> Path:
    """A small data set and a config that learns its four classes in two sessions; returns the config."""
    from cl.data.table import write
    from tests.make import table

    write({"train": table(range(4), 8), "test": table(range(4), 4, seed=5)}, project / "data" / "colours")
    (project / "colours.yaml").write_text(COLOURS)
    return project / "colours.yaml"
