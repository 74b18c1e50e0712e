"""Two projects on one MLflow: their models do not meet unless both say that they are one."""

import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient

from cl.errors import StoreError
from flows.look.status import streams
from flows.project import PROJECT, identity, own_experiments
from flows.registry.champion import CHAMPION, change, holder, only
from flows.registry.predict import chosen
from flows.settings import Place
from flows.tracking.runs import Tracker, connect, owner


@pytest.fixture
def store(tmp_path: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> MlflowClient:
    """A store that is nobody's own."""
    shutil.copy(empty_store, tmp_path / "shared.db")
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path / 'shared.db'}")
    return MlflowClient(f"sqlite:///{tmp_path / 'shared.db'}")


def place(folder: Path) -> Place:
    folder.mkdir()
    return Place(folder)


def learned(tracker: Tracker, name: str) -> str:
    """A stream's run, and a version of its model that is champion."""
    run, _ = tracker.open(f"key-{name}", "stream", name, {"evergreen.stream": name}, {})
    if not tracker.client.search_registered_models(f"name = '{name}'"):
        tracker.client.create_registered_model(name)
    version = tracker.client.create_model_version(name, "file:///nowhere", run)
    change(tracker.place, tracker.client, name, CHAMPION, str(version.version), "learned")
    return str(version.version)


def test_a_second_project_may_not_take_the_name_of_the_first(store: MlflowClient, tmp_path: Path) -> None:
    here, there = place(tmp_path / "a"), place(tmp_path / "b")
    assert identity(here) == identity(here) != identity(there)
    learned(Tracker(here, "birds"), "birds")
    with pytest.raises(StoreError, match=rf"experiment 'birds' .* another project's \({identity(here)}\); give this config another name"):
        Tracker(there, "birds")
    assert holder(store, "birds", CHAMPION).version in (1, "1")

    learned(Tracker(there, "fish"), "fish")
    assert [row.name for row in streams(here, store)] == ["birds"] and [row.name for row in streams(there, store)] == ["fish"]
    Tracker(here, "birds"), Tracker(there, "fish")  # the models are taken for theirs
    assert only(here, store) == "birds" and chosen(there, store, None).name == "fish"
    assert chosen(there, store, "birds").name == "birds"  # whoever asks for it by name may look at it
    with pytest.raises(StoreError, match="model 'birds' of this MLflow is another project's"):
        change(there, store, "birds", CHAMPION, "1", "by hand")


def test_a_model_of_that_name_which_another_experiment_made_is_not_taken(store: MlflowClient, tmp_path: Path) -> None:
    learned(Tracker(place(tmp_path / "a"), "Birds"), "birds")
    with pytest.raises(StoreError, match=rf"model 'birds' .* no project's id.* tag it {PROJECT}="):
        Tracker(place(tmp_path / "b"), "birds")


def test_two_checkouts_of_one_project_share_its_models(store: MlflowClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = place(tmp_path / "a"), place(tmp_path / "b")
    learned(Tracker(here, "birds"), "birds")
    shutil.copy(here.root / ".evergreen", there.root)
    assert learned(Tracker(there, "birds"), "birds") == "2" and len(own_experiments(there, store, owner(there))) == 1

    (there.root / ".evergreen").unlink()
    monkeypatch.setenv("EVERGREEN_PROJECT", (here.root / ".evergreen").read_text().strip())
    assert identity(there) == identity(here)
    Tracker(there, "birds")


def test_what_a_project_made_before_there_were_ids_stays_its_own(store: MlflowClient, tmp_path: Path) -> None:
    here, there = place(tmp_path / "a"), place(tmp_path / "b")
    learned(Tracker(here, "birds"), "birds")
    store.delete_experiment_tag(store.get_experiment_by_name("birds").experiment_id, PROJECT)
    assert [row.name for row in streams(here, store)] == ["birds"] and streams(there, store) == []
    with pytest.raises(StoreError, match=r"experiment 'birds' .* carries no project's id"):
        Tracker(there, "birds")
    Tracker(here, "birds")
    assert store.get_experiment_by_name("birds").tags[PROJECT] == store.get_registered_model("birds").tags[PROJECT] == identity(here)


def test_a_store_of_its_own_is_all_a_projects_and_asks_for_no_id(stored: Path) -> None:
    client = connect(Place(stored))
    client.create_experiment("old")
    Tracker(Place(stored), "old")
    assert not (stored / ".evergreen").exists() and len(own_experiments(Place(stored), client, "")) == len(client.search_experiments())


def test_an_experiment_that_was_deleted_says_how_it_comes_back(stored: Path) -> None:
    tracker = Tracker(Place(stored), "birds")
    tracker.client.delete_experiment(tracker.experiment)
    with pytest.raises(
        StoreError, match=rf"'birds' was deleted in MLflow; bring it back: mlflow experiments restore -x {tracker.experiment}"
    ):
        Tracker(Place(stored), "birds")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"a\x00b", b"x" * 500])
def test_an_id_that_is_none_is_told(content: bytes, store: MlflowClient, tmp_path: Path) -> None:
    (tmp_path / ".evergreen").write_bytes(content)
    with pytest.raises(StoreError, match=r"\.evergreen: .*EVERGREEN_PROJECT"):
        identity(Place(tmp_path))
