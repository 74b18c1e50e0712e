"""`evergreen serve`: the flows as deployments of a Prefect server, started from its UI, its API or a schedule."""

import signal
from collections.abc import Sequence
from typing import Any, cast

from prefect import serve as serve_flows
from prefect.deployments.runner import RunnerDeployment
from prefect.types.entrypoint import EntrypointType

from cl.errors import ConfigError
from flows.compare import compare
from flows.stream import learn_stream


def deployments(config: str, cron: str | None) -> list[RunnerDeployment]:
    """`learn-stream`, on a schedule if `cron` says so, and `compare`; each learns `config` unless a run is given another.

    Raises:
        ConfigError: `cron` is not a schedule.
    """
    # by module: the files may lie in site-packages, and Prefect wants file paths below the current folder
    common: dict[str, Any] = {"parameters": {"config": config}, "entrypoint_type": EntrypointType.MODULE_PATH, "concurrency_limit": 1}
    try:
        learning = learn_stream.to_deployment("learn-stream", cron=cron, description="Learn a stream with one method", **common)
    except ValueError as error:
        raise ConfigError(f'--cron {cron}: not a schedule; expected five fields such as "0 3 * * *", every night at three') from error
    comparing = compare.to_deployment("compare", description="Learn a stream with every method of its config", **common)
    return [cast(RunnerDeployment, learning), cast(RunnerDeployment, comparing)]


def serve(offered: Sequence[RunnerDeployment]) -> None:
    """Register deployments and run them, one at a time, whenever the server says so, until a signal."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # only in place of this one asyncio ends its tasks in order
    serve_flows(*offered, limit=1, print_starting_message=False)
