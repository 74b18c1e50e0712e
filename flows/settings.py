"""Where a project keeps things, and the environment its three servers and libraries are started with."""

import importlib.util
import logging
import os
import tempfile
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from cl.errors import ConfigError, EvergreenError, StoreError
from flows.addresses import shown

MARKS = (".evergreen", "data.dvc", "pyproject.toml")
ENVIRONMENT = {
    "DO_NOT_TRACK": "true",  # MLflow takes only this word for it
    "DVC_NO_ANALYTICS": "1",
    "MLFLOW_ALLOW_PICKLE_DESERIALIZATION": "false",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",  # the default of 7 waits four minutes, at each request, for a server that is away
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false",  # saves a process of 236 MB
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "OMP_WAIT_POLICY": "PASSIVE",  # threads that spin while they wait make a shared machine ten times slower
    "PREFECT_CLIENT_MAX_RETRIES": "3",  # 15 seconds; the default of 5 waits two minutes, at each request, for a server that is away
    "PREFECT_LOGGING_INTERNAL_LEVEL": "CRITICAL",  # else each event that such a server misses is printed
    "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
    "PREFECT_SERVER_CONCURRENCY_LEASE_STORAGE": "prefect.server.concurrency.lease_storage.filesystem",  # in memory, a restart loses them
    "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "60",  # the default of 20 s is not enough for a busy machine
    "PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL": "CRITICAL",  # the command line tells its own story; `serve` sets INFO
    "PYTHONSAFEPATH": "1",  # a child starts in the project, whose own folder `flows` or `torch.py` is not ours to import
    "WANDB_MODE": "disabled",  # avalanche imports it
}
EMBEDDED = "EVERGREEN_EMBEDDED"  # set where the Prefect server is our own and ends with us
CHATTY = ("lightning", "lightning.pytorch", "lightning.fabric", "mlflow", "alembic", "dvc", "httpx", "open_clip", "matplotlib", "fontTools")
DVC_BARS = ("dvc.progress", "dvc_data.callbacks")  # they show bars unless their loggers are silent, across the one that we show
DRIVERS = {"s3": "boto3", "gs": "google.cloud.storage"}
RUN_LOGS = ("prefect.flow_runs", "prefect.task_runs")


@dataclass(frozen=True)
class Place:
    """The folders of one project; everything a run writes lies under `runs`."""

    root: Path

    @classmethod
    def find(cls, start: Path | None = None) -> "Place":
        """The nearest folder, from `start` (default: here) upwards, that one of MARKS is in, else `start`.

        The environment variable EVERGREEN_ROOT, which every process of a run inherits, is believed first.

        Raises:
            ConfigError: the folder that we are in was removed.
        """
        given = os.environ.get("EVERGREEN_ROOT")
        if given and start is None:
            return cls(Path(given).resolve())
        try:
            here = (start or Path.cwd()).resolve()
        except FileNotFoundError as error:
            raise ConfigError("the folder that you are in is not there any more; change to one that is") from error
        marked = (folder for folder in (here, *here.parents) if any((folder / mark).exists() for mark in MARKS))
        return cls(next(marked, here))

    @property
    def data(self) -> Path:
        """The data sets that `data.dvc` pins."""
        return self.root / "data"

    def data_in(self, typed: str | None = None) -> Path:
        """The folder with the data sets: as somebody typed it or EVERGREEN_DATA names it, from here; else the project's own."""
        given = typed or os.environ.get("EVERGREEN_DATA")
        return Path(os.path.abspath(Path(given).expanduser())) if given else self.data

    @property
    def runs(self) -> Path:
        """MLflow's database and artifacts, and everything below."""
        return self.root / "mlruns"

    @property
    def steps(self) -> Path:
        """Learned sessions by content key: the truth that Prefect and MLflow only mirror."""
        return self.runs / "steps"

    @property
    def outlines(self) -> Path | None:
        """Streams without their images, see `cl.streams.outline`; None where nothing is kept at all."""
        return self.runs / "outlines" if self.runs.is_dir() else None

    @property
    def reports(self) -> Path:
        """The last report of every stream and comparison."""
        return self.runs / "reports"

    @property
    def versions(self) -> Path:
        """Older data versions, materialised by digest."""
        return self.runs / "data"

    def relative(self, path: str | Path) -> Path:
        """A config's path as the user meant it: absolute, else from here if it exists there, else from the project."""
        path = Path(path).expanduser()
        return path if path.is_absolute() else path.resolve() if path.exists() else self.root / path


def begin(writes: bool = True, **environment: str) -> Place:
    """What every command does first: find the project, set the environment, check that results can be kept.

    Raises:
        StoreError: they cannot.
    """
    place = Place.find()
    prepare(place, ENVIRONMENT | environment)
    quiet()
    if writes:
        check_writable(place)
    return place


def prepare(place: Place, environment: Mapping[str, str] = ENVIRONMENT) -> None:
    """Set what prefect, mlflow and dvc read when they are imported; what the user has set stays as it is."""
    for name, value in {"EVERGREEN_ROOT": str(place.root), "PREFECT_HOME": str(place.root / ".prefect"), **environment}.items():
        os.environ.setdefault(name, value)


def check_writable(place: Place) -> None:
    """Raise before any work is done when nothing could be kept.

    Raises:
        StoreError: `mlruns/`, its database, or Prefect's home cannot be made or written.
    """
    for folder in (place.runs, Path(os.environ.get("PREFECT_HOME", place.root / ".prefect"))):
        try:
            _make(folder)
            tempfile.TemporaryFile(dir=folder).close()
        except OSError as error:
            raise StoreError(f"{folder}: cannot be written ({error.strerror}); make it a writable folder, or set EVERGREEN_ROOT") from error
    database = place.runs / "mlflow.db"
    if database.exists() and not os.access(database, os.W_OK):
        raise StoreError(f"{database}: cannot be written; change its permissions")


def stores(place: Place) -> bool:
    """Whether there is a store of MLflow that this project's runs could be in; asking one that is not there would make it."""
    return bool(os.environ.get("MLFLOW_TRACKING_URI")) or (place.runs / "mlflow.db").exists()


def check_project(place: Place) -> None:
    """Raise where nothing could be found because there is no project: a command that only looks makes none.

    Raises:
        StoreError: no store, no data and nothing that marks a project; most likely a wrong folder.
    """
    if not (stores(place) or place.data.exists() or any((place.root / mark).exists() for mark in MARKS)):
        marks = " or ".join((*MARKS, "mlruns/", "data/"))
        raise StoreError(
            f"{place.root}: no project here, nor in any folder above: none holds {marks}; "
            "go to its folder, set EVERGREEN_ROOT, or make one: evergreen init"
        )


def _make(folder: Path) -> None:
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    if new:
        (folder / ".gitignore").write_text("*\n")  # what runs leave is versioned by MLflow and Prefect


def tracking_uri(place: Place) -> str:
    """MLFLOW_TRACKING_URI where it is set, else the project's own database."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{place.runs / 'mlflow.db'}"


def artifact_uri(place: Place) -> str:
    """EVERGREEN_ARTIFACTS where it is set ("s3://bucket/folder"), else the project's own folder.

    Raises:
        StoreError: it is a bucket, and the library that speaks to it is not installed.
    """
    given = os.environ.get("EVERGREEN_ARTIFACTS")
    driver = DRIVERS.get(str(given).partition("://")[0])
    if driver and not importlib.util.find_spec(driver):
        raise StoreError(f"EVERGREEN_ARTIFACTS is {shown(str(given))}, which needs {driver}; pip install 'evergreen-clip[s3]' or [gs]")
    return given or (place.runs / "artifacts").as_uri()


def quiet() -> None:
    """Libraries speak up from warnings on, and a user's mistake is one line in Prefect's logs, not a traceback."""
    for name in CHATTY:
        logging.getLogger(name).setLevel(logging.WARNING)
    for name in DVC_BARS:
        logging.getLogger(name).setLevel(logging.CRITICAL)
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)  # a traceback of what is raised, and told, anyway
    for name in ("lightning.pytorch.utilities.rank_zero", "lightning.fabric.utilities.rank_zero"):
        logging.getLogger(name).setLevel(logging.WARNING)
    for message in (".*no QP solver.*", ".*LeafSpec.*", ".*does not have many workers.*", ".*isinstance\\(treespec.*"):
        warnings.filterwarnings("ignore", message=message)
    for name in RUN_LOGS:
        logger = logging.getLogger(name)
        if _plain not in logger.filters:
            logger.addFilter(_plain)


def _plain(record: logging.LogRecord) -> bool:
    if record.exc_info and isinstance(record.exc_info[1], EvergreenError):
        record.msg, record.args, record.exc_info = str(record.exc_info[1]), (), None
    return not (record.name == "prefect.task_runs" and record.levelno == logging.INFO and str(record.msg).startswith("Finished in state"))
