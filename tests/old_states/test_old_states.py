"""A state that was written under the old names is read to the bit, answers as it did, and is gone on from."""

import functools
import json
import tarfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.data.table import concat
from cl.disk.tensors import read_tensors
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method
from cl.methods.persist import memory
from cl.models.clip import ModelConfig, load
from cl.store.old_names import KINDS, RENAMED, renamed
from cl.store.states import load_state, revive
from cl.streams.stream import Session
from tests import make
from tests.old_states.cases import ASKED, CASES, HALF, SINCE, TRAIN, method

PIXELS = [make.table(ASKED, 1, seed=7).image(row) for row in range(len(ASKED))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("store")
    with tarfile.open(Path(__file__).parent / "states.tar.xz") as packed:
        packed.extractall(folder, filter="data")
    return folder


@functools.cache
def answered(store: Path) -> dict[str, Any]:
    return dict(json.loads((store / "answers.json").read_text()))


def built(store: Path, case: str, **other: Any) -> Method:
    clip = load(ModelConfig(name=f"local-dir:{store / 'base'}"))
    return CONFIGS[method(case)](**(CASES[case] | SINCE.get(case, {}) | other)).build(clip, 0)


def answers(learner: Method) -> Tensor:
    images = torch.stack([learner.clip.transform()(image) for image in PIXELS])
    with torch.no_grad():
        return learner.eval().classify(images, learner.class_features(make.names(ASKED)))


def told(store: Path, key: str) -> Tensor:
    return torch.tensor(answered(store)[key], dtype=torch.float64)


def session(case: str, index: int) -> Session:
    whole = make.stream((0, 1), (2, 3), each=6).sessions[index - 1]
    even, odd = range(0, len(whole.data), 2), range(1, len(whole.data), 2)
    half = concat([whole.data.take(even), whole.data.take(odd).without("label")])
    return replace(whole, data=half) if method(case) in HALF else whole


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_old_is_read_to_the_bit_and_answers_as_it_did(case: str, store: Path) -> None:
    for index in (1, 2):
        key = f"{case}-{index}"
        learner = revive(built(store, case), key, store)
        there = {name: tensor for name, tensor in memory(learner).items() if name.partition(".")[0] not in learner.younger}
        lies = renamed(read_tensors(store / "states" / key / "state.safetensors"), there)
        assert there.keys() == lies.keys() and all(torch.equal(there[name], lies[name]) for name in there)
        assert torch.allclose(answers(learner).double(), told(store, key), rtol=1e-5, atol=1e-5)  # other processors round otherwise


@pytest.mark.parametrize("case", CASES)
def test_a_state_of_old_is_gone_on_from_with_all_it_remembers(case: str, store: Path) -> None:
    learner, dropped = load_state(lambda: built(store, case), method(case), f"{case}-1", store)
    assert dropped == ()
    assert torch.allclose(answers(learner).double(), told(store, f"{case}-1"), rtol=1e-5, atol=1e-5)
    learn(learner, session(case, 2), TrainConfig(**TRAIN), 0)
    now = {name: tensor for name, tensor in memory(learner).items() if name.partition(".")[0] not in learner.younger}
    after = renamed(read_tensors(store / "states" / f"{case}-2" / "state.safetensors"), now)
    assert after.keys() == now.keys()
    assert [name for name in now if now[name].shape != after[name].shape or not torch.allclose(now[name], after[name], 1e-3, 1e-4)] == []
    assert torch.allclose(answers(learner).double(), told(store, f"{case}-2"), rtol=1e-3, atol=1e-3)
    assert not torch.allclose(told(store, f"{case}-1"), told(store, f"{case}-2"), rtol=1e-3, atol=1e-3) or case == "zero_shot"


def test_what_two_recipes_have_in_common_was_kept_by_states_that_did_not_note_it(store: Path) -> None:
    kept = built(store, "vr_lwf", memory={"kind": "reservoir", "capacity": 6})
    learner, dropped = load_state(lambda: kept, "vr_lwf", "replay-1", store)
    assert dropped == () and len(learner.memory.exemplars.rows) == 6  # type: ignore[union-attr, arg-type]
    (left,) = load_state(lambda: built(store, "replay"), "replay", "replay-class_balanced-1", store)[1]
    assert str(left).endswith("it does not fit the settings of now")
    for case, fits in (("ewc", False), ("ewc-image", True)):
        _, dropped = load_state(lambda: built(store, "ewc-image"), "ewc", f"{case}-1", store)
        assert (dropped == ()) == fits


def test_no_name_of_now_is_one_of_old() -> None:
    assert not set(RENAMED) & set(RENAMED.values()) and KINDS.keys() <= CONFIGS.keys()
    assert {method(case) for case in CASES} <= set(CONFIGS)  # what came later has no old state
