"""Counting what arithmetic costs: torch's numbers, and never at the price of the arithmetic."""

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cl.models.flops import Flops, counted
from tests import make


def test_a_training_step_counts_as_by_torch() -> None:
    clip = make.tiny()
    images = torch.rand(4, 3, 32, 32, generator=torch.Generator().manual_seed(0))

    def step() -> None:
        clip.encode_image(images).sum().backward()

    with FlopCounterMode(display=False) as theirs:
        step()
    assert counted(step)[1] == theirs.get_total_flops() > 0


def test_a_slice_of_a_weight_given_to_a_module_without_gradients_is_counted() -> None:
    weight, layer = torch.nn.Parameter(torch.ones(1, 2, 3)), torch.nn.Linear(3, 4)

    def work() -> torch.Tensor:
        with torch.no_grad():
            return layer(weight[0])

    with pytest.raises(AssertionError, match="gradient function"), FlopCounterMode(display=False):
        work()  # why torch's own is not used as it is
    assert counted(work)[1] == 2 * 2 * 3 * 4


def test_a_formula_that_raises_counts_as_none_and_the_result_stands() -> None:
    def broken(*_: object, **__: object) -> int:
        raise TypeError("not written for these shapes")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(torch.utils.flop_counter.flop_registry, torch.ops.aten.mm, broken)
        result, flops = counted(lambda: torch.ones(2, 3) @ torch.ones(3, 4))
    assert flops == 0 and torch.equal(result, torch.full((2, 4), 3.0))


def test_counters_do_not_share_what_they_count() -> None:
    with Flops() as one:
        torch.ones(2, 3) @ torch.ones(3, 4)
    with Flops() as two:
        torch.ones(1, 3) @ torch.ones(3, 1)
    assert (one.get_total_flops(), two.get_total_flops()) == (48, 6)
