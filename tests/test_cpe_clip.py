"""CPE-CLIP: what its prompts are, what they learn from, and how far each session may move them."""

import math

import pytest
import torch
import torch.nn.functional as F

from cl.config import TrainConfig
from cl.data.table import concat
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods.base import Batch
from cl.methods.persist import memory, restore
from cl.methods.presets.cpe_clip import CPEClipConfig
from cl.methods.prompts import DeepPrompts, share, shortened
from cl.methods.recipe import Recipe
from cl.run_config import parse_config, train_config
from cl.streams.stream import Session
from tests import make

SGD = TrainConfig(
    max_steps=1, batch_size=8, optimizer="sgd", lr=0.05, momentum=0.0, warmup=0, schedule="constant", clip_grad=None, device="cpu"
)


def method_of(seed: int = 0, **settings: object) -> Recipe:
    return CPEClipConfig(**settings).build(make.tiny(), seed)


def batch_of(method: Recipe, session: Session, rows: int = 6) -> Batch:
    data = Rows(session.data, method.clip, session.vocabulary)
    return Collate(method.clip.tokenize)([data[(row, 0, 0)] for row in range(rows)])


def size(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def move(method: Recipe, session: Session, config: TrainConfig) -> float:
    before = torch.cat([parameter.detach().flatten().clone() for parameter in method.trainable()])
    learn(method, session, config, 0)
    return float((torch.cat([parameter.detach().flatten() for parameter in method.trainable()]) - before).norm())


def test_prompts_for_vit_b_16_have_406272_parameters_and_12288_without_image_prompts() -> None:
    assert size(DeepPrompts(12, 2, 512, 768, seed=0)) == 12 * 2 * 512 + 512 * 768 + 768 == 406_272
    assert size(DeepPrompts(12, 2, 512, None, seed=0)) == 12_288
    assert size(DeepPrompts(12, 2, 768, 1024, seed=0)) == 805_888


def test_prompts_are_drawn_from_xavier_bounds_of_the_three_dimensional_tensor() -> None:
    tokens = DeepPrompts(12, 2, 512, None, seed=0).tokens.detach()
    bound = math.sqrt(6 / (2 * 512 + 12 * 512))
    assert tokens.abs().max() <= bound and tokens.abs().max() == pytest.approx(bound, rel=1e-3)
    assert tokens.std() == pytest.approx(0.0167, abs=2e-4)


def test_the_same_seed_draws_the_same_prompts_and_leaves_the_global_generator_alone() -> None:
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    first, second, third = (method_of(seed).tuner.prompts.tokens for seed in (0, 0, 1))
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(first, second) and not torch.equal(first, third)


def test_depth_is_clipped_to_the_layers_of_both_towers() -> None:
    method = method_of()
    clip = method.clip
    assert method.tuner.prompts.tokens.shape == (4, 2, 32)
    assert size(method.tuner.prompts) == 4 * 2 * clip.text_width + clip.text_width * clip.image_width + clip.image_width


def test_one_step_changes_prompts_and_bridge_and_no_weight_of_the_clip() -> None:
    method = method_of()
    digest, before = method.clip.digest(), {name: value.clone() for name, value in method.tuner.prompts.state_dict().items()}
    learn(method, make.session(1, (0, 1), (0, 1)), SGD, 0)
    assert method.clip.digest() == digest
    assert all(not torch.equal(value, before[name]) for name, value in method.tuner.prompts.state_dict().items())
    assert all(parameter.grad is None for parameter in method.clip.parameters())


def test_the_gradient_reaches_the_prompts_of_every_layer_through_both_towers() -> None:
    session = make.session(1, (0, 1), (0, 1))
    for vision in ("accumulate", "none"):
        method = method_of(vision_mode=vision)
        method.begin(session)
        method.losses(batch_of(method, session))["classify"].backward()
        per_layer = method.tuner.prompts.tokens.grad.abs().sum((1, 2))
        assert (per_layer > 0).all()
        if vision == "accumulate":
            both = method.tuner.prompts.tokens.grad.clone()
            assert method.tuner.prompts.bridge.weight.grad.abs().sum() > 0
        else:
            assert not torch.allclose(both, method.tuner.prompts.tokens.grad)


def test_image_prompts_come_from_the_text_prompts_through_the_bridge_and_stand_behind_the_patches() -> None:
    prompts = method_of().tuner.prompts
    vision = prompts.vision()
    assert torch.allclose(vision.layers, prompts.tokens @ prompts.bridge.weight.T + prompts.bridge.bias)
    assert (vision.mode, vision.place, prompts.text().mode) == ("accumulate", "after_patches", "replace")


def test_alpha_is_the_share_of_new_classes_from_the_second_session_on() -> None:
    names = make.names((0,)) * 200

    def alpha(index: int, new: int, seen: int, of: str = "new_over_seen") -> float:
        session = make.session(index, (0,), (0,))
        return share(Session(index, "s", session.data, session.tests, tuple(range(seen - new, seen)), names[:seen]), of)

    # labels are not looked at: the same colour stands for every class
    cifar = [alpha(t, 5, 60 + 5 * (t - 1)) for t in range(2, 10)]
    assert cifar == pytest.approx([0.0769, 0.0714, 0.0667, 0.0625, 0.0588, 0.0556, 0.0526, 0.05], abs=5e-5)
    assert (alpha(1, 60, 60), alpha(2, 10, 110), alpha(11, 10, 200)) == (1.0, pytest.approx(0.0909, abs=5e-5), 0.05)
    assert (alpha(1, 5, 5, "one_over_t"), alpha(4, 5, 5, "one_over_t")) == (1.0, 0.25)


@pytest.mark.parametrize("target", ["lr", "grad"])
def test_under_sgd_a_later_session_moves_alpha_times_as_far(target: str) -> None:
    session = make.stream((0, 1, 2), (3,), (4, 5)).sessions[2]
    full = move(method_of(reg="none"), session, SGD)
    assert move(method_of(scale_target=target), session, SGD) / full == pytest.approx(2 / 6, rel=1e-3)


def test_under_adam_scaled_gradients_change_nothing_and_a_scaled_rate_does() -> None:
    session, adam = make.stream((0, 1, 2), (3,), (4, 5)).sessions[2], SGD.model_copy(update={"optimizer": "adamw", "eps": 1e-12})
    full = move(method_of(reg="none"), session, adam)
    assert move(method_of(scale_target="grad"), session, adam) / full == pytest.approx(1.0, rel=1e-2)
    assert move(method_of(scale_target="lr"), session, adam) / full == pytest.approx(2 / 6, rel=1e-2)


def test_scoring_the_sessions_own_classes_equals_masking_all_others() -> None:
    session = make.stream((0, 1, 2), (3, 4)).sessions[1]
    method = method_of()
    method.begin(session)
    batch = batch_of(method, session)
    mine = method.losses(batch)["classify"]
    logits = 100 * method.encode_image(batch.images) @ method.class_features(session.vocabulary).T
    masked = F.cross_entropy(logits.index_fill(1, torch.tensor([0, 1, 2]), -9999.0), batch.labels)
    assert mine.item() == pytest.approx(masked.item(), rel=1e-5)
    parameters = list(method.trainable())
    for ours, theirs in zip(torch.autograd.grad(mine, parameters), torch.autograd.grad(masked, parameters), strict=True):
        assert torch.allclose(ours, theirs, rtol=1e-3, atol=1e-6)


def test_a_session_continues_the_prompts_with_a_new_optimizer_and_scores_all_classes_anew() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    train = SGD.model_copy(update={"momentum": 0.9, "max_steps": 3})
    method = method_of()
    learn(method, first, train, 0)
    stale = method.class_features(first.vocabulary).detach()
    kept = {name: tensor.clone() for name, tensor in memory(method).items()}
    learn(method, second, train, 0)
    assert not torch.allclose(method.class_features(first.vocabulary), stale, atol=1e-6)
    assert method.class_features(second.vocabulary).shape[0] == 4
    resumed = method_of(seed=5)
    restore(resumed, kept, "kept")
    learn(resumed, second, train, 0)  # a momentum that outlived the session would part them
    assert torch.equal(resumed.tuner.prompts.tokens, method.tuner.prompts.tokens)


def test_what_outlives_a_session_is_the_prompts_and_the_bridge_alone() -> None:
    assert set(memory(method_of())) == {"tuner.prompts.tokens", "tuner.prompts.bridge.weight", "tuner.prompts.bridge.bias"}


def test_frozen_regularisation_keeps_prompts_and_bridge_after_the_first_session() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = method_of(reg="freeze")
    assert move(method, first, SGD) > 0
    assert move(method, second, SGD) == 0


def test_without_image_prompts_features_are_computed_once_and_teach_the_same() -> None:
    session, config = make.session(1, (0, 1), (0, 1)), SGD.model_copy(update={"max_steps": 3})
    cached, uncached = method_of(vision_mode="none"), method_of(vision_mode="none")
    uncached.pixels = True
    learn(cached, session, config, 0)
    learn(uncached, session, config, 0)
    assert torch.allclose(cached.tuner.prompts.tokens, uncached.tuner.prompts.tokens, atol=1e-5)
    images = batch_of(cached, session).images
    assert torch.equal(cached.encode_image(images), cached.clip.encode_image(images))


def test_logits_are_cosines_times_a_constant_hundred_or_the_models_own_scale() -> None:
    session = make.session(1, (0, 1), (0, 1))
    for scale, expected in ((100.0, 100.0), ("model", make.tiny().scale().item())):
        method = method_of(logit_scale=scale)
        images, features = batch_of(method, session).images, method.class_features(session.vocabulary)
        assert torch.allclose(method.classify(images, features), expected * method.encode_image(images) @ features.T, rtol=1e-5)


def test_class_names_stand_in_the_bare_template_whatever_the_stream_says() -> None:
    method = method_of()
    tokens = method.clip.tokenize(["red."])
    assert torch.allclose(method.class_features(make.names((0,))), method.encode_text(tokens), atol=1e-6)


def test_a_caption_of_full_length_gives_its_last_words_to_the_prompts_and_keeps_its_end() -> None:
    method = method_of()
    long = method.clip.tokenize(["red square " * 60, "red"])
    assert long.shape[1] == method.clip.context_length
    cut = shortened(long, method.clip.context_length - 2, method.clip.eot)
    assert cut[0, -1] == method.clip.eot and torch.equal(method.encode_text(long), method.encode_text(cut))
    assert torch.allclose(method.encode_text(long)[1], method.encode_text(method.clip.tokenize(["red"]))[0], atol=1e-6)


def test_a_session_without_labels_is_refused_before_training() -> None:
    with pytest.raises(MethodError, match=r"session 1 .*none of its 16 rows has a label"):
        method_of().check(make.session(1, (0, 1), (0, 1), labels=False, captions=True))


def test_unlabelled_rows_are_left_out() -> None:
    session = make.session(1, (0, 1), (0, 1))
    mixed = concat([session.data.take(range(8)), session.data.take(range(8, 16)).without("label")])
    method = method_of()
    data = method.begin(Session(1, "mixed", mixed, session.tests, session.classes, session.vocabulary))
    assert len(data) == 8 and None not in data.labels


def test_prompts_learn_to_tell_colours_apart() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = method_of()
    method.begin(session)
    batch = batch_of(method, session, 16)
    before = method.losses(batch)["classify"].item()
    learn(method, session, SGD.model_copy(update={"max_steps": 20, "momentum": 0.9}), 0)
    method.begin(session)
    assert method.losses(batch)["classify"].item() < before / 2


def test_settings_for_training_are_the_authors_unless_given() -> None:
    config = CPEClipConfig(train={"epochs": 6})
    first, later = config.training(False), config.training(True)
    assert (first["epochs"], first["batch_size"], first["momentum"]) == (6, 32, 0.9)
    assert (later["epochs"], later["batch_size"], later["momentum"]) == (5, 4, 0.9)  # what is said of later sessions alone is said of them
    assert first["lr_epochs"][:5] == [0.001, 0.00298, 0.00496, 0.00694, 0.00892]
    warm_up = [0.001 + (0.1 - 0.001) * epoch / 50 for epoch in range(6)]  # CosineAnnealingWarmupRestarts, stepped once per epoch
    assert first["lr_epochs"] == pytest.approx(warm_up, abs=5e-6)


def test_the_learning_rate_is_the_authors_of_each_epoch_times_alpha(monkeypatch: pytest.MonkeyPatch) -> None:
    session = make.stream((0, 1, 2), (3, 4)).sessions[1]
    config, rates = CPEClipConfig(), []
    step = torch.optim.SGD.step

    def noted(optimizer: torch.optim.SGD, *rest: object, **more: object) -> object:
        rates.append(optimizer.param_groups[0]["lr"])
        return step(optimizer, *rest, **more)

    monkeypatch.setattr(torch.optim.SGD, "step", noted)
    learn(config.build(make.tiny(), 0), session, TrainConfig(**{**config.training(True), "device": "cpu"}), 0)
    per_epoch = [rate for rate in (0.001, 0.00298, 0.00496, 0.00694, 0.00892) for _ in range(16 // 4)]
    assert rates == pytest.approx([2 / 5 * rate for rate in per_epoch])


def test_a_learning_rate_that_is_named_holds() -> None:
    tree = {"name": "s", "model": {"name": "tiny"}, "stream": {"kind": "classes", "sources": {"s": "s"}, "increment": 2}}
    given = parse_config({**tree, "method": {"name": "cpe_clip", "train": {"lr": 0.5}}}, "test")
    sessions = make.stream((0, 1), (2, 3)).sessions
    assert [(train_config(given, session).lr, train_config(given, session).lr_epochs) for session in sessions] == [(0.5, None)] * 2
    assert train_config(parse_config({**tree, "method": "cpe_clip"}, "test"), sessions[0]).lr_epochs == (
        0.001,
        0.00298,
        0.00496,
        0.00694,
        0.00892,
        0.0109,
    )
