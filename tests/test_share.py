"""A state and the model that was written from it have one file of weights: to the bit what it was, whichever of the two goes first."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from cl.disk import durable
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import PrunedError
from cl.learning.learner import Learned
from cl.methods import CONFIGS, Method
from cl.methods.persist import memory
from cl.models.source import WEIGHTS as MODEL
from cl.store import share as sharing
from cl.store.share import share
from cl.store.states import Origin, keep_state, revive
from cl.store.store import SHARED, WEIGHTS, checked, drop, foundation, read_state, weight
from tests import make

METHODS = ["finetune", "replay", "lwf", {"name": "finetune", "part": "image"}]  # all of the clip, and a buffer; all but its scale; a half


def made(config: Any) -> Method:
    settings = {"name": config} if isinstance(config, str) else config
    return CONFIGS[settings["name"]](**settings).build(make.tiny(), 0)


@pytest.fixture(params=METHODS, ids=str)
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path, Callable[[], Method], dict[str, torch.Tensor]]:
    """A state's folder, the file of a model that was written from it, what builds the method, and what it remembers."""
    method = made(request.param)
    with torch.no_grad():
        for number, weight_ in enumerate(method.trainable()):
            weight_.add_(0.01 * (number + 1))
    keep_state(tmp_path, "one", method, Learned(1, 1, 1.0, 1), [], Origin(method="x", parent=None, session="s", index=1))
    method.clip.save(tmp_path / "clip")
    return tmp_path / "states" / "one", tmp_path / "clip" / MODEL, lambda: made(request.param), memory(method)


def same(folder: Path, build: Callable[[], Method], remembered: dict[str, torch.Tensor]) -> bool:
    tensors = memory(revive(build(), folder.name, folder.parent.parent))
    return tensors.keys() == remembered.keys() and all(torch.equal(tensors[name], remembered[name]) for name in tensors)


def test_the_weights_lie_once_and_each_of_the_two_is_whole_without_the_other(kept: Any) -> None:
    folder, model, build, remembered = kept
    before, bytes_ = model.read_bytes(), (folder / WEIGHTS).stat().st_size
    assert share(folder, model) and share(folder, model), "once more changes nothing"
    assert (folder / SHARED).samefile(model) and model.read_bytes() == before and (folder / WEIGHTS).stat().st_size < bytes_ / 10
    assert same(folder, build, remembered) and not read_state(folder).becomes
    assert weight(folder) == (folder / WEIGHTS).stat().st_size, "dropping it frees nothing that the model has"
    assert foundation(folder.parent, "one", [next(iter(remembered))]) == "one"
    model.unlink()
    assert same(folder, build, remembered) and weight(folder) > len(before)
    build().clip.save(model.parent)  # of another's weights: they are not those of this state
    assert not share(folder, model) and not (folder / SHARED).samefile(model) and same(folder, build, remembered)
    model.write_bytes(before)  # a second model of it, or the first written anew
    assert share(folder, model) and (folder / SHARED).samefile(model) and same(folder, build, remembered)
    (folder / SHARED).unlink()
    assert share(folder, model) and same(folder, build, remembered), "what the state has lost comes back"
    assert list(model.parent.glob(".*")) == [], "a model's folder holds what was written there and nothing else"
    model.unlink()
    os.link(folder / SHARED, folder.parent / "again")
    assert drop(folder) < len(before) and (folder.parent / "again").read_bytes() == before and not (folder / SHARED).exists()
    with pytest.raises(PrunedError):
        checked(folder)


def test_what_is_not_the_same_or_cannot_be_linked_stays_two_files(kept: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, model, build, remembered = kept
    whole = model.read_bytes()
    tensors = read_tensors(model)
    name = next(name for name in tensors if f"clip.model.{name}" in remembered)
    write_tensors({**tensors, name: tensors[name] + 1e-3}, model)
    assert not share(folder, model) and not (folder / SHARED).exists() and same(folder, build, remembered)
    model.write_bytes(whole)

    def other(*_: Any, **__: Any) -> None:
        raise OSError(18, "Invalid cross-device link")

    monkeypatch.setattr(os, "link", other)
    assert not share(folder, model) and [path.name for path in folder.iterdir() if path.name.startswith(".")] == []
    assert same(folder, build, remembered) and not read_state(folder).shared


@pytest.mark.parametrize("moment", range(10))
def test_killed_at_any_moment_the_state_is_whole_and_the_same_again_ends_it(
    kept: Any, moment: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, model, build, remembered = kept
    real, count = durable.land, iter(range(100))

    def dying(part: Path, target: Path) -> None:
        number = next(count)
        if number == moment // 2 and not moment % 2:
            raise KeyboardInterrupt
        real(part, target)
        if number == moment // 2:
            raise KeyboardInterrupt

    for module in (durable, sharing):
        monkeypatch.setattr(module, "land", dying)
    with pytest.raises(KeyboardInterrupt):
        share(folder, model)
    monkeypatch.undo()
    assert same(folder, build, remembered)
    assert share(folder, model) and same(folder, build, remembered) and not read_state(folder).becomes


def test_a_damaged_bit_of_the_shared_file_is_noticed(kept: Any) -> None:
    folder, model, build, _ = kept
    share(folder, model)
    data = bytearray(model.read_bytes())
    data[len(data) // 2] ^= 1
    model.write_bytes(data)
    with pytest.raises(Exception, match=r"clip\.safetensors.*damaged"):
        revive(build(), folder.name, folder.parent.parent)
