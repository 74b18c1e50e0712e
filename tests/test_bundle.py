"""A bundle answers as the method that was measured, from its own files alone, and carries nothing that was only for learning."""

import json
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch

from cl.config import TrainConfig
from cl.disk.seal import sealed, unsealed
from cl.errors import StoreError
from cl.evaluation.evaluate import at_rest
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method, MethodConfig
from cl.methods.features import pixels
from cl.store.bundle import Bundle, read_bundle, write_bundle
from tests import make

FAST = TrainConfig(max_steps=3, batch_size=6, lr=1e-2, device="cpu")
SETTINGS: dict[str, dict[str, Any]] = {
    "finetune": {},
    "replay": {},
    "wise_ft": {},
    "cpe_clip": {"depth": 2},
    "pseudolabel": {"strategy": "none", "modality": "multimodal", "length": 2},
    "linear_probe": {},
    "ridge": {"projection": 40},
    "gda": {},
}
SUMS, CACHES = {"ridge", "ranpac", "rail", "gda", "ncm", "slda"}, {"tip", "tip_adapter", "tip_adapter_f", "caps_adapter"}
BESIDE = {"cpe_clip", "pseudolabel", "linear_probe", "real_linear", *SUMS, *CACHES}
STREAM = make.stream((0, 1), (2, 3), each=6)
ASKED = (*make.names((0, 1, 2, 3)), *make.names((6,)))  # the last was never taught
TABLE = make.table((0, 1, 2, 3, 6), 2, seed=7)


@cache
def learned(name: str) -> tuple[MethodConfig, Method]:
    config = CONFIGS[name](**SETTINGS[name])
    method = config.build(make.tiny(), 5)
    for session in STREAM.sessions:
        learn(method, session, FAST, 5)
    return config, method


def bundle(name: str) -> Bundle:
    config, method = learned(name)
    return Bundle(method, config, 5, ("a {} square",), STREAM.sessions[-1].vocabulary)


def test_a_method_is_beside_its_clip_where_it_answers_in_a_way_of_its_own() -> None:
    small = {name: {"projection": 40} if "projection" in config.model_fields else {} for name, config in CONFIGS.items()}
    assert {name for name in CONFIGS if CONFIGS[name](**small[name]).build(make.tiny(), 0).folded() is None} == BESIDE


@pytest.mark.parametrize("name", SETTINGS)
def test_what_is_read_back_answers_as_the_method_does(name: str, tmp_path: Path) -> None:
    config, method = learned(name)
    write_bundle(bundle(name), tmp_path)
    back = read_bundle(tmp_path)
    assert (back.config, back.template, back.classes) == (config, ("a {} square",), STREAM.sessions[-1].vocabulary)
    with at_rest(method):
        own = method.classify(torch.cat([*pixels(method.clip, TABLE)]), method.class_features(ASKED)).double().softmax(-1)
    images = [TABLE.image(row) for row in range(len(TABLE))]
    shares = back.shares(images, [each.name for each in ASKED])
    assert float(own.std()) > 1e-3 and (shares - own).abs().max() < 1e-6
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*") if path.is_file()}
    plain = {"bundle.json", "clip/open_clip_config.json", "clip/open_clip_model.safetensors"}
    assert files == plain | ({"memory.safetensors"} if name in BESIDE else set())  # no exemplar leaves with a replay model


def test_a_learned_class_is_asked_as_it_was_and_another_in_the_template(tmp_path: Path) -> None:
    write_bundle(bundle("finetune"), tmp_path)
    back, images = read_bundle(tmp_path), [TABLE.image(0)]
    assert torch.equal(back.shares(images, ["red", "green"]), back.shares(images, ["red", "green"], ["a {} square"]))
    assert not torch.equal(back.shares(images, ["red", "green"]), back.shares(images, ["red", "green"], ["{}"]))
    cosines = back.cosines(images, ["a red square", "a green square"])
    assert torch.allclose((back.method.clip.scale() * cosines).softmax(-1), back.shares(images, ["red", "green"]), atol=1e-6)


@pytest.fixture
def ridge(tmp_path: Path) -> Path:
    write_bundle(bundle("ridge"), tmp_path)
    return tmp_path


def test_a_memory_that_is_gone_or_changed_is_not_answered_without(ridge: Path) -> None:
    memory = ridge / "memory.safetensors"
    content = bytearray(memory.read_bytes())
    content[-5] ^= 1
    memory.write_bytes(content)
    with pytest.raises(StoreError, match=r"memory.safetensors: damaged, it is not what was written"):
        read_bundle(ridge)
    memory.unlink()
    with pytest.raises(StoreError, match=r"memory.safetensors: not there"):
        read_bundle(ridge)


@pytest.mark.parametrize("change", [{"method": {"name": "best"}}, {"classes": None}, {"seed": "zero"}])
def test_a_note_of_another_program_is_refused(ridge: Path, change: dict[str, Any]) -> None:
    note = unsealed(json.loads((ridge / "bundle.json").read_text()), "bundle.json", ())
    (ridge / "bundle.json").write_text(json.dumps(sealed(note | change)))
    with pytest.raises(StoreError, match=r"bundle.json: not what this Evergreen writes"):
        read_bundle(ridge)
    (ridge / "bundle.json").unlink()
    with pytest.raises(StoreError, match=r"bundle.json: not there"):
        read_bundle(ridge)
