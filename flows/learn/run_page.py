"""What Prefect's pages say of a flow run: a name that tells it from others before it begins, and what came of it, first of all.

A run's tags stand beside its name, on its page and in every list; its one Markdown page belongs to the run and not to a task, so that it
comes before the tables of tasks.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from prefect import runtime
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import ArtifactCreate

from cl.errors import EvergreenError
from cl.names import visible
from cl.run_config import label
from flows.learn.configs import settings
from flows.settings import Place

_TAGS, _LONG = 8, 80  # at most, and characters of one


def open_with(key: str, markdown: str, told: str, tags: Sequence[str]) -> None:
    """Let the page of the flow run that this is part of open with a verdict: `tags` beside its name, `markdown` under `key` before tables.

    `told`: one line about it.
    """
    run = UUID(str(runtime.flow_run.id))
    short = [visible(tag)[:_LONG] for tag in tags if tag][:_TAGS]
    with get_client(sync_client=True) as client:
        client.create_artifact(ArtifactCreate(type="markdown", key=key, description=told, data=markdown, flow_run_id=run))
        client.update_flow_run(run, tags=list(dict.fromkeys([*runtime.flow_run.tags, *short])))


def run_name() -> str:
    """What the flow run that this is part of is called."""
    return named(str(runtime.flow_run.flow_name), runtime.flow_run.parameters, runtime.flow_run.scheduled_start_time)


def named(flow: str, parameters: Mapping[str, Any], when: datetime | None) -> str:
    """What a flow run is called: stream, method, seed and what else was set; an `update`, of which there are many, by its time.

    Where the settings cannot be read, the run has its config's name, and tells what is wrong when it begins.
    """
    config, overrides = parameters.get("config", "glyphs"), parameters.get("overrides") or []
    moment = f", {when.astimezone(UTC):%Y-%m-%d %H:%M} UTC" if when and flow == "update" else ""
    try:
        run = settings(config, overrides, Place.find())
    except (EvergreenError, OSError):
        name = str(config if isinstance(config, str) else config.get("name", "")).rsplit("/", 1)[-1].removesuffix(".yaml")
        return visible(" ".join([name, *map(str, overrides)])) + moment

    more = [each for each in overrides if each.partition("=")[0] not in ("method", "seed")]
    rest = f" ({', '.join(more)})" if more else ""
    if flow == "compare":
        methods, seeds = (run.compare.methods, run.compare.seeds) if run.compare else ([run.method], [run.seed])
        return visible(f"{run.name} comparison, {_count(len(methods), 'method')}, {_count(len(seeds), 'seed')}{rest}")
    return visible(f"{run.name} {label(run)} seed {run.seed}{rest}") + moment


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
