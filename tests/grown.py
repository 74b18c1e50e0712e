"""A project whose model has grown by real updates, with no Prefect around them: what its tasks do is called as it is."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mlflow
import pytest
from prefect.tasks import Task

import cl.onward
import flows.forward
import flows.line.entered
import flows.line.grow
import flows.line.policy
import flows.line.rebuild
import flows.line.verdict
from cl.data.collection import append
from cl.evaluation.gate import Decision
from flows.learn.job import prepared
from flows.line.ruling import Ruled
from tests.make import table

CONFIG = """
name: growing
model: {{name: tiny}}
stream: {{kind: collection, sources: {{inbox: inbox}}, template: "a {{}} square", candidates: seen}}
method: {method}
train: {{epochs: 1, batch_size: 8, lr: 1.0e-3}}
evaluate: {{geometry: 0}}
"""


def learned_by(patch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sessions that are really learned from then on."""
    names: list[str] = []
    real = cl.onward.learn

    def learn(method: Any, session: Any, *arguments: Any, **options: Any) -> Any:
        names.append(session.name)
        return real(method, session, *arguments, **options)

    patch.setattr(cl.onward, "learn", learn)
    return names


def sparing(patch: pytest.MonkeyPatch) -> None:
    """Without figures, pages and packages, which take seconds."""
    for module in ("flows.line.entered", "flows.registry.publish"):
        patch.setattr(f"{module}.whole", lambda report: iter(()))
    for module in ("flows.registry.pages", "flows.line.line_page"):
        patch.setattr(f"{module}.write", lambda reports, folder, seen=None: folder.mkdir(parents=True, exist_ok=True))
        patch.setattr(f"{module}.images", lambda *_: {})
    patch.setattr("flows.registry.package._log", _logged)


def _logged(run_id: str | None, model_id: str, *_: Any) -> None:
    client = mlflow.MlflowClient()
    folder = Path(client.get_logged_model(model_id).artifact_location.removeprefix("file://"))
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "MLmodel").write_text("x")
    client.finalize_logged_model(model_id, "READY")


def without_prefect(patch: pytest.MonkeyPatch) -> None:
    """What its tasks do is called as it is, and nothing is put on its pages."""
    for module in (flows.forward, flows.line.entered, flows.line.grow, flows.line.policy, flows.line.rebuild, flows.line.verdict):
        for name, value in list(vars(module).items()):
            if isinstance(value, Task):
                patch.setattr(module, name, value.fn)
            elif name == "create_table_artifact":
                patch.setattr(module, name, lambda **_: None)


def plainly(patch: pytest.MonkeyPatch) -> None:
    """No task of Prefect's, no figures, no pages, and a gate that lets everything through."""
    without_prefect(patch)
    patch.setattr(flows.line.verdict, "rule", lambda *_: Ruled(Decision(True, (), "good enough"), {}))
    patch.setattr(flows.line.verdict, "page", lambda *_: None)
    patch.setattr("flows.line.entered.whole", lambda report: iter(()))


def arrive(project: Path, name: str, colours: Sequence[int], seed: int = 0, each: int = 6) -> None:
    """A session more."""
    rows = {"train": table(colours, each, seed=seed), "test": table(colours, 3, seed=seed + 50)}
    append(project / "data" / "inbox", name, rows, "labels")


def grow(project: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One update."""
    os.environ["EVERGREEN_ROOT"] = str(project)
    return flows.forward.catch_up(prepared(str(project / "growing.yaml"), list(overrides)))
