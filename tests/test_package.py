"""A registered version: made once per run whatever was killed where, served with the answers that were measured, and nothing pickled."""

import base64
import csv
import inspect
import io
import json
import os
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from PIL import Image

import cl.data.images
import flows.registry.model
from cl.data.images import decode
from cl.errors import ConfigError, DataError, ModelError, StoreError
from cl.evaluation.evaluate import at_rest
from cl.store.bundle import Bundle
from flows.registry.answers import check, classified, ranked, write
from flows.registry.champion import CHAMPION, change
from flows.registry.model import image_of, version_of
from flows.registry.package import register
from flows.registry.predict import Served, classify, export, rank, served
from flows.settings import Place
from flows.tracking.runs import MODEL, Tracker
from tests.make import png
from tests.test_bundle import bundle

NAMES = ["red", "green", "white"]  # the last was never taught
PNGS = [png(colour, 3) for colour in (0, 1, 6)]
ENCODED = [base64.b64encode(each).decode() for each in PNGS]


@pytest.fixture
def tracker(stored: Path) -> Tracker:
    return Tracker(Place(stored), "colours")


def run(tracker: Tracker, key: str = "key") -> str:
    return tracker.open(key, "stream", "colours", {}, {"seed": 5})[0]


def registered(tracker: Tracker, name: str) -> str:
    return register(tracker, run(tracker, name), "colours", bundle(name), 2, {"evergreen.method": name})


def own(name: str) -> np.ndarray:
    """What the method itself says of the images, by its bundle's own reckoning, which test_bundle.py compares with the method."""
    held = bundle(name)
    with at_rest(held.method):
        return np.asarray(held.shares([Image.open(io.BytesIO(each)).convert("RGB") for each in PNGS], NAMES))


class Killed(BaseException):
    """Nothing in between may catch it, as nothing catches a kill."""


STEPS = [
    (MlflowClient, "create_logged_model"),
    (MlflowClient, "log_outputs"),
    (MlflowClient, "log_model_artifacts"),
    (MlflowClient, "finalize_logged_model"),
    (MlflowClient, "create_registered_model"),
    (MlflowClient, "create_model_version"),
    (MlflowClient, "set_tag"),
]


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_killed_anywhere_and_called_again_there_is_one_version_and_one_logged_model(
    tracker: Tracker, monkeypatch: pytest.MonkeyPatch, after: bool
) -> None:
    id = run(tracker)
    for owner, name in STEPS:
        real = getattr(owner, name)

        def dies(*given: Any, real: Any = real, **named: Any) -> Any:
            if after:
                real(*given, **named)
            raise Killed

        with monkeypatch.context() as broken:
            broken.setattr(owner, name, dies)
            with pytest.raises(Killed):
                register(tracker, id, "colours", bundle("finetune"), 2, {"evergreen.method": "finetune"})
    assert register(tracker, id, "colours", bundle("finetune"), 2, {}) == "models:/colours/1"
    (version,) = tracker.client.search_model_versions("name = 'colours'")
    (logged,) = tracker.client.search_logged_models([tracker.experiment])
    assert (version.run_id, version.tags["evergreen.method"]) == (id, "finetune") and logged.model_id in version.source
    assert logged.status == "READY" and logged.source_run_id == id and logged.params == {"seed": "5"}
    assert tracker.client.get_run(id).data.tags[MODEL] == "models:/colours/1"
    assert len(served(tracker.place, tracker.client, "colours/1").bundle.classes) == 4
    assert register(tracker, run(tracker, "other"), "colours", bundle("finetune"), 2, {}) == "models:/colours/2"


@pytest.mark.parametrize("name", ["finetune", "cpe_clip", "ridge"])
def test_what_is_served_and_what_predict_says_is_what_was_measured(tracker: Tracker, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])  # MLflow puts the code that came with a model in front of it
    address = registered(tracker, name)
    model = mlflow.pyfunc.load_model(address)
    answers = model.predict(pd.DataFrame({"image": ENCODED, "labels": [NAMES] * 3}))
    assert answers["asked"].tolist() == [NAMES] * 3 and answers["model"].tolist() == ["colours/1"] * 3
    assert np.abs(np.array(answers["scores"].tolist()) - own(name)).max() < 1e-6

    for path, content in zip(("0.png", "1.png", "2.png"), PNGS, strict=True):
        Path(path).write_bytes(content)
    packaged = served(tracker.place, tracker.client, address.removeprefix("models:/"))
    said = [dict(row) for row in classify(packaged, [Path(f"{i}.png") for i in range(3)], NAMES)]
    assert np.abs(np.array([[row[each] for each in NAMES] for row in said]) - own(name)).max() < 1e-12

    files = {path.suffix for path in Path(mlflow.artifacts.download_artifacts(address)).rglob("*") if path.is_file()}
    assert files <= {".safetensors", ".json", ".py", ".yaml", ".yml", ".txt", ".typed", ""}  # MLmodel has no suffix
    needs = Path(mlflow.artifacts.download_artifacts(f"{address}/requirements.txt")).read_text()
    assert "evergreen" not in needs and ("pydantic" in needs) == (name != "finetune")


def test_a_row_may_ask_in_four_ways_and_a_template_may_be_given(tracker: Tracker) -> None:
    model = mlflow.pyfunc.load_model(registered(tracker, "finetune"))
    nothing = {"labels": None, "texts": None, "query": None}
    rows = [{"labels": ["red", "green"]}, {"texts": ["a red square", "a green square"]}, {"query": "a red square"}, {}]
    answers = model.predict(pd.DataFrame([{"image": ENCODED[0], **nothing, **row} for row in rows]))
    asked = [["red", "green"], ["a red square", "a green square"], ["a red square"], ["red", "green", "blue", "yellow"]]
    assert answers["asked"].tolist() == asked
    labels, texts, query, known = answers["scores"]
    assert labels == pytest.approx(texts, abs=1e-6) and sum(labels) == pytest.approx(1) == pytest.approx(sum(known))
    assert len(query) == 1 and -1 <= query[0] <= 1
    other = model.predict(pd.DataFrame({"image": ENCODED[:1], "labels": [["red", "green"]]}), params={"template": "{}"})["scores"][0]
    assert other != pytest.approx(labels, abs=1e-6)
    together = model.predict(pd.DataFrame({"image": ENCODED, "query": ["a red square"] * 3}))["scores"]
    assert together[0] == pytest.approx(query, abs=1e-6)


def test_a_row_may_ask_whether_an_image_shows_none_of_the_names(tracker: Tracker) -> None:
    address = registered(tracker, "ridge")
    model, known = mlflow.pyfunc.load_model(address), ["red", "green", "blue", "yellow"]
    rows = [{"labels": known, "none": True}, {"labels": known, "none": None}]
    answers = model.predict(pd.DataFrame([{"image": ENCODED[0], **row} for row in rows]))
    assert answers["asked"].tolist() == [[*known, "none of these"], known]
    assert sum(answers["scores"][0]) == pytest.approx(1) and answers["scores"][0][-1] in (0.0, 1.0)
    with pytest.raises(MlflowException, match="1 name was never taught") as caught:
        model.predict(pd.DataFrame([{"image": ENCODED[0], "labels": ["red", "zebra"], "none": True}]))
    assert caught.value.error_code == "INVALID_PARAMETER_VALUE"
    Path("0.png").write_bytes(PNGS[0])
    packaged = served(tracker.place, tracker.client, address.removeprefix("models:/"))
    (said,) = classify(packaged, [Path("0.png")], known, none=True)
    assert {name for name, _ in said} == {*known, "none of these"} and dict(said)["none of these"] == answers["scores"][0][-1]
    with pytest.raises(DataError, match="a class is called 'none of these' itself"):
        classify(packaged, [Path("0.png")], ["red", "none of these"], none=True)


def odd_images() -> dict[str, bytes]:
    """What a plain `convert("RGB")` opens otherwise than learning does."""
    turned, wide = Image.Exif(), np.zeros((40, 60), np.uint16)
    turned[0x0112] = 6  # a photograph held upright
    wide[:20] = 40000
    half = np.full((40, 60, 4), (200, 30, 90, 128), np.uint8)
    half[20:, :, 3] = 0
    ramp = Image.fromarray(np.arange(2400, dtype=np.uint16).astype(np.uint8).reshape(40, 60)).convert("RGB")
    images = {"turned.png": (ramp, {"exif": turned}), "wide.png": (Image.fromarray(wide), {}), "half.png": (Image.fromarray(half), {})}
    images["palette.png"] = (ramp.convert("P"), {"transparency": 0})
    images["float.tif"] = (Image.fromarray(np.linspace(0, 1, 2400, dtype=np.float32).reshape(40, 60)), {})
    files = {}
    for name, (image, options) in images.items():
        file = io.BytesIO()
        image.save(file, name.partition(".")[2].upper().replace("TIF", "TIFF"), **options)  # type: ignore[arg-type]
        files[name] = file.getvalue()
    return files


@pytest.mark.parametrize("name", ["turned.png", "wide.png", "half.png", "palette.png", "float.tif"])
def test_served_and_asked_by_hand_an_image_is_opened_as_for_learning(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    content = odd_images()[name]
    learned = np.asarray(decode(content, name))
    plain = np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))
    assert plain.shape != learned.shape or (plain != learned).any()
    assert (np.asarray(image_of(base64.b64encode(content).decode(), 0)) == learned).all()
    (tmp_path / name).write_bytes(content)
    seen: list[Image.Image] = []
    held = bundle("finetune")
    monkeypatch.setattr(Bundle, "cosines", lambda self, images, texts: seen.extend(images) or torch.zeros(len(seen), 1))
    rank(Served("colours", "1", held), [tmp_path / name], "a red square")
    assert (np.asarray(seen[0]) == learned).all()


def test_what_is_served_refuses_what_learning_refuses() -> None:
    for name in ("FORMATS", "MAX_PIXELS", "MAX_ASPECT"):
        assert getattr(flows.registry.model, name) == getattr(cl.data.images, name)
    for name in ("pixels", "oversized", "upright_rgb", "eight_bits"):
        assert inspect.getsource(getattr(flows.registry.model, name)) == inspect.getsource(getattr(cl.data.images, name))
    for size, told in (((9000, 9000), "9000 x 9000 pixels or tiles"), ((3000, 2), "at most 100 times as long as wide")):
        file = io.BytesIO()
        Image.new("1", size).save(file, "PNG")
        with pytest.raises(MlflowException, match=f"row 3: .*{told}"):
            image_of(base64.b64encode(file.getvalue()).decode(), 3)
    with pytest.raises(DataError, match="--query: found nothing"):
        rank(Served("colours", "1", bundle("finetune")), [Path("0.png")], " ")


WRONG = [
    ({"image": "no base64!", "labels": ["a", "b"]}, None, "row 0: image is not base64"),
    ({"image": base64.b64encode(b"no image").decode(), "labels": ["a", "b"]}, None, "row 0: image is not one that can be read"),
    ({"image": base64.b64encode(PNGS[0][:60]).decode(), "labels": ["a", "b"]}, None, "row 0: image is not one that can be read"),
    ({"image": ENCODED[0], "labels": ["a"]}, None, "row 0: labels is ['a'], expected at least two texts"),
    ({"image": ENCODED[0], "query": " "}, None, "row 0: query is ' ', expected a text"),
    ({"image": ENCODED[0], "labels": ["a", "b"], "query": "a"}, None, "found labels and query, expected one of labels, texts, query"),
    ({"image": ENCODED[0], "query": "a", "none": True}, None, "row 0: none is about labels or texts, and a query has neither"),
    (
        {"image": ENCODED[0], "labels": ["a", "b"], "none": True},
        None,
        "none: this model's method does not tell whether an image shows none",
    ),
    ({"image": ENCODED[0], "labels": ["a", "b"]}, {"template": "a photo"}, "template: found 'a photo', expected a text with one {}"),
]


def test_what_is_wrong_with_a_question_is_told(tracker: Tracker) -> None:
    model = mlflow.pyfunc.load_model(registered(tracker, "finetune"))
    for row, params, told in WRONG:
        with pytest.raises(MlflowException) as caught:
            model.predict(pd.DataFrame([row]), params=params)
        assert caught.value.error_code == "INVALID_PARAMETER_VALUE" and told in caught.value.message


def test_the_input_example_is_one_that_mlflow_has_tried(tracker: Tracker, caplog: pytest.LogCaptureFixture) -> None:
    address = registered(tracker, "finetune")
    assert "Failed to validate serving input" not in caplog.text
    held = Model.load(mlflow.artifacts.download_artifacts(address))
    assert held.signature.inputs.required_input_names() == ["image"]
    assert held.signature.inputs.optional_input_names() == ["labels", "texts", "query", "none"]
    assert held.saved_input_example_info and held.signature.params


def test_a_version_leaves_in_either_layout_whole_or_not_at_all(tracker: Tracker, monkeypatch: pytest.MonkeyPatch) -> None:
    place, client = tracker.place, tracker.client
    registered(tracker, "finetune"), registered(tracker, "ridge")
    change(place, client, "colours", CHAMPION, "1", "test")
    export(place, client, "colours", Path("plain"), "open_clip")
    export(place, client, "colours@champion", Path("theirs"), "hugging_face")
    assert {path.name for path in Path("plain").iterdir()} == {"open_clip_config.json", "open_clip_model.safetensors", "evergreen.json"}
    for folder in ("plain", "theirs"):
        told = json.loads((Path(folder) / "evergreen.json").read_text())
        assert (told["model"], told["version"], told["template"]) == ("colours", "1", list(bundle("finetune").template))
        known = [{"name": each.name, "prompts": list(each.prompts)} for each in bundle("finetune").classes]
        assert told["classes"] == known and len(known) == 4
    assert {"config.json", "model.safetensors"} <= {path.name for path in Path("theirs").iterdir()}
    with pytest.raises(ModelError, match=r"colours/2: what ridge learned lies beside its CLIP, which neither layout holds"):
        export(place, client, "colours/2", Path("heads"), "open_clip")
    with pytest.raises(StoreError, match="plain: exists already; choose another folder"):
        export(place, client, "colours/1", Path("plain"), "open_clip")

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("cl.models.hugging_face.save_tensors", full)
    with pytest.raises(StoreError, match="heads: cannot be written"):
        export(place, client, "colours/1", Path("heads"), "hugging_face")
    assert not Path("heads").exists() and not [*Path().rglob("*.part")] and not [*place.runs.glob(".fetched-*")]


def test_an_answer_names_the_version_that_was_served_when_it_was_loaded(tracker: Tracker) -> None:
    registered(tracker, "finetune"), register(tracker, run(tracker, "again"), "colours", bundle("finetune"), 2, {})
    change(tracker.place, tracker.client, "colours", CHAMPION, "2", "test")
    row = pd.DataFrame({"image": ENCODED[:1]})
    model = mlflow.pyfunc.load_model("models:/colours@champion")
    assert model.predict(row)["model"].tolist() == ["colours/2"]
    change(tracker.place, tracker.client, "colours", CHAMPION, "1", "rollback")
    assert model.predict(row)["model"].tolist() == ["colours/2"]  # as README says: a served alias does not move by itself
    folder = Path(mlflow.artifacts.download_artifacts("models:/colours/2"))
    (folder / "registered_model_meta").unlink()
    assert version_of(folder).startswith("m-") and version_of(folder / "nowhere") == "unknown"


def test_answers_go_to_a_file_in_full(tracker: Tracker) -> None:
    registered(tracker, "finetune")
    images = [Path("=a,b.png"), Path("1.png")]
    for path, content in zip(images, PNGS, strict=False):
        path.write_bytes(content)
    model = served(tracker.place, tracker.client, "colours/1")
    answers = classify(model, images, ["red", "-green", "white, wet"])
    for kind in ("csv", "jsonl"):
        check(Path(f"o.{kind}"))
        write(list(classified(model, images, answers)), Path(f"o.{kind}"))
        with pytest.raises(StoreError, match=f"--out o.{kind}: exists already"):
            check(Path(f"o.{kind}"))
    lines = [json.loads(line) for line in Path("o.jsonl").read_text().splitlines()]
    assert [(each["name"], each["share"]) for each in lines[:3]] == answers[0] and lines[3]["image"] == "1.png"
    assert {each["model"] for each in lines} == {"colours/1"} and [each["rank"] for each in lines] == [1, 2, 3] * 2
    rows = list(csv.DictReader(Path("o.csv").read_text().splitlines()))
    assert {row["image"] for row in rows} == {"'=a,b.png", "1.png"} and {row["name"] for row in rows} == {"red", "'-green", "white, wet"}
    assert [float(row["share"]) for row in rows] == [each["share"] for each in lines]
    write(list(ranked(model, "a square", rank(model, images, "a square"))), Path("q.jsonl"))
    assert [json.loads(line)["query"] for line in Path("q.jsonl").read_text().splitlines()] == ["a square"] * 2
    for name, error in (("o.xlsx", ConfigError), ("nowhere/o.csv", StoreError)):
        with pytest.raises(error, match="--out"):
            check(Path(name))


def test_predict_knows_the_classes_that_were_learned_and_says_what_it_cannot_read(tracker: Tracker) -> None:
    registered(tracker, "finetune")
    Path("0.png").write_bytes(PNGS[0])
    model = served(tracker.place, tracker.client, "colours/1")
    assert {name for name, _ in classify(model, [Path("0.png")])[0]} == {"red", "green", "blue", "yellow"}
    with pytest.raises(DataError, match="found 1 name, expected at least two"):
        classify(model, [Path("0.png")], ["red", "red"])
    assert rank(model, [Path("0.png")], "a red square")[0][0] == Path("0.png")
    for path in tracker.place.runs.rglob("bundle.json"):
        path.unlink()
    with pytest.raises(StoreError, match=r"bundle.json: not there"):
        served(tracker.place, tracker.client, "colours/1")


@pytest.fixture
def server(tracker: Tracker) -> Iterator[str]:
    """`mlflow models serve` of a prompt method, which finds `cl` nowhere but in the model's own folder."""
    address = registered(tracker, "cpe_clip")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    hide = tracker.place.root / "hide" / "sitecustomize.py"
    hide.parent.mkdir()
    hide.write_text("import os, sys\nsys.path[:] = [each for each in sys.path if not os.path.isdir(os.path.join(each, 'cl'))]\n")
    programs = Path(sys.executable).parent
    path = f"{programs}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "MLFLOW_TRACKING_URI": tracker.uri, "PYTHONPATH": str(hide.parent), "PATH": path}
    assert subprocess.run([sys.executable, "-c", "import cl"], env=environment, cwd=hide.parent, capture_output=True).returncode == 1
    words = ["models", "serve", "-m", address, "--env-manager", "local", "--host", "127.0.0.1", "--port", str(port)]
    with subprocess.Popen([programs / "mlflow", *words], env=environment, start_new_session=True) as process:
        try:
            deadline = time.monotonic() + 300
            while time.monotonic() < deadline and process.poll() is None:
                try:
                    urllib.request.urlopen(f"http://127.0.0.1:{port}/ping", timeout=5).close()
                    break
                except OSError:
                    time.sleep(1)
            yield f"http://127.0.0.1:{port}/invocations"
        finally:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGTERM)


def post(address: str, body: dict[str, Any]) -> Any:
    request = urllib.request.Request(address, json.dumps(body).encode(), {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=120) as answer:
        return json.load(answer)


@pytest.mark.slow
def test_mlflow_serves_it_over_http(server: str) -> None:
    answers = post(server, {"dataframe_records": [{"image": each, "labels": NAMES} for each in ENCODED]})["predictions"]
    assert np.abs(np.array([each["scores"] for each in answers]) - own("cpe_clip")).max() < 1e-6
    rows = [{"image": ENCODED[0], "labels": None, "query": "a red square"}, {"image": ENCODED[1], "labels": NAMES, "query": None}]
    mixed = post(server, {"dataframe_records": [*rows, {"image": ENCODED[2], "labels": None}]})["predictions"]
    assert [len(each["scores"]) for each in mixed] == [1, 3, 4]
    for row, params, told in WRONG:
        with pytest.raises(urllib.error.HTTPError) as caught:
            post(server, {"dataframe_records": [row], **({"params": params} if params else {})})
        assert caught.value.code == 400 and told in json.load(caught.value)["message"]
