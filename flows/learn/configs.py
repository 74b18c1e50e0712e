"""Configs as settings that are checked, and which collections they learn."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl.run_config import RunConfig, overridden, parse_config, read_config
from flows.learn.shipped import find_config
from flows.settings import Place


def settings(config: str | dict[str, Any], overrides: Sequence[str], place: Place) -> RunConfig:
    """The checked config: from a YAML file (a path, or the name of one that is shipped) or from plain values.

    Raises:
        ConfigError: no such file, or a setting is wrong; names the setting by its path.
    """
    if isinstance(config, dict):
        return parse_config(overridden(config, overrides), "config")
    return read_config(find_config(config, place), overrides)


def collections(run: RunConfig) -> list[str]:
    """The collections that a config learns: none where its stream does not grow by `evergreen ingest`."""
    sources = run.stream.sources.values() if run.stream.kind == "collection" else ()
    return [Path(source.path).name for source in sources]
