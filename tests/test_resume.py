"""Exact resume: a session that was cut short goes on to the same bits, for every method, and so does a stream that is killed."""

import contextlib
import logging
import random
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from cl.config import TrainConfig
from cl.disk.files import read_json, write_json
from cl.disk.seal import sha256
from cl.learning.interim import Interim
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method
from cl.methods.persist import memory, restore
from cl.release import made_with
from cl.run import advance, plan, read_config
from cl.streams.stream import Session
from tests import make
from tests.conftest import lay_out, processes
from tests.test_every_method import METHODS, assert_same, build, stream, usable

STEPS = TrainConfig(max_steps=5, batch_size=6, lr=1e-2, device="cpu")


class Killed(Exception):
    """Stands for a kill: nothing is written after it."""


def cut_short(method: Method, session: Session, config: TrainConfig, interim: Interim, steps: int, *, between: bool) -> None:
    """Learn some steps, then be interrupted between two steps, or be killed within one."""

    def interrupt(done: int, total: int, what: str, **_: Any) -> None:
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
    outcome = learn(parts, second, config, 0, interim=interim)
    assert (outcome.steps, outcome.samples, outcome.flops) == (expected.steps, expected.samples, expected.flops)
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
        ("finetune", {}, {"augment": "crop_and_mirror"}),
        ("zscl", {"ensemble": 2, "texts": 8}, {}),
        ("zscl", {"ensemble": 1, "l2": 0.1, "texts": 8}, {"precision": "bf16-mixed"}),
        ("vr_lwf", {"teacher": "original", "lwf": True, "texts": 8}, {}),
        ("recipe", {"terms": [{"kind": "siglip", "labels": "pairs", "scale": "model"}, {"kind": "m2mix", "labels": "pairs"}]}, {}),
    ],
)
def test_whatever_the_optimizer_holds_comes_back(name: str, settings: dict[str, Any], train: dict[str, Any], tmp_path: Path) -> None:
    def fresh() -> Method:
        return CONFIGS[name](**settings).build(make.tiny(), 0)

    assert_same(*resumed(name, STEPS.model_copy(update=train), tmp_path, 1e-9, fresh, between=False, steps=3))


@pytest.mark.parametrize("restart", ["same_init", "warm", "official"])
@pytest.mark.parametrize("modality", ["text", "multimodal"])
def test_rounds_that_were_over_are_not_learned_again(modality: str, restart: str, tmp_path: Path) -> None:
    settings = {
        "modality": modality,
        "strategy": "grip",
        "iterations": 3,
        "restart": restart,
        "hold_out": 0.2,
        "train": {"max_steps": 3, "epochs": 1},
    }
    session, interim = usable("pseudolabel", stream().sessions[0]), Interim(tmp_path / "interim", 1e-9)

    def fresh() -> Method:
        return CONFIGS["pseudolabel"](**settings).build(make.tiny(), 0)

    config, whole = STEPS.model_copy(update={"max_steps": 3}), fresh()
    expected = learn(whole, session, config, 0)
    assert expected.steps == 9
    told: list[int] = []

    def die_in_the_third_round(done: int, total: int, what: str, **_: Any) -> None:
        told.append(done)
        if len(told) == 8:
            raise Killed

    with pytest.raises(Killed):
        learn(fresh(), session, config, 0, interim=interim, progress=die_in_the_third_round)
    parts = fresh()
    outcome = learn(parts, session, config, 0, interim=interim, progress=lambda done, *_, **__: told.append(done))
    assert told == [1, 2, 3, 1, 2, 3, 1, 2, 3]
    assert (outcome.steps, outcome.samples, outcome.flops) == (expected.steps, expected.samples, expected.flops)
    assert_same(memory(whole), memory(parts))
    assert parts.record(session, {}) == whole.record(session, {})


@contextmanager
def answering(number: int, seen: list[int]) -> Iterator[None]:
    """SIGTERM or SIGINT is noted and ends the process, as the command line has it."""

    def stop(number: int, frame: Any) -> None:
        seen.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)

    before = signal.signal(number, stop)
    try:
        yield
        assert signal.getsignal(number) is stop, "whoever handled it before does again"
    finally:
        signal.signal(number, before)


@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_within_a_step_waits_until_the_step_is_kept_and_a_second_one_does_not(number: int, times: int, tmp_path: Path) -> None:
    method, session, interim, seen = build("finetune"), stream().sessions[0], Interim(tmp_path / "interim", 60.0), list[int]()
    losses = method.losses

    def struck(batch: Any) -> Any:
        for _ in range(times if batch.step == 2 else 0):
            signal.raise_signal(number)
        return losses(batch)

    method.losses = struck  # type: ignore[method-assign]
    with answering(number, seen), pytest.raises(SystemExit):
        learn(method, session, STEPS, 0, interim=interim)
    kept = interim.read()
    assert seen == [number]
    assert (kept[0].done if kept else 0) == (3 if times == 1 else 0)
    whole, parts = build("finetune"), build("finetune")
    learn(whole, session, STEPS, 0)
    learn(parts, session, STEPS, 0, interim=interim)
    assert_same(memory(whole), memory(parts))


def test_a_session_that_was_stopped_after_its_last_step_only_has_to_be_ended(tmp_path: Path) -> None:
    session, interim = stream().sessions[0], Interim(tmp_path / "interim", 60.0)
    cut_short(build("finetune"), session, STEPS, interim, 5, between=True)
    whole, parts, told = build("finetune"), build("finetune"), list[int]()
    expected = learn(whole, session, STEPS, 0)
    outcome = learn(parts, session, STEPS, 0, interim=interim, progress=lambda done, *_, **__: told.append(done))
    assert told == [] and (outcome.steps, outcome.flops) == (expected.steps, expected.flops)
    assert_same(memory(whole), memory(parts))


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


@pytest.mark.parametrize("package", ["evergreen-clip", "torch"])
def test_half_a_session_of_another_release_or_library_starts_over(package: str, tmp_path: Path, monkeypatch, caplog) -> None:
    session, interim = stream().sessions[0], Interim(tmp_path / "interim", 1e-9)
    cut_short(build("finetune"), session, STEPS, interim, 2, between=False)
    assert interim.cursor()
    monkeypatch.setattr("cl.learning.interim.made_with", lambda: made_with() | {package: "9.9"})
    assert interim.cursor() is None  # so `status` does not say that it goes on from there
    whole, parts = build("finetune"), build("finetune")
    learn(whole, session, STEPS, 0)
    learned = learn(parts, session, STEPS, 0, interim=interim)
    assert_same(memory(whole), memory(parts))
    assert learned.steps == STEPS.max_steps
    told = f"{tmp_path / 'interim' / 'cursor.json'}: kept by {package} {made_with()[package]}"
    assert f"the session starts over: its checkpoint cannot be used ({told}" in caplog.text


def learn_stream(method: str) -> None:
    """The stream in the current folder; leaves the matrix and the hashes of all weights, and how many seconds it took."""
    torch.set_num_threads(1)
    started = time.perf_counter()
    quick = ["train.checkpoint=0.1", "train.max_steps=6", "evaluate.geometry=0"]
    config = read_config(Path("colours.yaml"), [*quick, f"method={method}"])
    made = plan(config, Path("data"), "v")
    rows = [advance(made, index, Path("steps")).row for index in range(len(made.keys))]
    write_json([rows, [sha256(Path("steps/states", key, "state.safetensors")) for key in made.states]], Path("result.json"))
    write_json(time.perf_counter() - started, Path("seconds.json"))


def learned(project: Path, method: str, kill_after: float | None = None) -> bool:
    """Whether it got through before it was killed."""
    with contextlib.chdir(project):
        process = processes().Process(target=learn_stream, args=(method,))
        process.start()
        process.join(kill_after)
        process.kill()
        process.join()
    return process.exitcode == 0


def five_sessions(project: Path) -> Path:
    """A stream of five sessions."""
    from cl.data.table import write

    config = lay_out(project)
    write({"train": make.table(range(5), 12), "test": make.table(range(5), 4, seed=5)}, project / "data" / "colours")
    config.write_text(config.read_text().replace("increment: 2", "increment: 1"))
    return project


def survives(project: Path, method: str, kills: int) -> None:
    """Killed at random moments of learning, so many times that really struck, a stream ends in the same bits and leaves nothing over."""
    whole, broken = project / "whole", project / "broken"
    for folder in (whole, broken):
        folder.mkdir()
        five_sessions(folder)
    assert learned(whole, method)
    took, chance = read_json(whole / "seconds.json"), random.Random(method)
    while kills:
        kills -= not learned(broken, method, took * chance.uniform(0.0, 1.0))
        if (broken / "result.json").exists():
            # it got through: take the last states away again, so that there is something left to kill
            (broken / "result.json").unlink()
            for path in sorted((broken / "steps").glob("*/*/*.json"), key=lambda path: path.stat().st_mtime)[-4:]:
                path.unlink()
    assert learned(broken, method)
    assert (broken / "result.json").read_text() == (whole / "result.json").read_text()
    assert [*(broken / "steps" / "interim").glob("*")] == []


def test_a_stream_survives_five_kills(tmp_path: Path) -> None:
    survives(tmp_path, "replay", 5)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["replay", "vr_lwf"])
def test_a_stream_survives_thirty_kills(method: str, tmp_path: Path) -> None:
    survives(tmp_path, method, 15)
