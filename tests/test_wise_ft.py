"""WiSE-FT: where on the line from the start to the fine-tuned weights a session ends."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.config import validate
from cl.errors import ConfigError
from cl.learning.learner import learn
from cl.methods.base import MethodConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.wise_ft import WiSEFTConfig
from cl.streams.stream import Session
from tests import make
from tests.families import family
from tests.test_lwf import FAST, continues_as_if_never_saved

SESSIONS = make.stream((0, 1), (2, 3)).sessions


def learned(config: MethodConfig, sessions: tuple[Session, ...], start: dict[str, Tensor] | None = None) -> dict[str, Tensor]:
    """The clip's weights after sessions, learned from given weights."""
    method = config.build(make.tiny(), 0)
    if start:
        method.clip.load_state_dict(start)
    for session in sessions:
        learn(method, session, FAST, 0)
    return {name: value.clone() for name, value in method.clip.state_dict().items()}


def test_at_one_it_is_plain_fine_tuning_and_at_zero_nothing_was_learned() -> None:
    tuned, merged = learned(FinetuneConfig(), SESSIONS[:1]), learned(WiSEFTConfig(alpha=1.0), SESSIONS[:1])
    assert all(torch.equal(merged[name], tuned[name]) for name in tuned)
    start, kept = make.tiny().state_dict(), learned(WiSEFTConfig(alpha=0.0), SESSIONS[:1])
    assert all(torch.equal(kept[name], start[name]) for name in start)
    assert not torch.equal(tuned["model.visual.proj"], start["model.visual.proj"])


@pytest.mark.parametrize("reference", ["session", "original"])
def test_each_session_ends_between_its_reference_and_what_fine_tuning_gives_from_there(reference: str) -> None:
    config = WiSEFTConfig(alpha=0.8, reference=reference)  # type: ignore[arg-type]
    original = make.tiny().state_dict()
    first, second = learned(config, SESSIONS[:1]), learned(config, SESSIONS)
    tuned = learned(FinetuneConfig(), SESSIONS[1:], start=first)
    other = first if reference == "session" else original
    for name in original:
        expected = 0.2 * other[name].double().numpy() + 0.8 * tuned[name].double().numpy()
        np.testing.assert_allclose(second[name].numpy(), expected, atol=1e-6, err_msg=name)


def test_the_weights_it_goes_back_to_do_not_move_with_the_model() -> None:
    method = WiSEFTConfig(reference="original").build(make.tiny(), 0)
    learn(method, SESSIONS[0], FAST, 0)
    start = make.tiny().state_dict()
    assert all(torch.equal(method.merge._reference[name], start[name]) for name in start)
    assert not {t.data_ptr() for t in method.merge._reference.values()} & {t.data_ptr() for t in method.clip.state_dict().values()}


def test_one_tower_may_be_left_alone() -> None:
    weights, start = learned(WiSEFTConfig(part="text"), SESSIONS[:1]), make.tiny().state_dict()
    same = {name for name in start if torch.equal(weights[name], start[name])}
    assert {name for name in start if name.startswith("model.visual.")} <= same < set(start)


@pytest.mark.parametrize("kind", ["frozen", "trained"])
def test_a_tower_that_does_not_train_stays_where_the_session_found_it_with_its_statistics(kind: Any, tmp_path: Path) -> None:
    clip = family("RN", tmp_path)
    method = WiSEFTConfig(part="text", reference="original").build(clip, 0)
    original = {name: value.clone() for name, value in clip.state_dict().items()}
    with torch.no_grad():  # as another method has left it, which trains this tower
        for name, value in clip.state_dict().items():
            if name.startswith("model.visual.") and value.is_floating_point():
                value.add_(1.0)
    before = {name: value.clone() for name, value in clip.state_dict().items()}
    learn(method, SESSIONS[0], FAST.model_copy(update={"batch_norm": kind}), 0)
    after, weights = clip.state_dict(), dict(clip.named_parameters())
    changed = {name for name, value in before.items() if name.startswith("model.visual.") and not torch.equal(after[name], value)}
    assert not changed & set(weights) and bool(changed) == (kind == "trained")  # in train mode statistics move, whatever trains
    text = "model.text_projection"
    assert not torch.equal(after[text], before[text]) and torch.equal(before[text], original[text])


def test_the_whole_model_goes_back_with_its_statistics(tmp_path: Path) -> None:
    clip = family("RN", tmp_path)
    method = WiSEFTConfig(alpha=0.5, reference="original").build(clip, 0)
    with torch.no_grad():
        for layer in clip.batch_norms():
            layer.running_mean.fill_(1.0)  # type: ignore[union-attr]
    learn(method, SESSIONS[0], FAST.model_copy(update={"batch_norm": "frozen"}), 0)
    assert all(torch.equal(layer.running_mean, torch.full_like(layer.running_mean, 0.5)) for layer in clip.batch_norms())  # type: ignore


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    method = continues_as_if_never_saved(WiSEFTConfig(reference="original"), SESSIONS, tmp_path / "state.safetensors")
    assert {name.split(".")[0] for name in method.state_dict()} == {"clip"}


@pytest.mark.parametrize("alpha", [-0.1, 1.1])
def test_a_place_off_the_line_is_refused(alpha: float) -> None:
    with pytest.raises(ConfigError, match="alpha"):
        validate(WiSEFTConfig, {"name": "wise_ft", "alpha": alpha}, "run.yaml")
