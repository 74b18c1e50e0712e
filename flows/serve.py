"""`evergreen serve`: the flows as deployments of a Prefect server, started by an event, a schedule, its UI or its API."""

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Mapping, Sequence
from typing import Any, cast
from uuid import UUID

import httpx
import psutil
from prefect.client.orchestration import get_client
from prefect.client.schemas.filters import (
    FlowRunFilter,
    FlowRunFilterDeploymentId,
    FlowRunFilterState,
    FlowRunFilterStateType,
)
from prefect.client.schemas.objects import StateType
from prefect.deployments.runner import RunnerDeployment
from prefect.events import DeploymentEventTrigger
from prefect.exceptions import PrefectException
from prefect.runner import Runner
from prefect.types.entrypoint import EntrypointType

from cl.errors import ConfigError
from flows.approval import approve
from flows.compare import compare
from flows.intake.ingest import EVENT, RESOURCE
from flows.learn.run_page import named
from flows.servers.entrypoints import only
from flows.stream import learn_stream
from flows.tracking.reap import SERVED
from flows.update import update

_RUNS = 8  # that may wait for a model's lock; only one learns
_NAMED = 1.0  # seconds until a run that came in is looked for, which has Prefect's two words for a name
_PATIENCE = 60.0  # seconds a run may take to finish its step and save


def deployments(config: str, cron: str | None, collections: Sequence[str] = ()) -> list[RunnerDeployment]:
    """`update`, started by new sessions of the collections and on a schedule if `cron` says so; `learn-stream` and `compare`, by hand.

    Each learns `config` unless a run is given another. `approve` is started by those that need a person's word, and holds no place:
    Prefect takes it back while a run is paused, and ends whoever cannot renew it then.

    Raises:
        ConfigError: `cron` is not a schedule.
    """
    # by module: the files may lie in site-packages, and Prefect wants file paths below the current folder
    common: dict[str, Any] = {"parameters": {"config": config}, "entrypoint_type": EntrypointType.MODULE_PATH, "concurrency_limit": 1}
    try:
        updating = update.to_deployment(
            "update", cron=cron, triggers=[trigger(name) for name in collections], description="Learn the sessions that wait", **common
        )
    except ValueError as error:
        raise ConfigError(f'--cron {cron}: not a schedule; expected five fields such as "0 3 * * *", every night at three') from error
    learning = learn_stream.to_deployment("learn-stream", description="Learn a stream with one method", **common)
    comparing = compare.to_deployment("compare", description="Learn a stream with every method of its config", **common)
    approving = approve.to_deployment("approve", entrypoint_type=EntrypointType.MODULE_PATH, description="Ask a person about a candidate")
    return [cast(RunnerDeployment, each) for each in (updating, learning, comparing, approving)]


def trigger(collection: str) -> DeploymentEventTrigger:
    """The automation that starts a deployment when a session of the collection has come in."""
    return DeploymentEventTrigger(
        name=f"evergreen: new session in {collection}",
        expect={EVENT},
        match={"prefect.resource.id": f"{RESOURCE}.{collection}"},
    )


def serve(offered: Sequence[RunnerDeployment]) -> None:
    """Register deployments and run them whenever the server says so, one at a time of each and per model, until a signal.

    A run that is under way when the signal comes saves and leaves first; a second signal does not wait for that.
    """
    os.environ[SERVED] = str(os.getpid())
    signal.signal(signal.SIGINT, signal.default_int_handler)  # only in place of this one asyncio puts its own
    runner = Runner(limit=_RUNS)
    served = {cast(UUID, runner.add_deployment(each)): each for each in offered}
    only({own: str(each.entrypoint) for own, each in served.items()})
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_until_stopped(runner, {own: str(each.flow_name) for own, each in served.items()}))


async def name_runs(flows: Mapping[UUID, str], known: dict[UUID, str]) -> None:
    """Give runs that wait to begin the names that they will have: Prefect calls them by two words, until their process has started.

    Args:
        flows: the name of its flow, by the id of each deployment.
        known: runs that have their name, by id; those named now are added.
    """
    waiting = FlowRunFilter(
        deployment_id=FlowRunFilterDeploymentId(any_=list(flows)),
        state=FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.SCHEDULED, StateType.PENDING])),
    )
    async with get_client() as client:
        for run in await client.read_flow_runs(flow_run_filter=waiting):
            flow = flows.get(run.deployment_id) if run.deployment_id else None
            if flow is None or flow == "approve" or run.id in known:  # `approve` is named by who asks
                continue
            known[run.id] = named(flow, run.parameters, run.expected_start_time)
            await client.set_flow_run_name(run.id, known[run.id])


async def _naming(flows: Mapping[UUID, str]) -> None:
    known: dict[UUID, str] = {}
    while True:
        with contextlib.suppress(httpx.HTTPError, PrefectException):  # a server that is away is told by the runner
            await name_runs(flows, known)
        await asyncio.sleep(_NAMED)


async def _until_stopped(runner: Runner, flows: Mapping[UUID, str]) -> None:
    orderly = cast(Callable[[int, Any], None], signal.getsignal(signal.SIGINT))  # asyncio's, which ends its tasks in order

    def stop(number: int, frame: Any) -> None:
        running = [child for child in psutil.Process().children() if "prefect.engine" in child.cmdline()]
        for child in running:
            child.terminate()
        psutil.wait_procs(running, timeout=_PATIENCE)
        orderly(signal.SIGINT, frame)

    signal.signal(signal.SIGINT, stop)
    runner.handle_sigterm = stop  # type: ignore[method-assign]  # its own leaves at once, and kills what runs
    naming = asyncio.create_task(_naming(flows))
    try:
        await runner.start()
    finally:
        naming.cancel()
