"""LoRA: what its matrices are, that they are exact, and that every family of models takes them or says by name why not."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Order, Rows
from cl.methods import CONFIGS
from cl.methods.base import Method
from cl.methods.compose import RecipeConfig
from cl.methods.features import pixels
from cl.methods.persist import memory
from cl.methods.recipe import Recipe
from cl.methods.tuners.lora import LoRA, LoRAConfig, changed, sites
from cl.methods.tuners.projections import Projections, ProjectionsConfig
from cl.models.clip import Clip, ModelConfig, load
from cl.plan import build_method
from cl.seeds import derive
from tests import make
from tests.families import FAMILIES, family

STEP = TrainConfig(max_steps=1, batch_size=4, lr=1e-2, device="cpu")
WITHOUT_PROJECTION = {"SigLIP": "its image tower ends in no projection"}


def grid(n: int, d: int, k: int = 0) -> np.ndarray:
    return np.array([[np.sin(7 * i + 3 * j + i * j + k) for j in range(d)] for i in range(n)])


def tensors(*arrays: np.ndarray) -> list[Tensor]:
    return [torch.from_numpy(array) for array in arrays]


def recipe(clip: Clip, seed: int = 0, **settings: object) -> Recipe:
    method = build_method(RecipeConfig(tune=LoRAConfig(**settings), terms=({"kind": "clip"},)), clip, seed)
    assert isinstance(method, Recipe)
    return method


def seen(method: Method) -> tuple[Tensor, Tensor]:
    with torch.no_grad():
        images = torch.cat([*pixels(method.clip, make.table((0, 1), 1, seed=3))])
        return method.encode_image(images), method.encode_text(method.clip.tokenize(["red square", "a blue patch number 3"]))


def test_a_changed_weight_multiplies_as_worked_out_by_hand() -> None:
    weight, a, b, x = tensors(grid(5, 4, 2), grid(2, 4, 1)[None], grid(5, 2)[None], grid(3, 4, 3))
    row = (x @ changed(weight, a, b, 2.0).T)[0]
    assert row.tolist() == pytest.approx([1.2505336141, 0.9067607623, 1.9300200843, 0.8586132104, 0.4449736972], abs=1e-10)
    change = (changed(weight, a, b, 1.0) - weight).square().sum()
    assert change.item() == pytest.approx(9.2578232829, abs=1e-9)
    assert torch.autograd.gradcheck(lambda one, two: changed(weight, one, two, 2.0).sin(), (a.requires_grad_(), b.requires_grad_()))


def test_a_weight_that_is_a_stack_of_three_gets_three_changes_that_know_nothing_of_each_other() -> None:
    a, b = np.stack([grid(2, 4, k) for k in range(3)]), np.stack([grid(5, 2, k + 3) for k in range(3)])
    weight = grid(15, 4, 7)
    expected = np.concatenate([weight[5 * k : 5 * k + 5] + 0.5 * b[k] @ a[k] for k in range(3)])
    np.testing.assert_allclose(changed(*tensors(weight, a, b), 0.5).numpy(), expected, atol=1e-14)


def test_features_are_those_of_a_clip_whose_weights_numpy_added_up() -> None:
    method = recipe(make.tiny(), rank=3, alpha=5.0)
    learn(method, make.session(1, (0, 1), (0, 1)), STEP.model_copy(update={"max_steps": 3}), 0)
    plain, kept = make.tiny(), {name: tensor.double().numpy() for name, tensor in memory(method).items()}
    with torch.no_grad():
        for name, weight in plain.model.named_parameters():
            key = f"tuner.low.{name.replace('.', '/')}"
            if f"{key}.a" in kept:
                a, b = kept[f"{key}.a"], kept[f"{key}.b"]
                added = np.concatenate([5 / 3 * two @ one for one, two in zip(a, b, strict=True)])
                assert np.abs(added).max() > 0
                weight.copy_(torch.from_numpy(weight.double().numpy() + added))
        for own, theirs in zip(seen(method), seen(CONFIGS["zero_shot"]().build(plain, 0)), strict=True):
            assert torch.allclose(own, theirs, atol=1e-5)


def test_sizes_for_vit_b_16_are_those_of_the_papers_and_a_state_is_four_megabytes() -> None:
    clip = load(ModelConfig(name="ViT-B-16", pretrained="random"), reads=False)

    def size(**settings: object) -> int:
        return sum(each.numel() for each in LoRAConfig(**settings).build(clip, 0).weights().values())

    assert [size(rank=rank, targets=["qkv"]) for rank in (1, 2)] == [92_160, 184_320]
    assert size(rank=2, targets=["qkv"], towers="image") == 110_592
    assert size() * 4 == 4_423_680  # bytes
    projections = {name: each for name, each in Projections(clip).weights().items() if each is not clip.logit_scale}
    assert sum(each.numel() for each in projections.values()) == 655_360


def test_the_same_seed_draws_the_same_matrices_each_its_own_and_within_their_bound() -> None:
    one, two, other = (LoRAConfig().build(make.tiny(), seed).weights() for seed in (0, 0, 1))
    drawn = [name for name in one if name.endswith(".a")]
    assert all(torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name]) for name in drawn)
    assert len({float(one[name].detach().flatten()[0]) for name in drawn}) == len(drawn)
    assert all(0.9 < float(one[name].detach().abs().max()) * one[name].shape[-1] ** 0.5 <= 1 for name in drawn)
    assert not any(one[name].any() for name in one if name.endswith(".b"))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_starts_as_it_came_to_the_bit_and_every_matrix_learns(name: str, tmp_path: Path) -> None:
    clip = family(name, tmp_path / "files").requires_grad_(False)  # whether a weight has a gradient decides how torch multiplies
    digest, before = clip.digest(), seen(CONFIGS["zero_shot"]().build(clip, 0))
    method = recipe(clip).requires_grad_(False)
    assert all(torch.equal(now, then) for now, then in zip(seen(method), before, strict=True))
    learn(method, make.session(1, (0, 1), (0, 1), captions=True), STEP, 0)
    factors = method.tuner.weights()
    assert {"/visual/" in key.replace("low.", "/") for key in factors} == {True, False}
    assert [key for key in factors if key.endswith(".b") and not factors[key].any()] == []  # a site that nothing reads would stay zero
    assert clip.digest() == digest
    folded = method.eval().requires_grad_(False).folded()
    assert folded is not None and folded.digest() != digest
    after = seen(method)
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, seen(CONFIGS["zero_shot"]().build(folded, 0)), strict=True))
    assert all(not torch.equal(now, then) for now, then in zip(after, before, strict=True))


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_has_its_projections_tuned_or_says_which_tower_has_none(name: str, tmp_path: Path) -> None:
    clip = family(name, tmp_path / "files")
    config = RecipeConfig(tune=ProjectionsConfig(), terms=({"kind": "clip"},))
    if name in WITHOUT_PROJECTION:
        with pytest.raises(MethodError, match=rf"^recipe cannot learn with this model: {WITHOUT_PROJECTION[name]}.*set towers to text"):
            build_method(config, clip, 0)
        return
    method = build_method(config, clip, 0)
    before = [each.detach().clone() for each in method.trainable()]
    assert len(before) >= 3
    learn(method, make.session(1, (0, 1), (0, 1), captions=True), STEP, 0)
    assert not any(torch.equal(now, then) for now, then in zip(method.trainable(), before, strict=True))


def test_a_tower_without_what_is_aimed_at_is_refused_by_name(tmp_path: Path) -> None:
    clip = family("ConvNeXt", tmp_path / "files")
    with pytest.raises(MethodError, match=r"^recipe cannot learn with this model: its image tower has no weight for LoRA \(qkv, out\)"):
        recipe(clip, targets=["qkv", "out"])
    assert isinstance(recipe(clip, targets=["qkv"], towers="text").tuner, LoRA)
    assert all(".mlp." in site for site in sites(clip, ("mlp",))["image"])


def test_two_batches_a_step_give_the_mean_of_their_gradients() -> None:
    session, sgd = make.session(1, (0, 1), (0, 1)), {"optimizer": "sgd", "momentum": 0.0, "clip_grad": None, "schedule": "constant"}
    train = STEP.model_copy(update={**sgd, "warmup": 0.0, "batch_size": 8, "accumulate": 2, "drop_last": True})
    method = recipe(make.tiny())
    learn(method, session, train, 0)
    again = recipe(make.tiny()).train()
    gradients = []
    rows = Rows(again.begin(session), again.clip, again.vocabulary)
    order = Order(len(rows), 8, 2, derive(0, "batches", 1, 0), drop_last=True)
    for batch in order:
        terms = again.losses(Collate(again.clip.tokenize)([rows[address] for address in batch]))
        gradients.append(torch.autograd.grad(sum(terms.values()), list(again.trainable())))
    for start, now, *each in zip(again.trainable(), method.trainable(), *gradients, strict=True):
        assert torch.allclose(now, start - 1e-2 * sum(each) / 2, atol=1e-6)


def test_in_half_precision_the_sum_is_made_in_full() -> None:
    method = recipe(make.tiny())
    with torch.no_grad():
        for name, each in method.tuner.weights().items():
            if name.endswith(".b"):
                each.fill_(1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        merged = method.tuner.merged("image")
    exact = method.tuner.merged("image")
    assert all(torch.equal(merged[name], exact[name]) for name in exact)
