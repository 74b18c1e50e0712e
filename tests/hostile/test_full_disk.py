# ruff: noqa: F811 - the fixture `evergreen` is another module's
"""A disk that is full, a database that is held: one sentence, exit code 2, and no half-written file stays."""

import errno
import logging
import os
import sqlite3
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy.exc
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from safetensors import SafetensorError

from cl.data.table import write as write_data
from cl.disk.files import write_json
from cl.errors import DataError, ModelError, StoreError
from cl.models.hugging_face import write as write_hugging_face
from cl.reports.write import write as write_report
from cl.run import advance, bundle, plan, run
from cl.store.bundle import write_bundle
from flows.causes import cause
from flows.learn.job import job_of, planned
from flows.registry.champion import CHAMPION, change
from flows.settings import Place
from flows.tracking.runs import connect, owner
from tests.conftest import lay_out
from tests.make import table, tiny
from tests.test_cli import Evergreen, evergreen  # noqa: F401


@pytest.fixture
def full(monkeypatch: pytest.MonkeyPatch) -> None:
    """No byte reaches the disk any more, as the system and as safetensors say it."""

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    def cut(tensors: Any, path: Path, metadata: Any = None) -> None:
        path.write_bytes(b"half of it")
        raise SafetensorError("Error while serializing: I/O error: No space left on device (os error 28)")

    monkeypatch.setattr("cl.disk.durable.os.fsync", refuse)
    monkeypatch.setattr("cl.disk.tensors.save_file", cut)
    monkeypatch.setattr("cl.disk.tensors.shutil.disk_usage", lambda _: SimpleNamespace(free=0))


def test_a_state_that_cannot_be_kept(project: Path, request: pytest.FixtureRequest) -> None:
    job = job_of(str(lay_out(project)))
    planned(job)
    request.getfixturevalue("full")
    with pytest.raises(StoreError, match=r"states/\w+: cannot be written \(No space left on device\); free space"):
        advance(planned(job), 0, job.place.steps)
    assert not [*project.rglob("*.part")] and not [*project.rglob("state.safetensors")]


def test_afterwards_the_same_goes_on(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(str(lay_out(project)))
    with monkeypatch.context() as once:
        once.setattr("cl.disk.durable.os.fsync", lambda _: (_ for _ in ()).throw(OSError(errno.ENOSPC, "full")))
        with pytest.raises(StoreError):
            advance(planned(job), 0, job.place.steps)
    assert advance(planned(job), 0, job.place.steps).index == 0


@pytest.mark.parametrize("kind", ["json", "owner", "report", "model", "hugging_face", "bundle", "data"])
def test_whatever_is_written_leaves_no_part(kind: str, project: Path, request: pytest.FixtureRequest) -> None:
    learned = plan(planned(job_of(str(lay_out(project)))).config, project / "data", "1")
    report = run(learned, project / "steps")
    asked = bundle(learned, 2, project / "steps")
    (project / "out").mkdir()
    request.getfixturevalue("full")
    acts = {
        "json": lambda: write_json({}, project / "out" / "a.json"),
        "owner": lambda: owner(Place(project)),
        "report": lambda: write_report([report], project / "out"),
        "model": lambda: tiny().save(project / "out" / "model"),
        "hugging_face": lambda: write_hugging_face(tiny(), project / "out"),
        "bundle": lambda: write_bundle(asked, project / "out"),
        "data": lambda: write_data({"train": table([0], 1)}, project / "out"),
    }
    with pytest.raises((OSError, StoreError, ModelError, DataError)) as caught:
        acts[kind]()
    assert cause(caught.value) and "No space left" in str(caught.value), "the command line can say so"
    assert not [*project.rglob("*.part")]


def database(code: int, text: str) -> MlflowException:
    below = sqlite3.OperationalError(text)
    below.sqlite_errorcode = code  # type: ignore[misc]
    error = MlflowException(text)
    error.__cause__ = sqlalchemy.exc.OperationalError("insert", {}, below)
    return error


@pytest.mark.parametrize(
    ("code", "told"),
    [
        (sqlite3.SQLITE_FULL, "the disk that holds the database is full"),
        (sqlite3.SQLITE_BUSY, "another process writes to the database and holds it"),
        (sqlite3.SQLITE_BUSY | (2 << 8), "another process writes to the database and holds it"),
    ],
)
def test_what_mlflow_cannot_write_is_told_by_promote(
    code: int,
    told: str,
    stored: Path,
    evergreen: Evergreen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    client = connect(Place(stored))
    client.create_registered_model("colours")
    client.create_model_version("colours", "file:///nowhere")

    def refuse(*_: Any) -> None:
        raise database(code, "(sqlite3.OperationalError) no")

    monkeypatch.setattr(MlflowClient, "set_registered_model_tag", refuse)
    answer = evergreen("promote", "colours", "1")
    assert answer.code == 2 and told in answer.err and answer.err.count("\n") == 1


@pytest.mark.parametrize("command", ["update", "status", "run"])
def test_a_full_disk_is_one_sentence_of_every_command(
    command: str,
    stored: Path,
    evergreen: Evergreen,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = lay_out(stored)
    error = OSError(errno.ENOSPC, "No space left on device", "/data/x")
    where = {"update": "cl.streams.arrivals.drafts", "status": "cl.streams.outline.build_stream", "run": "cl.streams.outline.build_stream"}[
        command
    ]
    monkeypatch.setattr(where, lambda *_: (_ for _ in ()).throw(error))
    answer = evergreen(command, config)
    assert answer.code == 2 and answer.err.splitlines()[-1].startswith("evergreen: /data/x: no space left on the disk")
    assert "Traceback" not in answer.err and not [*stored.rglob("*.part")]


def test_a_database_that_could_not_be_made_whole_is_made_anew(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def half(client: MlflowClient, **_: Any) -> None:
        Path(client.tracking_uri.removeprefix("sqlite:///")).write_bytes(b"half")
        raise database(sqlite3.SQLITE_FULL, "full")

    with monkeypatch.context() as once:
        once.setattr(MlflowClient, "search_experiments", half)
        with pytest.raises(StoreError, match="the disk that holds the database is full"):
            connect(Place(project))
    assert not [*(project / "mlruns").glob("*mlflow.db*")]  # half a one would stay half


def test_a_held_database_is_told_for_what_it_is(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Really held: MLflow's own wait is cut short."""
    client = connect(Place(stored))
    client.create_registered_model("colours")
    client.create_model_version("colours", "file:///nowhere")
    holder = sqlite3.connect(stored / "mlruns" / "mlflow.db")
    holder.execute("begin exclusive")
    import mlflow.tracking._model_registry.utils as registry

    assert not logging.getLogger("mlflow.store.db.utils").isEnabledFor(logging.ERROR), "one line, and not forty of SQLAlchemy's before it"
    store = registry._get_store()
    with store.engine.connect() as held:
        held.connection.execute("pragma busy_timeout = 10")
        with pytest.raises(sqlalchemy.exc.OperationalError) as caught:
            held.exec_driver_sql("select 1 from registered_models")
    holder.rollback()
    assert "another process writes" in str(cause(caught.value))
    assert change(Place(stored), client, "colours", CHAMPION, "1", "free again").state == "done"
