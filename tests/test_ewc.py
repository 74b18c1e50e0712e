"""EWC: the Fisher diagonal, what it adds up to over sessions, and the hold."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from cl.config import TrainConfig
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.methods.base import Method
from cl.methods.compose import RecipeConfig
from cl.methods.losses import contrastive, pair_losses
from cl.methods.memories.exemplars import ReservoirConfig
from cl.methods.presets.ewc import EWCConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.fit import FitConfig
from cl.methods.terms.hold import Hold, HoldConfig, fisher_diagonal
from cl.methods.terms.vocabulary import VocabularyConfig
from cl.methods.tuners.whole import Whole
from cl.models.flops import counted
from cl.streams.stream import Session
from tests import make
from tests.test_lwf import FAST, batch_of, continues_as_if_never_saved, loss_of, shaken


def hold_of(method: Method) -> Hold:
    """The term that holds."""
    assert isinstance(method, Recipe)
    term = method.terms["hold"]
    assert isinstance(term, Hold)
    return term


def measured(method: Recipe, session: Session) -> torch.Tensor:
    """The importance after a session whose weights nothing moved."""
    method.begin(session)
    with torch.no_grad():  # as the learner ends a session
        method.end(session)
    return hold_of(method).importance.clone()


def test_the_importance_of_a_logistic_regression_is_the_known_one() -> None:
    x, y = torch.randn(7, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64), torch.tensor([0, 1, 1, 0, 1, 0, 1])
    w = nn.Parameter(torch.tensor([0.3, -0.7, 0.2], dtype=torch.float64))
    unused = nn.Parameter(torch.ones(2, dtype=torch.float64))
    losses = (F.binary_cross_entropy_with_logits(row @ w, label.double()) for row, label in zip(x, y, strict=True))
    fisher, nothing = fisher_diagonal(losses, [w, unused])
    expected = np.zeros(3)
    for row, label in zip(x.numpy(), y.numpy(), strict=True):
        p = 1 / (1 + np.exp(-sum(row[j] * w[j].item() for j in range(3))))
        for j in range(3):
            expected[j] += ((p - label) * row[j]) ** 2 / 7
    np.testing.assert_allclose(fisher.numpy(), expected, rtol=1e-12)
    assert torch.equal(nothing, torch.zeros_like(unused)) and w.grad is None


def test_gradients_that_cancel_over_a_batch_still_make_a_weight_important() -> None:
    w = nn.Parameter(torch.tensor([2.0]))
    assert fisher_diagonal([3 * w.sum(), -3 * w.sum()], [w])[0].item() == 9.0
    assert fisher_diagonal([], [w])[0].item() == 0.0


def test_pair_losses_are_the_summands_of_the_contrastive_loss() -> None:
    source = torch.Generator().manual_seed(0)
    images, texts = (F.normalize(torch.randn(5, 4, generator=source, dtype=torch.float64), dim=1) for _ in range(2))
    texts[3] = texts[1]
    same, scale = (texts[:, None] == texts[None]).all(-1), torch.tensor(7.0, dtype=torch.float64)
    losses = pair_losses(images, texts, scale, same)
    assert losses.mean().item() == pytest.approx(contrastive(images, texts, scale, same).item(), abs=1e-14)
    logits = 7 * (images @ texts.T).numpy()
    for i in (0, 1):
        mine = [j for j in range(5) if same[i, j]]
        row, column = np.log(np.exp(logits[i]).sum()), np.log(np.exp(logits[:, i]).sum())
        by_hand = np.mean([row - logits[i, j] for j in mine]) / 2 + np.mean([column - logits[j, i] for j in mine]) / 2
        assert losses[i].item() == pytest.approx(by_hand, abs=1e-12)


def test_a_session_s_importance_is_the_mean_squared_gradient_of_each_row_s_own_loss() -> None:
    session = make.session(1, (0, 1), (0, 1), each=2)
    method = EWCConfig(samples=None).build(make.tiny().double(), 0)
    importance = measured(method, session)
    batch, total = batch_of(method, session, rows=4), 0.0
    for row in range(4):
        one = FinetuneConfig().build(make.tiny().double(), 0)
        one.begin(session)
        one.losses(batch._replace(images=batch.images[row : row + 1], labels=batch.labels[row : row + 1], captioned=batch.captioned[:1]))[
            "classify"
        ].backward()
        total = total + torch.cat([torch.zeros_like(p).flatten() if p.grad is None else p.grad.flatten() ** 2 for p in one.trainable()])
    assert importance.shape == total.shape and importance.sum() > 0
    assert torch.allclose(importance, total / 4, rtol=1e-9, atol=1e-18)


def test_captioned_rows_count_as_well() -> None:
    session = make.session(1, (0, 1), (), each=4, labels=False, captions=True)
    method = EWCConfig(samples=None).build(make.tiny().double(), 0)
    importance = measured(method, session)
    # every pair of the eight competes with the others; one caption each
    clip, total = make.tiny().double(), 0.0
    images = batch_of(method, session, rows=8).images
    tokens = clip.tokenize([texts[0] for texts in session.data.captions])
    same = (tokens[:, None] == tokens[None]).all(-1)
    for row in range(8):
        loss = pair_losses(clip.encode_image(images), clip.encode_text(tokens), clip.scale(), same)[row]
        gradients = torch.autograd.grad(loss, list(clip.parameters()), allow_unused=True)
        total = total + torch.cat(
            [torch.zeros_like(p).flatten() if g is None else g.flatten() ** 2 for g, p in zip(gradients, clip.parameters(), strict=True)]
        )
    assert torch.allclose(importance, total / 8, rtol=1e-9, atol=1e-18) and importance.sum() > 0


def test_a_sample_of_rows_is_the_same_for_the_same_seed_and_leaves_the_rest_out() -> None:
    session = make.session(1, (0, 1), (0, 1), each=4)
    some, again, other = (measured(EWCConfig(samples=3).build(make.tiny(), seed), session) for seed in (0, 0, 1))
    assert torch.equal(some, again) and not torch.equal(some, other)


def test_importance_adds_up_over_sessions_and_a_decay_forgets_it() -> None:
    first, second = make.stream((0, 1), (2, 3), each=2).sessions
    alone = measured(EWCConfig().build(make.tiny(), 0), second)
    for decay in (1.0, 0.25, 0.0):
        method = EWCConfig(decay=decay).build(make.tiny(), 0)
        before = measured(method, first)
        assert torch.allclose(measured(method, second), decay * before + alone, rtol=1e-5, atol=1e-12)
        assert before.sum() > 0


def test_the_hold_is_half_lambda_times_the_weighted_squared_move() -> None:
    first, second = make.stream((0, 1), (2, 3), each=2).sessions
    method = EWCConfig(weight=30.0).build(make.tiny().double(), 0)
    method.begin(first)
    assert "hold" not in method.losses(batch_of(method, first, rows=4))  # nothing has been learned before
    importance = measured(method, first)
    method.begin(second)
    batch = batch_of(method, second, rows=4)
    assert method.losses(batch)["hold"].item() == 0.0
    shaken(method)
    hold = method.losses(batch)["hold"]
    move = torch.cat([p.detach().flatten() for p in method.clip.parameters()])
    move = move - torch.cat([p.detach().flatten() for p in make.tiny().double().parameters()])
    assert hold.item() == pytest.approx(15.0 * sum((importance * move**2).tolist()), rel=1e-10) and hold > 0
    hold.backward()
    gradient = torch.cat([p.grad.flatten() for p in method.clip.parameters()])
    assert torch.allclose(gradient, 30.0 * importance * move, rtol=1e-9, atol=1e-15) and gradient.abs().sum() > 0
    assert hold_of(method).importance.grad is None


def test_importances_have_the_names_and_shapes_of_the_weights() -> None:
    method = EWCConfig(part="image").build(make.tiny(), 0)
    parts = hold_of(method).importances(method.tuner.weights())
    assert {name: part.shape for name, part in parts.items()} == {
        name: p.shape for name, p in method.clip.named_parameters() if "visual." in name or "logit_scale" in name
    }
    hold_of(method).importance.fill_(2.0)
    assert all((part == 2).all() for part in parts.values())


def test_without_weight_it_is_plain_fine_tuning_bit_for_bit() -> None:
    method, plain = EWCConfig(weight=0, samples=2).build(make.tiny(), 0), FinetuneConfig().build(make.tiny(), 0)
    for session in make.stream((0, 1), (2, 3), each=4).sessions:
        learn(method, session, FAST, 0)
        learn(plain, session, FAST, 0)
    assert "hold" not in method.terms  # and no importance is gathered
    for (name, mine), theirs in zip(method.clip.state_dict().items(), plain.clip.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    config, path = EWCConfig(weight=1e4, samples=2), tmp_path / "state.safetensors"
    method = continues_as_if_never_saved(config, make.stream((0, 1), (2, 3)).sessions, path)
    assert hold_of(method).importance.sum() > 0


def test_with_a_hold_the_first_session_is_forgotten_less_and_the_second_still_learned() -> None:
    first, second = make.stream((0, 1, 2), (3, 4, 5), each=4).sessions
    train = TrainConfig(max_steps=10, batch_size=6, lr=1e-2, warmup=0, optimizer="sgd", momentum=0, device="cpu")
    for seed in range(3):
        free = EWCConfig(weight=1e-12, samples=6).build(make.tiny(), seed)
        learn(free, first, train, seed)
        before = loss_of(free, first), loss_of(free, second)
        held = EWCConfig(samples=6).build(make.tiny(), seed)
        held.load_state_dict(free.state_dict())
        for method in (free, held):
            learn(method, second, train, seed)
        assert loss_of(held, first) - before[0] < 0.5 * (loss_of(free, first) - before[0])
        assert loss_of(held, second) < 0.8 * before[1]


def by_hand(session: Session, candidates: tuple[int, ...]) -> torch.Tensor:
    """Mean squared gradient over a session's labelled rows, each alone, among the given classes of its vocabulary."""
    clip, total = make.tiny().double(), 0.0
    index = {known.name: place for place, known in enumerate(session.vocabulary)}
    tokens = clip.tokenize([session.vocabulary[place].prompts[0] for place in candidates])
    for row, label in enumerate(session.data.labels):
        image = clip.encode_image(clip.transform()(session.data.image(row)).double()[None])
        logits = clip.scale() * image @ clip.encode_text(tokens).T
        loss = F.cross_entropy(logits, torch.tensor([candidates.index(index[str(label)])]))
        gradients = torch.autograd.grad(loss, list(clip.parameters()), allow_unused=True)
        total = total + torch.cat(
            [torch.zeros_like(p).flatten() if g is None else g.flatten() ** 2 for g, p in zip(gradients, clip.parameters(), strict=True)]
        )
    return total / len(session.data)


def test_with_a_memory_the_session_s_own_rows_tell_among_the_classes_of_the_lesson() -> None:
    first, second = make.stream((0, 1), (2, 3), each=1).sessions
    method = EWCConfig(samples=None, memory=ReservoirConfig(capacity=2)).build(make.tiny().double(), 0)
    measured(method, first)
    hold_of(method).importance.zero_()
    importance = measured(method, second)  # its exemplars are no part of it, their classes are
    assert torch.allclose(importance, by_hand(second, (0, 1, 2, 3)), rtol=1e-9, atol=1e-18) and importance.sum() > 0
    assert not torch.allclose(importance, by_hand(second, (2, 3)), rtol=1e-3)


def test_the_information_is_of_the_cross_entropy_whatever_the_objective() -> None:
    session = make.session(1, (0, 1), (0, 1), each=1)
    terms = (FitConfig(smoothing=0.3, scale=3.0), VocabularyConfig(texts=4), HoldConfig(samples=None))
    importance = measured(RecipeConfig(terms=terms).build(make.tiny().double(), 0), session)
    assert torch.allclose(importance, by_hand(session, (0, 1)), rtol=1e-9, atol=1e-18)


def test_weights_that_grow_are_refused_by_name_before_anything_is_learned(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Whole, "grows", True)
    with pytest.raises(
        MethodError, match=r"session 1 \(session 1\): the term hold has an importance for each weight, and what is tuned grows"
    ):
        learn(EWCConfig().build(make.tiny(), 0), make.session(1, (0, 1), (0, 1)), FAST, 0)


@pytest.mark.parametrize("kind", ["labels", "captions"])
def test_of_a_long_end_two_turns_are_counted_and_stand_for_the_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    session = make.session(1, (0, 1), (0, 1), each=20, labels=kind == "labels", captions=kind == "captions")

    def flops() -> int:
        method = EWCConfig(samples=None).build(make.tiny(), 0)
        method.begin(session)
        with torch.no_grad():
            return counted(lambda: method.end(session))[1]

    by_two = flops()
    monkeypatch.setattr("cl.methods.recipe.alike", lambda turns, sizes: iter(turns))
    # captions: the last of three turns has half as many rows, and each row's way back goes through its whole turn
    assert by_two == flops() if kind == "labels" else by_two == pytest.approx(flops(), rel=0.15)
