"""MLflow: one run per stream, one nested run per session; found again by content key, so that nothing is told twice."""

import contextlib
import fcntl
import json
import os
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities import Dataset, DatasetInput, Experiment, InputTag, Param, Run
from mlflow.entities import Metric as MlflowMetric
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import SQLAlchemyError

from cl.disk import beneath
from cl.disk.durable import beside
from cl.errors import StoreError, again
from cl.names import as_key
from cl.names import slug as slug
from cl.reports.items import Figure, Item, Metric, Table, Tag, Text
from flows.addresses import hushed, request, shown
from flows.causes import cause
from flows.project import LOCK, claim, marks
from flows.settings import Place, artifact_uri, check_writable, quiet, tracking_uri
from flows.tracking.params import brief, flat

KEY, KIND, LOGGED, MODEL, STATE, COMPARISON, ERROR, SESSION, SESSIONS, COMMAND, ATTEMPT, AGAIN = (
    f"evergreen.{name}"
    for name in ("key", "kind", "logged", "model", "state", "comparison", "error", "session", "sessions", "command", "attempt", "again")
)
INHERITED = ("evergreen.stream", "evergreen.method", "evergreen.seed")  # what a session's run has of its stream's, for MLflow's columns
PARENT = "mlflow.parentRunId"


@contextmanager
def locked(place: Place, name: str, waiting: Callable[[], None] | None = None) -> Iterator[None]:
    """Hold a named lock of this project, after `waiting` is told if another holds it; the kernel frees it when its holder dies."""
    folder = place.runs / "locks"
    folder.mkdir(parents=True, exist_ok=True)
    with beneath.lock(folder / name) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if waiting:
                waiting()
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def owner(place: Place) -> str:
    """The name of this project's folder of locks, which no other project has, on whatever machine: a lock means something in it alone."""
    path = place.runs / "locks" / "owner"
    with locked(place, "owner.lock"):
        if not os.path.lexists(path):
            with beside(path) as part:
                part.write_text(uuid.uuid4().hex)
        with beneath.lock(path) as file:
            return file.read(100).decode()


def connect(place: Place) -> MlflowClient:
    """A client of the store, which is made where there is none yet.

    Raises:
        StoreError: it cannot be reached or written.
    """
    check_writable(place)
    quiet()  # mlflow sets up its own loggers when it is imported
    uri = tracking_uri(place)
    mlflow.set_tracking_uri(uri)
    try:
        _answers(uri)
        with locked(place, "mlflow.lock"):  # two processes that open a new database at once spoil it for good
            _make(place, uri)
            client = MlflowClient(uri)
            client.search_experiments(max_results=1)
    except ImportError as error:
        what = "pip install 'evergreen-clip[postgres]'" if uri.startswith("postgresql") else "install it"
        raise StoreError(f"{shown(uri)}: MLflow's store needs a driver that is not installed ({error.name}); {what}") from error
    except (MlflowException, SQLAlchemyError, OSError, ValueError) as error:
        if known := cause(error):
            raise StoreError(f"{shown(uri)}: {known}") from error
        server = "start the server that MLFLOW_TRACKING_URI names, or unset it"
        how = "put a copy of the file back" if uri.endswith("/mlruns/mlflow.db") else server
        raise StoreError(f"{shown(uri)}: MLflow's store cannot be opened ({_first_line(error)}); {how}") from error
    return client


def _make(place: Place, uri: str) -> None:
    """Make the project's own database, if that is asked for and is not there; of one half made MLflow makes nothing any more."""
    target = place.runs / "mlflow.db"
    if uri == f"sqlite:///{target}" and not target.exists():
        for left in target.parent.glob(f".{target.name}.*"):  # of who was killed meanwhile; nobody else is here
            left.unlink()
        with beside(target) as part:
            MlflowClient(f"sqlite:///{part}").search_experiments(max_results=1)


class Tracker:
    """The runs of one experiment, which is one stream under any method, seed and data version."""

    def __init__(self, place: Place, experiment: str) -> None:
        """Open the store, and make it where there is none yet.

        Raises:
            StoreError: it cannot be reached or written, or the experiment or the model of that name is another project's.
        """
        self.place = place
        self.uri = tracking_uri(place)
        self.client = connect(place)
        mine = owner(place)
        try:
            with locked(place, "mlflow.lock"):
                own = self._opened(experiment)
                claim(place, self.client, own, slug(experiment), mine)
                self.experiment = str(own.experiment_id)
        except (MlflowException, OSError) as error:
            raise StoreError(f"{shown(self.uri)}: {cause(error) or f'MLflow cannot write it ({_first_line(error)})'}") from error

    def _opened(self, name: str) -> Experiment:
        if self.client.get_experiment_by_name(name) is None:
            try:
                self.client.create_experiment(name, self._artifacts(), tags=marks(self.place))
            except MlflowException as error:
                if error.error_code != "RESOURCE_ALREADY_EXISTS":  # of another machine, which was faster
                    raise
        known = self.client.get_experiment_by_name(name)
        if known.lifecycle_stage != "active":
            back = f"bring it back: mlflow experiments restore -x {known.experiment_id}, with MLFLOW_TRACKING_URI={shown(self.uri)}"
            raise StoreError(f"experiment {name!r} was deleted in MLflow; {back}; or give the config another name")
        return known

    def _artifacts(self) -> str | None:
        # a server keeps artifacts itself; a file: location would make clients go around it
        return None if self.uri.startswith("http") else artifact_uri(self.place)

    def find(self, key: str, kind: str, parent: str | None = None) -> Run | None:
        """The last run of this content, None if there is none: by the number of the try, since a clock can be set back."""
        wanted = {KEY: key, KIND: kind, **({PARENT: parent} if parent else {})}
        query = " and ".join(f"tags.`{name}` = '{value}'" for name, value in wanted.items())
        runs = self.client.search_runs([self.experiment], query)
        return max(runs, key=lambda run: (int(run.data.tags.get(ATTEMPT, 0)), run.info.start_time), default=None)

    def learned(self, state: str) -> list[str]:
        """The runs of sessions that ended in this state, the last first, below whichever run."""
        query = f"tags.`{STATE}` = '{state}' and tags.`{KIND}` = 'session'"
        return [str(run.info.run_id) for run in self.client.search_runs([self.experiment], query)]

    def open(self, key: str, kind: str, title: str, tags: Mapping[str, str], config: Mapping[str, Any]) -> tuple[str, bool]:
        """The run of this content, made if there is none, in state RUNNING; and whether it is new.

        Whoever opens it holds the lock `KEY.lock`: where that is free, nobody does.
        """
        lock = f"{owner(self.place)}/{key}"
        with locked(self.place, "mlflow.lock"):
            known = self.find(key, kind)
            if known:
                self._go_on(known.info.run_id, lock)
                return known.info.run_id, False
            source = {"mlflow.source.name": brief(tags[COMMAND]), "mlflow.source.type": "LOCAL"} if tags.get(COMMAND) else {}
            run = self.client.create_run(self.experiment, run_name=title, tags={KEY: key, KIND: kind, LOCK: lock, **source, **tags})
        self.client.log_batch(run.info.run_id, params=[Param(as_key(name), value[:6000]) for name, value in flat(config).items()])
        return run.info.run_id, True

    def _go_on(self, run_id: str, lock: str) -> None:
        self.client.set_tag(run_id, LOCK, lock)  # before it runs: it may have been another machine's
        self.client.update_run(run_id, status="RUNNING")

    def use_data(self, run_id: str, folder: str, digest: str, tags: Mapping[str, str]) -> None:
        """Say which data a run learned from; `digest` is DVC's, at most 36 characters."""
        dataset = Dataset(Path(folder).name, digest, "local", json.dumps({"uri": folder}))
        marks = [InputTag("mlflow.data.context", "training"), *(InputTag(name, value) for name, value in tags.items())]
        self.client.log_inputs(run_id, [DatasetInput(dataset, marks)])

    def attempt(self, parent: str, key: str, session: str, state: str) -> str:
        """The nested run of a session, in state RUNNING: the one that was cut short goes on; after one that failed comes a new one."""
        whole = self.client.get_run(parent)
        lock = whole.data.tags[LOCK]
        last = self.find(key, "session", parent)
        if last and last.info.status in ("RUNNING", "KILLED"):
            self._go_on(last.info.run_id, lock)
            return str(last.info.run_id)
        number = int(last.data.tags.get(ATTEMPT, 0)) + 1 if last else 0
        tags = {KEY: key, KIND: "session", PARENT: parent, LOCK: lock, STATE: state, SESSION: session, ATTEMPT: str(number)}
        tags |= {name: whole.data.tags[name] for name in INHERITED if name in whole.data.tags}
        named = f"{session} ({whole.info.run_name})"  # lists that are flat have many sessions of that name
        return str(self.client.create_run(self.experiment, run_name=named, tags=tags).info.run_id)

    def reached(self, run_id: str) -> dict[str, int]:
        """The last step of each metric that a run has."""
        names = self.client.get_run(run_id).data.metrics
        return {name: max(point.step for point in self.client.get_metric_history(run_id, name)) for name in names}

    @contextmanager
    def ending(self, run_id: str) -> Iterator[None]:
        """Whatever happens inside ends the run: FINISHED, FAILED on an error, which is noted, KILLED on a signal or exit."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(MlflowException, SQLAlchemyError, OSError):  # the first error is the one to be told
                if isinstance(error, Exception):
                    self.client.set_tag(run_id, ERROR, _first_line(error)[:500] or type(error).__name__)
                    self.client.set_tag(run_id, AGAIN, str(again(error)).lower())
                self.client.set_terminated(run_id, "FAILED" if isinstance(error, Exception) else "KILLED")
            raise
        self.client.set_terminated(run_id, "FINISHED")

    @contextmanager
    def answering(self) -> Iterator[None]:
        """An error inside is told as what it is where the store does not answer any more.

        Raises:
            StoreError: it does not.
        """
        try:
            yield
        except (MlflowException, SQLAlchemyError) as error:
            if known := cause(error):
                raise StoreError(f"{shown(self.uri)}: {known}") from error
            try:
                _answers(self.uri)
                self.client.search_experiments(max_results=1)
            except (MlflowException, SQLAlchemyError, OSError) as reason:
                kept = "what is learned is kept: once it answers, start again, and nothing is learned twice"
                raise StoreError(f"{shown(self.uri)}: MLflow's store does not answer any more ({_first_line(reason)}); {kept}") from error
            raise

    def write(self, run_id: str, items: Iterable[Item], when: str | None = None) -> None:
        """Put what a report is made of where MLflow shows it; metrics go in one batch.

        `when` is the ISO time that metrics are dated, by default now: with the same one, writing them again changes nothing.
        """
        moment = datetime.fromisoformat(when) if when else datetime.now(UTC)
        now, metrics = int(moment.timestamp() * 1000), []
        for item in items:
            match item:
                case Metric(name, value, step) if value == value:  # a number that does not exist is no point on a chart
                    metrics.append(MlflowMetric(as_key(name), float(value), now, step or 0))
                case Table(name, columns, rows):
                    self._table(run_id, f"{as_key(name)}.json", columns, rows)
                case Figure(name, figure):
                    self.client.log_figure(run_id, figure, f"figures/{as_key(name)}.png")
                case Tag(name, value):
                    self.client.set_tag(run_id, f"evergreen.{name}", str(value))
                case Text(name, content):
                    self.client.log_text(run_id, content, name)
                case _:
                    continue
        for start in range(0, len(metrics), 1000):
            self.client.log_batch(run_id, metrics=metrics[start : start + 1000])

    def _table(self, run_id: str, file: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        if any(artifact.path == file for artifact in self.client.list_artifacts(run_id)):
            return  # log_table would append the same rows again
        self.client.log_table(run_id, {name: [row[index] for row in rows] for index, name in enumerate(columns)}, file)

    def logged(self, run_id: str, what: str = "true") -> bool:
        """Whether `mark` has been called with the same word."""
        return self.client.get_run(run_id).data.tags.get(LOGGED) == what

    def mark(self, run_id: str, what: str = "true") -> None:
        """All that belongs to this run is written; writing it again would only repeat it."""
        self.client.set_tag(run_id, LOGGED, what)


def _answers(uri: str) -> None:
    # the client would ask a server that is away for four minutes
    if uri.startswith("http"):
        urllib.request.urlopen(request(f"{uri.rstrip('/')}/health"), timeout=5).close()


def _first_line(error: BaseException) -> str:
    return hushed(str(error)).strip().partition("\n")[0].rstrip(".")
