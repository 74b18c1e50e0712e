"""Where a model comes from, and where it broke."""

import json
from typing import Any, NamedTuple

import mlflow
import numpy as np
from mlflow import MlflowClient

from cl.errors import DataError, StoreError
from cl.evaluate import spread, unpack
from flows.job import Job, planned, title, turns
from flows.registry import CHAMPION, find, holder
from flows.tracking import STATE


class Lineage(NamedTuple):
    """What made a version: facts by name, and its sessions as (name, images, state)."""

    version: str
    facts: dict[str, str]
    sessions: list[tuple[str, str, str]]


def lineage(client: MlflowClient, name: str, version: str) -> Lineage:
    """All of it from the registry and the run that registered the version.

    Raises:
        StoreError: no such version, or its run is gone.
    """
    found = find(client, name, version)
    try:
        report: dict[str, Any] = json.loads(mlflow.artifacts.load_text(f"runs:/{found.run_id}/report.json"))
    except Exception as error:  # whatever store it lies in raises its own
        raise StoreError(f"model {name} version {found.version}: the report of its run {found.run_id} cannot be read") from error
    source = report["provenance"]
    champion = holder(client, name, CHAMPION)
    facts = {
        "method": f"{report['method']}, seed {source['seed']}",
        "base model": source["base_model"],
        "data": source["data"],
        "data revision": found.tags.get("evergreen.data_rev", "–"),
        "stream": f"{report['stream']} ({source['stream']})",
        "code": source["code"],
        "versions": ", ".join(f"{package} {number}" for package, number in source["versions"].items()),
        "settings": f"artifact config.yaml of run {found.run_id}",
        "state": found.tags.get(STATE, "–"),
        "gate": client.get_run(str(found.run_id)).data.tags.get("evergreen.gate_reason", "not asked"),
        "champion": "this version"
        if champion and str(champion.version) == str(found.version)
        else str(champion.version)
        if champion
        else "none",
    }
    costs = report["costs"]
    sessions = [(each, f"{cost['samples']:,}", f"{cost['steps']} steps") for each, cost in zip(report["sessions"], costs, strict=True)]
    return Lineage(str(found.version), facts, sessions)


def scores(job: Job, examined: str | None, label: str | None) -> list[tuple[str, float]]:
    """The score of a set, or of one class over all sets that have it, at the start and after each session that is learned.

    Raises:
        StoreError: the stream is not learned with these settings.
        DataError: no such set, or no test image of that class.
    """
    from cl.run import find as find_step

    plan = planned(job)
    rows = []
    for turn in turns(job):
        step = find_step(plan, turn.index, job.place.steps)
        if step is None:
            break
        sets = {each.name: each for each in plan.stream.exam(turn.index)}
        if examined is not None:
            if examined not in step.row:
                raise DataError(f"no evaluation set {examined!r}; there are {', '.join(step.row)}")
            hits = [unpack(step.hits[examined])]
        else:
            asked = {name: np.array(spread(each.data, plan.config.evaluate.limit).labels) == label for name, each in sets.items()}
            hits = [unpack(step.hits[name])[mine] for name, mine in asked.items() if mine.any()]
            if not hits:
                raise DataError(f"no test image of class {label!r}; classes are named as in the data")
        rows.append((turn.session, float(np.concatenate(hits).mean())))
    if not rows:
        raise StoreError(f"{title(job)} is not learned with these settings, data and code; `evergreen run` learns it")
    return rows
