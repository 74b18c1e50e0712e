"""The learner: the order of rows, the schedule, what trains, and that a run repeats itself."""

import gc
import math
import weakref
from collections import Counter

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from cl.config import TrainConfig
from cl.errors import LearningError, MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Order, Rows
from cl.learning.module import Learner, schedule
from cl.methods.base import MethodConfig
from cl.methods.closed_form.gda import GDAConfig
from cl.methods.closed_form.ridge import RidgeConfig
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from cl.methods.presets.ewc import EWCConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.linear_probe import LinearProbeConfig
from cl.methods.presets.replay import ReplayConfig
from tests import make

FAST = TrainConfig(max_steps=4, batch_size=8, lr=1e-3, device="cpu")


def weights(method: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}


def same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> bool:
    return one.keys() == two.keys() and all(torch.equal(one[name], two[name]) for name in one)


def test_the_operations_of_a_session_are_three_times_a_forward_pass_for_each_step() -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    session = make.session(1, (0, 1), (0, 1), each=8)
    outcome = learn(method, session, TrainConfig(max_steps=5, batch_size=8, device="cpu"), 0)
    with FlopCounterMode(display=False) as counter:
        method.losses(Collate(method.clip.tokenize)([Rows(session.data, method.clip, method.vocabulary)[(row, 0, 0)] for row in range(8)]))
    # a backward pass asks twice the products of a forward pass, but none for the pixels
    assert 2.5 < outcome.flops / (5 * counter.get_total_flops()) <= 3.0 and outcome.steps == 5


@pytest.mark.parametrize("config", [RidgeConfig(), GDAConfig(), LinearProbeConfig()])
def test_features_that_are_computed_once_are_counted(config: MethodConfig) -> None:
    method, session = config.build(make.tiny(), 0), make.session(1, (0, 1), (0, 1), each=8)
    with FlopCounterMode(display=False) as counter:
        method.encode_image(torch.zeros(len(session.data), 3, 32, 32))
    outcome = learn(method, session, TrainConfig(max_steps=1, batch_size=8, device="cpu"), 0)
    assert outcome.flops >= counter.get_total_flops() > 0


def test_what_is_computed_after_the_last_step_is_counted() -> None:
    session, settings = make.session(1, (0, 1), (0, 1), each=8), TrainConfig(max_steps=2, batch_size=8, device="cpu")
    plain, ewc = (learn(each.build(make.tiny(), 0), session, settings, 0).flops for each in (FinetuneConfig(), EWCConfig()))
    assert ewc > 1.5 * plain  # the Fisher information asks each image once, both ways


def test_an_epoch_shows_every_row_once_and_the_next_in_another_order() -> None:
    batches = list(Order(rows=12, batch=4, steps=6, seed=1))
    first, second = ([row for batch in part for row, _, _ in batch] for part in (batches[:3], batches[3:]))
    assert sorted(first) == sorted(second) == list(range(12)) and first != second
    assert [batch[0][1] for batch in batches] == [0, 0, 0, 1, 1, 1]


def test_starting_in_the_middle_gives_the_rest_of_the_same_order() -> None:
    whole = list(Order(rows=10, batch=4, steps=9, seed=2))
    assert list(Order(rows=10, batch=4, steps=9, seed=2, start=5)) == whole[5:]


def test_a_row_draws_its_caption_by_epoch_and_all_captions_come_up() -> None:
    session = make.session(1, (0,), (0,), labels=False, captions=True)
    rows = Rows(session.data, make.tiny(), session.vocabulary, seed=3)
    texts = [rows[(0, epoch, 0)].text for epoch in range(40)]
    assert texts == [rows[(0, epoch, 9)].text for epoch in range(40)]
    assert Counter(texts).keys() == {"a red square", "red number 0"}


def test_a_crop_is_repeated_exactly_and_leaves_the_global_generator_alone() -> None:
    session = make.session(1, (0,), (0,))
    rows = Rows(session.data, make.tiny(), session.vocabulary, augment=True, seed=3)
    state = torch.get_rng_state()
    assert torch.equal(rows[(2, 1, 0)].image, rows[(2, 1, 7)].image)
    assert torch.equal(state, torch.get_rng_state())


def test_the_rate_rises_in_a_line_and_falls_as_a_cosine() -> None:
    config = TrainConfig(warmup=0.2)
    rates = [schedule(step, 10, config) for step in range(10)]
    assert rates[:3] == [0.5, 1.0, 1.0]
    assert rates[6] == pytest.approx(0.5 * (1 + math.cos(math.pi * 4 / 8)))
    assert schedule(7, 10, TrainConfig(warmup=0, schedule="constant")) == 1.0


def test_by_epoch_the_rate_is_the_pseudolabel_codes_for_every_step_of_an_epoch() -> None:
    config = TrainConfig(epochs=150, warmup=1 / 30, schedule="cosine_epochs")
    rates = [schedule(step, 450, config) for step in range(450)]
    assert rates[:18:3] == pytest.approx([0, 0.2, 0.4, 0.6, 0.8, 1]) and rates[::3] == rates[1::3] == rates[2::3]
    assert rates[3 * 100] == pytest.approx((1 + math.cos(math.pi * 95 / 145)) / 2) and 0 < rates[-1] < 2e-4


def test_learning_lowers_the_loss_and_raises_accuracy() -> None:
    from cl.config import EvalConfig
    from cl.evaluation.evaluate import evaluate

    stream = make.stream((0, 1, 2), each=16)
    method = FinetuneConfig().build(make.tiny(), 0)
    learn(method, stream.sessions[0], TrainConfig(max_steps=40, batch_size=16, lr=2e-3, device="cpu"), 0)
    assert evaluate(method, stream.exam(1), EvalConfig())["set 1"].metrics["top1"] >= 0.9


@pytest.mark.parametrize("config", [FinetuneConfig(), ReplayConfig(capacity=6)])
def test_the_same_seed_gives_the_same_weights_bit_for_bit_and_another_does_not(config: FinetuneConfig) -> None:
    def weights_for(seed: int) -> dict[str, torch.Tensor]:
        torch.rand(seed + 3)  # whatever was drawn before must not matter
        method = config.build(make.tiny(), seed)
        for session in make.stream((0, 1), (2, 3)).sessions:
            learn(method, session, FAST, seed)
        return weights(method)

    assert same(weights_for(0), weights_for(0))
    assert not same(weights_for(0), weights_for(1))


@pytest.mark.parametrize(("part", "moved", "still"), [("image", "visual", "token_embedding"), ("text", "token_embedding", "visual")])
def test_only_the_chosen_tower_moves(part: str, moved: str, still: str) -> None:
    method = FinetuneConfig(part=part).build(make.tiny(), 0)  # type: ignore[arg-type]
    before = weights(method)
    learn(method, make.session(1, (0, 1), (0, 1)), FAST, 0)
    after = weights(method)
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert any(moved in name for name in changed) and not any(still in name for name in changed)


@pytest.mark.parametrize("everything", [False, True])
def test_gains_and_biases_decay_only_where_that_is_asked_for(everything: bool) -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    config = TrainConfig(max_steps=1, weight_decay=0.1, decay_all=everything, device="cpu")
    optimizer = Learner(method, config, 1).configure_optimizers()
    decays = {id(weight): group["weight_decay"] for group in optimizer.param_groups for weight in group["params"]}
    assert len(decays) == sum(1 for _ in method.trainable())
    for weight in method.trainable():
        assert decays[id(weight)] == (0.1 if weight.ndim >= 2 or everything else 0.0)


def test_the_logit_scale_stays_within_its_bounds() -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    with torch.no_grad():
        method.clip.logit_scale.fill_(9.0)
    learn(method, make.session(1, (0, 1), (0, 1)), FAST, 0)
    assert 99.0 < method.clip.scale().item() <= 100.001


def test_accumulating_halves_of_a_batch_steps_as_often_and_sees_twice_the_rows() -> None:
    learned = learn(FinetuneConfig().build(make.tiny(), 0), make.session(1, (0, 1), (0, 1)), FAST.model_copy(update={"accumulate": 2}), 0)
    assert (learned.steps, learned.samples) == (4, 64)


def test_bf16_learns_too() -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    learn(method, make.session(1, (0, 1), (0, 1)), FAST.model_copy(update={"precision": "bf16-mixed"}), 0)
    assert all(value.dtype == torch.float32 for value in method.clip.parameters())


def test_a_loss_that_is_not_finite_stops_learning() -> None:
    method = FinetuneConfig().build(make.tiny(), 0)
    method.losses = lambda batch: {"broken": method.clip.logit_scale * float("nan")}  # type: ignore[method-assign]
    with pytest.raises(LearningError, match=r"step 0 of 4: the loss is not finite \(broken nan\)"):
        learn(method, make.session(1, (0,), (0,)), FAST, 0)


def test_a_session_without_labels_or_captions_is_refused_by_name() -> None:
    session = make.session(2, (0, 1), (0, 1), labels=False)
    with pytest.raises(MethodError, match=r"session 2 \(session 2\): none of its 16 rows has a label or a caption"):
        learn(FinetuneConfig().build(make.tiny(), 0), session, FAST, 0)


def test_zero_shot_learns_nothing() -> None:
    method = ZeroShotConfig().build(make.tiny(), 0)
    before = weights(method)
    assert learn(method, make.session(1, (0,), (0,)), FAST, 0).steps == 0
    assert same(before, weights(method))


def test_rehearsal_lets_old_classes_compete_and_mixes_exemplars_in() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = ReplayConfig(capacity=6).build(make.tiny(), 0)
    learn(method, first, FAST, 0)
    data = method.begin(second)
    assert len(data) == len(second.data) + 6 and set(method.candidates) == {0, 1, 2, 3}
    batch = Collate(method.clip.tokenize)([Rows(data, method.clip, method.vocabulary)[(row, 0, 0)] for row in range(len(data))])
    assert set(batch.labels.tolist()) == {0, 1, 2, 3}


def test_a_mixed_batch_weighs_rows_of_both_kinds_alike() -> None:
    from cl.data.table import concat

    labelled, captioned = make.table((0, 1), 3), make.table((0, 1), 1, seed=5, labels=False, captions=True)
    session = make.session(1, (0, 1), (0, 1))
    method = FinetuneConfig().build(make.tiny(), 0)
    method.begin(session)

    def terms(data: object) -> dict[str, float]:
        rows = Rows(data, method.clip, method.vocabulary)
        with torch.no_grad():
            return {
                k: v.item() for k, v in method.losses(Collate(method.clip.tokenize)([rows[(r, 0, 0)] for r in range(len(data))])).items()
            }

    both = terms(concat([labelled, captioned]))
    assert both["classify"] == pytest.approx(terms(labelled)["classify"] * 6 / 8, rel=1e-5)
    assert both["contrast"] == pytest.approx(terms(captioned)["contrast"] * 2 / 8, rel=1e-5)


def test_nothing_of_a_session_stays_in_memory_without_the_method() -> None:
    def learned() -> weakref.ref[torch.nn.Module]:
        method = ReplayConfig(capacity=4).build(make.tiny(), 0)
        learn(method, make.session(1, (0, 1), (0, 1)), FAST, 0)
        return weakref.ref(method)

    def tensors() -> int:
        return sum(type(each) in (torch.Tensor, torch.nn.Parameter) for each in gc.get_objects())

    learned()  # what is imported and remembered once is not counted
    gc.collect()
    gc.disable()
    try:
        before = tensors()
        assert learned()() is None and tensors() == before
    finally:
        gc.enable()
