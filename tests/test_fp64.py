"""A model in fp64 is taught, asked and kept in fp64: what is compared to the ninth digit must not pass through fp32."""

import pytest
import torch

from cl.config import EvalConfig, TrainConfig
from cl.evaluation.evaluate import evaluate, image_features
from cl.learning.learner import learn
from cl.methods import CONFIGS
from tests import make
from tests.test_every_method import METHODS, build, stream, usable

SLOW_AND_STEADY = TrainConfig(max_steps=2, batch_size=6, lr=1e-2, momentum=0, optimizer="sgd", device="cpu")


@pytest.mark.parametrize("name", METHODS)
def test_every_method_learns_two_sessions_in_fp64(name: str) -> None:
    method = build(name, dtype=torch.float64)
    for session in stream().sessions:
        learn(method, usable(name, session), SLOW_AND_STEADY, 0)
    assert {tensor.dtype for tensor in method.state_dict().values() if tensor.is_floating_point()} == {torch.float64}
    scores = evaluate(method, stream().probes, EvalConfig())
    assert all(0 <= value <= 1 for score in scores.values() for value in score.metrics.values())


def test_features_of_a_model_in_fp64_are_fp64() -> None:
    data = make.table((0, 1), 3)
    narrow = CONFIGS["zero_shot"]().build(make.tiny(), 0)
    wide = CONFIGS["zero_shot"]().build(make.tiny().double(), 0)
    exact, rounded = image_features(wide, data, EvalConfig()), image_features(narrow, data, EvalConfig())
    assert exact.dtype == "float64" and rounded.dtype == "float32"
    assert 0 < abs(exact - rounded).max() < 1e-5
