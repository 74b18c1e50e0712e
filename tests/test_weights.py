"""Weights as named tensors: interpolation, means and distances."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from cl.errors import ModelError
from cl.methods.weights import interpolate, named, running_mean, snapshot, squared_distance


def weights(seed: int) -> dict[str, Tensor]:
    source = torch.Generator().manual_seed(seed)
    return {"w": torch.randn(3, 4, generator=source, dtype=torch.float64), "b": torch.randn(4, generator=source, dtype=torch.float64)}


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_ends_of_an_interpolation_are_the_two_models_to_the_bit() -> None:
    a, b = weights(0), weights(1)
    assert same(interpolate(a, b, 0.0), a) and same(interpolate(a, b, 1.0), b)


@pytest.mark.parametrize("t", [0.1, 0.5, 0.8])
def test_an_interpolation_is_the_weighted_sum_value_by_value(t: float) -> None:
    a, b = weights(0), weights(1)
    for name, between in interpolate(a, b, t).items():
        for position in np.ndindex(*between.shape):
            assert between[position].item() == pytest.approx((1 - t) * a[name][position].item() + t * b[name][position].item(), abs=1e-15)


def test_an_interpolation_is_linear_in_its_position() -> None:
    a, b = weights(0), weights(1)
    low, middle, high = (interpolate(a, b, t) for t in (0.2, 0.5, 0.8))
    assert all(torch.allclose((low[name] + high[name]) / 2, middle[name], atol=1e-15, rtol=0) for name in a)


@pytest.mark.parametrize("t", [0.0, 0.5, 1.0])
def test_results_share_no_storage_with_what_they_were_made_of(t: float) -> None:
    a, b = weights(0), weights(1)
    for tensor in interpolate(a, b, t).values():
        tensor.zero_()
    assert same(a, weights(0)) and same(b, weights(1))


def test_counters_come_from_the_second_model() -> None:
    a, b = ({"num_batches_tracked": torch.tensor(n)} for n in (3, 9))
    assert [interpolate(a, b, t)["num_batches_tracked"].item() for t in (0.0, 0.5, 1.0)] == [9, 9, 9]


def test_a_running_mean_is_the_arithmetic_mean_of_all_snapshots() -> None:
    every = [weights(seed) for seed in range(12)]
    mean = every[0]
    for count, new in enumerate(every[1:], start=1):
        mean = running_mean(mean, new, count)
    for name in mean:
        np.testing.assert_allclose(mean[name].numpy(), np.mean([each[name].numpy() for each in every], axis=0), atol=1e-15)


def test_a_snapshot_stays_when_the_weights_move() -> None:
    layer = nn.Linear(3, 2)
    kept = snapshot(named(layer, layer.parameters()))
    before = layer.weight.detach().clone()
    with torch.no_grad():
        layer.weight.add_(1)
    assert torch.equal(kept["weight"], before) and not any(tensor.requires_grad for tensor in kept.values())


def test_parameters_are_named_as_in_their_module_whatever_their_order() -> None:
    net = nn.Sequential(nn.Linear(3, 2), nn.Linear(2, 1))
    parameters = named(net, [net[1].bias, net[0].weight])
    assert list(parameters) == ["0.weight", "1.bias"] and parameters["1.bias"] is net[1].bias


def test_the_squared_distance_is_a_sum_over_every_value() -> None:
    now, anchor, importance = weights(0), weights(1), {name: tensor.abs() for name, tensor in weights(2).items()}
    plain = weighted = 0.0
    for name in now:
        for position in np.ndindex(*now[name].shape):
            square = (now[name][position].item() - anchor[name][position].item()) ** 2
            plain += square
            weighted += importance[name][position].item() * square
    assert squared_distance(now, anchor).item() == pytest.approx(plain, rel=1e-14)
    assert squared_distance(now, anchor, importance).item() == pytest.approx(weighted, rel=1e-14)


def test_the_distance_pulls_towards_the_anchor_and_leaves_the_anchor_alone() -> None:
    now, anchor, importance = ({name: tensor.requires_grad_() for name, tensor in weights(seed).items()} for seed in (0, 1, 2))
    squared_distance(now, anchor, importance).backward()
    for name in now:
        expected = 2 * importance[name] * (now[name] - anchor[name])
        assert torch.allclose(now[name].grad, expected, atol=1e-14) and now[name].grad.abs().sum() > 0
        assert anchor[name].grad is None and importance[name].grad is None
    assert torch.autograd.gradcheck(lambda w: squared_distance({"w": w}, {"w": anchor["w"].detach()}), (now["w"],))


@pytest.mark.parametrize("other", [{"w": torch.zeros(2)}, {"v": torch.zeros(3)}, {"w": torch.zeros(3), "b": torch.zeros(1)}])
def test_weights_of_another_model_are_refused(other: dict[str, Tensor]) -> None:
    for call in (lambda: interpolate({"w": torch.zeros(3)}, other, 0.5), lambda: squared_distance({"w": torch.zeros(3)}, other)):
        with pytest.raises(ModelError, match="two different models"):
            call()
