"""A team's services, started here for real: PostgreSQL for MLflow and Prefect, an S3-compatible server for artifacts and data."""

import contextlib
import getpass
import importlib.util
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow import MlflowClient

from flows.servers.servers import HOST
from flows.tracking.runs import COMPARISON
from tests.conftest import lay_out
from tests.serving import free, serving
from tests.test_readme import blocks

pytestmark = pytest.mark.slow
EVERGREEN = (sys.executable, "-m", "flows")
NEEDED = ("moto", "boto3", "dvc_s3", "psycopg2")


@pytest.fixture(scope="module")
def libraries() -> None:
    missing = [name for name in NEEDED if not importlib.util.find_spec(name)]
    if missing:
        pytest.skip(f"{', '.join(missing)} not installed; pip install 'evergreen-clip[team-test]'")


@pytest.fixture
def postgres() -> Iterator[str]:
    """host:port of a PostgreSQL server of its own, whose superuser `evergreen` needs no password; the databases are made."""
    programs = [shutil.which("initdb"), *map(str, sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), reverse=True))]
    initdb = next((Path(path).resolve() for path in programs if path), None)  # its siblings lie where it really is
    if initdb is None:
        pytest.skip("no PostgreSQL server on this machine; apt-get install postgresql")
    user = "postgres" if getpass.getuser() == "root" else getpass.getuser()  # initdb refuses root
    with tempfile.TemporaryDirectory(prefix="evergreen-postgres-") as folder:  # pytest's own are closed to other users
        shutil.chown(folder, user)
        with _served(initdb, user, Path(folder)) as port:
            yield f"{HOST}:{port}"


@contextlib.contextmanager
def _served(initdb: Path, user: str, folder: Path) -> Iterator[int]:
    def call(program: str, *words: str) -> None:
        command = [str(initdb.with_name(program)), *words]
        alone = ["runuser", "-u", user, "--", *command] if getpass.getuser() == "root" else command
        subprocess.run(alone, check=True, cwd=folder, stdout=subprocess.DEVNULL)

    port, data = free(), str(folder / "data")
    call("initdb", "-D", data, "-U", "evergreen", "--auth", "trust", "--encoding", "UTF8", "--locale", "C.UTF-8")
    call("pg_ctl", "-D", data, "-w", "-l", str(folder / "log"), "-o", f"-p {port} -h {HOST} -k {folder}", "start")
    try:
        for name in ("mlflow", "prefect"):
            call("createdb", "-h", HOST, "-p", str(port), "-U", "evergreen", name)
        yield port
    finally:
        call("pg_ctl", "-D", data, "-m", "fast", "stop")


@pytest.fixture(scope="module")
def bucket(libraries: None) -> Iterator[str]:
    """The address of an S3-compatible server with a bucket `team`."""
    import boto3

    port = free()
    with subprocess.Popen([sys.executable, "-m", "moto.server", "-H", HOST, "-p", str(port)], stderr=subprocess.DEVNULL) as server:
        try:
            address = f"http://{HOST}:{port}"
            for _ in range(300):
                with contextlib.suppress(OSError):
                    urllib.request.urlopen(f"{address}/moto-api/", timeout=1).close()
                    break
                time.sleep(0.1)
            boto3.client("s3", "us-east-1", endpoint_url=address, aws_access_key_id="a", aws_secret_access_key="b").create_bucket(
                Bucket="team"
            )
            yield address
        finally:
            server.terminate()


def run(project: Path, *command: object) -> str:
    done = subprocess.run([*map(str, command)], cwd=project, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr[-3000:] + done.stdout[-1000:]
    return done.stdout


def settings_of_a_team(postgres: str, bucket: str) -> None:
    os.environ |= {
        "MLFLOW_TRACKING_URI": f"postgresql://evergreen@{postgres}/mlflow",
        "PREFECT_SERVER_DATABASE_CONNECTION_URL": f"postgresql+asyncpg://evergreen@{postgres}/prefect",
        "EVERGREEN_ARTIFACTS": "s3://team/artifacts",
        "MLFLOW_S3_ENDPOINT_URL": bucket,
        "AWS_ACCESS_KEY_ID": "key-of-the-test",
        "AWS_SECRET_ACCESS_KEY": "secret-of-the-test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "PYTHONPATH": str(Path(__file__).parents[1]),
    }


def test_a_stream_is_learned_against_postgresql_and_s3_by_settings_alone(project: Path, postgres: str, bucket: str) -> None:
    settings_of_a_team(postgres, bucket)
    lay_out(project)
    dvc, git = (sys.executable, "-m", "dvc"), ("git", "-c", "user.name=a", "-c", "user.email=a@b")
    run(project, *git, "init", "-q")
    run(project, *dvc, "init", "-q")
    run(project, *dvc, "remote", "add", "-d", "team", "s3://team/data")
    run(project, *dvc, "remote", "modify", "team", "endpointurl", bucket)
    run(project, *dvc, "add", "-q", "data")
    run(project, *dvc, "push", "-q")
    run(project, *git, "add", "-A")
    run(project, *git, "commit", "-qm", "data")

    run(project, *EVERGREEN, "run", "colours.yaml")
    _mlflow_is_in_postgresql_and_s3(postgres)
    assert not (project / "mlruns" / "mlflow.db").exists() and not (project / "mlruns" / "artifacts").exists()
    assert _asked(postgres, "prefect", "select count(*) from flow_run where state_type = 'COMPLETED'") == 1
    assert not list(project.glob(".prefect/*.db"))
    _no_secret(project, postgres)

    # a colleague: clones, pulls the data, and finds the same version
    there = project.with_name("colleague")
    run(project.parent, "git", "clone", "-q", project, there)
    run(there, *dvc, "pull", "-q")
    assert (there / "data" / "colours" / "train.parquet").read_bytes() == (project / "data" / "colours" / "train.parquet").read_bytes()


def _asked(postgres: str, database: str, query: str) -> int:
    import psycopg2

    connected = psycopg2.connect(f"postgresql://evergreen@{postgres}/{database}")
    with contextlib.closing(connected), connected.cursor() as cursor:
        cursor.execute(query)
        return int(cursor.fetchone()[0])


def _mlflow_is_in_postgresql_and_s3(postgres: str) -> None:
    import boto3

    assert _asked(postgres, "mlflow", "select count(*) from runs where status = 'FINISHED'") == 4  # the stream, its start, two sessions
    assert _asked(postgres, "mlflow", "select count(*) from model_versions") == 1
    listed = boto3.client("s3", endpoint_url=os.environ["MLFLOW_S3_ENDPOINT_URL"]).list_objects_v2(Bucket="team", Prefix="artifacts/")
    names = [entry["Key"] for entry in listed["Contents"]]
    assert any(name.endswith("report/report.html") for name in names) and any(name.endswith(".safetensors") for name in names)
    assert not any(name.endswith((".pkl", ".pickle", ".pt", ".pth")) for name in names)


def _no_secret(project: Path, postgres: str) -> None:
    kept = [path for folder in ("mlruns", ".prefect") for path in (project / folder).rglob("*") if path.is_file()]
    assert kept and not [str(path) for path in kept if b"secret-of-the-test" in path.read_bytes()]
    for table, column in (("params", "value"), ("tags", "value")):
        assert _asked(postgres, "mlflow", f"select count(*) from {table} where {column} like '%secret-of-the-test%'") == 0
    assert _asked(postgres, "prefect", "select count(*) from log where message like '%secret-of-the-test%'") == 0


def test_a_comparison_goes_through_a_work_pool_as_the_page_says_and_mlflow_shows_it(project: Path, postgres: str, bucket: str) -> None:
    settings_of_a_team(postgres, bucket)
    lay_out(project)
    os.environ["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    *lines, worker = blocks(Path(__file__).parents[1] / "docs" / "team" / "many_workers.md", "sh")[0].splitlines()
    assert worker.startswith("prefect worker start")
    said = project / "worker.log"
    with serving("evergreen", project) as (prefect, mlflow), said.open("w") as log:
        script = "\n".join(lines).replace("127.0.0.1:4200", f"{HOST}:{prefect}")
        run(project, "bash", "-euo", "pipefail", "-c", script)
        exported = "\n".join(line for line in script.splitlines() if line.startswith("export "))
        os.environ.pop("PREFECT_LOGGING_HANDLERS_CONSOLE_LEVEL")
        with subprocess.Popen(["bash", "-euc", f"{exported}\nexec {worker}"], cwd=project, stdout=log, stderr=log) as working:
            try:
                ordered = "prefect deployment run compare/compare --param config=colours.yaml --watch --watch-interval 2"
                told = subprocess.run(["bash", "-euc", f"{exported}\ncd /\n{ordered}"], cwd=project, capture_output=True, timeout=900)
            finally:
                _ended(working)
        assert told.returncode == 0, said.read_text()[-6000:]
        _the_comparison_is_in_mlflow(f"http://{HOST}:{mlflow}")
    through = (
        "select count(*) from flow_run where state_type = 'COMPLETED' and work_queue_id is not null and infrastructure_pid is not null"
    )
    assert _asked(postgres, "prefect", through) == 1


def _ended(working: "subprocess.Popen[bytes]") -> None:
    working.send_signal(signal.SIGINT)
    try:
        working.wait(120)
    except subprocess.TimeoutExpired:  # it waits for a server that is gone
        working.kill()


def _the_comparison_is_in_mlflow(address: str) -> None:
    client = MlflowClient(address)
    (experiment,) = client.search_experiments(filter_string="name = 'colours'")
    runs = client.search_runs([experiment.experiment_id])
    compared = {run.data.tags["evergreen.method"]: run for run in runs if COMPARISON in run.data.tags}
    assert set(compared) == {"zero_shot", "finetune"} and all(run.info.status == "FINISHED" for run in compared.values())
    (at,) = {run.data.tags[COMPARISON] for run in compared.values()}
    assert client.get_run(at).info.status == "FINISHED" and client.get_run(at).data.metrics
    assert "report/report.html" in {file.path for file in client.list_artifacts(at, "report")}


def test_a_bucket_without_its_library_is_told_in_one_line(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from cl.errors import StoreError
    from flows.settings import Place, artifact_uri

    monkeypatch.setenv("EVERGREEN_ARTIFACTS", "s3://team/artifacts")
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(StoreError, match=r"needs boto3; pip install 'evergreen-clip\[s3\]'"):
        artifact_uri(Place(project))
