"""Who learns what comes in: a collection that no config reads is told, and so is a second `up`."""

from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl.errors import StoreError
from flows.cli.main import app
from flows.intake.readers import unread
from flows.settings import Place

COLLECTION = "name: a\nstream: {kind: collection, sources: {inbox: inbox}}\n"
CLASSES = "name: b\nstream: {kind: classes, sources: {pets: pets}}\n"


@pytest.mark.parametrize(
    ("configs", "into", "told"),
    [
        ({}, "inbox", False),  # a project that is only about to have one
        ({"a.yaml": COLLECTION}, "inbox", False),
        ({"a.yaml": COLLECTION, "b.yaml": CLASSES}, "inbox", False),
        ({"b.yaml": CLASSES}, "inbox", True),
        ({"a.yaml": COLLECTION}, "inbox2", True),
        ({"other.yaml": "services: {}\n"}, "inbox", False),
    ],
)
def test_a_collection_that_no_config_reads_is_told(configs: dict[str, str], into: str, told: bool, tmp_path: Path) -> None:
    for name, text in configs.items():
        (tmp_path / name).write_text(text)
    lines = unread(Place(tmp_path), into)
    assert bool(lines) is told
    assert not told or (f"no config here learns {into}" in lines[0] and f"{{kind: collection, sources: {{{into}: {into}}}}}" in lines[0])


def test_a_second_up_says_that_the_first_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EVERGREEN_ROOT", str(tmp_path))
    monkeypatch.setattr("flows.servers.servers.noticed", lambda place: "http://127.0.0.1:4200/api")
    answer = CliRunner().invoke(app, ["up"])
    assert isinstance(answer.exception, StoreError)
    assert "runs already for this project, at http://127.0.0.1:4200; `evergreen up --open` shows" in str(answer.exception)
    opened: list[str] = []
    monkeypatch.setattr("webbrowser.open", lambda page: opened.append(page) or True)
    assert CliRunner().invoke(app, ["up", "--open"]).exit_code == 0 and opened[0].startswith("file://")
