"""What a killed process leaves behind is put to rest at the next start, and what lives is left alone."""

import os
from pathlib import Path
from typing import Any

import pytest
from prefect import flow, get_client, task
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId
from prefect.client.schemas.objects import StateType
from prefect.states import Completed, Running

from flows.settings import Place
from flows.tracking.reap import alive, reap_flows, reap_parts
from flows.tracking.runs import locked


@task
def lesson() -> None:
    """Stands for a session."""


@flow
def learning(root: str) -> list[Any]:
    """Stands for a flow that learns; says who was found dead while it lives."""
    with alive(Place(Path(root))):
        return reap_flows(Place(Path(root)))


def begun(place: Place, state: Any) -> Any:
    """A flow run and a task run in that state, whose process held its lock."""
    with get_client(sync_client=True) as client:
        run = client.create_flow_run(learning, state=state)
        client.create_task_run(lesson, run.id, "lesson-0", state=state)
    with locked(place, f"flow-{run.id}"):
        pass
    return run.id


def states(run_id: Any) -> set[StateType | None]:
    with get_client(sync_client=True) as client:
        tasks = client.read_task_runs(flow_run_filter=FlowRunFilter(id=FlowRunFilterId(any_=[run_id])))
        return {client.read_flow_run(run_id).state_type, *(each.state_type for each in tasks)}


@pytest.mark.usefixtures("prefect_server")
def test_a_flow_whose_process_is_gone_has_crashed_and_one_that_lives_or_ended_has_not(project: Path) -> None:
    place = Place(project)
    dead, ended, living = begun(place, Running()), begun(place, Completed()), begun(place, Running())
    with locked(place, f"flow-{living}"):
        assert reap_flows(place) == [dead]
        assert [states(run) for run in (dead, ended, living)] == [{StateType.CRASHED}, {StateType.COMPLETED}, {StateType.RUNNING}]
        assert [path.name for path in (place.runs / "locks").glob("flow-*")] == [f"flow-{living}"]


@pytest.mark.usefixtures("prefect_server")
def test_a_flow_puts_the_dead_to_rest_when_it_starts_and_is_not_among_them(project: Path) -> None:
    dead = begun(Place(project), Running())
    assert learning(str(project)) == []
    assert states(dead) == {StateType.CRASHED}


def test_half_written_folders_go_once_nobody_can_be_writing_them(project: Path) -> None:
    place = Place(project)
    old, fresh, whole = (place.steps / "states" / name for name in (".a.1.part", ".b.2.part", "c"))
    for folder in (old, fresh, whole):
        folder.mkdir(parents=True)
    os.utime(old, (0, 0))
    os.utime(whole, (0, 0))
    reap_parts(place)
    assert [folder.exists() for folder in (old, fresh, whole)] == [False, True, True]
