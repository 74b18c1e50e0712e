"""A project folder that an earlier release made is read, asked and rolled back by this one."""

from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient

from cl.disk.files import read_json
from cl.disk.tensors import read_tensors
from cl.methods.closed_form.gda import GDAConfig
from cl.methods.presets.replay import ReplayConfig
from cl.models.clip import ModelConfig, load
from cl.store.states import load_state
from flows.look.status import streams
from flows.registry.champion import CHAMPION, earlier, find, history
from flows.registry.lineage import lineage
from flows.registry.predict import classify, served
from flows.settings import Place
from flows.tracking.runs import connect
from tests.make import png
from tests.old_projects import NAMES, unpack

STATES = {"learned", "waiting", "interrupted"}
CHAMPIONS = {"three": "3", "last_refused": "2", "refused_inside": "3", "replay": "2", "half": "2"}


@pytest.fixture(params=NAMES)
def old(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, Place, MlflowClient]:
    place = Place(unpack(request.param, tmp_path / "project"))
    monkeypatch.setenv("EVERGREEN_ROOT", str(place.root))
    monkeypatch.chdir(place.root)
    return request.param, place, connect(place)


def test_what_an_earlier_release_learned_is_listed_asked_and_rolled_back_to(old: tuple[str, Place, MlflowClient]) -> None:
    name, place, client = old
    champion = find(client, "colours", CHAMPION)
    assert str(champion.version) == CHAMPIONS[name]
    changes = [change for change in history(place, client, "colours") if change.alias == CHAMPION]
    assert [change.after for change in changes][-1] == CHAMPIONS[name] and changes[0].before is None
    assert earlier(place, client, "colours") == changes[-1].before

    Path("red.png").write_bytes(png(0, 3, 8))
    (answer,) = classify(served(place, client, "colours"), [Path("red.png")], ["red", "green"])
    assert sum(share for _, share in answer) == pytest.approx(1)

    origin = lineage(place, client, champion)
    assert origin.settings["train.lr"] == "0.001" and len(origin.sessions) == int(CHAMPIONS[name])
    listed = streams(place, client)
    assert {stream.name.split()[0] for stream in listed} == {"colours"} and {stream.state for stream in listed} <= STATES
    assert ("interrupted" in {stream.state for stream in listed}) == (name == "half")


def test_what_an_earlier_release_learned_goes_on_with_its_buffer_and_under_another_method(tmp_path: Path) -> None:
    root = unpack("replay", tmp_path / "project")
    store = root / "mlruns" / "steps"
    steps = (read_json(file) for file in store.glob("steps/*/result.json"))
    newest = next(step["state"] for step in steps if step["index"] == 2)
    model = ModelConfig(name=f"local-dir:{root / 'base'}")
    replay, dropped = load_state(lambda: ReplayConfig(capacity=3).build(load(model), 0), "replay", newest, store)
    assert dropped == () and len(replay.memory.exemplars.rows) == 6  # type: ignore[union-attr, arg-type]
    gda, left = load_state(lambda: GDAConfig().build(load(model), 0), "gda", newest, store)
    weights = read_tensors(store / "states" / newest / "state.safetensors")
    assert all(torch.equal(value, weights[f"clip.{name}"]) for name, value in gda.clip.state_dict().items())
    assert len(left) == 1 and left[0].tensors == 1 and str(left[0]).endswith("gda has no use for it")
