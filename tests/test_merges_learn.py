"""What merging is for: four sets of pairs that contradict each other, learned one after the other, and how many of all are found."""

from collections.abc import Mapping
from statistics import mean

import pytest
import torch
from torch import Tensor, nn

from cl.methods.merges import MergeConfig
from cl.methods.merges.interpolate import InterpolateConfig
from cl.methods.merges.magmax import MagMaxConfig
from cl.methods.merges.mean import MeanConfig
from cl.methods.tuners.base import Tuner
from tests import make
from tests.test_merges import site
from tests.test_objectives_learn import World, trained

pytestmark = pytest.mark.slow
RULES = {"magmax": MagMaxConfig(), "mean": MeanConfig(), "wise_ft": InterpolateConfig()}


class Both(Tuner):
    """Two small towers in the place of a model's."""

    def __init__(self, world: World) -> None:
        super().__init__(make.tiny())
        self.world = world

    def weights(self) -> Mapping[str, nn.Parameter]:
        return {f"tuner.{name}": each for name, each in self.world.named_parameters() if name != "bias"}


def found(seed: int, begun: Mapping[str, Tensor], rule: MergeConfig | None) -> float:
    """Mean recall over the sets once the last is learned."""
    world, source = World(seed), torch.Generator().manual_seed(50 + seed)
    world.load_state_dict(begun)
    sets = [[view + 0.35 * torch.randn(view.shape, generator=source) for view in world.views] for _ in range(4)]
    tuner = Both(world)
    merge = rule.build(tuner, 0) if rule else None
    for place, views in enumerate(sets):
        world.views, world.source = views, torch.Generator().manual_seed(100 * seed + place)
        if merge:
            merge.before(site(tuner))
            merge.start(site(tuner))
        world.learn(trained, 100, 3e-3)
        if merge:
            with torch.no_grad():
                merge.close(site(tuner))
    recalls = []
    for place, views in enumerate(sets):
        world.views, world.source = views, torch.Generator().manual_seed(1000 * seed + place)
        recalls.append(world.exam()["recall"])
    return mean(recalls)


@pytest.mark.parametrize("seed", [0, 1, 2, 3])
def test_each_rule_keeps_more_of_all_sets_than_the_last_weights_do(seed: int) -> None:
    begun = {name: each.clone() for name, each in World(seed).learn(trained, 150, 3e-3).state_dict().items()}
    plain = found(seed, begun, None)
    merged = {name: found(seed, begun, rule) for name, rule in RULES.items()}
    assert min(merged.values()) > plain + 0.05, (plain, merged)
