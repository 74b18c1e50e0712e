"""MLflow: runs are found again, end as what happened ends, show sessions as steps, and models come back as they were."""

import base64
import io
import json
import threading
from collections.abc import Mapping
from pathlib import Path

import lightning.pytorch as pl
import numpy as np
import pytest
import torch
from lightning.pytorch.demos.boring_classes import BoringModel
from matplotlib.figure import Figure as Picture
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from PIL import Image

from cl.errors import StoreError
from cl.report import Figure, Metric, Table, Tag, Text
from flows.package import example, register
from flows.settings import Place
from flows.steplog import StepLogger
from flows.tracking import Tracker, flat, locked, slug
from tests.make import names, png, tiny


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
    found = Tracker(tracker.place, "colours").find("k", "stream")
    assert found is not None and found.info.run_id == run
    assert Tracker(tracker.place, "other").find("k", "stream") is None


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


def test_a_session_that_a_dead_process_left_running_becomes_killed_at_the_next_attempt(tracker: Tracker) -> None:
    parent, other = opened(tracker), opened(tracker, "other")
    dead, foreign = tracker.attempt(parent, "s1", "session 1"), tracker.attempt(other, "s1", "session 1")
    alive = tracker.attempt(parent, "s1", "session 1")
    assert [status(tracker, run) for run in (dead, foreign, alive)] == ["KILLED", "RUNNING", "RUNNING"]
    assert tracker.client.get_run(alive).data.tags["mlflow.parentRunId"] == parent


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


def test_a_registered_model_comes_back_and_scores_as_the_clip_that_was_saved(tracker: Tracker) -> None:
    import mlflow

    clip, run = tiny(), opened(tracker)
    address = register(tracker, run, "Colours & more", clip, 2, {"evergreen.method": "finetune"})
    assert address == "models:/colours-more/1"
    rows, texts = example(), [name.prompts[0] for name in names([0, 1, 2])]
    rows.at[0, "image"], rows.at[0, "texts"] = base64.b64encode(png(1, 0)).decode(), texts
    with torch.no_grad():
        image = clip.transform()(Image.open(io.BytesIO(png(1, 0))).convert("RGB"))[None]
        own = (clip.scale() * clip.encode_image(image) @ clip.encode_text(clip.tokenize(texts)).T).softmax(-1)[0]
    scores = mlflow.pyfunc.load_model(address).predict(rows)[0]
    np.testing.assert_allclose(scores, own.numpy(), atol=1e-5)
    assert abs(sum(scores) - 1) < 1e-5


def test_a_registered_model_holds_no_pickle_and_says_what_it_needs(tracker: Tracker) -> None:
    register(tracker, opened(tracker), "colours", tiny(), 2, {"evergreen.seed": "3"})
    files = [path for path in (tracker.place.runs / "artifacts").rglob("*") if path.is_file()]
    assert {"model.py", "open_clip_model.safetensors", "open_clip_config.json"} <= {path.name for path in files}
    assert not [path for path in files if path.suffix in (".pkl", ".pt", ".pth", ".bin", ".ckpt")]
    (needs,) = [path.read_text() for path in files if path.name == "requirements.txt"]
    assert "open_clip_torch==" in needs and "safetensors==" in needs
    version = tracker.client.get_model_version("colours", "1")
    assert version.tags == {"evergreen.seed": "3"}


def test_a_run_registers_its_model_once(tracker: Tracker) -> None:
    first, second = opened(tracker), opened(tracker, "other")
    assert register(tracker, first, "colours", tiny(), 1, {}) == register(tracker, first, "colours", tiny(), 1, {})
    assert register(tracker, second, "colours", tiny(), 1, {}) == "models:/colours/2"


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


def test_a_missing_driver_is_named_and_a_password_is_not(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "mssql+pymssql://ann:secret@127.0.0.1:9/runs")
    with pytest.raises(StoreError, match=r"^mssql\+pymssql://ann:\*\*\*@127.0.0.1:9/runs: .* not installed \(pymssql\); install it"):
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
