"""What a method remembers, on disk: whole, checked, and never a pickle."""

import json
import pickle

import pytest
import torch

from cl.disk.files import new_folder, read_json, write_json
from cl.disk.seal import sha256
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import StoreError
from cl.methods.persist import memory, restore
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.replay import ReplayConfig
from tests import make


def test_tensors_come_back_bit_for_bit_with_the_digest_of_their_file(tmp_path) -> None:
    tensors = {"a": torch.randn(3, 4), "b": torch.arange(5), "c": torch.tensor([1.5], dtype=torch.bfloat16)}
    digest = write_tensors(tensors, tmp_path / "t.safetensors")
    back = read_tensors(tmp_path / "t.safetensors")
    assert digest == sha256(tmp_path / "t.safetensors")
    assert back.keys() == tensors.keys()
    assert all(back[name].dtype == value.dtype and torch.equal(back[name], value) for name, value in tensors.items())


@pytest.mark.parametrize("damage", ["truncated", "empty", "pickle", "missing", "flipped header"])
def test_a_damaged_or_foreign_file_is_told_by_name(tmp_path, damage) -> None:
    path = tmp_path / "t.safetensors"
    write_tensors({"a": torch.randn(100)}, path)
    data = path.read_bytes()
    if damage == "missing":
        path.unlink()
    else:
        bad = {"truncated": data[:-50], "empty": b"", "pickle": pickle.dumps({"a": 1}), "flipped header": b"\xff" * 8 + data[8:]}
        path.write_bytes(bad[damage])
    with pytest.raises(StoreError, match=r"t\.safetensors"):
        read_tensors(path)


def test_a_memory_of_another_method_or_model_is_refused_and_changes_nothing() -> None:
    plain, replay = FinetuneConfig().build(make.tiny(), 0), ReplayConfig().build(make.tiny(), 0)
    with pytest.raises(StoreError, match="another method or model"):
        restore(plain, memory(replay), "here")
    shrunk = {name: value[:1] if value.ndim else value for name, value in memory(plain).items()}
    with pytest.raises(StoreError, match="here: shapes"):
        restore(plain, shrunk, "here")


def test_frozen_weights_are_not_stored() -> None:
    names = memory(FinetuneConfig(part="image").build(make.tiny(), 0))
    assert names and all("visual" in name or "logit_scale" in name for name in names)


def test_json_is_replaced_whole_or_not_at_all(tmp_path) -> None:
    path = tmp_path / "v.json"
    write_json({"x": 1}, path)
    with pytest.raises(TypeError):
        write_json({"x": object()}, path)
    assert read_json(path) == {"x": 1} and [file.name for file in tmp_path.iterdir()] == ["v.json"]
    path.write_text(json.dumps({"x": 1})[:-2])
    with pytest.raises(StoreError, match=r"v\.json"):
        read_json(path)


def test_a_folder_appears_when_it_is_complete_and_an_error_leaves_the_old_one(tmp_path) -> None:
    with new_folder(tmp_path / "f") as part:
        (part / "a").write_text("old")
        assert not (tmp_path / "f").exists()
    with pytest.raises(RuntimeError), new_folder(tmp_path / "f") as part:
        (part / "a").write_text("new")
        raise RuntimeError
    assert (tmp_path / "f" / "a").read_text() == "old" and len(list(tmp_path.iterdir())) == 1


def test_a_place_that_cannot_be_written_is_told(tmp_path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="cannot be written"), new_folder(tmp_path / "file" / "f"):
        pass
