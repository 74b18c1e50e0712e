"""Whole sessions learned by two ranks are those learned by one: memories with features, rounds, caches of features, by config alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.data.table import ImageTable, concat
from cl.learning.interim import Interim
from cl.learning.learner import learn
from cl.methods import Method
from cl.methods.recipe import Recipe
from cl.run_config import parse_method
from cl.streams.stream import Session
from tests import make

pytestmark = pytest.mark.slow

RECIPES: dict[str, dict[str, Any]] = {
    "finetune": {"name": "finetune"},
    "vr_lwf": {"name": "vr_lwf"},
    "mod_x": {"name": "mod_x"},
    "stored": {
        "name": "recipe",
        "terms": ["clip", {"kind": "stored", "rows": 4}],
        "memory": {"kind": "session_balanced", "capacity": 10, "store": "features"},
    },
    "towers": {"name": "retrieve_then_align"},
    "cached": {"name": "recipe", "tune": {"kind": "whole", "part": "text", "cache": True}, "terms": ["clip", "vocabulary"]},
    "pseudolabels": {"name": "pseudolabel", "strategy": "ifpl", "k": 3, "iterations": 2},  # text prompts, so that features are cached
    "pseudolabels of images": {"name": "pseudolabel", "strategy": "grip", "iterations": 2, "modality": "visual", "restart": "warm"},
}


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def sessions(name: str) -> list[Session]:
    """Labelled rows with one, two or no caption, then captions alone; for pseudolabels every third row has a label and nothing else."""
    first, second = make.session(1, (0, 1, 2), (0, 1, 2), each=4), make.session(2, (1, 3), (0, 1, 2, 3), each=5)
    if name.startswith("pseudolabels"):
        rows = [first.data.take([row]) if row % 4 < 2 else first.data.take([row]).without("label") for row in range(len(first.data))]
        return [replace(first, data=concat(rows))]
    return [replace(first, data=said(first.data, range(8))), replace(second, data=said(second.data, range(3)))]


def said(data: ImageTable, labelled: range) -> ImageTable:
    """The same rows, of which some have labels and most have captions, up to two each, one of them twice."""
    texts = [[["a long and winding caption", f"number {row}"], ["twice"], [f"this is {row}"]][row % 3] for row in range(len(data))]
    texts = [[] if row in labelled and row % 4 == 3 else each for row, each in enumerate(texts)]
    labels = [label if row in labelled else None for row, label in enumerate(data.labels)]
    return ImageTable.of(data.ids, data.table["image"].to_pylist(), labels, texts)


def train(devices: int, **settings: Any) -> TrainConfig:
    plain = {"optimizer": "sgd", "momentum": 0, "lr": 0.1, "warmup": 0, "schedule": "constant", "clip_grad": None}
    return TrainConfig(max_steps=3, batch_size=7, device="cpu", devices=devices, **plain | settings)


def learned(name: str, devices: int) -> tuple[Recipe, list[tuple[int, int]], dict[str, Tensor]]:
    """The method after all sessions, the steps and rows of each, and what it began as."""
    method = parse_method(RECIPES[name], name).build(make.tiny().double(), 0).double()
    assert isinstance(method, Recipe)
    before = {key: value.clone() for key, value in method.state_dict().items()}
    settings = {"workers": 1} if name == "vr_lwf" else {}
    took = [learn(method, session, train(devices, **settings), 0) for session in sessions(name)]
    return method, [(each.steps, each.samples) for each in took], before


@pytest.mark.parametrize("name", RECIPES)
def test_sessions_learned_by_two_ranks_are_those_learned_by_one(name: str) -> None:
    (alone, took, before), (together, both, _) = learned(name, 1), learned(name, 2)
    assert took == both and all(steps == 3 * alone.turns for steps, _ in took)
    mine, theirs = alone.state_dict(), together.state_dict()
    assert mine.keys() == theirs.keys()
    for key, value in mine.items():
        close = torch.allclose(value, theirs[key], rtol=1e-9, atol=1e-11) if value.is_floating_point() else torch.equal(value, theirs[key])
        assert close, key
    moved = [float((mine[key] - value).abs().max()) for key, value in before.items() if value.is_floating_point()]
    assert max(moved) > 1e-3, "nothing was learned"
    assert alone.cache == (name in ("cached", "pseudolabels")) and alone.turns == (2 if name[:6] in ("towers", "pseudo") else 1)


class Killed(Exception):
    pass


@pytest.mark.parametrize("name", ["towers", "pseudolabels"])
def test_ranks_that_end_in_a_second_round_go_on_to_the_same_bits(name: str, tmp_path: Path) -> None:
    session, interim = sessions(name)[0], Interim(tmp_path / "interim", 1e-9)

    def fresh() -> Method:
        return parse_method(RECIPES[name], name).build(make.tiny(), 0)

    def die_in_the_second_round(done: int, total: int, what: str, *, turn: int = 0, **_: Any) -> None:
        if (turn, done) == (1, 2):
            raise Killed

    whole, parts = fresh(), fresh()
    expected = learn(whole, session, train(2, optimizer="adamw"), 0)
    with pytest.raises(Killed):
        learn(fresh(), session, train(2, optimizer="adamw"), 0, interim=interim, progress=die_in_the_second_round)
    told: list[int] = []
    took = learn(parts, session, train(2, optimizer="adamw"), 0, interim=interim, progress=lambda done, *_, **__: told.append(done))
    assert told == [3] and (took.steps, took.samples) == (expected.steps, expected.samples)
    mine, theirs = whole.state_dict(), parts.state_dict()
    assert mine.keys() == theirs.keys() and all(torch.equal(mine[key], theirs[key]) for key in mine)
