"""`evergreen init`: the folder it stands in is the project, versioned where that is wanted, with a config that works as it is."""

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from typer.testing import CliRunner

from cl.errors import ConfigError
from cl.run_config import read_config
from flows.cli.init import init as ask
from flows.cli.main import app
from flows.new_project import Wish, init
from flows.settings import Place
from tests import make


def folders(where: Path) -> Path:
    for colour in (0, 1):
        (where / make.COLOURS[colour]).mkdir(parents=True)
        for row in range(6):
            (where / make.COLOURS[colour] / f"{row}.png").write_bytes(make.png(colour, row))
    return where


def test_a_folder_below_another_project_is_a_project_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "pyproject.toml").touch()
    inner = tmp_path / "inner"
    assert Place.find(inner).root == tmp_path.resolve()
    init(inner, Wish("pets", dvc=False))
    assert Place.find(inner).root == inner.resolve()
    assert Place.find(inner / "data").root == inner.resolve()


@pytest.mark.parametrize(
    ("wish", "method", "model", "pretrained"),
    [
        (Wish("pets", dvc=False), "vr_lwf", "ViT-B-32", "openai"),
        (Wish("pets", "tiny", "captions", dvc=False), "mod_x", "tiny", None),
        (Wish("pets", "hf-hub:org/repo", dvc=False), "vr_lwf", "hf-hub:org/repo", None),
    ],
)
def test_the_config_is_commented_and_valid_as_it_is(wish: Wish, method: str, model: str, pretrained: str | None, tmp_path: Path) -> None:
    init(tmp_path, wish)
    config = read_config(tmp_path / "pets.yaml")
    assert (config.method.name, config.model.name, config.model.pretrained) == (method, model, pretrained)
    assert config.stream.kind == "collection"
    assert (tmp_path / "pets.yaml").read_text().count("#") > 8


def test_git_and_dvc_are_begun_once_and_what_is_there_stays(tmp_path: Path) -> None:
    (tmp_path / ".gitignore").write_text("secrets\n")
    told = init(tmp_path, Wish("pets"))
    assert "git and DVC version it; nothing is committed yet: git add -A && git commit -m start" in told
    assert (tmp_path / ".git").is_dir() and "analytics = false" in (tmp_path / ".dvc" / "config").read_text().lower()
    lines = (tmp_path / ".gitignore").read_text().splitlines()
    assert lines[0] == "secrets" and {"/mlruns/", "/.prefect/"} <= set(lines)
    mark = (tmp_path / ".evergreen").read_text()
    again = init(tmp_path, Wish("birds"))
    assert not any("version" in line for line in again)
    assert (tmp_path / ".gitignore").read_text().splitlines() == lines and (tmp_path / ".evergreen").read_text() == mark
    ignored = subprocess.run(["git", "-C", str(tmp_path), "status", "--porcelain"], capture_output=True, text=True).stdout
    assert "mlruns" not in ignored and "pets.yaml" in ignored


def test_dvc_tells_no_story_of_its_own(tmp_path: Path) -> None:
    asked = "import sys; from pathlib import Path; from flows.new_project import Wish, init; init(Path(sys.argv[1]), Wish('pets'))"
    done = subprocess.run([sys.executable, "-c", asked, str(tmp_path)], capture_output=True, text=True, check=True)
    assert (tmp_path / ".dvc").is_dir() and done.stdout == done.stderr == ""


def test_a_folder_inside_a_git_repository_gets_no_second_one(tmp_path: Path) -> None:
    subprocess.run(["git", "init", "--quiet", str(tmp_path)], check=True)
    assert "DVC version it" in init(tmp_path / "inner", Wish("pets"))
    assert not (tmp_path / "inner" / ".git").exists() and (tmp_path / "inner" / ".dvc").is_dir()


@pytest.mark.parametrize(
    ("wish", "told"),
    [
        (Wish("pets", dvc=False), "pets.yaml: is there already; give another --name"),
        (Wish("../pets", dvc=False), "a project's name is made of up to 100 letters"),
        (Wish("birds", "a model", dvc=False), "expected an open_clip name and its tag"),
    ],
)
def test_what_cannot_be_is_told_and_nothing_is_overwritten(wish: Wish, told: str, tmp_path: Path) -> None:
    (tmp_path / "pets.yaml").write_text("mine")
    with pytest.raises(ConfigError, match=told):
        init(tmp_path, wish)
    assert [path.name for path in tmp_path.iterdir()] == ["pets.yaml"] and (tmp_path / "pets.yaml").read_text() == "mine"


def test_the_command_takes_a_first_session_and_says_what_comes_next(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos = folders(tmp_path / "photos")
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["init", "project", "--name", "pets", "--images", "photos", "--model", "tiny", "--no-dvc"])
    assert answer.exit_code == 0, answer.output
    assert "Next: cd project; evergreen update pets.yaml" in answer.stderr
    assert os.environ["EVERGREEN_ROOT"] == str(tmp_path / "project")
    assert (tmp_path / "project" / "data" / "inbox" / "0001-first" / "train.parquet").exists()
    assert sorted(path.name for path in photos.iterdir()) == ["green", "red"]


def test_on_a_terminal_it_asks_and_asks_again_after_a_wrong_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("flows.cli.init.sys", SimpleNamespace(stdin=SimpleNamespace(isatty=lambda: True)))
    answer = CliRunner().invoke(app, ["init", "project", "--no-dvc", "--no-git"], input="pets\nnone\nwords\ncaptions\ntiny\n")
    assert answer.exit_code == 0, answer.output
    assert "'words' is neither labels nor captions" in answer.stderr
    config = read_config(tmp_path / "project" / "pets.yaml")
    assert config.model.name == "tiny" and config.method.name == "mod_x"


def test_answers_that_are_piped_in_are_taken_and_where_they_end_the_defaults_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "answers").write_text("pets\nnone\ncaptions\n")
    with (tmp_path / "answers").open() as answers:
        monkeypatch.setattr(sys, "stdin", answers)
        ask(Path("project"), git=False, dvc=False)
    config = read_config(tmp_path / "project" / "pets.yaml")
    assert (config.model.name, config.model.pretrained, config.method.name) == ("ViT-B-32", "openai", "mod_x")
    with open(os.devnull) as nothing:
        monkeypatch.setattr(sys, "stdin", nothing)
        ask(Path("quiet"), git=False, dvc=False)
    assert (tmp_path / "quiet" / "quiet.yaml").is_file()


@pytest.mark.parametrize(
    ("model", "told"),
    [
        ("glyph_bsae", "no model of open_clip; .*did you mean glyph_base"),
        ("ViT-B-32:opneai", "give it a tag, as ViT-B-32:TAG; .*did you mean openai"),
        ("ViT-B-32", "give it a tag"),
    ],
)
def test_a_model_that_is_none_is_told_before_anything_is_made(model: str, told: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=told):
        init(tmp_path / "project", Wish("pets", model, dvc=False))
    assert not (tmp_path / "project").exists()


def test_images_that_are_not_there_are_told_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    answer = CliRunner().invoke(app, ["init", "project", "--images", "shapesX", "--model", "tiny"])
    assert isinstance(answer.exception, ConfigError) and "shapesX: does not exist" in str(answer.exception)
    assert not (tmp_path / "project").exists()
