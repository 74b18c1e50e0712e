"""Exact resume: a session that was cut short goes on to the same bits, for every method, and so does a stream that is killed."""

import logging
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from cl.checkpoint import memory, restore
from cl.config import TrainConfig
from cl.interim import Interim
from cl.learner import learn
from cl.methods import CONFIGS, Method
from cl.stream import Session
from tests import make
from tests.conftest import lay_out
from tests.test_every_method import METHODS, assert_same, build, stream, usable

STEPS = TrainConfig(max_steps=5, batch_size=6, lr=1e-2, device="cpu")
ROOT = Path(__file__).parents[1]


class Killed(Exception):
    """Stands for a kill: nothing is written after it."""


def cut_short(method: Method, session: Session, config: TrainConfig, interim: Interim, steps: int, *, between: bool) -> None:
    """Learn some steps, then be interrupted between two steps, or be killed within one."""

    def interrupt(done: int, total: int, what: str) -> None:
        if done == steps:
            raise SystemExit(143)

    losses = method.losses

    def die(batch: Any) -> Any:
        if batch.step == steps * config.accumulate:
            raise Killed
        return losses(batch)

    if not between:
        method.losses = die  # type: ignore[method-assign]
    with pytest.raises(SystemExit if between else Killed):
        learn(method, session, config, 0, interim=interim, progress=interrupt if between else None)


def resumed(
    name: str, config: TrainConfig, folder: Path, every: float, make_method: Any = None, *, between: bool, steps: int = 2
) -> tuple[Any, Any]:
    """Both ways through the second session, from the same memory after the first: at one go, and cut short and gone on with."""
    fresh = make_method or (lambda: build(name))
    first, second = (usable(name, each) for each in stream().sessions)
    begun = fresh()
    learn(begun, first, config, 0)
    start = {key: value.clone() for key, value in memory(begun).items()}

    def again() -> Method:
        method = fresh()
        restore(method, start, "test")
        return method  # type: ignore[no-any-return]

    whole, parts = again(), again()
    expected = learn(whole, second, config, 0)
    interim = Interim(folder / "interim", every)
    cut_short(parts, second, config, interim, steps, between=between)
    parts = again()
    found = learn(parts, second, config, 0, interim=interim)
    assert (found.steps, found.samples, found.flops) == (expected.steps, expected.samples, expected.flops)
    assert interim.read() is not None, "it goes on from what was kept"
    return memory(whole), memory(parts)


DESCENDING = [name for name in METHODS if list(build(name).trainable())]


@pytest.mark.parametrize("between", [True, False], ids=["interrupted", "killed"])
@pytest.mark.parametrize("name", DESCENDING)
def test_a_session_that_was_cut_short_goes_on_to_the_same_bits(name: str, between: bool, tmp_path: Path) -> None:
    assert_same(*resumed(name, STEPS, tmp_path, 60.0 if between else 1e-9, between=between))


@pytest.mark.parametrize(
    ("name", "settings", "train"),
    [
        ("finetune", {}, {"optimizer": "sgd", "accumulate": 2}),
        ("finetune", {}, {"accumulate": 3, "augment": True}),
        ("zscl", {"ensemble": 2, "texts": 8}, {}),
        ("zscl", {"ensemble": 1, "l2": 0.1, "texts": 8}, {"precision": "bf16-mixed"}),
        ("vr_lwf", {"teacher": "original", "lwf": True, "texts": 8}, {}),
    ],
)
def test_whatever_the_optimizer_holds_comes_back(name: str, settings: dict[str, Any], train: dict[str, Any], tmp_path: Path) -> None:
    def fresh() -> Method:
        return CONFIGS[name](**settings).build(make.tiny(), 0)

    assert_same(*resumed(name, STEPS.model_copy(update=train), tmp_path, 1e-9, fresh, between=False, steps=3))


def test_a_checkpoint_that_is_damaged_or_foreign_is_told_and_not_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    session, interim = stream().sessions[0], Interim(tmp_path / "interim", 1e-9)
    cut_short(build("finetune"), session, STEPS, interim, 2, between=False)
    file = tmp_path / "interim" / "interim.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"?")
    whole, parts = build("finetune"), build("finetune")
    learn(whole, session, STEPS, 0)
    with caplog.at_level(logging.WARNING):
        learn(parts, session, STEPS, 0, interim=interim)
    assert_same(memory(whole), memory(parts))
    assert "the session starts over" in caplog.text


LEARNER = """
import hashlib, json, sys
from pathlib import Path
from cl.run import advance, plan, read_config
config = read_config(Path(sys.argv[1]), ["train.checkpoint=0.02", "train.max_steps=12", "method=" + sys.argv[2]])
made = plan(config, Path("data"), "v")
rows = [advance(made, index, Path("steps")).row for index in range(len(made.keys))]
weights = [hashlib.sha256(Path("steps/states", key, "state.safetensors").read_bytes()).hexdigest() for key in made.states]
print(json.dumps([rows, weights]))
"""


def learned(project: Path, method: str, kill_after: float | None = None) -> str | None:
    """The matrix and the hashes of all weights; None where it was killed."""
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-c", LEARNER, "colours.yaml", method]
    with subprocess.Popen(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, start_new_session=True) as process:
        try:
            out, _ = process.communicate(timeout=kill_after)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.communicate()
            return None
    assert process.returncode == 0
    return out.splitlines()[-1]


def five_sessions(project: Path) -> Path:
    """A stream of five sessions."""
    from cl.data import write

    config = lay_out(project)
    write({"train": make.table(range(5), 12), "test": make.table(range(5), 4, seed=5)}, project / "data" / "colours")
    config.write_text(config.read_text().replace("increment: 2", "increment: 1"))
    return project


def survives(project: Path, method: str, kills: int) -> None:
    whole, broken = project / "whole", project / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        five_sessions(folder)
    started = time.perf_counter()
    expected = learned(whole, method)
    took, chance = time.perf_counter() - started, random.Random(method)
    done = 0
    while done < kills:
        if learned(broken, method, took * chance.uniform(0.4, 0.95)) is not None:
            # it got through: take the last states away again, so that there is something left to kill
            for path in sorted((broken / "steps").rglob("*.json"), key=lambda path: path.stat().st_mtime)[-4:]:
                path.unlink()
        done += 1
    assert learned(broken, method) == expected
    left = [path.name for path in (broken / "steps" / "interim").glob("*")] if (broken / "steps" / "interim").exists() else []
    assert [name for name in left if not name.startswith(".")] == []


def test_a_stream_survives_five_kills(tmp_path: Path) -> None:
    survives(tmp_path, "replay", 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replay", "vr_lwf"])
def test_a_stream_survives_thirty_kills(method: str, tmp_path: Path) -> None:
    survives(tmp_path, method, 15)
