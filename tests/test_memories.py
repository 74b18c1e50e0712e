"""A memory over any recipe: what it mixes in, what its state is called, and that a withdrawal finds what it keeps."""

from pathlib import Path
from typing import Any

import pytest
from pydantic import TypeAdapter

from cl.config import TrainConfig
from cl.data.table import fingerprint
from cl.disk.seal import sha256
from cl.learning.learner import Learned, learn
from cl.methods import AnyMethodConfig
from cl.methods.compose import RecipeConfig
from cl.methods.memories.exemplars import ClassBalancedConfig
from cl.methods.persist import memory
from cl.methods.presets.replay import ReplayConfig
from cl.methods.presets.vr_lwf import VRLwFConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import FitConfig
from cl.store.holds import forget, holds, images_in
from cl.store.states import Origin, keep_state, revive
from cl.store.store import read_state
from tests import make

ONE = TrainConfig(max_steps=1, batch_size=8, device="cpu")


def built(settings: dict[str, Any]) -> Recipe:
    method = TypeAdapter(AnyMethodConfig).validate_python(settings).build(make.tiny(), 0)
    assert isinstance(method, Recipe)
    return method


KEPT = {"kind": "class_balanced", "capacity": 4}
OVER: list[dict[str, Any]] = [
    {"name": "vr_lwf", "texts": 8, "memory": KEPT},
    {"name": "mod_x", "memory": KEPT},
    {"name": "finetune", "tune": {"kind": "whole", "part": "image"}, "memory": KEPT},
]


@pytest.mark.parametrize("settings", OVER, ids=[each["name"] for each in OVER])
def test_over_any_recipe_exemplars_come_back_and_their_classes_compete(settings: dict[str, Any]) -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = built(settings)
    assert [name for name in memory(method) if not name.startswith("clip.")] == ["memory._extra_state"]
    learn(method, first, ONE, 0)
    data = method.begin(second)
    assert method.lesson is not None and method.lesson.candidates == (0, 1, 2, 3)
    assert data.ids[: len(second.data)] == second.data.ids == method.lesson.taught().ids and set(data.ids[-4:]) < set(first.data.ids)
    assert len(data) == len(second.data) + 4


def test_a_repeat_shows_each_exemplar_so_many_times() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = built({"name": "finetune", "memory": {"kind": "reservoir", "capacity": 3, "repeat": 2}})
    learn(method, first, ONE, 0)
    assert method.begin(second).ids[-3:] == method.begin(second).ids[-6:-3]


def test_what_a_memory_keeps_is_found_in_a_state_and_taken_out_of_it(tmp_path: Path) -> None:
    method = built(OVER[0])
    learn(method, make.session(1, (0, 1), (0, 1)), ONE, 0)
    keep_state(tmp_path, "one", method, Learned(1, 8, 0.0, 0), [], Origin("vr_lwf", None, "session 1", 1))
    folder = tmp_path / "states" / "one"
    file = folder / "state.safetensors"
    (gone, *stay) = images_in(file)
    assert len(stay) == 3 and holds(file, lambda image: image == gone) and not holds(file, lambda image: image == fingerprint(b""))
    assert forget(folder, lambda image: image == gone) == 1
    assert images_in(file) == stay and read_state(folder).sha256 == sha256(file)
    revived: Any = revive(built(OVER[0]), "one", tmp_path)
    assert len(revived.memory.exemplars.rows) == 3


def test_a_preset_and_the_recipe_spelled_out_have_one_name() -> None:
    spelled = RecipeConfig(terms=(FitConfig(),), memory=ClassBalancedConfig(capacity=9))
    assert ReplayConfig(policy="class_balanced", capacity=9).spelled() == spelled.spelled()
    assert ReplayConfig().spelled()["memory"] == {"kind": "reservoir"}
    assert VRLwFConfig(memory=ClassBalancedConfig()).spelled() != VRLwFConfig().spelled()
    assert "memory" not in VRLwFConfig().spelled()  # names of states that were there before memories were


def test_a_memory_that_is_given_takes_the_place_of_the_presets_own() -> None:
    method: Any = built({"name": "replay", "policy": "reservoir", "memory": KEPT})
    assert method.memory.config == ClassBalancedConfig(capacity=4)
