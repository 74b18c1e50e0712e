"""A bit that flips on the disk in what was measured, learned or registered is noticed and told; nothing damaged is used in silence."""

import json
import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from mlflow.exceptions import MlflowException

from cl.base_model import settle
from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, unsealed
from cl.errors import EvergreenError, StoreError
from cl.learning.interim import START, Interim
from cl.models.clip import ModelConfig
from cl.plan import Plan, plan
from cl.run import advance, find, load_method, report, run
from cl.run_config import parse_config
from cl.steps import read_step
from cl.store.bundle import read_bundle, write_bundle
from cl.store.store import whole
from flows.registry.model import note_of
from tests.conftest import lay_out
from tests.test_bundle import bundle


@pytest.fixture(scope="module")
def learned(tmp_path_factory: pytest.TempPathFactory) -> tuple[Plan, Path]:
    """A stream of two sessions and its store."""
    folder = tmp_path_factory.mktemp("learned")
    lay_out(folder)
    settings = {"name": "colours", "model": {"name": "tiny"}, "method": "finetune", "train": {"max_steps": 2, "batch_size": 8}}
    stream = {"kind": "classes", "sources": {"colours": "colours"}, "increment": 2}
    made = plan(parse_config(settings | {"stream": stream}, "test"), folder / "data", "data")
    run(made, folder / "store")
    return made, folder / "store"


@pytest.fixture
def store(learned: tuple[Plan, Path], tmp_path: Path) -> tuple[Plan, Path]:
    shutil.copytree(learned[1], tmp_path / "store")
    return learned[0], tmp_path / "store"


def flip(file: Path, bit: int) -> None:
    data = bytearray(file.read_bytes())
    data[bit // 8] ^= 1 << bit % 8
    file.write_bytes(data)


def flips(data: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(data)):
        changed = bytearray(data)
        changed[bit // 8] ^= 1 << bit % 8
        yield bytes(changed)


def test_every_single_bit_of_sealed_json_counts(learned: tuple[Plan, Path]) -> None:
    made, folder = learned
    for file in (folder / "steps" / made.keys[1] / "result.json", folder / "states" / made.states[1] / "state.json"):
        data = file.read_bytes()
        true = unsealed(json.loads(data), "x", ())
        first = (*true,)  # as if that were what the first version wrote
        for changed in flips(data):
            try:
                assert unsealed(json.loads(changed), "x", first) == true
            except (StoreError, ValueError):
                continue


@pytest.mark.parametrize("name", ["result.json", "state.json", "state.safetensors"])
def test_what_is_damaged_is_told_and_made_again_to_the_same_bits(
    store: tuple[Plan, Path], name: str, caplog: pytest.LogCaptureFixture
) -> None:
    made, folder = store
    index = 1
    place = folder / ("states" if name.startswith("state") else "steps") / (made.states if name.startswith("state") else made.keys)[index]
    before = report(made, [step for index in range(3) if (step := find(made, index, folder))])
    # a letter of a name, or the lowest bit of the last weight
    data = (place / name).read_bytes()
    flip(place / name, 8 * (data.index(b'"session": "') + 12) if name == "result.json" else 8 * (len(data) - 4))
    assert find(made, index, folder) is None
    assert f"{place / name}: damaged, it is not what was written; it is " in caplog.text
    if name == "state.safetensors":
        with pytest.raises(StoreError, match="not there or was damaged"):
            load_method(made, 1, folder)
    if name == "result.json":
        with pytest.raises(StoreError, match=r"result\.json: damaged, it is not what was written"):
            read_step(place)
    advance(made, index, folder)
    after = report(made, [step for index in range(3) if (step := find(made, index, folder))])
    assert (after.matrix.rows == before.matrix.rows).all() and after.hits == before.hits


def test_a_damaged_cell_is_told_and_asked_again(store: tuple[Plan, Path], caplog: pytest.LogCaptureFixture) -> None:
    made, folder = store
    before = report(made, [step for index in range(3) if (step := find(made, index, folder))])
    for file in (folder / "cells" / f"{made.states[1]}.json", folder / "cells" / f"base-{made.base}.json"):
        data = file.read_bytes()
        flip(file, 8 * (data.index(b"0.") + 2))  # a digit of a score
        assert find(made, 1 if made.states[1] in file.name else 0, folder) is None
        assert f"{file}: damaged, it is not what was written; what it held is asked again" in caplog.text
        for index in range(3):
            advance(made, index, folder)
        after = report(made, [step for index in range(3) if (step := find(made, index, folder))])
        assert (after.matrix.rows == before.matrix.rows).all() and after.hits == before.hits


def test_damaged_features_of_the_start_are_made_again_once_angles_are_measured_against_them(store: tuple[Plan, Path]) -> None:
    made, folder = store
    files = sorted((folder / "cells" / f"base-{made.base}").glob("*.safetensors"))
    assert len(files) == len(made.stream.exam(0))
    whole_ones = [file.read_bytes() for file in files]
    for file in files:
        flip(file, 8 * (len(file.read_bytes()) - 4))
    (folder / "cells" / f"{made.states[1]}.json").unlink()
    before = find(made, 2, folder)
    again = advance(made, 1, folder)
    assert before and again.geometry.keys() == before.geometry.keys() and [file.read_bytes() for file in files] == whole_ones


def test_what_the_first_version_wrote_is_still_read(store: tuple[Plan, Path]) -> None:
    made, folder = store
    for index, key in enumerate(made.keys):
        step = find(made, index, folder)
        assert step is not None
        old, file = step.to_json(), folder / "steps" / key / "result.json"
        for later in ("code", "known"):
            old.pop(later)
        write_json(old, file)
        place = folder / "states" / made.states[index] / "state.json"
        state = unsealed(read_json(place), str(place), ())
        write_json({name: state[name] for name in ("sha256", "cost", "record")}, place)
        earlier = find(made, index, folder)
        assert earlier is not None and earlier.row == step.row and whole(folder / "states" / made.states[index])
        write_json(old | {"digesu": "0" * 64}, file)  # a digest whose name lost a bit
        assert find(made, index, folder) is None


def test_a_half_learned_session_goes_on_from_what_was_kept_or_not_at_all(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    interim = Interim(tmp_path / "half", 60)
    cursor = START._replace(done=3, steps=8, seconds=1.5)
    interim.write(cursor, {})
    assert interim.read() == (cursor, {}) and interim.cursor() == cursor
    file = tmp_path / "half" / "cursor.json"
    data = file.read_bytes()
    for place in range(0, 8 * len(data), 17):
        flip(file, place)
        assert interim.read() in (None, (cursor, {}))
        file.write_bytes(data)
    assert "the session starts over: its checkpoint cannot be used" in caplog.text
    write_json({**cursor._asdict(), "sha256": unsealed(json.loads(data), "x", ())["sha256"]}, file)
    assert interim.read() is None and "kept by evergreen-clip of an unknown version" in caplog.text  # as the first version wrote it
    write_json({**cursor._asdict(), "done": 7, "sha256": "", "digesu": ""}, file)
    assert interim.read() is None


@pytest.fixture(scope="module")
def registered(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A plain CLIP, and a method that has something beside it."""
    folders = {name: tmp_path_factory.mktemp(name) for name in ("finetune", "ridge")}
    for name, folder in folders.items():
        write_bundle(bundle(name), folder)
    return folders


@pytest.mark.parametrize("name", ["finetune", "ridge"])
def test_a_registered_model_answers_as_it_was_or_not_at_all(registered: dict[str, Path], name: str, tmp_path: Path) -> None:
    rng = random.Random(0)
    read_bundle(registered[name])
    note_of(registered[name])
    for number, file in enumerate(sorted(path.relative_to(registered[name]) for path in registered[name].rglob("*") if path.is_file())):
        folder = shutil.copytree(registered[name], tmp_path / str(number))
        size = (folder / file).stat().st_size
        for place in (8 * (size // 2), 8 * size - 6, rng.randrange(8 * size)):
            data = (folder / file).read_bytes()
            flip(folder / file, place)
            with pytest.raises(EvergreenError):
                read_bundle(folder)
            if file.name != "memory.safetensors":  # which is asked through `read_bundle` where it is served
                with pytest.raises((MlflowException, ValueError)):
                    note_of(folder)
            (folder / file).write_bytes(data)
    extra = shutil.copytree(registered[name], tmp_path / "extra")
    (extra / "clip" / "more.json").write_text("{}")
    with pytest.raises(StoreError, match="clip: damaged"):
        read_bundle(extra)


@pytest.mark.parametrize("name", ["finetune", "ridge"])
def test_a_model_that_the_first_version_registered_is_still_read(registered: dict[str, Path], name: str, tmp_path: Path) -> None:
    folder = shutil.copytree(registered[name], tmp_path / "old")
    note = unsealed(read_json(folder / "bundle.json"), "x", ())
    note.pop("clip")
    write_json(note, folder / "bundle.json")
    read_bundle(folder)
    assert note_of(folder) == note


def test_a_base_model_that_was_trained_here_is_whole_or_trained_again(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    lay_out(tmp_path)
    tiny = {"embed_dim": 8, "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 16, "head_width": 8, "layers": 1}}
    tiny["text_cfg"] = {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1}
    stream = {"kind": "classes", "sources": {"colours": "colours"}, "increment": 2}
    settings = {"name": "x", "model": {"name": f"local-dir:{tmp_path / 'none'}"}, "stream": stream, "method": "finetune"}
    settings["pretrain"] = {"architecture": tiny, "domains": None, "train": {"max_steps": 1, "batch_size": 4}}
    config = parse_config(settings, "test")
    first = settle(config, tmp_path / "data", tmp_path / "models").model
    folder = Path(first.name.removeprefix("local-dir:"))
    weights = (folder / "open_clip_model.safetensors").read_bytes()
    assert settle(config, tmp_path / "data", tmp_path / "models").model == first == ModelConfig(name=first.name) and not caplog.text
    flip(folder / "open_clip_model.safetensors", 8 * (len(weights) - 4))
    settle(config, tmp_path / "data", tmp_path / "models")
    assert "damaged, it is not what was written; it is trained again" in caplog.text
    assert (folder / "open_clip_model.safetensors").read_bytes() == weights


def test_a_seal_is_over_plain_values_whatever_kind_of_sequence_they_came_in() -> None:
    value = {"a": (1, 2.5, float("nan")), "b": {"c": None}, "d": "é"}
    back = unsealed(json.loads(json.dumps(sealed(value), indent=1, ensure_ascii=False)), "x", ())
    assert back["b"] == {"c": None} and back["a"][:2] == [1, 2.5] and back["d"] == "é"
    for odd in (None, [], {}, "x", {"digest": "0"}, {"a": 1}, {"a": 1, "digest": 3}):
        with pytest.raises(StoreError, match="x: damaged"):
            unsealed(odd, "x", ("b",))
