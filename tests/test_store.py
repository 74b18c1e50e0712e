"""A state on disk holds all that differs from the base model, or names the state that does."""

import json
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch

from cl.disk.files import write_json
from cl.disk.seal import sealed, unsealed
from cl.disk.tensors import write_tensors
from cl.errors import NewerError, StoreError
from cl.learning.cost import Cost
from cl.store.store import FORMAT, State, beneath, checked, foundation, read_state, whole


def keep(states: Path, name: str, values: dict[str, float], stands_on: str | None = None) -> State:
    """A state whose tensors hold one number each."""
    (states / name).mkdir(parents=True)
    digest = write_tensors({key: torch.tensor([value]) for key, value in values.items()}, states / name / "state.safetensors")
    state = State(digest, Cost(0, 0, 0.0, 0, 0, 0), [], stands_on=stands_on)
    write_json(sealed(asdict(state)), states / name / "state.json")
    return state


@pytest.fixture
def states(tmp_path: Path) -> Path:
    """Whole model, image tower, text tower, prompts, prompts again: each learned from the one before."""
    keep(tmp_path, "whole", {"clip.image": 1, "clip.text": 1})
    keep(tmp_path, "image", {"clip.image": 2}, "whole")
    keep(tmp_path, "text", {"clip.text": 3}, "image")
    keep(tmp_path, "prompts", {"prompts.tokens": 4}, "text")
    keep(tmp_path, "more", {"prompts.tokens": 5}, "text")
    return tmp_path


BOTH = {"clip.image", "clip.text"}


@pytest.mark.parametrize(
    ("parent", "left_out", "wanted"),
    [
        (None, BOTH, None),  # over the base model
        ("whole", set(), None),  # it holds all itself
        ("more", set(), None),
        ("more", {"clip.scale"}, None),  # which nobody trained
        ("whole", {"clip.text"}, "whole"),
        ("image", {"clip.text"}, "whole"),  # a second session of the image tower: what it leaves out is not in the first's file either
        ("image", {"clip.image"}, "image"),
        ("text", BOTH, "text"),
        ("prompts", BOTH, "text"),
        ("more", BOTH, "text"),  # the chain does not grow with the sessions
    ],
)
def test_a_state_stands_on_the_nearest_that_holds_what_it_leaves_out(states: Path, parent, left_out, wanted) -> None:
    assert foundation(states, parent, left_out) == wanted


def test_what_lies_beneath_is_the_clip_of_the_whole_chain_the_later_over_the_earlier(states: Path) -> None:
    assert beneath(states / "whole") == {}
    assert {name: float(value) for name, value in beneath(states / "more").items()} == {"clip.image": 2, "clip.text": 3}
    assert checked(states / "more").stands_on == "text"


@pytest.mark.parametrize("link", ["whole", "image", "text"])
@pytest.mark.parametrize("harm", ["gone", "weights gone", "weights changed", "note changed"])
def test_a_state_is_only_whole_with_all_that_it_stands_on(states: Path, link: str, harm: str, caplog: pytest.LogCaptureFixture) -> None:
    assert whole(states / "more") == read_state(states / "more") and not caplog.text
    note, weights = states / link / "state.json", states / link / "state.safetensors"
    if harm == "gone":
        (states / link).rename(states / "elsewhere")
    elif harm == "weights gone":
        weights.unlink()
    else:
        file = note if harm == "note changed" else weights
        data = bytearray(file.read_bytes())
        data[-20] ^= 1
        file.write_bytes(data)
    with pytest.raises(StoreError, match=rf"{link}/state\.(json|safetensors): .*, and more stands on it"):
        checked(states / "more")
    assert whole(states / "more") is None and "more stands on it" in caplog.text
    with (
        pytest.raises(StoreError, match=rf"{link}/state\.json: .*, and more stands on it") if "note" in harm else pytest.raises(StoreError)
    ):
        beneath(states / "more") if harm != "weights changed" else checked(states / "more")


@pytest.mark.parametrize("name", ["../whole", "a/b", "", ".", "..", "more", 3, "/etc"])
def test_a_state_stands_on_no_folder_elsewhere_and_not_on_itself(states: Path, name) -> None:
    state = replace(read_state(states / "more"), stands_on=name)
    write_json(sealed(asdict(state)), states / "more" / "state.json")
    with pytest.raises(StoreError, match=r"more/state\.json: damaged, it stands on"):
        checked(states / "more")


def test_states_that_stand_on_each_other_are_refused(states: Path) -> None:
    write_json(sealed(asdict(replace(read_state(states / "whole"), stands_on="text"))), states / "whole" / "state.json")
    with pytest.raises(StoreError, match="stands on itself by way of text and image and whole and text"):
        checked(states / "more")


def test_a_state_of_a_later_release_is_neither_read_nor_made_again(states: Path) -> None:
    file = states / "more" / "state.json"
    note = unsealed(json.loads(file.read_text()), "x", ())
    assert note["format"] == FORMAT
    write_json(
        sealed(note | {"hue": "blue", "cost": note["cost"] | {"water": 3}}), file
    )  # one that notes more, and names its tensors the same
    assert whole(states / "more") == read_state(states / "more")
    write_json(sealed(note | {"format": FORMAT + 1, "sha256": None}), file)
    for read in (read_state, checked, whole, beneath):
        with pytest.raises(NewerError, match=rf"written by a later release of Evergreen \(format {FORMAT + 1}, this one reads up to"):
            read(states / "more")


@pytest.mark.parametrize("noted", [("sha256", "cost", "record"), ("sha256", "cost", "record", "code")])
def test_what_earlier_releases_noted_is_read(states: Path, noted: tuple[str, ...]) -> None:
    file = states / "whole" / "state.json"
    old = {name: value for name, value in unsealed(json.loads(file.read_text()), "x", ()).items() if name in noted}
    write_json(sealed(old) if "code" in noted else old, file)
    state = checked(states / "whole")
    assert (state.stands_on, state.parent, state.method, state.versions, state.format) == (None, None, "", {}, 1)
