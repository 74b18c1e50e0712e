"""Flows: a stream is learned once, found again, told to MLflow and Prefect, and ends cleanly when something breaks."""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from mlflow.exceptions import MlflowException
from prefect import flow, task
from prefect.client.orchestration import get_client

import cl.run
from cl.errors import ConfigError, DataError, LearningError
from flows.compare import compare
from flows.learn.configs import settings
from flows.learn.job import Turn, job_of, jobs_of, planned, title
from flows.learn.session import content_key, report_of, transient
from flows.learn.shipped import find_config
from flows.pace import Beat, Ended
from flows.settings import Place
from flows.stream import learn_stream
from flows.tracking.runs import Tracker
from flows.watch import log, watched_by
from tests.conftest import lay_out

pytestmark = pytest.mark.usefixtures("prefect_server")


@pytest.fixture
def config(stored: Path) -> Path:
    """A project with a small data set, a store, and the path of a config."""
    return lay_out(stored)


class Heard:
    """Notes what a flow says while it learns."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.ended: list[str] = []
        self.over: list[Ended] = []
        self.beats: list[Beat] = []
        self.told: list[str] = []

    def begin(self, stream: str, index: int, last: int, session: str) -> None:
        self.begun.append(session)

    def progress(self, done: int, total: int, what: str, **_: Any) -> None:
        self.told.append(f"{what}: {done} of {total}")

    def heard(self, beat: Beat) -> None:
        self.beats.append(beat)

    def end(self, ended: Ended) -> None:
        self.ended.append(ended.session)
        self.over.append(ended)

    def tell(self, text: str) -> None:
        self.told.append(text)


@pytest.fixture
def unpublished(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures, pages, a model version and what the gate says of it take seconds, and most tests do not look at them."""
    monkeypatch.setattr("flows.stream.publish", lambda job, run, steps: None)
    monkeypatch.setattr("flows.stream.judge", lambda job, run, steps: None)
    monkeypatch.setattr("flows.stream.page", lambda job, run, steps: report_of(job, steps.unquote()).to_json())


@pytest.fixture
def heard() -> Iterator[Heard]:
    listener = Heard()
    with watched_by(listener):
        yield listener


def runs(project: Path, kind: str) -> list[Any]:
    tracker = Tracker(Place(project), "colours")
    page = tracker.client.search_runs([tracker.experiment], f"tags.`evergreen.kind` = '{kind}'", order_by=["attributes.start_time ASC"])
    return list(page)


def last_states() -> dict[str, str]:
    """State names of the tasks of the newest flow run, by task run name."""
    with get_client(sync_client=True) as client:
        run = client.read_flow_runs(limit=1, sort="START_TIME_DESC")[0]  # type: ignore[arg-type]
        from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId

        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run.id])))
    return {task.name: task.state.name for task in tasks if task.state and task.state.name}


def test_a_stream_is_learned_once_and_found_again_with_the_same_matrix(config: Path, heard: Heard) -> None:
    project = config.parent
    first = learn_stream(str(config), ["seed=11"])
    assert heard.begun == heard.ended == ["start", "classes 1-2", "classes 3-4"]
    learning = [(beat.session, beat.done, beat.total, beat.rate is not None) for beat in heard.beats if beat.doing == "learning"]
    assert learning == [(name, done, 2, done == 2) for name in heard.begun[1:] for done in (1, 2)]
    learned = heard.begun.copy()
    again = learn_stream(str(config), ["seed=11"])
    assert heard.begun == learned and heard.ended == learned * 2  # found, not learned
    assert again["report"]["matrix"] == first["report"]["matrix"] and again["run"] == first["run"]

    (parent,) = runs(project, "stream")
    assert parent.info.status == "FINISHED" and parent.info.run_name == "colours finetune seed 11"
    assert parent.data.params["train.lr"] == "0.001" and parent.data.params["seed"] == "11"
    assert parent.data.tags["evergreen.data"] == job_of(str(config)).data == parent.inputs.dataset_inputs[0].dataset.digest
    children = runs(project, "session")
    assert [(run.info.run_name, run.info.status) for run in children] == [
        (f"{name} (colours finetune seed 11)", "FINISHED") for name in learned
    ]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}

    client = Tracker(Place(project), "colours").client
    rows = first["report"]["matrix"]["rows"]
    charted = client.get_metric_history(parent.info.run_id, "top1/classes 1-2")
    assert [(point.step, point.value) for point in charted] == [(step, row[0]) for step, row in enumerate(rows)]
    assert [point.step for point in client.get_metric_history(children[1].info.run_id, "batch/loss")] == [0]
    assert {item.path for item in client.list_artifacts(parent.info.run_id)} >= {"matrix.json", "figures", "report", "config.yaml"}
    assert client.get_model_version("colours", "1").run_id == parent.info.run_id
    assert len(client.search_model_versions("name='colours'")) == 1


@pytest.mark.usefixtures("unpublished")
def test_prefects_page_shows_the_matrix_and_the_report(config: Path) -> None:
    learn_stream(str(config), ["seed=12"])
    with get_client(sync_client=True) as client:
        from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey

        def latest(key: str) -> Any:
            (artifact,) = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
            return artifact

        report = latest("colours-finetune-seed-12-report")
        run = client.read_flow_run(report.flow_run_id)
    assert report.data.startswith("# colours") and report.description.startswith("top-1 ") and "| classes 3-4 |" in report.data
    assert report.task_run_id is None and run.name == "colours finetune seed 12"  # the run's own page, before its tasks' tables
    assert any(tag.startswith("top-1 ") and tag.endswith(" after 2 sessions") for tag in run.tags)


@pytest.mark.usefixtures("unpublished")
def test_a_session_whose_weights_are_lost_is_learned_again_whatever_prefect_remembers(config: Path, heard: Heard) -> None:
    learn_stream(str(config), ["seed=13"])
    learn_stream(str(config), ["seed=13"])
    assert last_states()["learn 1 classes 1-2"] == "Cached"
    state = planned(job_of(str(config), ["seed=13"])).states[1]
    (Place(config.parent).steps / "states" / state / "state.safetensors").unlink()
    heard.begun.clear()
    learn_stream(str(config), ["seed=13"])
    assert heard.begun == ["classes 1-2"] and last_states()["learn 1 classes 1-2"] == "Completed"


@pytest.mark.usefixtures("unpublished")
def test_a_failing_session_is_not_retried_and_says_failed_everywhere(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tries = []

    def failing(plan: Any, index: int, *_: Any, **__: Any) -> Any:
        tries.append(index)
        if index == 1:
            raise LearningError("the loss is not finite")
        return advance(plan, index, *_, **__)

    advance = cl.run.advance
    monkeypatch.setattr("flows.learn.session.advance", failing)
    with pytest.raises(LearningError, match="not finite"):
        learn_stream(str(config), ["seed=14"])
    assert tries == [0, 1]
    assert [run.info.status for run in runs(config.parent, "stream")] == ["FAILED"]
    assert [run.info.status for run in runs(config.parent, "session")] == ["FINISHED", "FAILED"]

    monkeypatch.setattr("flows.learn.session.advance", advance)
    learn_stream(str(config), ["seed=14"])  # goes on where it stopped, in the same run
    assert [run.info.status for run in runs(config.parent, "stream")] == ["FINISHED"]
    assert [run.info.status for run in runs(config.parent, "session")] == ["FINISHED", "FAILED", "FINISHED", "FINISHED"]


@pytest.mark.usefixtures("unpublished")
def test_an_interrupted_stream_is_killed_in_mlflow(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: Any, **__: Any) -> Any:
        raise KeyboardInterrupt

    monkeypatch.setattr("flows.learn.session.advance", interrupted)
    with pytest.raises(KeyboardInterrupt):
        learn_stream(str(config), ["seed=15"])
    assert [run.info.status for run in runs(config.parent, "stream") + runs(config.parent, "session")] == ["KILLED", "KILLED"]


@pytest.mark.usefixtures("unpublished")
def test_a_write_to_mlflow_that_fails_once_is_tried_again_without_learning_again(
    config: Path, heard: Heard, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = ["away"]

    def unreliable(self: Tracker, run_id: str, *written: Any) -> None:
        if failures:
            raise MlflowException(failures.pop())
        write(self, run_id, *written)

    write = Tracker.write
    monkeypatch.setattr(Tracker, "write", unreliable)
    learn_stream(str(config), ["seed=16"])
    assert not failures and heard.begun == ["start", "classes 1-2", "classes 3-4"]
    (parent,) = runs(config.parent, "stream")
    assert parent.info.status == "FINISHED" and parent.data.metrics["top1/classes 1-2"] >= 0


def test_a_users_mistake_is_not_retried(config: Path) -> None:
    with pytest.raises(DataError, match="no data"):
        learn_stream(str(config), data_root=str(config.parent / "nothing"))
    with pytest.raises(ConfigError, match="unknown method 'best'"):
        learn_stream(str(config), ["method=best"])


@pytest.mark.usefixtures("unpublished")
def test_a_comparison_learns_every_method_and_links_their_runs_to_one_report(config: Path) -> None:
    outcome = compare(str(config), ["seed=17"])
    (comparison,) = runs(config.parent, "comparison")
    streams = runs(config.parent, "stream")
    assert comparison.info.run_id == outcome["run"] and comparison.info.status == "FINISHED"
    assert [run.data.tags["evergreen.method"] for run in streams] == ["zero_shot", "finetune"]
    assert {run.data.tags["evergreen.comparison"] for run in streams} == {outcome["run"]}
    assert not any("mlflow.parentRunId" in run.data.tags for run in streams)  # folded under it, no method would be seen
    assert {"means/last/zero_shot", "means/last/finetune", "means/average/finetune"} <= comparison.data.metrics.keys()
    page = (config.parent / "mlruns" / "reports" / outcome["run"] / "report.md").read_text()
    assert "zero_shot" in page and "finetune" in page
    assert compare(str(config), ["seed=17"]) == outcome and len(runs(config.parent, "comparison")) == 1
    points = Tracker(Place(config.parent), "colours").client.get_metric_history(outcome["run"], "means/last/finetune")
    assert len(points) == 1  # compared again, they are the same points


@pytest.mark.usefixtures("unpublished")
def test_a_stream_is_learned_from_an_older_version_of_the_data(config: Path) -> None:
    from tests.test_dvc import commit, git, tracked

    project = config.parent
    shutil.rmtree(project / "mlruns" / "artifacts", ignore_errors=True)
    data = tracked(project)
    shutil.rmtree(data / "birds")
    old = commit(project)
    git(project, "tag", "v1")
    (data / "colours" / "train.parquet").unlink()
    outcome = learn_stream(str(config), ["seed=18"], data_rev="v1")
    (parent,) = runs(project, "stream")
    assert outcome["report"]["provenance"]["data"] == old == parent.data.tags["evergreen.data"]
    assert parent.data.tags["evergreen.data_rev"] == "v1"
    assert not (data / "colours" / "train.parquet").exists()  # the working copy is as the user left it


def test_flow_parameters_are_plain_json() -> None:
    for each in (learn_stream, compare):
        kinds = {
            name: schema.get("type") or [kind.get("type") for kind in schema["anyOf"]]
            for name, schema in each.parameters.properties.items()
        }
        assert kinds["config"] == ["string", "object"] and not each.parameters.required
        assert kinds["data_rev"] == ["string", "null"] and kinds["overrides"] == ["array", "null"]


def test_what_a_user_must_mend_is_not_worth_another_try() -> None:
    from prefect.states import exception_to_failed_state
    from prefect.utilities.asyncutils import run_coro_as_sync

    def verdict(error: Exception) -> bool:
        state = run_coro_as_sync(exception_to_failed_state(error))
        assert state is not None
        return transient(None, None, state)  # type: ignore[arg-type]

    assert verdict(MlflowException("away")) and verdict(OSError("network"))
    assert not verdict(DataError("a class has no image"))


def test_prefect_keeps_a_result_under_its_content_key() -> None:
    turn = Turn(1, 2, "classes 1-2", "abc")
    assert content_key(None, {"turn": turn}) == "evergreen-abc"  # type: ignore[arg-type]


def test_the_plan_of_a_job_is_made_once_and_its_name_is_readable(config: Path) -> None:
    job = job_of(str(config))
    assert planned(job) is planned(job_of(str(config)))
    assert title(job) == "colours finetune seed 0"
    assert [title(one) for one in jobs_of(str(config))] == ["colours zero_shot seed 0", "colours finetune seed 0"]


def test_a_config_is_a_path_a_shipped_name_or_plain_values(config: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(config.parent)
    assert find_config("colours.yaml", place) == config
    elsewhere = config.parent / "data"
    monkeypatch.chdir(elsewhere)
    assert find_config("colours.yaml", place) == config  # from any folder of the project
    values = settings(str(config), [], place).model_dump(mode="json")
    assert settings(values, ["seed=3"], place).seed == 3
    with pytest.raises(ConfigError, match="birds: no such config"):
        find_config("birds", place)


@pytest.mark.usefixtures("unpublished")
def test_the_default_listener_writes_one_line_per_session_to_prefects_log(config: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO", "prefect.flow_runs"):
        learn_stream(str(config), ["seed=19"])
        learn_stream(str(config), ["seed=19"])
    lines = [record.getMessage() for record in caplog.records if record.name == "prefect.flow_runs" and "taught" in record.getMessage()]
    assert len(lines) == 6 and lines[1].startswith("colours finetune seed 19: 1/2 classes 1-2: taught ") and " (before: " in lines[1]
    assert ["learned before" in line for line in lines] == [False] * 3 + [True] * 3


def test_a_flow_that_a_task_runs_tells_its_own_page(caplog: pytest.LogCaptureFixture) -> None:
    @flow(flow_run_name="a stream")
    def stream() -> None:
        log("one session")

    @task
    def learn_one() -> None:
        stream()

    @flow(flow_run_name="a comparison")
    def comparison() -> None:
        learn_one()
        log("all of them")

    with caplog.at_level("INFO", "prefect"):
        comparison()
    told = {record.getMessage(): record.__dict__ for record in caplog.records}
    own, whole = told["one session"], told["all of them"]
    assert (own["flow_run_name"], whole["flow_run_name"]) == ("a stream", "a comparison") and own["flow_run_id"] != whole["flow_run_id"]


def test_a_comparison_asks_its_own_methods_only_whether_they_can_use_the_data(project: Path) -> None:
    config = lay_out(project)
    config.write_text(config.read_text().replace("  increment: 2", "  increment: 2\n  supervision: none"))
    jobs = jobs_of(str(config), ["compare={methods: [zero_shot]}"])  # finetune, which the config names, needs labels
    assert [job.settings["method"]["name"] for job in jobs] == ["zero_shot"]
