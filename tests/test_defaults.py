"""Training settings that nobody set: which values they get, that they reach the training, and that they are told."""

import logging
import math
from typing import Any

import pytest
import torch
from torch import nn

from cl.config import EvalConfig, TrainConfig
from cl.evaluation.evaluate import evaluate
from cl.learning.defaults import LARGE, choices, idle, settled
from cl.learning.learner import learn
from cl.learning.loader import Order, samples
from cl.methods import CONFIGS, Method
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.vr_lwf import VRLwFConfig
from cl.models.clip import Clip, build
from tests import make
from tests.families import FAMILIES

KEEPING = {"lwf", "lwf_vr_zscl", "zscl", "cpe_clip", "pseudolabel"}
RESNET = FAMILIES["RN"]


def large(random: bool) -> Method:
    """Fine-tuning of a model that says it has a hundred million weights; none of them is ever made."""
    method = FinetuneConfig().build(make.tiny(), 0)
    weight = nn.Parameter(torch.empty(LARGE, 2, device="meta"))
    method.trainable = lambda: [weight]  # type: ignore[method-assign]
    method.clip.random = random
    return method


def told(config: TrainConfig, method: Method) -> str:
    return "; ".join(str(choice) for choice in choices(config, method) if choice.why)


def test_a_large_pretrained_model_is_trained_at_its_authors_rates_and_the_reason_is_told() -> None:
    assert settled(TrainConfig(), large(random=False)).lr == 1e-5
    assert told(TrainConfig(), large(random=False)) == (
        "train.lr is 1e-05: 100 million weights train, and authors fine-tune pretrained models of this size at 1e-6 to 3e-5"
    )
    assert settled(TrainConfig(), large(random=True)).lr == 5e-4
    assert settled(TrainConfig(), FinetuneConfig().build(make.tiny(), 0)).lr == 1e-4
    # what a user says stands, and is not news to them
    assert settled(TrainConfig(lr=3e-6), large(random=False)).lr == 3e-6
    assert told(TrainConfig(lr=3e-6), large(random=False)) == told(TrainConfig(lr_epochs=(1e-6,)), large(random=False)) == ""


def test_a_small_head_on_a_large_model_keeps_the_rate_of_a_small_one() -> None:
    method = CONFIGS["linear_probe"]().build(make.tiny(), 0)
    method.begin(make.session(1, (0, 1), (0, 1)))
    assert settled(TrainConfig(), method).lr == 1e-4


@pytest.mark.parametrize("name", CONFIGS)
def test_a_short_last_batch_is_kept_where_the_authors_keep_it(name: str) -> None:
    method = CONFIGS[name]().build(make.tiny(), 0)
    assert settled(TrainConfig(), method).drop_last is (name not in KEEPING)
    assert settled(TrainConfig(drop_last=True), method).drop_last is True


@pytest.mark.parametrize(("drop_last", "sizes"), [(True, [4, 4, 4, 4]), (False, [4, 4, 2, 4, 4, 2])])
def test_an_epoch_shows_every_row_once_where_the_last_batch_is_kept(drop_last: bool, sizes: list[int]) -> None:
    order = [*Order(10, 4, len(sizes), 0, drop_last=drop_last)]
    assert [len(batch) for batch in order] == sizes
    rows = [[row for batch in order for row, epoch, _ in batch if epoch == number] for number in (0, 1)]
    assert rows[0] != rows[1] and all(len(each) == len({*each}) == (8 if drop_last else 10) for each in rows)
    assert sum(sizes) == samples(10, 4, len(sizes), drop_last)
    assert [*Order(10, 4, len(sizes), 0, 2, drop_last=drop_last)] == order[2:]  # from a checkpoint on


@pytest.mark.parametrize(("settings", "steps", "seen"), [({}, 2, 16), ({"drop_last": False}, 4, 20), ({"accumulate": 2}, 1, 16)])
def test_steps_and_samples_are_counted_as_they_are_taken(settings: dict[str, Any], steps: int, seen: int) -> None:
    session, batches = make.session(1, (0, 1), (0, 1), each=5), []
    method = FinetuneConfig().build(make.tiny(), 0)
    inner = method.losses
    method.losses = lambda batch: batches.append(len(batch.images)) or inner(batch)  # type: ignore[func-returns-value, method-assign]
    outcome = learn(method, session, TrainConfig(epochs=2, batch_size=8, device="cpu", **settings), 0)
    assert (outcome.steps, outcome.samples) == (steps, seen) == (outcome.steps, sum(batches))


def test_reference_images_are_a_whole_batch_also_beside_a_short_one() -> None:
    method = CONFIGS["zscl"](texts=4).build(make.tiny(), 0)
    table, counts = make.table((0, 1, 2, 3), 4), []
    term = method.terms["reference"]  # type: ignore[attr-defined]
    term._tables, inner = (table, None), term.pixels
    term.pixels = lambda view: counts.append((len(view.batch.images), len(pixels := inner(view)))) or pixels
    learn(method, make.session(1, (0, 1), (0, 1), each=5), TrainConfig(epochs=1, batch_size=8, device="cpu"), 0)
    assert counts == [(8, 8), (2, 8)]


def scaled(scale: float) -> Clip:
    return build({**FAMILIES["ViT"], "init_logit_scale": math.log(scale)})


@pytest.mark.parametrize(
    ("start", "given", "bound"), [(14.3, None, 100.0), (117.5, None, 117.5), (117.5, 100.0, 100.0), (14.3, 120.0, 120.0)]
)
def test_the_logit_scale_is_not_pushed_below_where_the_model_came_with_it(start: float, given: float | None, bound: float) -> None:
    method, config = FinetuneConfig().build(scaled(start), 0), TrainConfig(max_logit_scale=given, max_steps=1, batch_size=4, device="cpu")
    assert settled(config, method).max_logit_scale == pytest.approx(bound)
    with torch.no_grad():
        method.clip.logit_scale.fill_(math.log(200))
    learn(method, make.session(1, (0, 1), (0, 1)), config, 0)
    assert float(method.clip.scale()) == pytest.approx(bound)
    assert ("the model came with that scale" in told(config, method)) == (start > 100 and given is None)


def test_a_student_that_starts_above_100_has_its_teachers_scale() -> None:
    method = VRLwFConfig(texts=4).build(scaled(117.5), 0)
    scales = []
    inner = method.losses
    method.losses = lambda batch: scales.append((float(method.clip.scale()), float(method.teacher("session").scale()))) or inner(batch)  # type: ignore
    learn(method, make.session(1, (0, 1), (0, 1)), TrainConfig(max_steps=2, batch_size=4, lr=1e-9, device="cpu"), 0)
    assert scales == [(pytest.approx(117.5, rel=1e-4),) * 2] * 2


@pytest.mark.parametrize("name", ["finetune", "wise_ft"])
def test_the_logit_scale_stays_where_it_is_asked_to_stay(name: str) -> None:
    for scale, moves in (("frozen", False), ("trained", True)):
        method = CONFIGS[name](scale=scale).build(make.tiny(), 0)
        before = method.clip.logit_scale.detach().clone()
        learn(method, make.session(1, (0, 1), (0, 1)), TrainConfig(max_steps=2, batch_size=4, lr=1e-3, device="cpu"), 0)
        assert torch.equal(before, method.clip.logit_scale.detach()) is not moves


def resnet(random: bool = True) -> Method:
    method = FinetuneConfig().build(build(RESNET), 0)
    method.clip.random = random
    return method


@pytest.mark.parametrize(
    ("random", "given", "moves"), [(True, None, True), (False, None, False), (True, "frozen", False), (False, "trained", True)]
)
def test_statistics_of_batch_normalisation_train_where_weights_begin_as_noise(random: bool, given: Any, moves: bool) -> None:
    method, config = resnet(random), TrainConfig(max_steps=1, batch_size=4, lr=1e-3, batch_norm=given, device="cpu")
    before = [layer.running_mean.clone() for layer in method.clip.batch_norms()]  # type: ignore[union-attr, operator]
    learn(method, make.session(1, (0, 1), (0, 1)), config, 0)
    after = [layer.running_mean for layer in method.clip.batch_norms()]
    assert len(before) > 10
    assert all(torch.equal(one, two) for one, two in zip(before, after, strict=True)) is not moves  # type: ignore[arg-type]
    assert ("batch_norm is trained" in told(config, method)) == (random and given is None)
    assert not any(layer.training for layer in method.clip.batch_norms())  # learned: answers hang on no batch


def test_statistics_stay_where_they_are_when_only_a_head_trains() -> None:
    method = CONFIGS["linear_probe"]().build(build(RESNET), 0)
    method.begin(make.session(1, (0, 1), (0, 1)))
    assert settled(TrainConfig(), method).batch_norm == "frozen" and "batch_norm" not in told(TrainConfig(), method)


def test_without_batch_normalisation_nothing_is_told_of_it() -> None:
    assert told(TrainConfig(lr=1e-3), FinetuneConfig().build(make.tiny(), 0)) == ""


def test_settings_that_play_no_part_are_told_in_one_line() -> None:
    given = TrainConfig(lr=1e-3, max_steps=5, workers=2, device="cpu")
    line = "train.max_steps, train.lr play no part: no weight is trained by gradient steps here"
    assert idle(given, CONFIGS["ridge"]().build(make.tiny(), 0)) == (line,)
    assert idle(TrainConfig(workers=2, device="cpu"), CONFIGS["ridge"]().build(make.tiny(), 0)) == ()
    plain = FinetuneConfig().build(make.tiny(), 0)
    assert idle(given, plain) == idle(TrainConfig(optimizer="sgd", momentum=0.5), plain) == idle(TrainConfig(), plain) == ()
    assert idle(TrainConfig(momentum=0.5, decay_all=True, batch_norm="trained"), plain) == (
        "train.momentum plays no part: the optimizer is adamw",
        "train.decay_all plays no part: weight_decay is 0",
        "train.batch_norm plays no part: the model has no batch normalisation",
    )
    assert idle(TrainConfig(optimizer="sgd", eps=1e-6, epochs=3, max_steps=9), plain) == (
        "train.eps plays no part: the optimizer is sgd",
        "train.epochs plays no part: max_steps counts the steps",
    )
    assert idle(TrainConfig(batch_norm="trained"), resnet()) == ()


def test_what_was_chosen_is_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="cl.learning.learner"):
        learn(resnet(), make.session(1, (0, 1), (0, 1)), TrainConfig(max_steps=1, batch_size=4, device="cpu"), 0)
    assert any(
        "session 1 (session 1): train.batch_norm is trained: the model begins with random weights" in line for line in caplog.messages
    )


@pytest.mark.slow
def test_a_resnet_learns_from_nothing_where_its_statistics_train() -> None:
    learned = {}
    for mode in ("frozen", "trained"):
        session, method = make.session(1, range(8), range(8), each=16), resnet()
        learn(method, session, TrainConfig(max_steps=60, batch_size=32, lr=1e-3, batch_norm=mode, device="cpu"), 0)  # type: ignore[arg-type]
        learned[mode] = evaluate(method.eval(), session.tests, EvalConfig(geometry=0))["set 1"].metrics["top1"]
    assert learned["trained"] == 1.0 > learned["frozen"]
