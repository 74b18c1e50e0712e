"""A served run is the flow that was registered here, whatever the server says of its deployment by now."""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import prefect.runner.runner as runner
from prefect.client.schemas.objects import FlowRun
from prefect.flows import Flow, load_flow_from_entrypoint
from prefect.runner._starter_engine import EngineCommandStarter

from cl.errors import StoreError


def only(registered: Mapping[UUID, str]) -> None:
    """Let Prefect's runner start these entrypoints alone, by the id of their deployment; no pull step, path or block from the API runs.

    Whoever can write to the API could else have a deployment run a shell script before its flow. Prefect reads a deployment anew in
    the process of each run; one that is given its entrypoint does not. Both names are looked up in the runner's module at each run.
    """

    class Registered(EngineCommandStarter):
        async def start(self, flow_run: FlowRun, *args: Any, **named: Any) -> None:
            self._entrypoint = _of(flow_run, registered)
            await super().start(flow_run, *args, **named)

    async def load(flow_run: FlowRun, **_: Any) -> Flow[..., Any]:  # for the hooks of a run that crashed or was cancelled
        return load_flow_from_entrypoint(_of(flow_run, registered))

    for name, ours in (("EngineCommandStarter", Registered), ("load_flow_from_flow_run", load)):
        getattr(runner, name)  # an error where another Prefect calls it otherwise
        setattr(runner, name, ours)


def _of(flow_run: FlowRun, registered: Mapping[UUID, str]) -> str:
    entrypoint = registered.get(flow_run.deployment_id) if flow_run.deployment_id else None
    if entrypoint is None:
        raise StoreError(f"flow run {flow_run.id} is of no deployment that is served here")
    return entrypoint
