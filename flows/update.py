"""The flow that brings a model up to date: what waits is learned session by session, each judged before the next grows from it."""

from datetime import UTC, datetime
from typing import Any

from prefect import flow, runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterExpectedStartTime,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.states import Cancelled

from flows.approval import approved, ask
from flows.forward import catch_up
from flows.learn.configs import settings
from flows.learn.failures import noted
from flows.learn.job import prepared
from flows.learn.run_page import run_name
from flows.line.told import show
from flows.line.work import look
from flows.registry.publish import own_command
from flows.settings import Place, check_writable, quiet
from flows.stream import Config
from flows.tracking.locks import model_locked
from flows.tracking.reap import alive


@flow(name="update", flow_run_name=run_name)
def update(
    config: Config = "glyphs", overrides: list[str] | None = None, data_root: str | None = None, rebuild: bool = False
) -> dict[str, Any]:
    """Learn the sessions of a stream that are not learned yet, judge the model after each, and promote it if the gate lets it.

    Args:
        config: a YAML file, the name of a shipped one, or the settings themselves; its `update` section says when.
        overrides: settings to change, such as "update.policy=drift".
        data_root: the folder that holds the data sets; by default the project's `data`.
        rebuild: learn all that the champion has learned anew beside it, and what waits, and let the gate judge.
    """
    quiet()
    place = Place.find()
    with alive(place), noted(place, own_command(), config, overrides or []):
        with model_locked(place, settings(config, overrides or [], place).name):  # the data are looked at once nobody else learns
            absorb()
            check_writable(place)
            job = prepared(config, overrides or [], data_root, look)
            outcome = catch_up(job, rebuild)
            show(job, outcome)
            asked = ask(job, outcome)
        return approved(job, outcome, asked)


def absorb() -> None:
    """Cancel the runs of this deployment that events have queued so far: what they were to learn is there, and this run learns it."""
    if not runtime.deployment.id:
        return
    with get_client(sync_client=True) as client:
        own = client.read_flow_run(runtime.flow_run.id)
        queued = FlowRunFilter(
            deployment_id=FlowRunFilterDeploymentId(any_=[runtime.deployment.id]),
            state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED])),
            expected_start_time=FlowRunFilterExpectedStartTime(before_=datetime.now(UTC)),
        )
        for run in client.read_flow_runs(flow_run_filter=queued):
            if run.id != own.id and run.parameters == own.parameters:
                client.set_flow_run_state(run.id, Cancelled(message=f"{own.name} learns what this run was to learn"), force=True)
