"""A model that grew by updates, end to end: where it comes from, where it broke, and what a run beside it may become."""

import json
from pathlib import Path

import mlflow
import pytest
from typer.testing import CliRunner

from cl.collection import append
from cl.report import Text
from flows.by_hand import promote
from flows.cli import app
from flows.conclude import standing_of
from flows.history import Adopted, fact, history_of
from flows.lineage import lineage
from flows.registry import CHAMPION, find, holder
from flows.settings import Place
from flows.stream import learn_stream
from flows.tracking import connect
from flows.update import update
from tests.make import table

pytestmark = pytest.mark.usefixtures("prefect_server")
CONFIG = """
name: growing
model: {name: tiny}
stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}
method: finetune
train: {epochs: 1, batch_size: 8, lr: 1.0e-3}
gate: {drop: null, flips: null}
"""


@pytest.fixture
def config(stored: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project with two sessions, without the figures and pages that take seconds."""
    monkeypatch.setattr("cl.report.items", lambda report: iter([Text("report.json", json.dumps(report.to_json()))]))
    monkeypatch.setattr("cl.report.write", lambda reports, folder: folder.mkdir(parents=True, exist_ok=True))
    (stored / "growing.yaml").write_text(CONFIG)
    for seed, (name, colours) in enumerate({"first": (0, 1), "second": (2, 3)}.items()):
        arrive(stored, name, colours, seed)
    return str(stored / "growing.yaml")


def arrive(project: Path, name: str, colours: tuple[int, ...], seed: int) -> None:
    rows = {"train": table(colours, 8, seed=seed), "test": table(colours, 4, seed=seed + 50)}
    append(project / "data" / "inbox", name, rows, "labels")


def test_x(config: str, stored: Path) -> None:
    place = Place(stored)
    out = update(config)
    print(out)
    client = connect(place)
    v = find(client, "growing", CHAMPION)
    print(v.version, v.tags, client.get_run(v.run_id).data.tags)
    print(lineage(place, client, v))
    run = learn_stream(config, ["seed=1"])
    print(run["gate"], run["run"])
    print(promote(place, client, "growing", "2", "try"))
    print([type(fact(e)).__name__ for e in history_of(place, "growing").read()])
    print(standing_of(place, "growing").line[-1].model_dump() if 0 else standing_of(place, "growing").line[-1])
    arrive(stored, "third", (4, 5), 9)
    print(update(config))
    for r in client.search_runs([e.experiment_id for e in client.search_experiments()]): print(r.info.run_name, r.info.status, r.data.tags.get("evergreen.key"), r.data.tags.get("evergreen.kind"))
