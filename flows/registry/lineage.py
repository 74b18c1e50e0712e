"""Where a model comes from: data, base model, code, settings, sessions, and the versions that it grew out of."""

import json
from collections.abc import Mapping, Sequence
from itertools import groupby
from typing import Any, NamedTuple

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from cl.disk.seal import unsealed
from cl.errors import ConfigError, StoreError
from cl.reports.report import FIRST, Report
from cl.run import Step, parse_config
from cl.steps import read_step
from flows.history.conclude import standing_of
from flows.history.entries import Learned
from flows.history.standing import chain
from flows.registry.champion import CHAMPION, holder, versions_of
from flows.settings import Place
from flows.tracking.params import flat
from flows.tracking.runs import KEY, STATE

_TOLD = ("model", "method", "train", "per_session", "seed", "joint", "threads")  # the groups of settings that make a model


class Lineage(NamedTuple):
    """What made a version: facts by name, its sessions as (name, steps, images seen, seconds, state, version), and the settings."""

    version: str
    facts: dict[str, str]
    sessions: list[tuple[str, str, str, str, str, str]]
    settings: dict[str, str]  # of all its sessions, in their order where they differ


def lineage(place: Place, client: MlflowClient, version: ModelVersion) -> Lineage:
    """All of it from the registry and the run that registered the version; its sessions from the model's history, or the steps on disk.

    A session's `version` is the one that was registered when the stream ended there: what this one grew out of.

    Raises:
        StoreError: its run is gone.
    """
    report = report_of(version)
    source, champion = report.provenance, holder(client, version.name, CHAMPION)
    versions = {each.tags[STATE]: each for each in _versions(client, version) if STATE in each.tags}
    path = line_of(place, version)
    states = ["", *(learned.state for learned in path)] if path else [step.state for step in steps_of(place, client, version)]
    if len(states) != len(report.sessions) + 1:
        states = ["–"] * (len(report.sessions) + 1)
    parents = [versions[state] for state in states[:-1] if state in versions]
    holders = {**versions, states[-1]: version}
    facts = {
        "method": f"{report.method}, seed {source.seed}",
        "base model": source.base_model,
        "grown out of": f"version {parents[-1].version}" if parents else "the base model",
        "data": ", then ".join(dict.fromkeys([*(each.tags["evergreen.data"] for each in parents), source.data])),
        "data revision": version.tags.get("evergreen.data_rev", "the working copy"),
        "stream": f"{report.stream} ({source.stream})",
        "code": source.code,
        "libraries": libraries([learned.versions for learned in path] or [source.versions]),
        "gate": client.get_run(str(version.run_id)).data.tags.get("evergreen.gate_reason", "not asked"),
        "champion": "none"
        if champion is None
        else "this version"
        if champion.version == version.version
        else f"version {champion.version}",
        "run": str(version.run_id),
    }
    if dropped := [f"{learned.session}: {what}" for learned in path for what in learned.dropped]:
        facts["left behind"] = "; ".join(dropped)
    sessions = [
        (
            name,
            str(cost.steps),
            f"{cost.samples:,}",
            f"{cost.seconds:.0f}",
            state,
            str(holders[state].version) if state in holders else "–",
        )
        for name, cost, state in zip(report.sessions, report.costs, states[1:], strict=True)
    ]
    return Lineage(str(version.version), facts, sessions, _settings([learned.config for learned in path] or [source.config]))


def line_of(place: Place, version: ModelVersion) -> tuple[Learned, ...]:
    """What a version has learned, by the history of its model; nothing where that does not know it."""
    return chain(standing_of(place, version.name), version.tags.get(STATE))


def libraries(versions: Sequence[Mapping[str, str]]) -> str:
    """What learned, in the order in which one release followed the other.

    >>> libraries([{"evergreen-clip": "0.1.0", "torch": "2.9"}, {"evergreen-clip": "0.2.0", "torch": "2.9"}])
    'evergreen-clip 0.1.0, then 0.2.0; torch 2.9'
    """
    names = dict.fromkeys(name for each in versions for name in each)
    told = ((name, dict.fromkeys(each[name] for each in versions if name in each)) for name in names)
    return "; ".join(f"{name} {', then '.join(numbers)}" for name, numbers in told)


def report_of(version: ModelVersion) -> Report:
    """The report that came with a version.

    Raises:
        StoreError: it is gone or damaged.
    """
    told = json.loads(text_of(version, "report.json"))
    return Report.from_json(unsealed(told, f"report.json of {version.name}/{version.version}", FIRST))


def text_of(version: ModelVersion, file: str) -> str:
    """A text that the run of a version left.

    Raises:
        StoreError: it is gone.
    """
    try:
        return str(mlflow.artifacts.load_text(f"runs:/{version.run_id}/{file}"))
    except Exception as error:  # whatever store it lies in raises its own
        raise StoreError(f"model {version.name} version {version.version}: {file} of its run {version.run_id} cannot be read") from error


def steps_of(place: Place, client: MlflowClient, version: ModelVersion) -> list[Step]:
    """The steps that led to a version, the start first, whatever code is here now; none where one is not in this project's store."""
    key, steps = client.get_run(str(version.run_id)).data.tags.get(KEY), []
    while key:
        try:
            steps.append(read_step(place.steps / "steps" / key))
        except StoreError:
            return []
        key = steps[-1].parent
    return steps[::-1]


def _versions(client: MlflowClient, version: ModelVersion) -> list[ModelVersion]:
    return sorted(
        (each for each in versions_of(client, version.name) if int(each.version) < int(version.version)), key=lambda each: int(each.version)
    )


def _settings(configs: Sequence[dict[str, Any]]) -> dict[str, str]:
    """What was set otherwise than by default, of what makes a model; of several sessions one value after the other where they differ."""
    each = [_set(config) for config in configs]
    names = sorted(dict.fromkeys(name for one in each for name in one), key=lambda name: _TOLD.index(name.partition(".")[0]))
    return {name: ", then ".join(value for value, _ in groupby(one.get(name, "default") for one in each)) for name in names}


def _set(config: dict[str, Any]) -> dict[str, str]:
    try:
        told = parse_config(config, "config of the version").model_dump(mode="json", exclude_defaults=True)
        told |= {"method": {"name": config["method"]["name"], **told.get("method", {})}}
    except ConfigError:  # of another release: all that it had
        told = config
    return flat({name: told[name] for name in _TOLD if name in told})
