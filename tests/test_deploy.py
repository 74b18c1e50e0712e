"""What a team starts with containers says what it is; the same services started for real are in test_team.py."""

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from flows.cli.main import app

ROOT = Path(__file__).parents[1]
DEPLOY = ROOT / "deploy"
SERVER = (ROOT / "docs" / "team" / "one_server.md").read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def services() -> dict[str, dict[str, Any]]:
    return dict(yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))["services"])


def test_nothing_listens_beyond_this_machine_and_every_image_is_one_of_a_version(services: dict[str, dict[str, Any]]) -> None:
    ports = [port for service in services.values() for port in service.get("ports", ())]
    assert ports == ["127.0.0.1:4200:4200", "127.0.0.1:5000:5000"]
    for name, service in services.items():
        assert re.search(r":v?\d", service["image"]), name
        assert "no-new-privileges:true" in service["security_opt"], name
    version = re.search(r'^version = "(.*)"', (ROOT / "pyproject.toml").read_text(), re.M)
    assert version and services["worker"]["image"] == f"evergreen-clip:{version[1]}"
    assert f"-t {services['worker']['image']} ." in SERVER


def test_passwords_are_chosen_by_who_starts_it_and_stand_nowhere(services: dict[str, dict[str, Any]]) -> None:
    wanted = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    given = dict(re.findall(r"^(\w+)=(.*)$", (DEPLOY / "example.env").read_text(), re.M))
    assert wanted == set(given) and set(given.values()) == {""}
    assert "/deploy/.env" in (ROOT / ".gitignore").read_text().split() and "/deploy/.env" in (ROOT / ".dockerignore").read_text().split()
    for service in services.values():
        for name, value in service.get("environment", {}).items():
            assert not re.search("PASSWORD|SECRET|KEY", name) or value.startswith("${"), name


def test_who_waits_for_a_service_waits_for_what_it_can_say(services: dict[str, dict[str, Any]]) -> None:
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            assert how["condition"] != "service_healthy" or "healthcheck" in services[name]


def test_its_variables_are_those_of_the_page_and_its_commands_those_of_the_command_line(services: dict[str, dict[str, Any]]) -> None:
    ours = {name for name in services["server"]["environment"] | services["worker"]["environment"] if not name.startswith("AWS_")}
    assert [name for name in ours if f"`{name}" not in SERVER] == []
    assert services["server"]["environment"]["EVERGREEN_ALLOWED_HOSTS"] == "server"  # as the worker's PREFECT_API_URL calls it
    assert services["worker"]["environment"]["PREFECT_API_URL"] == "http://server:4200/api"
    for name in ("server", "worker"):
        command, *words = services[name]["command"]
        shown = CliRunner().invoke(app, [command, "--help"], env={"COLUMNS": "200", "TERM": "dumb"})
        assert shown.exit_code == 0 and [word for word in words if word.startswith("--") and word not in shown.output] == []


def test_the_databases_are_those_that_the_addresses_name(services: dict[str, dict[str, Any]]) -> None:
    made = {services["database"]["environment"]["POSTGRES_DB"]}
    made |= set(re.findall(r"CREATE DATABASE (\w+)", (DEPLOY / "databases.sql").read_text()))
    addresses = [services["server"]["environment"][name] for name in ("MLFLOW_TRACKING_URI", "PREFECT_SERVER_DATABASE_CONNECTION_URL")]
    assert {address.rpartition("/")[2] for address in addresses} == made == {"mlflow", "prefect"}


def test_the_image_copies_what_is_there_takes_cuda_out_as_make_does_and_runs_as_nobody() -> None:
    text = (DEPLOY / "Dockerfile").read_text(encoding="utf-8")
    for line in re.findall(r"^COPY (.*)$", text, re.M):
        assert all((ROOT / source).exists() for source in line.split()[:-1]), line
    (cut,) = set(re.findall(r"grep -vE '([^']+)' requirements.lock", text))
    assert f"grep -vE '{cut}' requirements.lock" in (ROOT / "Makefile").read_text()
    assert text.index("USER 1000") < text.index("ENTRYPOINT") and "'evergreen-clip[s3,postgres]'" in text
