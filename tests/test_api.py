"""`import cl`: a dozen names that stay, which learn and answer to the bit as the command line does."""

import inspect
import json
import math
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

import cl
from cl.errors import ConfigError, DataError, EvergreenError, MethodError, StoreError
from tests import make
from tests.conftest import COLOURS, lay_out

STREAM = yaml.safe_load(COLOURS)["stream"]
TRAIN = {"epochs": 1, "batch_size": 8, "lr": 1e-3}
RED = str(make.COLOURS[0])


@pytest.fixture
def red(project: Path) -> Path:
    lay_out(project)
    (project / "red.png").write_bytes(make.png(0, 77))
    return project / "red.png"


def test_every_public_name_is_there_says_what_it_is_and_is_no_room() -> None:
    for name in cl.__all__:
        assert inspect.getdoc(getattr(cl, name)), name
        assert not list((Path(cl.__file__).parent).glob(f"{name}*")), f"{name} would hide a module, or be hidden by it"
    assert set(cl.__all__) <= set(dir(cl))
    with pytest.raises(AttributeError, match="public are EvergreenError, Matrix, Model"):
        cl.train  # noqa: B018


def test_importing_costs_nothing_until_a_name_is_asked_for() -> None:
    asked = "import sys, cl; assert 'torch' not in sys.modules; cl.EvergreenError; assert 'torch' not in sys.modules"
    subprocess.run([sys.executable, "-c", asked], cwd=Path(cl.__file__).parents[1], check=True)


@pytest.mark.parametrize(
    "settings",
    [{"name": "vr_lwf", "texts": 5}, pytest.param({"name": "replay", "capacity": 8}, marks=pytest.mark.slow)],
    ids=["vr_lwf", "replay"],
)
def test_learning_in_memory_and_from_a_config_give_the_same_matrix_and_answers(settings: dict[str, Any], red: Path) -> None:
    stream, overrides = cl.read_stream(STREAM), [f"method={json.dumps(settings)}", "evaluate.geometry=0"]
    model = cl.Model("tiny", recipe=cl.recipe(**settings))
    rows = [model.evaluate(stream.exam(0))]
    for session in stream.sessions:
        model.learn(session, **TRAIN)
        rows.append(model.evaluate(stream.exam(session.index)))
    report, other = cl.learn_stream("colours.yaml", overrides)
    assert cl.matrix(stream, rows).to_json() == report.matrix.to_json()
    assert torch.equal(model.predict([red]), other.predict([red])) and model.classes == other.classes == tuple(make.COLOURS[:4])
    again, _ = cl.learn_stream(yaml.safe_load(COLOURS), overrides)  # found
    assert again.to_json() == report.to_json()


def test_before_it_learns_the_base_model_answers_whatever_its_recipe_begins_as(red: Path) -> None:
    asked = [[red], ["red", "green"]]
    plain, prompted = cl.Model("tiny"), cl.Model("tiny", recipe="cpe_clip")
    assert torch.equal(plain.predict(*asked), prompted.predict(*asked))
    assert plain.classes == () and plain.evaluate(cl.read_stream(STREAM).exam(0)).keys() == {"classes 1-2", "classes 3-4"}
    prompted.learn(cl.read_stream(STREAM).sessions[0], batch_size=8)
    assert not torch.equal(plain.predict(*asked), prompted.predict(*asked))


def test_a_recipes_own_training_settings_hold_as_on_the_command_line(red: Path) -> None:
    still = cl.recipe("finetune", train={"max_steps": 1}, later={"lr": 1e-9})
    stream, model = cl.read_stream(STREAM), cl.Model("tiny", recipe=still)
    model.learn(stream.sessions[0], **TRAIN)
    before = model.predict([red], ["red", "green"])
    model.learn(stream.sessions[1], **TRAIN)
    assert torch.allclose(before, model.predict([red], ["red", "green"]), atol=1e-6)


@pytest.mark.parametrize("name", ["finetune", "cpe_clip", "ncm"])
def test_what_is_saved_answers_to_the_bit_and_does_not_learn(name: str, red: Path) -> None:
    session = cl.read_stream(STREAM).sessions[0]
    model = cl.Model("tiny", recipe=name, seed=3)
    model.learn(session, max_steps=1, batch_size=8)
    model.save("kept")
    kept = cl.load_model("kept")
    assert torch.equal(model.predict([red]), kept.predict([red]))
    assert torch.equal(model.similarity([red], ["a red square"]), kept.similarity([red], ["a red square"]))
    with pytest.raises(MethodError, match="answers and does not learn on"):
        kept.learn(session)
    with pytest.raises(StoreError, match="exists already"):
        model.save("kept")


def test_answers_are_shares_and_cosines_of_paths_and_images_alike(red: Path) -> None:
    model, image = cl.Model("tiny"), make.table([0], 1).image(0)
    shares = model.predict([str(red), red, image], ["red", "green", "red"])
    assert shares.shape == (3, 2) and torch.equal(shares[0], shares[1])
    assert torch.allclose(shares.sum(1), torch.ones(3, dtype=shares.dtype))
    cosines = model.similarity([red], ["a red square", "a blue square"])
    assert cosines.shape == (1, 2) and (cosines.abs() <= 1 + 1e-6).all()


def test_mistakes_are_sentences_of_one_kind(red: Path) -> None:
    stream, model = cl.read_stream(STREAM), cl.Model("tiny")
    assert issubclass(ConfigError, cl.EvergreenError) and cl.EvergreenError is EvergreenError
    with pytest.raises(ConfigError, match=r"learn: epoch: .*epochs"):
        model.learn(stream.sessions[0], epoch=1)
    with pytest.raises(ConfigError, match="unknown method 'vrlwf'; there are"):
        cl.recipe("vrlwf")
    with pytest.raises(ConfigError, match=r"recipe: method\.\w*\.?alpha: "):
        cl.recipe("vr_lwf", alpha=-1)
    with pytest.raises(ConfigError, match="read_stream: stream"):
        cl.read_stream({"kind": "clases", "sources": {"colours": "colours"}})
    with pytest.raises(DataError, match="found 0 labels, expected at least two"):
        model.predict([red])
    with pytest.raises(DataError, match=r"gone\.png: cannot be read"):
        model.predict(["gone.png"], ["red", "green"])
    with pytest.raises(DataError, match=r"number 2 of its stream, and the model has learned 0, so that number 1 is next; go in order"):
        model.learn(stream.sessions[1], **TRAIN)
    model.learn(stream.sessions[0], max_steps=1, batch_size=8)
    with pytest.raises(DataError, match="number 1 of its stream, and the model has learned 1, so that number 2 is next"):
        model.learn(stream.sessions[0], **TRAIN)
    with pytest.raises(DataError, match="its classes do not begin with the 2 that were learned; go in order"):
        model.learn(cl.read_stream(STREAM | {"order": "shuffled", "seed": 1}).sessions[1], **TRAIN)


def test_what_is_handed_in_is_looked_at_before_it_is_used(red: Path) -> None:
    stream, model, names = cl.read_stream(STREAM), cl.Model("tiny"), ["red", "green"]
    sayings: list[tuple[Callable[[], Any], str]] = [
        (
            lambda: cl.read_stream("classes"),
            r"read_stream: found 'classes', expected settings such as .* a whole config is for learn_stream",
        ),
        (lambda: cl.learn_stream(3), r"learn_stream: found 3, expected the path of a YAML file"),
        (lambda: cl.learn_stream("colours.yaml", "method=ncm"), r"overrides: found 'method=ncm', .*put it into a list"),
        (lambda: cl.Model(3), r"Model: name: expected text \(found 3\)"),
        (lambda: cl.Model("tiny", recipe=3), r"recipe: method: expected a group of settings"),
        (lambda: model.learn(None), r"learn: found None, expected one of a stream's sessions"),
        (lambda: stream.exam(99), r"exam\(99\): it has 2 sessions; expected 0, for before any, to 2"),
        (lambda: stream.exam(-1), r"exam\(-1\): it has 2 sessions"),
        (lambda: model.evaluate(stream), r"evaluate: found a value of type Stream, expected evaluation sets, such as stream\.exam\(0\)"),
        (lambda: model.evaluate(stream.exam(0)[0]), r"evaluate: found a value of type EvalSet, .*put it into a list"),
        (lambda: model.predict(str(red), names), r"predict: images: found '.*red\.png', expected paths or images; put it into a list"),
        (lambda: model.predict([], names), r"predict: images: found an empty list"),
        (lambda: model.predict([red, 3], names), r"predict: images: found 3 in the list"),
        (lambda: model.predict([red], "red,green"), r"predict: labels: found 'red,green', expected class names; put it into a list"),
        (lambda: model.similarity([red], "a red square"), r"similarity: texts: found 'a red square'"),
        (lambda: cl.matrix(stream, [{}]), r"matrix: row 0 has scores of no set, expected those of classes 1-2, classes 3-4"),
        (lambda: cl.write_report(stream, "x"), r"write_report: found a value of type Stream, expected reports, in a list"),
        (lambda: cl.load_model("nofolder"), r"load_model: found no folder nofolder; expected one that Model\.save wrote"),
    ]
    for call, told in sayings:
        with pytest.raises(EvergreenError, match=told):
            call()


def test_what_is_doubtful_about_data_is_told(project: Path, caplog: pytest.LogCaptureFixture) -> None:
    for number, name in enumerate(("red", "Red")):
        (project / "data" / "pair" / name).mkdir(parents=True)
        for row in range(5):
            (project / "data" / "pair" / name / f"{row}.png").write_bytes(make.png(0, 10 * number + row))
    cl.read_stream({"kind": "classes", "sources": {"pair": "pair"}, "increment": 2, "test_split": "held_out"})
    assert any("'Red' = 'red'" in each.getMessage() or "'red' = 'Red'" in each.getMessage() for each in caplog.records), caplog.text


@pytest.mark.slow
def test_an_untold_metric_is_nan_and_the_others_are_in_0_to_1(red: Path) -> None:
    report, _ = cl.learn_stream("colours.yaml", ["stream.increment=4"])
    metrics = cl.summary(report.matrix)
    assert math.isnan(metrics["forgetting"]) and 0 <= metrics["last"] <= 1
    cl.write_report([report], "report")
    assert {path.name for path in Path("report").iterdir()} == {"report.html", "report.md", "report.json"}
