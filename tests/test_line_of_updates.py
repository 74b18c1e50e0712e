"""A model that grew by updates, end to end: where it comes from, where it broke, and what a run beside it may become."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from typer.testing import CliRunner

from cl.data.collection import append
from cl.data.table import write
from cl.disk.seal import sealed
from cl.errors import DataError, StoreError
from cl.reports.items import Text
from flows.cli.main import app
from flows.history.conclude import standing_of
from flows.history.entries import Adopted, Champion, fact, history_of
from flows.line.asked import Asked
from flows.look.bisect import course
from flows.look.diff import difference
from flows.registry.champion import CHAMPION, find, holder
from flows.registry.lineage import lineage, report_of
from flows.settings import Place
from flows.stream import learn_stream
from flows.takeover.chain_of import chain_of
from flows.tracking.runs import connect
from flows.update import update
from tests.make import table

pytestmark = [pytest.mark.usefixtures("prefect_server"), pytest.mark.slow]
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
    for module in ("flows.line.entered", "flows.registry.publish"):
        monkeypatch.setattr(f"{module}.whole", lambda report: iter([Text("report.json", json.dumps(sealed(report.to_json())))]))
    for module in ("flows.registry.pages", "flows.line.line_page"):
        monkeypatch.setattr(f"{module}.write", lambda reports, folder, seen=None: folder.mkdir(parents=True, exist_ok=True))
        monkeypatch.setattr(f"{module}.images", lambda *_: {})
    (stored / "growing.yaml").write_text(CONFIG)
    for seed, (name, colours) in enumerate({"first": (0, 1), "second": (2, 3)}.items()):
        arrive(stored, name, colours, seed)
    return str(stored / "growing.yaml")


def arrive(project: Path, name: str, colours: tuple[int, ...], seed: int) -> None:
    rows = {"train": table(colours, 8, seed=seed), "test": table(colours, 4, seed=seed + 50)}
    append(project / "data" / "inbox", name, rows, "labels")


def test_a_line_of_updates_is_traced_bisected_reported_and_takes_in_what_a_run_learned(config: str, stored: Path) -> None:
    place = Place(stored)
    assert update(config)["sessions"] == {"first": "learned", "second": "learned"}
    client = connect(place)
    version = find(client, "growing", CHAMPION)
    first = standing_of(place, "growing")
    origin = lineage(place, client, version)
    assert [row[5] for row in origin.sessions] == ["–", "1"], "its own version is that of its last session"
    assert [row[4] for row in origin.sessions] == [learned.state for learned in first.line]
    assert origin.facts["libraries"].startswith("evergreen-clip ") and origin.facts["code"] == first.line[0].code
    _broken(place, client, version)

    shown = evergreen("report", "growing.yaml", "--out", "told")
    assert "growing" in shown and "finetune" in shown
    told = evergreen("status")
    assert "learned 2" in told and "1, champion" in told
    told = evergreen("status", "growing.yaml")
    assert "1 first learned" in told and "2 second learned" in told and "go on with" not in told

    same = learn_stream(config)  # under the recipe of the history: the same states, so nothing has to be adopted
    assert same["gate"] is None and champion(client) == "1"
    version = client.get_model_version("growing", "2")
    for there, chained in zip(first.line, chain_of(place, client, version), strict=True):
        assert replace(there, seconds=0) == replace(chained, seconds=0, happened="") and chained.happened, (
            "what a run leaves says what the history does"
        )
    other = learn_stream(config, ["seed=1"])
    assert other["gate"] is None and champion(client) == "1"
    assert "version 3 is champion, as 1 was before" in evergreen("promote", "growing", "3", "--why", "another seed")
    kinds = [type(fact(entry)) for entry in history_of(place, "growing").read()]
    assert kinds[-3:] == [Adopted, Champion, Champion]
    now = standing_of(place, "growing")
    assert now.champion and now.champion.version == "3" and [learned.config["seed"] for learned in now.line] == [1, 1]

    apart = difference(place, client, ("growing/1", "growing/3"))
    assert {each.name for each in apart.sets} == {"first", "second"}

    arrive(stored, "third", (4, 5), 9)
    assert "third waiting" in evergreen("sessions", "--config", "growing.yaml")
    told = evergreen("status", "growing.yaml")
    assert "third waiting" in told and "go on with: evergreen update growing.yaml" in told
    assert update(config, ["seed=1"])["learned"] == ["third"], "what the run learned is learned"
    assert [learned.session for learned in standing_of(place, "growing").line] == ["first", "second", "third"]
    assert standing_of(place, "growing").line[:2] == now.line and champion(client) == "4"

    arrive(stored, "fourth", (6, 7), 11)
    assert update(config, ["seed=1", "gate.scores={fourth: 1.01}"])["sessions"] == {"fourth": "set aside"}
    assert champion(client) == "4" and "fourth set aside" in evergreen("status", "growing.yaml")
    assert "fourth is accepted: version 5 is champion" in evergreen("accept", "growing", "fourth", "--why", "seen by Ann")
    done = update(config, ["seed=1", "gate.scores={fourth: 1.01}"])
    assert done["learned"] == [] and done["waiting"] == 0 and champion(client) == "5"
    assert "version 4 is champion" in evergreen("rollback", "growing")
    done = update(config, ["seed=1"])
    assert done["learned"] == [] and champion(client) == "4", "a rollback does not undo itself"

    shutil.rmtree(stored / "data")
    told = chain_of(place, client, client.get_model_version("growing", "3"))
    assert [(learned.session, learned.state) for learned in told] == [(learned.session, learned.state) for learned in now.line]
    assert [len(learned.classes) for learned in told] == [4, 0] and {learned.identity for learned in told} == {""}
    shutil.rmtree(place.steps / "states" / told[0].state)
    with pytest.raises(StoreError, match="the weights it had after first are not in"):
        chain_of(place, client, client.get_model_version("growing", "3"))


def _broken(place: Place, client: MlflowClient, version: ModelVersion) -> None:
    """A set, and its classes, fell as the report says."""
    whole = course(place, client, version, "set", "first")
    rows = report_of(version).matrix.rows[:, 0]
    assert [effect[1:3] for effect in whole.effects] == [(rows[0], rows[1]), (rows[1], rows[2])] and not whole.measured
    red, green = (course(place, client, version, "class", name) for name in ("red", "green"))
    assert [effect.images for effect in red.effects] == [0, 4] and not red.measured
    for one, two in zip(red.effects[1:], green.effects[1:], strict=True):
        assert (one.before + two.before) / 2 == pytest.approx(rows[1]) and (one.after + two.after) / 2 == pytest.approx(rows[2])
    at = Asked(standing_of(place, "growing").line)
    masks = [np.array(rows.labels) == "red" for rows in at.rows]
    kept, again = at.hits(masks), at.measured(masks, lambda done, total: None)
    for known, now in zip(kept, again, strict=True):
        assert all(first is None or (first == then).all() for first, then in zip(known, now, strict=True)), "asked again, it says the same"
    with pytest.raises(DataError, match="no test image of class 'greek'"):
        course(place, client, version, "class", "greek")


def champion(client: MlflowClient) -> str:
    held = holder(client, "growing", CHAMPION)
    return str(held.version) if held else ""


def evergreen(*words: str) -> str:
    answer = CliRunner().invoke(app, list(words))
    assert answer.exit_code == 0, (answer.output, answer.exception)
    return " ".join(answer.output.split())


def test_each_update_tells_what_was_learned_from_probes_where_its_config_asks_for_it(config: str, stored: Path) -> None:
    far = stored / "data" / "far"
    write({"test": table((6, 7), 4, seed=70)}, far)
    changes = [
        "method=gda",
        "evaluate.known_unknown=true",
        "stream.sources.far=far",
        "stream.source=inbox",
        "stream.probes=[{name: far, source: far}]",
    ]
    assert set(update(config, changes)["learned"]) == {"first", "second"}
    place = Place(stored)
    report = report_of(find(connect(place), "growing", CHAMPION))
    auroc = report.details["known/auroc_mahalanobis"].rows[:, report.matrix.sets.index("far")]
    assert np.isnan(auroc[0]) and auroc[1:].min() > 0.9
