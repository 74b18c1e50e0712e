"""What an earlier release left of a version: in MLflow its settings, its verdict and its classes, on disk the steps that led to it."""

import json
import re
from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import mlflow
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cl.data.classes import ClassName
from cl.errors import EvergreenError, StoreError
from cl.plain_yaml import parse
from cl.steps import Step, read_step
from flows.registry.lineage import text_of
from flows.registry.question import BOUNDS, GATE, REASON
from flows.settings import Place
from flows.tracking.runs import KEY


@dataclass(frozen=True)
class Past:
    """A version as it was recorded. Nothing of it has gone through the models of today."""

    version: str
    key: str  # of its last step
    config: dict[str, Any]
    word: str  # of the gate: "promoted", "refused", "waiting"; "": it was not asked
    reason: str
    bounds: dict[str, Any]
    code: str
    base: str  # digest of the base model's weights; "": not recorded
    versions: dict[str, str]  # of Evergreen and of libraries
    judged: str  # when its run ended, which is when the gate had spoken (ISO 8601, UTC); "": it has not
    classes: tuple[ClassName, ...] | None  # that it had learned, in order; None: its files do not say so any more

    @property
    def joint(self) -> bool:
        """Whether it learned every session at once."""
        return bool(self.config.get("joint"))


def past(client: MlflowClient, version: ModelVersion) -> Past | None:
    """What is recorded of a version; None where its run, or the settings it left, are gone, or no release of Evergreen made it.

    Raises:
        ConfigError: its recorded settings are damaged.
    """
    try:
        run = client.get_run(str(version.run_id))
        tags = run.data.tags
        text = text_of(version, "config.yaml")
    except (MlflowException, StoreError):
        return None
    config = parse(text, f"config.yaml of {version.name}/{version.version}")
    if KEY not in tags or not isinstance(config, dict):
        return None
    base = re.search(r"\(([0-9a-f]{32})\)$", tags.get("evergreen.base_model", ""))
    return Past(
        version=str(version.version),
        key=tags[KEY],
        config=config,
        word=tags.get(GATE, ""),
        reason=tags.get(REASON, ""),
        bounds=json.loads(tags.get(BOUNDS, "{}")),
        code=tags.get("evergreen.code", ""),
        base=base[1] if base else "",
        versions=_versions(version),
        judged=iso(run.info.end_time),
        classes=_classes(version),
    )


def iso(milliseconds: int | None) -> str:
    """A time of MLflow's as histories have it.

    >>> iso(1_700_000_000_123), iso(None)
    ('2023-11-14T22:13:20.123000+00:00', '')
    """
    return "" if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC).isoformat(timespec="microseconds")


def steps_to(place: Place, key: str, known: Collection[str] = ()) -> list[Step]:
    """The steps that led to one, the earliest first; what lies before the first whose state is known already is not read.

    Raises:
        StoreError: one is not there, or damaged.
    """
    steps: list[Step] = []
    after: str | None = key
    while after is not None:
        step = read_step(place.steps / "steps" / after)
        steps.append(step)
        after = None if step.state in known else step.parent
    return steps[::-1]


def _versions(version: ModelVersion) -> dict[str, str]:
    try:
        told = json.loads(text_of(version, "report.json"))["provenance"]["versions"]
        return {str(name): str(number) for name, number in told.items()}
    except (EvergreenError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _classes(version: ModelVersion) -> tuple[ClassName, ...] | None:
    try:
        told = mlflow.artifacts.load_dict(f"models:/{version.name}/{version.version}/artifacts/bundle/bundle.json")
        return tuple(ClassName(each["name"], tuple(each["prompts"])) for each in told["classes"])
    except Exception:  # whatever store it lies in raises its own; the data say it too
        return None
