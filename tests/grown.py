"""A project whose model has grown by real updates, with no Prefect around them: what its tasks do is called as it is."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

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


def plainly(patch: pytest.MonkeyPatch) -> None:
    """No task of Prefect's, no figures, no pages, and a gate that lets everything through."""
    import flows.forward
    import flows.line.grow
    import flows.line.policy
    import flows.line.verdict

    names = ("learn", "enter", "judge", "publish", "note_ruling")
    for module in (flows.forward, flows.line.verdict, flows.line.policy, flows.line.grow):
        for name in names:
            if hasattr(getattr(module, name, None), "fn"):
                patch.setattr(module, name, getattr(module, name).fn)
    patch.setattr(flows.line.verdict, "create_table_artifact", lambda **_: None)
    patch.setattr(flows.line.verdict, "rule", lambda *_: Ruled(Decision(True, (), "good enough"), {}))
    patch.setattr(flows.line.verdict, "page", lambda *_: None)
    patch.setattr("cl.reports.items.items", lambda report: iter(()))
    patch.setattr("cl.reports.write.write", lambda reports, folder: folder.mkdir(parents=True, exist_ok=True))


def arrive(project: Path, name: str, colours: Sequence[int], seed: int = 0, each: int = 6) -> None:
    """A session more."""
    rows = {"train": table(colours, each, seed=seed), "test": table(colours, 3, seed=seed + 50)}
    append(project / "data" / "inbox", name, rows, "labels")


def grow(project: Path, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """One update."""
    from flows.forward import catch_up

    os.environ["EVERGREEN_ROOT"] = str(project)
    return catch_up(prepared(str(project / "growing.yaml"), list(overrides)))
