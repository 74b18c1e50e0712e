"""What the READMEs say is so: their code runs, their settings are valid, their files and commands exist."""

import re
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from typer.testing import CliRunner

from cl.config import TrainConfig
from cl.data.table import write
from cl.learning.learner import learn
from cl.methods import CONFIGS
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import FitConfig
from cl.methods.tuners.whole import Whole
from cl.run_config import RunConfig, label, parse_config, read_config, variants
from flows.cli.main import app
from tests import make

ROOT = Path(__file__).parents[1]
READMES = [ROOT / name for name in ("README.md", "cl/README.md", "flows/README.md")]
RECIPES = ROOT / "docs" / "guide" / "recipes.md"
BLOCKS = re.compile(r"^```(\w+)\n(.*?)^```", re.S | re.M)


def blocks(path: Path, kind: str) -> list[str]:
    return [text for language, text in BLOCKS.findall(path.read_text()) if language == kind]


def test_the_part_of_the_guide_learns_and_pulls() -> None:
    names: dict[str, object] = {}
    (part,) = (block for block in blocks(RECIPES, "python") if "CalmConfig" in block)
    exec(part, names)
    session, config = make.session(1, (0, 1), (0, 1)), TrainConfig(max_steps=4, batch_size=8, lr=1e-3, device="cpu")
    moved = []
    for pull in (0.0, 100.0):
        clip = make.tiny()
        tuner = Whole(clip)
        calm = names["CalmConfig"](pull=pull).build(tuner, 0)
        method = Recipe(clip, 0, tuner=tuner, terms={"clip": FitConfig().build(tuner, 0), "calm": calm})
        before = [weight.detach().clone() for weight in method.trainable()]
        learn(method, session, config, 0)
        pairs = zip(method.trainable(), before, strict=True)
        moved.append(float(torch.stack([(now - then).square().sum() for now, then in pairs]).sum()))
    assert 0 < moved[1] < moved[0]


def pets() -> RunConfig:
    text = re.search(r"<<'EOF'\n(.*?)EOF", READMES[0].read_text(), re.S)
    assert text
    return parse_config(yaml.safe_load(text[1]), "README")


def test_the_settings_of_the_readme_are_valid() -> None:
    assert pets().method.name == "vr_lwf"


def test_the_python_of_the_readme_learns_what_its_yaml_does(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write({"train": make.table(range(8), 4), "test": make.table(range(8), 2, seed=5)}, project / "data" / "pets")
    (project / "cat.jpg").write_bytes(make.png(0, 1))
    (code,) = (block for block in blocks(READMES[0], "python") if "cl.read_stream" in block)
    names: dict[str, Any] = {}
    exec(code.replace('"ViT-B-32", "openai"', '"tiny"'), names)
    yaml_says = pets()
    assert (names["stream"].candidates, len(names["stream"].sessions)) == (yaml_says.stream.candidates, 2)
    assert "'last': 0." in capsys.readouterr().out
    told = re.search(r"learn\(session, (.*)\)", code)
    assert told and TrainConfig(**eval(f"dict({told[1]})")) == yaml_says.train


def test_the_three_ways_to_write_a_method_are_valid_and_each_is_another_recipe() -> None:
    bare = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}
    ways = [parse_config(bare | tree, "README").method for tree in yaml.safe_load_all(blocks(RECIPES, "yaml")[0])]
    assert [way.name for way in ways] == ["vr_lwf", "vr_lwf", "recipe"]
    assert len({str(way.spelled()) for way in ways}) == 3


@pytest.mark.parametrize("path", sorted((ROOT / "flows" / "configs").rglob("*.yaml")), ids=lambda path: "-".join(path.parts[-2:])[:-5])
def test_every_shipped_config_is_valid_with_every_method_it_compares(path: Path) -> None:
    assert len({label(run) for run in variants(read_config(path))}) >= 4


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.parent.name))
def test_links_lead_somewhere(path: Path) -> None:
    for link in re.findall(r"\]\((?!http)([^)#]+)\)", path.read_text()):
        assert (path.parent / link).exists(), link


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.parent.name))
def test_a_name_that_leads_to_a_file_is_defined_there(path: Path) -> None:
    for name, file in re.findall(r"\[`(\w+)`\]\(([^)#]+\.py)\)", path.read_text()):
        assert re.search(rf"^ *(def|class) {name}\b", (path.parent / file).read_text(), re.M), f"{name} is not defined in {file}"


def test_files_that_are_named_exist_and_all_are_named() -> None:
    for folder in ("cl", "flows"):
        told = (ROOT / folder / "README.md").read_text()
        files = [file for file in (ROOT / folder).rglob("*.py") if not file.name.startswith("__")]
        alike = {"methods", "layouts"}  # rooms of files that are one like the other
        assert {file.name for file in files if not alike & set(file.parts) and f"`{file.name}`" not in told} == set()
        assert set(re.findall(r"`(\w+\.py)`", told)) <= {file.name for file in files}
        assert {
            room.name for room in (ROOT / folder).iterdir() if (room / "__init__.py").exists() and f"`{room.name}/`" not in told
        } == set()


def test_the_readme_lists_every_method_once_and_stays_short() -> None:
    listed = re.findall(r"^- .*$", READMES[0].read_text().partition("## Methods")[2].partition("\n## ")[0], re.M)
    assert sorted(name for line in listed for name in re.findall(r"`(\w+)`", line)) == sorted(CONFIGS.keys() | {"joint"})
    assert len(READMES[0].read_text().splitlines()) <= 120, "what is more than a newcomer needs has its place in docs/"


def hold_commands(path: Path) -> None:
    """Every `evergreen` command of a page is there, with its options."""
    for line in (line for block in blocks(path, "sh") for line in block.splitlines() if not line.startswith("prefect ")):
        command = re.search(r"(?:^|\s)evergreen ((?:data )?[\w-]+)(.*)", line.partition("#")[0])
        if not command:
            continue
        shown = CliRunner().invoke(app, [*command[1].split(), "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0, line
        assert [option for option in re.findall(r"--[\w-]+", command[2]) if option not in shown.output] == [], line


@pytest.mark.parametrize("path", READMES, ids=lambda path: str(path.parent.name))
def test_commands_and_their_options_exist(path: Path) -> None:
    hold_commands(path)


def test_make_has_the_targets_that_are_named() -> None:
    targets = set(re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.M))
    assert set(re.findall(r"`?make ([\w-]+)", READMES[0].read_text())) <= targets
