"""Where things are: what nobody named is the project's, and a path that somebody types is one from where they are."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl.errors import ConfigError
from flows.cli.main import app
from flows.learn.job import job_of
from flows.settings import Place
from tests.conftest import lay_out
from tests.make import png


@pytest.fixture
def elsewhere(project: Path, tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Another checkout with a `data` of its own, which is where we are; EVERGREEN_ROOT names the project all the same."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "data").mkdir()
    monkeypatch.chdir(folder)
    return folder


def test_the_default_is_the_projects_and_what_is_typed_or_set_is_from_here(
    project: Path, elsewhere: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = Place.find()
    assert place.data_in() == project / "data" and place.data_in("data") == elsewhere / "data"
    assert place.data_in("/somewhere") == Path("/somewhere") and place.data_in("../more") == elsewhere.parent / "more"
    monkeypatch.setenv("EVERGREEN_DATA", "shared")
    assert place.data_in() == elsewhere / "shared" and place.data_in("data") == elsewhere / "data"


def test_a_folder_that_was_removed_under_us_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EVERGREEN_ROOT", raising=False)
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(ConfigError, match="not there any more; change to one that is"):
        Place.find()


def test_a_run_learns_from_the_projects_data_wherever_it_is_started(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = lay_out(project)
    (project / "notes" / "data").mkdir(parents=True)
    monkeypatch.chdir(project / "notes")
    assert job_of(str(config)).folder == str(project / "data")


@pytest.mark.parametrize("command", [["ingest", "may", "--session", "may"], ["data", "add", "may", "may"]])
def test_what_comes_in_goes_to_the_project_and_not_to_where_it_was_typed(project: Path, elsewhere: Path, command: list[str]) -> None:
    for colour in (0, 1):
        (elsewhere / "may" / str(colour)).mkdir(parents=True)
        for seed in range(4):
            (elsewhere / "may" / str(colour) / f"{seed}.png").write_bytes(png(colour, seed))
    answer = CliRunner().invoke(app, command)
    assert answer.exit_code == 0, answer.output
    assert [*(project / "data").rglob("train.parquet")] and not [*(elsewhere / "data").iterdir()]
    typed = CliRunner().invoke(app, [*command, "--data-root", "data"])
    assert typed.exit_code == 0 and [*(elsewhere / "data").rglob("train.parquet")], typed.output
