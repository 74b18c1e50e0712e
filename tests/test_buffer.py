"""Exemplars: how many, which, and that saving them changes nothing."""

from collections import Counter

import torch

from cl.buffer import Exemplars, Memory, update
from tests import make


def test_a_store_never_passes_its_capacity_and_repeats_itself_for_a_seed() -> None:
    new = make.table((0, 1, 2), 20)
    kept = [update(Exemplars.none(), new, [0] * 60, policy="reservoir", capacity=25, seed=s) for s in (1, 1, 2)]
    assert len(kept[0].rows) == 25
    assert kept[0].rows.ids == kept[1].rows.ids != kept[2].rows.ids


def test_classes_share_the_store_equally() -> None:
    kept = Exemplars.none()
    for group, colours in enumerate([(0, 1), (2, 3)]):
        rows = make.table(colours, 20, seed=group)
        kept = update(kept, rows, [2 * group + (i >= 20) for i in range(40)], policy="class_balanced", capacity=20, seed=0)
    assert Counter(kept.rows.labels) == {"red": 5, "green": 5, "blue": 5, "yellow": 5}


def test_sessions_share_the_store_equally_whatever_their_size() -> None:
    kept = Exemplars.none()
    for group, each in enumerate([30, 10, 20]):
        kept = update(kept, make.table((group,), each, seed=group), [group] * each, policy="session_balanced", capacity=15, seed=group)
    assert Counter(kept.groups.tolist()) == {0: 5, 1: 5, 2: 5}


def test_a_reservoir_keeps_every_row_of_the_stream_with_the_same_chance() -> None:
    counts: Counter[int] = Counter()
    parts = [make.table((group,), 10, seed=group) for group in range(4)]
    for seed in range(150):
        kept = Exemplars.none()
        for group, rows in enumerate(parts):
            kept = update(kept, rows, [group] * 10, policy="reservoir", capacity=8, seed=seed * 10 + group)
        counts.update(kept.groups.tolist())
    expected = 150 * 8 / 4
    assert all(abs(counts[group] - expected) < 4 * (expected * 0.75) ** 0.5 for group in range(4)), counts


def test_a_saved_store_goes_on_as_if_it_had_never_been_saved() -> None:
    first = update(Exemplars.none(), make.table((0, 1), 10), [0] * 10 + [1] * 10, policy="reservoir", capacity=12, seed=0)
    memory, other = Memory(), Memory()
    memory.exemplars = first
    other.load_state_dict({name: value.clone() for name, value in memory.state_dict().items()})
    assert other.exemplars.rows.table.equals(first.rows.table) and torch.equal(other.exemplars.weights, first.weights)
    new = make.table((2,), 10, seed=1)
    on, again = (update(kept, new, [2] * 10, policy="reservoir", capacity=12, seed=1) for kept in (first, other.exemplars))
    assert on.rows.ids == again.rows.ids


def test_choosing_exemplars_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    update(Exemplars.none(), make.table((0,), 10), [0] * 10, policy="reservoir", capacity=5, seed=0)
    assert torch.equal(before, torch.get_rng_state())
