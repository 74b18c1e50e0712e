"""Exemplars: how many, which, and that saving them changes nothing."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch.utils.data import Dataset

from cl.config import TrainConfig
from cl.data.table import ImageTable, concat
from cl.learning.learner import learn
from cl.methods.buffer import Exemplars, Policy, packed, unpacked, update
from cl.methods.presets.replay import ReplayConfig
from tests import make

RETURNING = [(0, 1), (2, 0), (3,), (1, 2, 0), (4, 3)]  # classes of five sessions; most come back
POLICIES: list[Policy] = ["reservoir", "class_balanced", "session_balanced"]


class Rows(Dataset[tuple[int, int]]):
    """Row numbers and their classes: what Avalanche chooses among here."""

    def __init__(self, rows: Sequence[tuple[int, int]]) -> None:
        self.rows, self.targets = list(rows), [target for _, target in rows]

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, place: int) -> tuple[int, int]:
        return self.rows[place]


def living(policy: Policy, capacity: int) -> Any:
    """Avalanche's own buffer, which is never put away and taken up again."""
    from avalanche.training import storage_policy as policies

    names = {
        "reservoir": "ReservoirSamplingBuffer",
        "class_balanced": "ClassBalancedBuffer",
        "session_balanced": "ExperienceBalancedBuffer",
    }
    return getattr(policies, names[policy])(capacity)


def saved(kept: Exemplars) -> Exemplars:
    """The store as another process finds it."""
    return unpacked(packed(kept).clone())


@pytest.mark.filterwarnings("ignore")  # avalanche pulls in a QP solver that complains at import
@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("each", [1, 4, 30])
@pytest.mark.parametrize("capacity", [3, 12, 23])
def test_over_returning_classes_the_store_is_a_living_avalanche_buffers_row_by_row(policy: Policy, each: int, capacity: int) -> None:
    from avalanche.benchmarks.utils import _make_taskaware_classification_dataset as task_aware

    theirs, ours, count = living(policy, capacity), Exemplars.none(), 0
    for session, classes in enumerate(RETURNING):
        rows = [(count + place, colour) for place, colour in enumerate(colour for colour in classes for _ in range(each))]
        count += len(rows)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(100 + session)
            theirs.post_adapt(None, SimpleNamespace(dataset=task_aware(Rows(rows), task_labels=0)))
        new = ImageTable.of([str(row) for row, _ in rows], [b""] * len(rows), labels=[str(colour) for _, colour in rows])
        groups = [colour if policy == "class_balanced" else session for _, colour in rows]
        ours = update(saved(ours), new, groups, policy=policy, capacity=capacity, seed=100 + session)
        assert ours.rows.ids == [str(row) for row, *_ in theirs.buffer]


@pytest.mark.parametrize("policy", POLICIES)
@pytest.mark.parametrize("kind", ["labels", "captions", "mixed"])
def test_every_policy_learns_classes_that_return_captions_and_both_in_one_session(policy: Policy, kind: str) -> None:
    method = ReplayConfig(policy=policy, capacity=9).build(make.tiny(), 0)
    train = TrainConfig(max_steps=1, batch_size=8, device="cpu")
    for index, colours in enumerate([(0, 1), (1, 2), (0, 2)], start=1):
        session = make.session(index, colours, (0, 1, 2)[: index + 1], labels=kind != "captions", captions=kind == "captions")
        if kind == "mixed":
            described = make.table(colours, 4, seed=50 + index, labels=False, captions=True)
            session = dataclasses.replace(session, data=concat([session.data, described]))
        learn(method, session, train, 0)
        assert len(method.memory.exemplars.rows) == 9
        method.memory.exemplars = saved(method.memory.exemplars)
    if policy == "class_balanced" and kind != "captions":
        kept = Counter(method.memory.exemplars.rows.labels)  # rows without a label are one more group
        assert kept == ({"red": 3, "green": 3, "blue": 3} if kind == "labels" else {"red": 3, "green": 2, "blue": 2, None: 2})


def test_a_class_that_the_store_has_no_room_for_still_counts_when_it_is_shared_out() -> None:
    kept = Exemplars.none()
    for session, classes in enumerate([range(5), range(5, 8)]):
        rows = make.table(list(classes), 2, seed=session)
        kept = saved(update(kept, rows, [c for c in classes for _ in range(2)], policy="class_balanced", capacity=4, seed=session))
    assert (kept.groups.tolist(), kept.seen) == ([0, 1, 2, 3], tuple(range(8)))


def test_a_store_saved_before_groups_were_noted_is_read_and_goes_on() -> None:
    old = update(Exemplars.none(), make.table((0, 1), 4), [0] * 4 + [1] * 4, policy="class_balanced", capacity=6, seed=0)
    kept = saved(dataclasses.replace(old, seen=()))
    assert kept.seen == () and kept.rows.ids == old.rows.ids
    on = update(kept, make.table((2,), 4, seed=1), [2] * 4, policy="class_balanced", capacity=6, seed=1)
    assert on.seen == (0, 1, 2) and Counter(on.groups.tolist()) == {0: 2, 1: 2, 2: 2}


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
    other = saved(first)
    assert other.rows.table.equals(first.rows.table) and torch.equal(other.weights, first.weights)
    new = make.table((2,), 10, seed=1)
    on, again = (update(kept, new, [2] * 10, policy="reservoir", capacity=12, seed=1) for kept in (first, other))
    assert on.rows.ids == again.rows.ids


def test_choosing_exemplars_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(5)
    before = torch.get_rng_state()
    update(Exemplars.none(), make.table((0,), 10), [0] * 10, policy="reservoir", capacity=5, seed=0)
    assert torch.equal(before, torch.get_rng_state())
