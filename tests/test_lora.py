"""LoRA: what its matrices are, that they are exact, and that every family of models takes them or says by name why not."""

import re
from pathlib import Path

import numpy as np
import open_clip
import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Order, Rows
from cl.methods import CONFIGS
from cl.methods.base import Batch, Method
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
from tests.test_lwf import batch_of

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

    assert [size(rank=rank, targets=["qkv"]) for rank in (1, 2, 4, 8, 16)] == [92_160, 184_320, 368_640, 737_280, 1_474_560]
    assert [size(rank=1, targets=["qkv"], towers=tower) for tower in ("image", "text")] == [55_296, 36_864]
    assert [size(rank=rank) for rank in (1, 2, 8, 16)] == [276_480, 552_960, 2_211_840, 4_423_680]
    assert size() == 1_105_920 and size() * 4 == 4_423_680  # at rank 4, bytes
    plain = dict(clip.model.named_parameters())
    assert sum(each.numel() for each in plain.values()) == 149_620_737
    assert sum(each.numel() for each in plain.values() if each.ndim < 2) == 204_545
    assert sum(each.numel() for name, each in plain.items() if re.search(r"(^|\.)ln_", name)) == 65_536
    projections = {name: each for name, each in Projections(clip).weights().items() if each is not clip.logit_scale}
    assert sum(each.numel() for each in projections.values()) == 655_360


def test_the_same_seed_draws_the_same_matrices_each_its_own_and_within_their_bound() -> None:
    one, two, other = (LoRAConfig().build(make.tiny(), seed).weights() for seed in (0, 0, 1))
    drawn = [name for name in one if name.endswith(".a")]
    assert all(torch.equal(one[name], two[name]) and not torch.equal(one[name], other[name]) for name in drawn)
    assert len({float(one[name].detach().flatten()[0]) for name in drawn}) == len(drawn)
    assert all(0.9 < float(one[name].detach().abs().max()) * one[name].shape[-1] ** 0.5 <= 1 for name in drawn)
    assert not any(one[name].any() for name in one if name.endswith(".b"))


def test_at_the_start_one_of_each_two_matrices_moves_and_its_gradient_reaches_every_site() -> None:
    method, session = recipe(make.tiny(), rank=2), make.session(1, (0, 1), (0, 1), captions=True)
    method.begin(session)
    batch = batch_of(method, session)
    factors = method.tuner.weights()
    slopes = torch.autograd.grad(sum(method.losses(batch).values()), list(factors.values()), allow_unused=True)
    moved = {name for name, slope in zip(factors, slopes, strict=True) if slope is not None and slope.any()}
    assert moved == {name for name in factors if name.endswith(".b")}  # attention reads its projection past its module


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_at_the_start_it_is_the_model_to_the_bit_however_it_runs(dtype: torch.dtype) -> None:
    clip, method = make.tiny(), recipe(make.tiny(), rank=2).requires_grad_(False)
    clip.requires_grad_(False)
    images, texts = torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)), clip.tokenize(["red square", "a blue patch"])
    for training in (True, False):
        clip.train(training)
        method.train(training)
        with torch.autocast("cpu", torch.bfloat16, enabled=dtype == torch.bfloat16):
            assert torch.equal(method.encode_image(images), clip.encode_image(images))
            assert torch.equal(method.encode_text(texts), clip.encode_text(texts))


def test_any_change_of_a_weight_fits_into_matrices_of_its_rank_and_two_that_are_folded_are_their_sum() -> None:
    weight, change = tensors(grid(5, 4, 2), grid(5, 4, 9))
    left, sizes, right = torch.linalg.svd(change, full_matrices=False)
    a, b = right[None], (left * sizes)[None]
    assert (changed(weight, a, b, 1.0) - weight - change).abs().max() < 1e-6
    assert (changed(weight, a[:, :3], b[:, :, :3], 1.0) - weight - change).abs().max() < sizes[3] * 1.01  # and what is left out is little
    one, two = (recipe(make.tiny().double(), seed, rank=2).double() for seed in (0, 1))
    for seed, method in enumerate((one, two)):
        _moved(method, seed)
    first = one.folded()
    assert first is not None
    again = recipe(first, 1, rank=2).double()
    _moved(again, 1)
    twice, base, apart = again.folded(), make.tiny().double().state_dict(), two.folded()
    assert twice is not None and apart is not None
    for name, value in twice.state_dict().items():
        wanted = first.state_dict()[name] + apart.state_dict()[name] - base[name]
        assert torch.allclose(value, wanted, rtol=0, atol=1e-12), name


def _moved(method: Recipe, seed: int) -> None:
    with torch.no_grad():
        for place, each in enumerate(method.tuner.weights().values()):
            each.copy_(0.1 * torch.randn(each.shape, generator=torch.Generator().manual_seed(100 * seed + place), dtype=each.dtype))


def test_a_folded_model_opens_in_plain_open_clip(tmp_path: Path) -> None:
    method = recipe(make.tiny(), rank=2)
    _moved(method, 0)
    folded = method.folded()
    assert folded is not None
    folded.save(tmp_path / "m")
    plain, _, _ = open_clip.create_model_and_transforms(f"local-dir:{tmp_path / 'm'}")
    images, texts = (
        torch.rand(3, 3, 32, 32, generator=torch.Generator().manual_seed(0)),
        make.padded(folded, folded.tokenize(["a red square"])),
    )
    with torch.no_grad():
        assert torch.allclose(plain.eval().encode_image(images, normalize=True), method.eval().encode_image(images), atol=1e-6)
        assert torch.allclose(plain.encode_text(texts, normalize=True), method.encode_text(texts), atol=1e-6)


@pytest.mark.slow
def test_it_learns_and_without_its_change_the_model_is_as_it_came_to_the_bit() -> None:
    session = make.session(1, (0, 1, 2, 3), (0, 1, 2, 3))
    method, losses = recipe(make.tiny(), rank=4), []
    before, digest, inner = seen(CONFIGS["zero_shot"]().build(make.tiny(), 0)), make.tiny().digest(), method.losses

    def overheard(batch: Batch) -> dict[str, Tensor]:
        told = inner(batch)
        losses.append(sum(float(loss.detach()) for loss in told.values()))
        return told

    method.losses = overheard  # type: ignore[method-assign]
    learn(method, session, TrainConfig(max_steps=100, batch_size=16, lr=1e-2, device="cpu"), 0)
    assert sum(losses[-5:]) / 5 < losses[0] / 2, losses
    assert method.clip.digest() == digest and not torch.equal(seen(method)[0], before[0])
    method.tuner.shrink(0.0)
    method.eval().requires_grad_(False)
    assert all(torch.equal(now, then) for now, then in zip(seen(method), before, strict=True))


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
