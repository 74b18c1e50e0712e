"""MLflow: runs are found again, end as what happened ends, show sessions as steps, and are put to rest when their process is gone."""

import json
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from matplotlib.figure import Figure as Picture
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from cl.errors import StoreError
from cl.reports.items import Figure, Metric, Table, Tag, Text
from flows.settings import Place
from flows.tracking.params import flat
from flows.tracking.reap import reap_runs
from flows.tracking.runs import LOCK, Tracker, locked, slug
from flows.tracking.steplog import StepLogger


@pytest.fixture
def tracker(stored: Path) -> Tracker:
    return Tracker(Place(stored), "colours")


def opened(tracker: Tracker, key: str = "k", **config: object) -> str:
    return tracker.open(key, "stream", "colours", {"evergreen.seed": "0"}, config or {"train": {"lr": 0.1}})[0]


def status(tracker: Tracker, run: str) -> str:
    return str(tracker.client.get_run(run).info.status)


def test_a_run_is_found_again_by_its_content_and_its_settings_are_told_once(tracker: Tracker) -> None:
    first, new = tracker.open("k", "stream", "colours", {}, {"train": {"lr": 0.1}})
    again, repeated = tracker.open("k", "stream", "colours", {}, {"train": {"lr": 0.2}})
    assert (new, repeated) == (True, False) and first == again
    assert tracker.client.get_run(first).data.params == {"train.lr": "0.1"}
    assert opened(tracker, "other") != first


def test_another_tracker_of_the_same_project_finds_the_same_runs(tracker: Tracker) -> None:
    run = opened(tracker)
    again = Tracker(tracker.place, "colours").find("k", "stream")
    assert again is not None and again.info.run_id == run
    assert Tracker(tracker.place, "other").find("k", "stream") is None


def test_the_last_try_is_the_last_whatever_the_clock_says(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    parent, clock = opened(tracker), iter(range(2_000_000_000_000, 0, -3_600_000))
    for module in ("mlflow.tracking._tracking_service.client", "mlflow.store.tracking.sqlalchemy_store"):
        monkeypatch.setattr(f"{module}.get_current_time_millis", lambda: next(clock))
    tries = []
    for _ in range(3):
        tries.append(tracker.attempt(parent, "s1", "session 1", "state"))
        tracker.client.set_terminated(tries[-1], "FAILED", end_time=1)
    assert len(set(tries)) == 3
    last = tracker.find("s1", "session", parent)
    assert last is not None and last.info.run_id == tries[-1]


@pytest.mark.parametrize(
    ("error", "expected"),
    [(None, "FINISHED"), (ValueError, "FAILED"), (StoreError, "FAILED"), (KeyboardInterrupt, "KILLED"), (SystemExit, "KILLED")],
)
def test_a_run_ends_as_what_happened_inside_ended(tracker: Tracker, error: type[BaseException] | None, expected: str) -> None:
    run = opened(tracker)
    if error:
        with pytest.raises(error), tracker.ending(run):
            raise error("stop")
    else:
        with tracker.ending(run):
            assert status(tracker, run) == "RUNNING"
    assert status(tracker, run) == expected


def test_a_session_that_was_cut_short_goes_on_in_its_own_run_and_one_that_failed_gets_another(tracker: Tracker) -> None:
    parent = opened(tracker)
    first = tracker.attempt(parent, "s1", "session 1", "state")
    assert tracker.attempt(parent, "s1", "session 1", "state") == first  # its process died without a word
    tracker.client.set_terminated(first, "KILLED")
    assert tracker.attempt(parent, "s1", "session 1", "state") == first and status(tracker, first) == "RUNNING"
    tracker.client.set_terminated(first, "FAILED")
    second = tracker.attempt(parent, "s1", "session 1", "state")
    assert second != first and [status(tracker, run) for run in (first, second)] == ["FAILED", "RUNNING"]
    assert tracker.client.get_run(second).data.tags["mlflow.parentRunId"] == parent


def test_runs_whose_process_is_gone_become_killed_and_those_of_the_living_do_not(tracker: Tracker, tmp_path: Path) -> None:
    dead, alive, over = (opened(tracker, key) for key in ("dead", "alive", "over"))
    child, other = tracker.attempt(dead, "s1", "session 1", "state"), tracker.attempt(alive, "s1", "session 1", "state")
    tracker.client.set_terminated(over, "FINISHED")
    elsewhere = tracker.client.create_run(tracker.experiment, tags={LOCK: "another-project/dead"}).info.run_id
    with locked(tracker.place, "alive.lock"):
        assert set(reap_runs(tracker.place, tracker.client)) == {dead, child}
    assert [status(tracker, run) for run in (dead, child, over)] == ["KILLED", "KILLED", "FINISHED"]
    assert [status(tracker, run) for run in (alive, other, elsewhere)] == ["RUNNING"] * 3


def rows_of(tracker: Tracker, run: str) -> list[list[object]]:
    return list(json.loads(Path(tracker.client.download_artifacts(run, "matrix.json")).read_text())["data"])


def test_every_kind_of_item_lands_where_the_ui_shows_it(tracker: Tracker) -> None:
    run = opened(tracker)
    table = Table("matrix", ("after", "greek"), (("start", 0.25), ("greek", 0.75)))
    tracker.write(run, [table, Figure("curves", Picture()), Tag("code", "abc"), Text("note.md", "hello")])
    client = tracker.client
    assert {item.path for item in client.list_artifacts(run)} >= {"matrix.json", "figures", "note.md"}
    assert rows_of(tracker, run) == [["start", 0.25], ["greek", 0.75]]
    assert client.get_run(run).data.tags["evergreen.code"] == "abc"


def test_metrics_are_charted_over_sessions_and_what_was_not_measured_is_no_point(tracker: Tracker) -> None:
    run = opened(tracker)
    tracker.write(run, [Metric("top1/session 1", 0.5, 1), Metric("top1/session 1", 0.25, 2), Metric("cl/forgetting", float("nan"), 1)])
    history = tracker.client.get_metric_history(run, "top1/session 1")
    assert [(point.step, point.value) for point in history] == [(1, 0.5), (2, 0.25)]
    assert tracker.client.get_metric_history(run, "cl/forgetting") == []


def test_metrics_that_are_written_again_under_the_same_date_are_no_second_points(tracker: Tracker) -> None:
    run = opened(tracker)
    items = [Metric("top1", 0.5, 1), Metric("top1", 0.1 + 0.2, 2)]
    tracker.write(run, items[:1], "2026-01-02T03:04:05+00:00")  # killed in the middle
    for _ in range(2):
        tracker.write(run, items, "2026-01-02T03:04:05+00:00")
    assert [(point.step, point.value) for point in tracker.client.get_metric_history(run, "top1")] == [(1, 0.5), (2, 0.1 + 0.2)]
    assert tracker.reached(run) == {"top1": 2}


def test_writing_a_table_again_does_not_repeat_its_rows(tracker: Tracker) -> None:
    run = opened(tracker)
    for _ in range(2):
        tracker.write(run, [Table("matrix", ("after",), (("start",),))])
    assert rows_of(tracker, run) == [["start"]]


def test_the_data_set_is_recorded_under_its_dvc_hash(tracker: Tracker) -> None:
    run, digest = opened(tracker), "0123456789abcdef0123456789abcdef.dir"
    tracker.use_data(run, "/somewhere/data", digest, {"rev": "v1"})
    (used,) = tracker.client.get_run(run).inputs.dataset_inputs
    assert (used.dataset.name, used.dataset.digest) == ("data", digest)
    assert {tag.key: tag.value for tag in used.tags} == {"mlflow.data.context": "training", "rev": "v1"}


class Recorder:
    """Stands for a client; fails as often as told."""

    def __init__(self, failures: int = 0) -> None:
        self.failures, self.batches = failures, list[list[tuple[str, float, int]]]()

    def log_batch(self, run_id: str, metrics: list[object]) -> None:
        if self.failures:
            self.failures -= 1
            raise MlflowException("away")
        self.batches.append([(m.key, m.value, m.step) for m in metrics])  # type: ignore[attr-defined]


def logged(recorder: Recorder) -> StepLogger:
    return StepLogger(recorder, "run")  # type: ignore[arg-type]


def test_step_metrics_travel_in_batches_and_none_is_lost() -> None:
    recorder = Recorder()
    logger = logged(recorder)
    for step in range(2500):
        logger.log_metrics({"train/loss": float(step)}, step)
    assert [len(batch) for batch in recorder.batches] == [1000, 1000]
    logger.finalize("success")
    assert [value for batch in recorder.batches for _, value, _ in batch] == [float(step) for step in range(2500)]


def test_steps_that_an_earlier_try_has_told_are_not_told_again() -> None:
    recorder = Recorder()
    logger = StepLogger(recorder, "run", {"batch/loss": 20, "batch/lr": 10})  # type: ignore[arg-type]
    for step in (10, 20, 30):
        logger.log_metrics({"train/loss": 1.0, "train/lr": 2.0}, step)
    logger.flush()
    assert recorder.batches == [[("batch/lr", 2.0, 20), ("batch/loss", 1.0, 30), ("batch/lr", 2.0, 30)]]


def test_a_tracking_server_that_is_away_for_a_while_costs_nothing() -> None:
    recorder = Recorder(failures=1)
    logger = logged(recorder)
    for step in range(1001):
        logger.log_metrics({"train/loss": 0.0}, step)
    logger.flush()
    assert [step for batch in recorder.batches for _, _, step in batch] == list(range(1001))


def test_a_tracking_server_that_never_comes_back_does_not_stop_the_training() -> None:
    logger = logged(Recorder(failures=99))
    logger.log_metrics({"train/loss": 1.0}, 0)
    logger.finalize("success")
    assert len(logger.waiting) == 1


def test_what_was_logged_before_a_training_failed_is_written() -> None:
    class Failing(BoringModel):
        def training_step(self, batch: torch.Tensor, index: int) -> Mapping[str, torch.Tensor]:
            if index == 3:
                raise ArithmeticError
            assert self.logger is not None
            self.logger.log_metrics({"train/loss": float(index)}, index)
            return super().training_step(batch, index)  # type: ignore[return-value]

    recorder = Recorder()
    trainer = pl.Trainer(
        accelerator="cpu",
        max_epochs=1,
        logger=logged(recorder),
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
    )
    with pytest.raises(ArithmeticError):
        trainer.fit(Failing())
    assert [value for batch in recorder.batches for _, value, _ in batch] == [0.0, 1.0, 2.0]


def test_a_lock_says_that_it_waits_and_is_free_once_its_holder_is_gone(tmp_path: Path) -> None:
    place, asked, got = Place(tmp_path), threading.Event(), threading.Event()

    def second() -> None:
        with locked(place, "one", asked.set):
            got.set()

    with locked(place, "one"):
        thread = threading.Thread(target=second)
        thread.start()
        assert asked.wait(10) and not got.is_set()
    thread.join(10)
    assert got.is_set()


def test_the_first_use_of_a_new_store_by_several_at_once_does_not_spoil_it(project: Path) -> None:
    failed: list[BaseException] = []

    def use(name: str) -> None:
        try:
            Tracker(Place(project), name)
        except BaseException as error:
            failed.append(error)

    threads = [threading.Thread(target=use, args=(f"stream {index}",)) for index in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not failed
    assert len(MlflowClient(Tracker(Place(project), "stream 0").uri).search_experiments()) == 4  # and MLflow's own


def test_runs_go_to_the_tracking_server_that_the_user_chose(
    stored: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "other.db"
    elsewhere.write_bytes((stored / "mlruns" / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    opened(Tracker(Place(stored), "colours"))
    monkeypatch.delenv("MLFLOW_TRACKING_URI")
    assert Tracker(Place(stored), "colours").find("k", "stream") is None


def test_a_tracking_server_that_does_not_answer_is_told_at_once(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:9")
    with pytest.raises(StoreError, match=r"http://127.0.0.1:9: MLflow's store cannot be opened"):
        Tracker(Place(stored), "colours")


def test_a_store_that_is_lost_on_the_way_is_told_and_an_error_of_another_kind_is_not_taken_for_it(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(MlflowException, match="no such run"), tracker.answering():
        raise MlflowException("no such run")
    monkeypatch.setattr(tracker, "uri", "http://127.0.0.1:9")
    told = r"^http://127.0.0.1:9: MLflow's store does not answer any more \(.*Connection refused.*\); what is learned is kept"
    with pytest.raises(StoreError, match=told), tracker.answering():
        raise MlflowException("API request failed")


def test_a_missing_driver_is_named_and_a_password_is_not(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql+pymssql://ann:secret@127.0.0.1:9/runs")
    with pytest.raises(StoreError, match=r"^mssql\+pymssql://ann:\*\*\*@127.0.0.1:9/runs: .* not installed \(pymssql\); install it"):
        Tracker(Place(stored), "colours")


def test_postgresql_without_its_driver_is_told_with_what_to_install(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "postgresql://ann:secret@127.0.0.1:9/runs")
    monkeypatch.setitem(sys.modules, "psycopg2", None)
    with pytest.raises(StoreError, match=r"ann:\*\*\*@.* \(psycopg2\); pip install 'evergreen-clip\[postgres\]'"):
        Tracker(Place(stored), "colours")


def test_artifacts_stay_in_the_project_where_only_the_database_is_elsewhere(
    stored: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "other.db"
    elsewhere.write_bytes((stored / "mlruns" / "mlflow.db").read_bytes())
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{elsewhere}")
    tracker = Tracker(Place(stored), "colours")
    assert tracker.client.get_experiment(tracker.experiment).artifact_location == (stored / "mlruns" / "artifacts").as_uri()


def test_a_damaged_database_is_told_as_such(stored: Path) -> None:
    (stored / "mlruns" / "mlflow.db").write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match="MLflow's store cannot be opened"):
        Tracker(Place(stored), "colours")


def test_nested_settings_become_dotted_names() -> None:
    assert flat({"train": {"lr": 0.1, "betas": [0.9, 0.99]}, "seed": 3, "label": None}) == {
        "train.lr": "0.1",
        "train.betas": "[0.9, 0.99]",
        "seed": "3",
        "label": "null",
    }


@pytest.mark.parametrize(("text", "expected"), [("Glyphs: joint vr_lwf", "glyphs-joint-vr-lwf"), ("–", "stream")])
def test_names_fit_prefects_keys(text: str, expected: str) -> None:
    assert slug(text) == expected
