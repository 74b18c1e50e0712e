"""A folder that calls itself a model: nothing in it runs, whoever reads it."""

import io
import json
from pathlib import Path
from typing import Any

import open_clip
import pytest

from cl.disk.seal import contents, sealed, unsealed
from cl.errors import ModelError, StoreError
from cl.methods import CONFIGS
from cl.models.clip import ModelConfig, build, load
from cl.models.source import TINY
from cl.run import bundle, plan, run
from cl.run_config import parse_config
from cl.store.bundle import read_bundle, write_bundle
from flows.learn.job import job_of, outlined, planned
from flows.learn.progress import sessions
from tests.conftest import lay_out
from tests.make import tiny

CODE = """
from pathlib import Path
Path({marker!r}).write_text("ran")
from transformers import PreTrainedTokenizerFast
class Evil(PreTrainedTokenizerFast): pass
"""


@pytest.fixture
def marker(tmp_path: Path) -> Path:
    return tmp_path / "ran"


def plant(folder: Path, marker: Path, options: dict[str, Any] | None) -> Path:
    """What looks like a model: the tiny one, whose tokenizer is code beside it."""
    tiny().save(folder)
    (folder / "evil.py").write_text(CODE.format(marker=str(marker)))
    (folder / "tokenizer_config.json").write_text(json.dumps({"auto_map": {"AutoTokenizer": [None, "evil.Evil"]}}))
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"] |= {"hf_tokenizer_name": "any/name", **({"tokenizer_kwargs": options} if options else {})}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize("options", [{"trust_remote_code": True}, {"clean": "lower"}, None])
def test_python_beside_the_weights_is_never_run(tmp_path: Path, marker: Path, options: dict[str, Any] | None, monkeypatch: Any) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))  # who is asked says yes
    folder = plant(tmp_path / "model", marker, options)
    told = r"tokenizer_kwargs\.trust_remote_code is not a setting" if options and "clean" not in options else "names code of its own"
    with pytest.raises(ModelError, match=told):
        load(ModelConfig(name=f"local-dir:{folder}"))
    assert not marker.exists()


def test_nor_that_of_a_registered_version(tmp_path: Path, marker: Path) -> None:
    config = lay_out(tmp_path)
    learned = plan(parse_config(_settings(config), "x"), tmp_path / "data", "1")
    run(learned, tmp_path / "steps")
    (tmp_path / "fetched").mkdir()
    write_bundle(bundle(learned, 2, tmp_path / "steps"), tmp_path / "fetched")
    plant(tmp_path / "fetched" / "clip", marker, {"trust_remote_code": True})
    with pytest.raises(StoreError, match="clip: damaged"):
        read_bundle(tmp_path / "fetched")
    note = tmp_path / "fetched" / "bundle.json"  # who means it makes the digests anew
    told = unsealed(json.loads(note.read_text()), "x", ()) | {"clip": contents(tmp_path / "fetched" / "clip")}
    note.write_text(json.dumps(sealed(told)))
    with pytest.raises(ModelError, match="trust_remote_code"):  # what predict, export and the gate read a champion with
        read_bundle(tmp_path / "fetched")
    assert not marker.exists()


def test_status_reads_no_tokenizer_and_names_the_same_states(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = job_of(str(lay_out(project)))
    expected = planned(job)
    planned.cache_clear()
    monkeypatch.setattr("cl.models.clip.tokenizer", lambda *_: pytest.fail("a tokenizer was built"))
    assert [row.state for row in sessions(job)] == ["waiting"] * 3
    looked = outlined(job)
    assert (looked.states, looked.keys) == (expected.states, expected.keys)


@pytest.mark.parametrize("name", sorted(CONFIGS))
def test_keys_are_found_without_a_tokenizer_for_every_method(name: str) -> None:
    CONFIGS[name]().build(build(TINY, reads=False), 0)


@pytest.mark.parametrize(
    ("group", "setting"),
    [
        ("text_cfg", {"tokenizer_kwargs": {"bpe_path": "/etc/passwd"}}),
        ("text_cfg", {"tokenizer_kwargs": {"clean": {"a": 1}}}),
        ("text_cfg", {"tokenizer_kwargs": [["trust_remote_code", True]]}),
        ("text_cfg", {"act_kwargs": {"device": {"__class__": "x"}}}),
        ("text_cfg", {"trust_remote_code": True}),
        ("vision_cfg", {"timm_model_name": "hf-hub:who/ever"}),
        ("vision_cfg", {"timm_model_name": "local-dir:/tmp/x"}),
        ("vision_cfg", {"timm_kwargs": {"checkpoint_path": "/tmp/x"}}),
        (None, {"cast_dtype": "x"}),
        (None, {"text_cfg": None}),
        (None, {"text_cfg": [1]}),
    ],
)
def test_a_setting_that_is_no_shape_is_refused_by_name(group: str | None, setting: dict[str, Any]) -> None:
    settings = {**TINY, **setting} if group is None else {**TINY, group: {**TINY[group], **setting}}
    with pytest.raises(ModelError, match=rf"model_cfg\.({group}\.)?{next(iter(setting))}"):
        build(settings)


def test_a_text_tower_that_brings_code_is_refused(tmp_path: Path, marker: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("y\n" * 10))
    (tmp_path / "tower").mkdir()
    (tmp_path / "tower" / "evil.py").write_text(CODE.format(marker=str(marker)))
    (tmp_path / "tower" / "config.json").write_text(json.dumps({"auto_map": {"AutoConfig": "evil.Evil"}, "model_type": "evil"}))
    folder = plant(tmp_path / "model", marker, None)
    config = json.loads((folder / "open_clip_config.json").read_text())
    config["model_cfg"]["text_cfg"]["hf_model_name"] = str(tmp_path / "tower")
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match="names code of its own"):
        load(ModelConfig(name=f"local-dir:{folder}"))
    assert not marker.exists()


def test_every_model_that_open_clip_ships_may_be_asked_for() -> None:
    from cl.models.settings import check

    for name in open_clip.list_models():
        check(open_clip.get_model_config(name))


def _settings(config: Path) -> dict[str, Any]:
    import yaml

    return dict(yaml.safe_load(config.read_text())) | {"compare": None}
