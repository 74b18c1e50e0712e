"""Champion and challenger for real: a stream is learned and judged, aliases change whole or not at all, and roll back to the same bits."""

import hashlib
import json
import os
import re
import shutil
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextvars import copy_context
from datetime import datetime
from pathlib import Path
from typing import Any, Literal
from uuid import UUID

import mlflow
import numpy as np
import pytest
from mlflow import MlflowClient
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
from prefect.client.schemas.objects import StateType
from prefect.client.schemas.responses import SetStateStatus
from typer.testing import CliRunner

from cl.config import EvalConfig
from cl.data.collection import append
from cl.data.table import write
from cl.disk.seal import sealed
from cl.errors import ConfigError, DataError, StoreError
from cl.evaluation.evaluate import evaluate, unpack
from cl.reports.items import Text
from cl.run import revive
from cl.store.store import SHARED
from flows.approval import Approval, approve
from flows.cli.main import app
from flows.intake.readers import NOBODY
from flows.learn.job import job_of, planned
from flows.look.bisect import Course, Effect, course, effects
from flows.registry import champion as registry
from flows.registry.champion import CHALLENGER, CHAMPION, change, earlier, find, history, holder
from flows.registry.judge import judge, same
from flows.registry.lineage import lineage
from flows.registry.pages import shown
from flows.registry.predict import chosen, classify, rank, served
from flows.settings import EMBEDDED, Place
from flows.stream import learn_stream
from flows.tracking.reap import reap_flows
from flows.tracking.runs import STATE, connect
from flows.watch import LogWatch, watched_by
from tests.conftest import lay_out
from tests.make import png, table

pytestmark = pytest.mark.usefixtures("prefect_server")
OPEN = ["gate.drop=null", "gate.flips=null"]
COLLECTION = 'stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}\n'


@pytest.fixture
def config(stored: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project, without the figures and pages that take seconds."""
    monkeypatch.setattr("flows.registry.publish.whole", lambda report: iter([Text("report.json", json.dumps(sealed(report.to_json())))]))
    monkeypatch.setattr("flows.registry.pages.write", lambda reports, folder, seen: folder.mkdir(parents=True, exist_ok=True))
    monkeypatch.setattr("flows.registry.pages.images", lambda *_: {})
    return str(lay_out(stored))


def weights(name: str, version: str) -> str:
    folder = Path(mlflow.artifacts.download_artifacts(f"models:/{name}/{version}"))
    (file,) = folder.rglob("*.safetensors")
    return hashlib.sha256(file.read_bytes()).hexdigest()


def holders(client: MlflowClient) -> dict[str, str | None]:
    versions = {alias: holder(client, "colours", alias) for alias in (CHAMPION, CHALLENGER)}
    return {alias: str(version.version) if version else None for alias, version in versions.items()}


def test_a_stream_is_judged_promoted_refused_and_rolled_back(config: str, stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    assert learn_stream(config)["gate"] == "promoted"
    assert holders(client) == {CHAMPION: "1", CHALLENGER: None}
    first, version = weights("colours", "1"), client.get_model_version("colours", "1")
    (file,) = Path(mlflow.artifacts.download_artifacts("models:/colours/1")).rglob("*.safetensors")
    assert (place.steps / "states" / version.tags[STATE] / SHARED).samefile(file), "the weights lie there once"

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


def test_the_report_shows_the_champion_beside_the_candidate_and_the_images_that_broke(stored: Path) -> None:
    place, config = Place(stored), str(lay_out(stored))
    first = learn_stream(config)
    (alone,) = shown(place, first["run"]).values()
    assert (alone.before, alone.after) == ("the model before any session", "colours/1")
    assert first["report"]["version"] == "colours/1" and first["report"]["gate"]["champion"] is None
    assert [(name, len(steps)) for name, steps, _ in first["report"]["losses"]] == [("classes 1-2", 1), ("classes 3-4", 1)]

    refused = learn_stream(config, ["seed=1", "gate.scores={classes 1-2: 1.01}"])
    gate, (beside,) = refused["report"]["gate"], shown(place, refused["run"]).values()
    assert (gate["word"], gate["champion"]) == ("refused", "1") and (beside.before, beside.after) == (
        "colours/1, the champion",
        "colours/2",
    )
    theirs, mine = (told["report"]["matrix"]["rows"][-1] for told in (first, refused))
    assert gate["scores"] == {name: [mine[column], theirs[column]] for column, name in enumerate(refused["report"]["matrix"]["sets"])}
    for column, each in enumerate(beside.sets):
        assert (each.before, each.after) == (theirs[column], mine[column])
        then, now = (unpack(told["report"]["hits"][each.name]) for told in (first, refused))
        assert (each.broke, each.mended) == (int((then & ~now).sum()), int((now & ~then).sum()))
        assert sum(block.images for block in (*beside.broke, *beside.mended) if block.set == each.name) == each.broke + each.mended
    page = (place.reports / refused["run"] / "report.html").read_text()
    assert "colours/2 was refused: score of classes 1-2" in page and "The champion beside the candidate" in page and 'id="loss"' in page
    os.utime(place.reports / refused["run"] / "report.html", (1, 1))
    learn_stream(config, ["seed=1", "gate.scores={classes 1-2: 1.01}"])
    assert (place.reports / refused["run"] / "report.html").stat().st_mtime == 1, "nothing new to say: not written again"
    learn_stream(config, ["seed=1", *OPEN])
    assert "colours/2 became champion" in (place.reports / refused["run"] / "report.html").read_text()


def test_two_versions_are_held_against_each_other_image_by_image(config: str, stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    told = [learn_stream(config, [f"seed={seed}", *OPEN])["report"] for seed in (0, 1)]

    def diff(*words: str) -> tuple[str, dict[str, Any]]:
        done = CliRunner().invoke(app, ["diff", "colours/1", "colours@champion", "--out", "d", *words])
        assert done.exit_code == 0, done.output
        assert "<script" not in Path("d/diff.html").read_text()
        return done.output, json.loads(Path("d/diff.json").read_text())

    output, answered = diff()
    assert (answered["before"], answered["after"]) == ("colours/1", "colours/2") and "labelled images" in output
    for each in answered["sets"]:
        then, now = (unpack(report["hits"][each["name"]]) for report in told)
        assert (each["broke"], each["mended"]) == (int((then & ~now).sum()), int((now & ~then).sum()))

    names = ("red", "green", "blue", "yellow")
    for number in range(12):
        for folder in (Path("new"), Path("known") / names[number % 4]):
            folder.mkdir(parents=True, exist_ok=True)
            (folder / f"{number:02}.png").write_bytes(png(number % 4, 500 + number))
    files = sorted(Path("new").iterdir())
    one, two = ([row[0][0] for row in classify(served(place, client, f"colours/{version}"), files)] for version in (1, 2))
    output, answered = diff("--on", "new")
    (alone,) = answered["sets"]
    apart = [(was, now) for was, now in zip(one, two, strict=True) if was != now]
    assert (alone["name"], alone["images"], alone["before"], alone["differ"]) == ("new", 12, None, len(apart))
    assert {(block["was"], block["now"]): block["images"] for block in answered["differ"]} == dict(Counter(apart))
    assert f"The two differ on {len(apart)} of 12 images that nobody has labelled." in output

    CliRunner().invoke(app, ["diff", "colours/1", "colours/2", "--on", "known"], catch_exceptions=False)
    assert (place.reports / "diff-colours-1-colours-2" / "diff.html").is_file()

    (alone,) = diff("--on", "known")[1]["sets"]
    right = [[answer == names[number % 4] for number, answer in enumerate(answers)] for answers in (one, two)]
    assert (alone["before"], alone["after"]) == (np.mean(right[0]), np.mean(right[1]))
    assert alone["broke"] == sum(was and not now for was, now in zip(*right, strict=True))
    assert [each[:2] for each in alone["classes"]] == [["blue", 3], ["green", 3], ["red", 3], ["yellow", 3]]

    with pytest.raises(ConfigError, match="--labels names the classes of images that --on gives"):
        CliRunner().invoke(app, ["diff", "colours/1", "colours/2", "--labels", "a,b"], catch_exceptions=False)
    with pytest.raises(StoreError, match="no version or alias '9'"):
        CliRunner().invoke(app, ["diff", "colours/1", "colours/9"], catch_exceptions=False)


def _asked(place: Place, client: MlflowClient, config: str) -> None:
    for name in ("red", "blue"):
        Path(f"{name}.png").write_bytes(png(("red", "green", "blue").index(name), 7))
    model = served(place, client, "colours")
    answers = classify(model, [Path("red.png"), Path("blue.png")], ["red", "green", "blue"])
    assert [round(sum(share for _, share in row), 9) for row in answers] == [1.0, 1.0] and len(answers[0]) == 3
    assert {path.name for path, _ in rank(model, [Path("red.png"), Path("blue.png")], "a red square")} == {"red.png", "blue.png"}
    Path("bad.png").write_bytes(b"no image")
    with pytest.raises(DataError, match=r"bad.png: not a readable image"):
        classify(model, [Path("bad.png")], ["red", "green"])
    with pytest.raises(StoreError, match="no version or alias '9'; there are 2, 1"):
        served(place, client, "colours/9")
    with pytest.raises(StoreError, match="no model 'shapes'; there are colours"):
        served(place, client, "shapes")


def test_where_a_model_broke_is_read_from_what_was_measured_whatever_code_is_here_now(
    config: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(stored)
    client = connect(place)
    report = learn_stream(config)["report"]
    version = find(client, "colours", CHAMPION)
    monkeypatch.setattr("cl.methods.terms.fit.Fit.version", 2)
    planned.cache_clear()
    both_ways = course(place, client, version, "set", "classes 1-2")
    start, first, second = (row[0] for row in report["matrix"]["rows"])
    assert both_ways == Course([Effect("classes 1-2", start, first, 8), Effect("classes 3-4", first, second, 8)], False)
    red, green = (course(place, client, version, "class", name) for name in ("red", "green"))
    assert [effect.images for effect in red.effects] == [0, 4] and not red.measured  # the first session brought them
    for one, two, both in zip(red.effects[1:], green.effects[1:], both_ways.effects[1:], strict=True):
        assert (one.before + two.before) / 2 == pytest.approx(both.before) and (one.after + two.after) / 2 == pytest.approx(both.after)
    blue = course(place, client, version, "class", "blue")
    assert not blue.judged() and blue.worst() is None
    for wrong, told in (("set", "no evaluation set 'greek'; there are classes 1-2"), ("class", "no test image of class 'greek'")):
        with pytest.raises(DataError, match=told):
            course(place, client, version, wrong, "greek")  # type: ignore[arg-type]

    origin = lineage(place, client, version)
    assert origin.facts["data"] == report["provenance"]["data"] and origin.facts["champion"] == "this version"
    assert origin.settings["method.name"] == "finetune" and origin.settings["train.lr"] == "0.001"
    assert [session[0] for session in origin.sessions] == ["classes 1-2", "classes 3-4"]
    assert origin.sessions[-1][4] == version.tags["evergreen.state"]
    (stored / "data" / "colours" / "test.parquet").unlink()
    write({"test": table(range(4), 4, seed=6), "train": table(range(4), 8)}, stored / "data" / "colours")
    with pytest.raises(StoreError, match="the test images are not those that were measured"):
        course(place, client, version, "class", "red")
    shutil.rmtree(place.steps)
    assert course(place, client, version, "set", "classes 1-2") == both_ways  # the registry's own copy


def test_a_model_that_goes_on_names_the_version_it_grew_out_of_and_is_asked_now_about_what_was_left_out(config: str, stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    one = "kind: listed\n  sessions:\n    - {name: one, classes: [red, green]}\n"
    both = one + "    - {name: two, classes: [blue, yellow]}\n"
    text = Path(config).read_text().replace("  increment: 2\n", "")
    Path(config).write_text(text.replace("kind: classes\n", one))
    learn_stream(config)
    Path(config).write_text(text.replace("kind: classes\n", both))
    learn_stream(config, [*OPEN, "evaluate.limit=1"])  # the first image of each set: a red one and a blue one
    version = find(client, "colours", "2")
    origin = lineage(place, client, version)
    assert origin.facts["grown out of"] == "version 1" and [(row[0], row[-1]) for row in origin.sessions] == [("one", "1"), ("two", "2")]

    assert not course(place, client, version, "class", "red").measured
    told = course(place, client, version, "class", "green")
    assert told.measured and [(effect.session, effect.images) for effect in told.effects] == [("one", 0), ("two", 4)]
    plan = planned(job_of(config))
    (examined,) = (each for each in plan.stream.exam(2) if each.name == "one")
    hits = evaluate(revive(plan.build(), version.tags["evergreen.state"], place.steps), [examined], EvalConfig())["one"].hits
    assert told.effects[-1].after == hits[[label == "green" for label in examined.data.labels]].mean()


def test_a_session_with_wrong_labels_is_not_cleared_by_its_own_test_images() -> None:
    """Pooled over all images the second session would raise the class from 9 to 40 of 60 right, and the third would be at fault."""
    right, wrong = np.ones(10, bool), np.zeros(10, bool)
    good, bad = np.arange(10) < 9, np.ones(40, bool)
    hits = [[wrong, ~bad, wrong], [good, ~bad, wrong], [wrong, bad, wrong], [np.arange(10) < 5, ~bad, right]]
    told = Course(effects(["may", "june", "july"], [1, 2, 3], hits), False)
    assert told.effects[1] == Effect("june", 0.9, 0.0, 10) == told.worst()
    assert told.effects[0].images == 0 and told.effects[2] == Effect("july", 0.8, 0.1, 50)
    probed = effects(["may"], [0, 1], [[good, wrong], [right, right]])
    assert probed == [Effect("may", 0.9, 1.0, 10)]  # a probe is there from the beginning


def growing(config: str, stored: Path) -> None:
    """Have the config learn a collection, which has two sessions by now."""
    for name, colours in (("may", (0, 1)), ("june", (0, 2))):
        append(stored / "data" / "inbox", name, {"train": table(colours, 8), "test": table(colours, 4, seed=5 + len(name))}, "labels")
    Path(config).write_text(re.sub(r"(?s)stream:.*?method:", COLLECTION + "method:", Path(config).read_text()))


def test_an_answer_is_about_what_was_asked_though_a_session_came_in_overnight(
    config: str, stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    growing(config, stored)
    monkeypatch.setenv(EMBEDDED, "1")
    outcome = learn_stream(config, ["gate.approval=true"])
    assert outcome["gate"] == "waiting"
    append(stored / "data" / "inbox", "july", {"train": table((3, 4), 8), "test": table((3, 4), 4, seed=9)}, "labels")
    planned.cache_clear()
    monkeypatch.setattr("flows.approval.suspend_flow_run", lambda **_: Approval(approve=True, who="Ann", why="slept on it"))
    assert approve("colours", "1", "2999-01-01T00:00:00+00:00") == "promoted"
    client = connect(Place(stored))
    assert holders(client)[CHAMPION] == "1" and history(Place(stored), client, "colours")[-1].who == "Ann"
    assert client.get_run(outcome["run"]).data.tags["evergreen.gate_reason"].endswith("Ann agreed: slept on it")


def test_a_collection_that_grew_since_is_bisected_as_it_was_learned(config: str, stored: Path) -> None:
    place = Place(stored)
    growing(config, stored)
    learn_stream(config)
    client = connect(place)
    version = find(client, "colours", CHAMPION)
    before = course(place, client, version, "class", "red")
    assert [(effect.session, effect.images) for effect in before.effects] == [("may", 0), ("june", 4)]
    append(stored / "data" / "inbox", "july", {"train": table((3, 4), 8), "test": table((3, 4), 4, seed=9)}, "labels")
    planned.cache_clear()
    assert repr(course(place, client, version, "class", "red")) == repr(before)  # nan is not equal to itself


def test_a_change_that_is_cut_short_leaves_one_of_the_two_and_a_history_that_agrees(config: str, stored: Path, monkeypatch: Any) -> None:
    place = Place(stored)
    client = connect(place)
    learn_stream(config)
    with monkeypatch.context() as broken:
        broken.setattr("flows.stream.judge", judge.with_options(retries=0))
        broken.setattr(MlflowClient, "set_registered_model_alias", _dies)
        with pytest.raises(OSError, match="killed"):
            learn_stream(config, ["seed=1", *OPEN])
    assert holders(client) == {CHAMPION: "1", CHALLENGER: None}
    assert "evergreen.gate" not in client.get_run(str(find(client, "colours", "2").run_id)).data.tags  # it is asked again
    assert [made.after for made in history(place, client, "colours")] == ["1"]

    notes: list[str] = []
    note = registry.note

    def once(*arguments: Any) -> None:
        notes.append("note")
        note(*arguments) if len(notes) == 1 else _dies()

    with monkeypatch.context() as broken:
        broken.setattr(registry, "note", once)
        with pytest.raises(OSError, match="killed"):
            change(place, client, "colours", CHAMPION, "2", "after the alias")
    assert holders(client)[CHAMPION] == "2"
    assert [(made.before, made.after, made.why) for made in history(place, client, "colours")][-1] == ("1", "2", "after the alias")
    assert learn_stream(config, ["seed=1", *OPEN])["gate"] == "promoted" and len(client.search_model_versions("name = 'colours'")) == 2


def test_an_unreadable_champion_is_kept(config: str, stored: Path) -> None:
    client = connect(Place(stored))
    first = learn_stream(config)
    for file in (stored / "mlruns" / "artifacts").rglob("*.safetensors"):
        file.write_bytes(b"damaged")
    second = learn_stream(config, ["seed=1", *OPEN])
    assert first["gate"] == "promoted" and second["gate"] == "refused" and holders(client) == {CHAMPION: "1", CHALLENGER: "2"}
    assert "the champion cannot be read: version 1" in client.get_run(second["run"]).data.tags["evergreen.gate_reason"]


def test_a_model_of_fewer_sessions_does_not_take_the_place_of_one_that_knows_more(config: str, stored: Path) -> None:
    client = connect(Place(stored))
    listed = "kind: listed\n  sessions:\n    - {name: one, classes: [red, green]}\n"
    text = Path(config).read_text().replace("  increment: 2\n", "")
    Path(config).write_text(text.replace("kind: classes\n", listed + "    - {name: two, classes: [blue, yellow]}\n"))
    assert learn_stream(config)["gate"] == "promoted"
    Path(config).write_text(text.replace("kind: classes\n", listed))
    fewer = learn_stream(config, OPEN)
    told = client.get_run(fewer["run"]).data.tags["evergreen.gate_reason"]
    assert fewer["gate"] == "refused" and holders(client) == {CHAMPION: "1", CHALLENGER: "2"}
    assert told == "it was not asked about set 'two' and class 'blue', 'yellow', which the champion knows"


def test_a_person_has_the_last_word_by_hand_where_no_page_is_open(config: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(EMBEDDED, "1")
    client = connect(Place(stored))
    outcome = learn_stream(config, ["gate.approval=true"])
    assert outcome["gate"] == "waiting" and holders(client) == {CHAMPION: None, CHALLENGER: "1"}
    assert client.get_run(outcome["run"]).data.tags["evergreen.gate_reason"].endswith("evergreen promote colours 1")


Said = Literal["no", "yes", "by hand"]


@pytest.mark.parametrize(("said", "verdict", "champion"), [("no", "refused", None), ("yes", "promoted", "1"), ("by hand", "promoted", "1")])
def test_a_flow_waits_on_its_page_and_goes_on_by_the_answer(
    config: str, stored: Path, said: Said, verdict: str, champion: str | None
) -> None:
    place, settings, told = Place(stored), ["gate.approval=true"], Told()
    with ThreadPoolExecutor() as pool, watched_by(told):
        answering = pool.submit(copy_context().run, answer, place, said, config, settings)
        outcome = learn_stream(config, settings)
        answering.result()
    client = connect(place)
    assert outcome["gate"] == verdict and holders(client) == {CHAMPION: champion, CHALLENGER: "1"}
    (line,) = [line for line in told.lines if "waits for a person" in line]
    assert re.search(
        r"version 1 of colours waits for a person until \d{4}-.* UTC \(24 hours\): click Resume at http.*/runs/flow-run/", line
    )
    tags = client.get_run(outcome["run"]).data.tags
    assert tags["evergreen.gate_reason"].endswith({"no": "Ann said no: seen", "yes": "Ann agreed: seen"}.get(said, "agreed: by Ann"))
    (*_, last) = history(place, client, "colours")
    if said == "yes":
        assert (last.alias, last.who) == (CHAMPION, "Ann")
    assert learn_stream(config, settings)["gate"] == verdict and len(history(place, client, "colours")) == (1 if said == "no" else 2)


class Told(LogWatch):
    """Everything that is told, to be looked at."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def tell(self, text: str) -> None:
        self.lines.append(text)


def answer(place: Place, said: Said, config: str, settings: list[str]) -> None:
    """What a person does on the page of the run that waits; whatever goes wrong, it does not wait for ever."""
    with get_client(sync_client=True) as client:
        paused = FlowRunFilter(state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.PAUSED])))
        while not (runs := client.read_flow_runs(flow_run_filter=paused)):
            time.sleep(0.1)
        try:
            _meanwhile(place, client, runs[0].id, said, config, settings)
        finally:
            if client.read_flow_runs(flow_run_filter=paused):
                client.resume_flow_run(runs[0].id, run_input={"approve": said == "yes", "who": "Ann", "why": "seen"})


def _meanwhile(place: Place, client: SyncPrefectClient, run: UUID, said: Said, config: str, settings: list[str]) -> None:
    """The living do not take it for dead, nor ask for the same, and who answers says who they are; or answers by hand."""
    assert reap_flows(place) == []
    if said == "by hand":
        os.environ["PREFECT_API_URL"] = str(client.api_url)
        shown = CliRunner().invoke(app, ["promote", "colours", "1", "--why", "by Ann"])
        assert "colours: version 1 waited for a person's word, and is agreed with" in shown.output, shown
        return
    if said == "yes":
        told = Told()
        with watched_by(told):
            assert learn_stream(config, settings)["gate"] == "waiting"
        assert [line for line in told.lines if "waits for a person until" in line and str(run) in line]
    nameless = client.resume_flow_run(run, run_input={"approve": said == "yes"})
    assert nameless.status == SetStateStatus.REJECT


def test_going_back_twice_goes_back_two_versions(stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    client.create_registered_model("colours")
    for version in ("1", "2", "3"):
        client.create_model_version("colours", "file:///nowhere")
        change(place, client, "colours", CHAMPION, version, "better")
    for expected in ("2", "1"):
        change(place, client, "colours", CHAMPION, earlier(place, client, "colours"), "rollback")
        assert holders(client)[CHAMPION] == expected
    with pytest.raises(StoreError, match="no version was champion before 1; say which with --to"):
        earlier(place, client, "colours")


def test_what_happened_is_in_the_order_in_which_it_happened_though_the_clock_was_set_back(
    stored: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place(stored)
    client = connect(place)
    client.create_registered_model("colours")
    old = {
        "when": "2026-05-01T12:00:00+00:00",
        "who": "ann@x",
        "alias": CHAMPION,
        "before": None,
        "after": "1",
        "why": "w",
        "state": "done",
    }
    client.create_model_version("colours", "file:///nowhere")
    client.set_registered_model_tag("colours", "evergreen.history.0", json.dumps(old))  # before there were numbers
    client.set_registered_model_alias("colours", CHAMPION, "1")
    for version, when in (("2", "2026-05-03T12:00:00+00:00"), ("3", "2026-05-02T12:00:00+00:00")):  # set back a day between the two
        client.create_model_version("colours", "file:///nowhere")
        monkeypatch.setattr(registry, "_now", lambda when=when: when)
        change(place, client, "colours", CHAMPION, version, "better")
    assert [(made.before, made.after) for made in history(place, client, "colours")] == [(None, "1"), ("1", "2"), ("2", "3")]
    for day, champion in ((1, "1"), (2, "3"), (3, "3"), (9, "3")):
        assert chosen(place, client, "colours", datetime(2026, 5, day)).version in (champion, int(champion))
    for expected in ("2", "1"):
        change(place, client, "colours", CHAMPION, earlier(place, client, "colours"), "rollback")
        assert holders(client)[CHAMPION] == expected


def test_what_was_deleted_in_mlflow_is_registered_and_judged_again(config: str, stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    outcome = learn_stream(config)

    def standing_judged() -> bool:
        return same(client, client.get_run(outcome["run"]).data.tags)

    gone = f"no model 'colours'; {NOBODY}; if it was deleted in MLflow, `evergreen run` or `update` with its config"
    deletions = {
        gone: lambda: client.delete_registered_model("colours"),
        "model colours: it has no version any more; `evergreen run` or `update`": lambda: client.delete_model_version("colours", "1"),
        "its files cannot be read": lambda: [shutil.rmtree(each) for each in (stored / "mlruns" / "artifacts").glob("models/m-*")],
    }
    for (told, delete), version in zip(deletions.items(), ("1", "2", "3"), strict=True):
        delete()
        with pytest.raises(StoreError, match=re.escape(told)):
            served(place, client, "colours")
        assert not standing_judged()
        again = learn_stream(config)
        assert again["gate"] in ("promoted", "refused") and again["run"] == outcome["run"] and standing_judged()
        assert served(place, client, f"colours/{version}").version == version
    change(place, client, "colours", CHAMPION, "3", "its champion's files are gone")
    assert learn_stream(config)["run"] == outcome["run"] and str(find(client, "colours", CHAMPION).version) == "3"


def test_a_model_without_a_champion_says_how_it_gets_one(stored: Path) -> None:
    client = connect(Place(stored))
    client.create_registered_model("colours")
    client.create_model_version("colours", "file:///nowhere")
    with pytest.raises(StoreError, match="no version or alias 'champion'; there are 1; `evergreen promote colours 1` makes one champion"):
        find(client, "colours", CHAMPION)
    for letter in range(12):
        client.create_registered_model(f"m{letter:02}")
    with pytest.raises(StoreError, match=r"no model 'x'; there are .* and 3 more"):
        find(client, "x", "1")


def test_a_version_is_named_in_the_ways_people_name_it(stored: Path) -> None:
    place = Place(stored)
    client = connect(place)
    with pytest.raises(StoreError, match=r"no model is registered yet; `evergreen update CONFIG` makes one .*`evergreen run CONFIG`"):
        chosen(place, client, None)
    (stored / "a.yaml").write_text("name: a\nstream: {kind: classes, sources: {a: a}}\n")
    with pytest.raises(StoreError, match=r"no model is registered yet; `evergreen run a\.yaml` makes one$"):
        chosen(place, client, None)
    (stored / "b.yaml").write_text("name: b\nstream:\n  kind: collection\n")
    with pytest.raises(StoreError, match=r"no model is registered yet; `evergreen update b\.yaml` or `evergreen run a\.yaml` makes one$"):
        chosen(place, client, None)
    client.create_registered_model("colours")
    for _ in range(2):
        client.create_model_version("colours", "file:///nowhere")
    change(place, client, "colours", CHAMPION, "1", "better")
    change(place, client, "colours", CHALLENGER, "2", "worse")
    for model, number in {"colours": "1", "colours@challenger": "2", "colours/2": "2", "colours/champion": "1"}.items():
        assert str(chosen(place, client, model).version) == number
    for model, number in {None: "1", "champion": "1", "challenger": "2", "2": "2"}.items():
        assert str(chosen(place, client, model).version) == number
    for name in ("it's", 'it\'s "so"', "../x", ""):
        for ask in (lambda name=name: find(client, name, "1"), lambda name=name: history(place, client, name)):
            with pytest.raises(StoreError, match=r"no model .*; there are colours"):
                ask()
    day = datetime(2026, 1, 1)
    with pytest.raises(StoreError, match="colours/2: names a version, and --as-of asks which one was champion then"):
        chosen(place, client, "colours/2", day)
    with pytest.raises(StoreError, match="no version was champion on 2026-01-01"):
        chosen(place, client, None, day)

    made = change(place, client, "colours", CHAMPION, "champion", "rollback to itself")
    assert (made.before, made.after) == ("1", "1") and len(history(place, client, "colours")) == 2
    change(place, client, "colours", CHAMPION, "challenger", "by alias")
    assert holders(client)[CHAMPION] == "2" and [each.after for each in history(place, client, "colours")] == ["1", "2", "2"]
    client.create_registered_model("shapes")
    for model in (None, "champion"):
        with pytest.raises(StoreError, match=r"which model\? there are colours, shapes"):
            chosen(place, client, model)


def _dies(*_: Any) -> None:
    raise OSError("killed")
