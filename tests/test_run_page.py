"""Prefect's pages: what runs are called before they begin, and what the page of a run opens with."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID, uuid4

import pytest
from prefect import flow
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import ArtifactFilter, ArtifactFilterKey
from prefect.states import Running, Scheduled

from flows.history.entries import Verdict
from flows.learn.run_page import named, open_with
from flows.line.told import _line
from flows.serve import name_runs
from tests.conftest import lay_out

MOMENT = datetime(2026, 11, 27, 5, 22, tzinfo=UTC)


def test_a_run_is_called_by_stream_method_seed_and_what_else_was_set(project: Path) -> None:
    config = str(lay_out(project))
    for flow_name, overrides, expected in [
        ("learn-stream", [], "colours finetune seed 0"),
        ("learn-stream", ["method=replay", "seed=3"], "colours replay seed 3"),
        ("learn-stream", ["seed=1", "train.lr=1e-4"], "colours finetune seed 1 (train.lr=1e-4)"),
        ("compare", ["compare.seeds=[0, 1]"], "colours comparison, 2 methods, 2 seeds (compare.seeds=[0, 1])"),
        ("update", [], "colours finetune seed 0, 2026-11-27 05:22 UTC"),
    ]:
        assert named(flow_name, {"config": config, "overrides": overrides}, MOMENT) == expected


def test_a_run_whose_settings_cannot_be_read_is_called_by_its_config(project: Path) -> None:
    assert named("learn-stream", {"config": "/gone/birds.yaml", "overrides": ["a=b"]}, None) == "birds a=b"
    assert named("update", {"config": "birds"}, MOMENT) == "birds, 2026-11-27 05:22 UTC"
    assert named("learn-stream", {"config": {"name": "x\x1b[2J", "method": "none of these"}}, None) == r"x\x1b[2J"


def test_what_the_gate_said_of_a_hostile_name_stays_text() -> None:
    said = Verdict(state="s", session="<b>", word="refused", version="2", reason="![x](http://harm) fell")
    assert _line("<b>x</b>|", said) == r"**&lt;b>x&lt;/b>\|** refused, as version 2: \!\[x\](http://harm) fell"
    assert _line("may", None) == "**may** is not judged yet"


@pytest.mark.usefixtures("prefect_server")
def test_the_page_of_a_run_opens_with_the_verdict() -> None:
    key = f"verdict-{uuid4().hex}"

    @flow
    def judged() -> str:
        from prefect import runtime

        for _ in range(2):  # tried again
            open_with(key, "# refused", "may refused", ["refused", "", "x" * 300, "shapes/2"])
        return str(runtime.flow_run.id)

    run_id = UUID(judged())
    with get_client(sync_client=True) as client:
        artifacts = client.read_artifacts(artifact_filter=ArtifactFilter(key=ArtifactFilterKey(any_=[key])))
        assert {(each.data, each.description, each.flow_run_id, each.task_run_id) for each in artifacts} == {
            ("# refused", "may refused", run_id, None)
        }
        assert set(client.read_flow_run(run_id).tags) == {"refused", "x" * 80, "shapes/2"}


@pytest.mark.usefixtures("prefect_server")
def test_a_run_of_a_deployment_has_its_name_before_it_begins(project: Path) -> None:
    config = str(lay_out(project))

    @flow(name="learn-stream")
    def anything(config: str, overrides: list[str]) -> None: ...

    async def names() -> tuple[str, str, str, dict[UUID, str]]:
        async with get_client() as client:
            flow_id = await client.create_flow(anything)
            own = await client.create_deployment(flow_id, f"own-{uuid4().hex}")
            other = await client.create_deployment(flow_id, f"other-{uuid4().hex}")
            parameters = {"config": config, "overrides": ["seed=4"]}
            waits = await client.create_flow_run_from_deployment(own, parameters=parameters, state=Scheduled())
            runs = await client.create_flow_run_from_deployment(own, parameters=parameters, state=Running())
            foreign = await client.create_flow_run_from_deployment(other, parameters=parameters, state=Scheduled())
            known: dict[UUID, str] = {}
            for _ in range(2):
                await name_runs({own: "learn-stream"}, known)
            called = [(await client.read_flow_run(each.id)).name for each in (waits, runs, foreign)]
            assert called[1:] == [runs.name, foreign.name] and list(known) == [waits.id]
            return called[0], called[1], called[2], known

    assert asyncio.run(names())[0] == "colours finetune seed 4"
