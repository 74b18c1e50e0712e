"""Champion and challenger for real: a stream is learned and judged, aliases change whole or not at all, and roll back to the same bits."""

import hashlib
import json
import threading
import time
from pathlib import Path
from typing import Any

import mlflow
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType

from cl.errors import DataError, StoreError
from flows import registry
from flows.job import job_of
from flows.lineage import scores
from flows.predict import classify, rank, served
from flows.registry import CHALLENGER, CHAMPION, change, earlier, find, history, holder
from flows.settings import EMBEDDED, Place
from flows.stream import learn_stream
from flows.tracking import connect
from tests.conftest import lay_out
from tests.make import png

pytestmark = pytest.mark.usefixtures("prefect_server")
OPEN = ["gate.drop=null", "gate.flips=null"]


@pytest.fixture
def config(stored: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project, without the figures and pages that take seconds."""
    monkeypatch.setattr("cl.report.items", lambda report: iter(()))
    monkeypatch.setattr("cl.report.write", lambda reports, folder: folder.mkdir(parents=True))
    return str(lay_out(stored))


def weights(name: str, version: str) -> str:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}"))
    (file,) = folder.rglob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def holders(client: MlflowClient) -> dict[str, str | None]:
    found = {alias: holder(client, "colours", alias) for alias in (CHAMPION, CHALLENGER)}
    return {alias: str(version.version) if version else None for alias, version in found.items()}


def test_a_stream_is_judged_promoted_refused_and_rolled_back(config: str, stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    assert learn_stream(config)["gate"] == "promoted"
    assert holders(client) == {CHAMPION: "1", CHALLENGER: None}
    first = weights("colours", "1")

    refused = learn_stream(config, ["seed=1", "gate.scores={classes 1-2: 1.01}"])
    assert refused["gate"] == "refused" and holders(client) == {CHAMPION: "1", CHALLENGER: "2"}
    told = client.get_run(refused["run"]).data.tags["evergreen.gate_reason"]
    assert "score of classes 1-2" in told
    rows = json.loads(mlflow.artifacts.load_text(f"runs:/{refused['run']}/gate.json"))["checks"]
    assert {row["bound"]: row["holds"] for row in rows}["score of classes 1-2"] == "NO"
    assert any(row["bound"] == "negative flips" for row in rows), "the champion was scored on the same samples"

    assert learn_stream(config, ["seed=1", *OPEN])["gate"] == "promoted"  # other bounds, another verdict, nothing learned again
    assert holders(client)[CHAMPION] == "2" and len(client.search_model_versions("name = 'colours'")) == 2
    assert learn_stream(config, ["seed=1", *OPEN])["gate"] == "promoted"  # found again: no further change
    assert [(made.before, made.after) for made in history(place, client, "colours") if made.alias == CHAMPION] == [(None, "1"), ("1", "2")]

    change(place, client, "colours", CHAMPION, earlier(place, client, "colours"), "rollback")
    assert holders(client)[CHAMPION] == "1" and weights("colours", "1") == first != weights("colours", "2")
    _asked(place, client, config)


def _asked(place: Place, client: MlflowClient, config: str) -> None:
    for name in ("red", "blue"):
        Path(f"{name}.png").write_bytes(png(("red", "green", "blue").index(name), 7))
    found = served(place, client, "colours")
    answers = classify(found, [Path("red.png"), Path("blue.png")], ["red", "green", "blue"])
    assert [round(sum(share for _, share in row), 9) for row in answers] == [1.0, 1.0] and len(answers[0]) == 3
    assert {path.name for path, _ in rank(found, [Path("red.png"), Path("blue.png")], "a red square")} == {"red.png", "blue.png"}
    Path("bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png: not an image"):
        classify(found, [Path("bad.png")], ["red", "green"])
    with pytest.raises(StoreError, match="no version or alias '9'; there are 2, 1"):
        served(place, client, "colours/9")
    with pytest.raises(StoreError, match="no model 'shapes'; there are colours"):
        served(place, client, "shapes")

    assert [name for name, _ in scores(job_of(config), "classes 1-2", None)] == ["start", "classes 1-2", "classes 3-4"]
    assert len(scores(job_of(config), None, "red")) == 3
    with pytest.raises(DataError, match="no evaluation set 'greek'"):
        scores(job_of(config), "greek", None)


def test_a_change_that_is_cut_short_leaves_one_of_the_two_and_a_history_that_agrees(config: str, stored: Path, monkeypatch: Any) -> None:
    place = Place(stored)
    client = connect(place)
    learn_stream(config)
    learn_stream(config, ["seed=1", "gate.scores={classes 1-2: 1.01}"])
    with monkeypatch.context() as broken:
        broken.setattr(MlflowClient, "set_registered_model_alias", _dies)
        with pytest.raises(OSError, match="killed"):
            change(place, client, "colours", CHAMPION, "2", "before the alias")
    assert holders(client)[CHAMPION] == "1"
    assert [made.after for made in history(place, client, "colours") if made.alias == CHAMPION] == ["1"]

    notes: list[str] = []
    note = registry._note

    def once(*arguments: Any) -> None:
        notes.append("note")
        note(*arguments) if len(notes) == 1 else _dies()

    with monkeypatch.context() as broken:
        broken.setattr(registry, "_note", once)
        with pytest.raises(OSError, match="killed"):
            change(place, client, "colours", CHAMPION, "2", "after the alias")
    assert holders(client)[CHAMPION] == "2"
    assert [(made.before, made.after, made.why) for made in history(place, client, "colours")][-1] == ("1", "2", "after the alias")


def test_an_unreadable_champion_is_kept(config: str, stored: Path) -> None:
    client = connect(Place(stored))
    first = learn_stream(config)
    state = find(client, "colours", CHAMPION).tags["evergreen.state"]
    (stored / "mlruns" / "steps" / "states" / state / "state.safetensors").write_bytes(b"damaged")
    second = learn_stream(config, ["seed=1", *OPEN])
    assert first["gate"] == "promoted" and second["gate"] == "refused" and holders(client) == {CHAMPION: "1", CHALLENGER: "2"}
    assert "the champion cannot be read: version 1" in client.get_run(second["run"]).data.tags["evergreen.gate_reason"]


def test_a_person_has_the_last_word_by_hand_where_no_page_is_open(config: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMBEDDED, "1")
    client = connect(Place(stored))
    outcome = learn_stream(config, ["gate.approval=true"])
    assert outcome["gate"] == "waiting" and holders(client) == {CHAMPION: None, CHALLENGER: "1"}
    assert client.get_run(outcome["run"]).data.tags["evergreen.gate_reason"].endswith("evergreen promote colours 1")


@pytest.mark.parametrize(("approve", "verdict", "champion"), [(False, "refused", None), (True, "promoted", "1")])
def test_a_flow_waits_on_its_page_and_goes_on_by_the_answer(
    config: str, stored: Path, approve: bool, verdict: str, champion: str | None
) -> None:
    outcomes: list[Any] = []
    answering = threading.Thread(target=answer, args=(approve,))
    answering.start()
    outcomes.append(learn_stream(config, ["gate.approval=true", f"seed={int(approve)}"]))
    answering.join()
    client = connect(Place(stored))
    assert outcomes[0]["gate"] == verdict and holders(client) == {CHAMPION: champion, CHALLENGER: "1"}
    told = client.get_run(outcomes[0]["run"]).data.tags["evergreen.gate_reason"]
    assert told.endswith(f"a person {'agreed' if approve else 'said no'} in Prefect: seen by Ann")


def answer(approve: bool) -> None:
    """What a person does on the page of the run that waits."""
    with get_client(sync_client=True) as client:
        paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
        while not (runs := client.read_flow_runs(flow_run_filter=paused)):
            time.sleep(0.1)
        client.resume_flow_run(runs[0].id, run_input={"approve": approve, "why": "seen by Ann"})


def _dies(*_: Any) -> None:
    raise OSError("killed")
