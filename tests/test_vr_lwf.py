"""VR-LwF: the replayed vocabulary, the teacher, and where the gradient goes."""

import copy
from typing import Literal

import numpy as np
import pytest
import torch

from cl.config import TrainConfig
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.methods.losses import distillation
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.vr_lwf import VRLwFConfig
from cl.methods.terms.vocabulary import random_texts, vocabulary_texts
from cl.methods.tuners.base import Plain, base
from cl.models.tokens import Frame
from cl.seeds import generator
from tests import make

SOT, EOT = 49406, 49407


def framed(start: int, end: int) -> Frame:
    """A tokenizer's frame with room for eight words between start and end."""
    return Frame(torch.tensor([start]), torch.tensor([end] + [0] * 8), torch.arange(start), 0)


FRAME = framed(SOT, EOT)


def batch_of(method: object, session: object, rows: int = 6) -> object:
    from cl.learning.loader import Collate, Rows

    data = Rows(session.data, method.clip, session.vocabulary)
    return Collate(method.clip.tokenize)([data[(row, 0, 0)] for row in range(rows)])


def test_random_texts_start_and_end_once_and_hold_ordinary_tokens_only() -> None:
    texts = random_texts(1000, 10, FRAME, torch.Generator().manual_seed(0))
    assert texts.shape == (1000, 10)
    assert (texts[:, 0] == SOT).all() and (texts[:, -1] == EOT).all()
    assert texts[:, 1:-1].max() < SOT and texts[:, 1:-1].min() >= 0


def test_random_texts_are_uniform_over_the_ids_and_the_official_bound_leaves_out_the_last() -> None:
    few = random_texts(20_000, 10, framed(8, 9), torch.Generator().manual_seed(1))[:, 1:-1]
    counts = np.bincount(few.flatten(), minlength=8)
    assert ((counts - 20_000) ** 2 / 20_000).sum() < 30  # chi-square, 7 degrees of freedom: p < 0.0001
    official = random_texts(20_000, 10, framed(8, 9), torch.Generator().manual_seed(1), strict_official=True)[:, 1:-1]
    assert official.max() == 6


def surprise(one: torch.Tensor, other: torch.Tensor, bins: int) -> float:
    """By how many standard deviations the chi-square of a table of both exceeds that of two which have nothing to do with each other."""
    table = torch.bincount(one.flatten() * bins + other.flatten(), minlength=bins * bins).view(bins, bins).double()
    table = table[table.sum(1) > 0]
    expected = table.sum(1, keepdim=True) * table.sum(0) / table.sum()
    freedom = (len(table) - 1) * (bins - 1)
    return float(((table - expected) ** 2 / expected).sum() - freedom) / (2 * freedom) ** 0.5


def test_a_million_words_as_the_steps_draw_them_hold_every_id_equally_often_and_nothing_special() -> None:
    texts = torch.stack([random_texts(100, 10, FRAME, generator(0, "vocabulary", 1, step)) for step in range(1250)])
    for special, place in ((SOT, 0), (EOT, -1)):
        assert ((texts == special).sum(-1) == 1).all() and (texts[..., place] == special).all()
    words = texts[..., 1:-1]
    assert words.numel() == 1_000_000 and words.min() == 0 and words.max() == SOT - 1
    counts = torch.bincount(words.flatten(), minlength=SOT).double()
    assert counts.min() > 0  # some twenty each: one is missed with a probability of 1e-4
    freedom, expected = SOT - 1, 1_000_000 / SOT
    # both ways: counts that are more even than chance are not drawn one by one
    assert abs(((counts - expected) ** 2 / expected).sum() - freedom) < 5 * (2 * freedom) ** 0.5
    coarse = words * 16 // SOT
    places = torch.arange(8).expand_as(coarse)
    # the same at every place of a text, whatever stands beside it, in the text before, and at the step before
    assert abs(surprise(places, coarse, 16)) < 5
    assert abs(surprise(coarse[..., ::2], coarse[..., 1::2], 16)) < 5
    assert abs(surprise(coarse[:, ::2], coarse[:, 1::2], 16)) < 5
    assert abs(surprise(coarse[::2], coarse[1::2], 16)) < 5
    assert len(texts.flatten(0, 1).unique(dim=0)) == 125_000


def test_the_official_bound_leaves_out_the_last_ordinary_id_in_a_million_words_and_no_other() -> None:
    words = random_texts(125_000, 10, FRAME, generator(0, "vocabulary", 1, 0), strict_official=True)[:, 1:-1]
    counts = torch.bincount(words.flatten(), minlength=SOT)
    assert counts.nonzero().flatten().tolist() == list(range(SOT - 1))


def test_a_step_has_its_own_texts_and_repeats_them() -> None:
    def draw(step: int) -> torch.Tensor:
        return random_texts(5, 10, FRAME, generator(7, "vocabulary", 1, step))

    assert torch.equal(draw(3), draw(3)) and not torch.equal(draw(3), draw(4))


def test_a_teacher_equal_to_the_student_gives_no_loss_and_no_gradient() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = VRLwFConfig().build(make.tiny().double(), 0)
    plain = FinetuneConfig().build(make.tiny().double(), 0)
    for each in (method, plain):
        each.begin(session)
    batch = batch_of(method, session)
    batch = batch._replace(images=batch.images.double())
    terms = method.losses(batch)
    assert terms["vocabulary"].item() == pytest.approx(0.0, abs=1e-12)
    gradients = torch.autograd.grad(terms["vocabulary"], list(method.clip.parameters()), allow_unused=True, retain_graph=True)
    assert all(g is None or g.abs().max() < 1e-10 for g in gradients)
    assert terms["classify"].item() == pytest.approx(plain.losses(batch)["classify"].item(), abs=1e-12)


def _probabilities(encoder: torch.nn.Module, images: torch.Tensor, texts: torch.Tensor) -> torch.Tensor:
    features = encoder.encode_image(images, normalize=True), encoder.encode_text(texts, normalize=True)
    return (encoder.logit_scale.exp() * features[0] @ features[1].T).double().softmax(-1)


def test_the_vocabulary_term_is_the_published_form() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = VRLwFConfig(alpha=2.0, texts=17, length=6).build(make.tiny(), 5)
    method.begin(session)
    with torch.no_grad():
        for parameter in method.clip.parameters():
            parameter.add_(0.02 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(parameter.numel())))
    batch = batch_of(method, session)
    texts = vocabulary_texts(method.clip, 17, 6, generator(5, "vocabulary", 1, batch.step))
    with torch.no_grad():
        loss = method.losses(batch)["vocabulary"].item()
        model, teacher = method.clip.model, method.teacher("session").clip.model
        p, q = (_probabilities(encoder, batch.images, make.padded(method.clip, texts)) for encoder in (teacher, model))
    assert loss == pytest.approx(2.0 * float((p * (p.log() - q.log())).sum() / len(p)), rel=1e-4)
    assert loss > 1e-6


def test_the_replayed_texts_teach_the_text_tower_too() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = VRLwFConfig().build(make.tiny(), 0)
    method.begin(session)
    with torch.no_grad():
        method.clip.model.visual.conv1.weight.mul_(1.5)
    method.losses(batch_of(method, session))["vocabulary"].backward()
    text = [p.grad for n, p in method.clip.named_parameters() if "visual" not in n and "token_embedding" in n]
    assert text and all(g is not None and g.abs().sum() > 0 for g in text)
    assert method.clip.logit_scale.grad is not None
    assert all(p.grad is None for p in method.teacher("session").clip.parameters())


@pytest.mark.parametrize("kind", ["session", "original"])
def test_the_teacher_shares_no_storage_and_never_moves(kind: Literal["session", "original"]) -> None:
    method = VRLwFConfig(teacher=kind).build(make.tiny(), 0)
    session = make.session(1, (0, 1), (0, 1))
    method.begin(session)
    teacher = method.teacher(kind).clip
    mine = {p.data_ptr() for p in method.clip.parameters()}
    assert not mine & {p.data_ptr() for p in teacher.parameters()}
    before = copy.deepcopy(teacher.state_dict())
    method.tuner.frozen = lambda: pytest.fail("another teacher") if kind == "original" else Plain(teacher)  # type: ignore
    learn(method, session, TrainConfig(max_steps=3, batch_size=4, lr=1e-2, device="cpu"), 0)
    assert all(torch.equal(before[name], value) for name, value in teacher.state_dict().items())


def test_without_weight_it_is_plain_fine_tuning_bit_for_bit() -> None:
    session, train = make.session(1, (0, 1), (0, 1)), TrainConfig(max_steps=3, batch_size=4, lr=1e-2, device="cpu")
    method, plain = VRLwFConfig(alpha=0).build(make.tiny(), 0), FinetuneConfig().build(make.tiny(), 0)
    learn(method, session, train, 0)
    learn(plain, session, train, 0)
    for (name, mine), theirs in zip(method.clip.state_dict().items(), plain.clip.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_names_seen_so_far_are_distilled_from_the_second_session_on() -> None:
    method = VRLwFConfig(lwf=True).build(make.tiny(), 0)
    first, second = make.stream((0, 1), (2, 3)).sessions
    method.begin(first)
    assert "lwf" not in method.losses(batch_of(method, first))
    method.end(first)
    method.begin(second)
    with torch.no_grad():
        for parameter in method.clip.parameters():
            parameter.mul_(1.1)
    batch = batch_of(method, second)
    with torch.no_grad():
        tokens = method.clip.tokenize([c.prompts[0] for c in second.vocabulary])
        logits = [c.scale() * c.encode_image(batch.images) @ c.encode_text(tokens).T for c in (method.clip, method.teacher("session").clip)]
        assert method.losses(batch)["lwf"].item() == pytest.approx(distillation(*logits).item(), rel=1e-5)


def test_class_names_are_held_only_where_some_are_known() -> None:
    session = make.session(1, (0, 1), (), labels=False, captions=True)
    with pytest.raises(MethodError, match=r"session 1 \(session 1\): no class is known by now, and the term names"):
        VRLwFConfig(texts=0).build(make.tiny(), 0).check(session)
    VRLwFConfig(lwf=True).build(make.tiny(), 0).check(session)  # from the second session on


def test_without_random_texts_it_is_the_authors_lwf_over_class_names_from_the_first_session_on() -> None:
    method = VRLwFConfig(texts=0, alpha=0.5).build(make.tiny(), 0)
    for session in make.stream((0, 1), (2, 3)).sessions:
        method.begin(session)
        with torch.no_grad():
            for parameter in method.clip.parameters():
                parameter.mul_(1.1)
        batch = batch_of(method, session)
        terms = method.losses(batch)
        assert set(terms) == {"classify", "lwf"}
        with torch.no_grad():
            names = method.clip.tokenize([known.prompts[0] for known in session.vocabulary])
            model, teacher = method.clip.model, method.teacher("session").clip.model
            p, q = (_probabilities(encoder, batch.images, make.padded(method.clip, names)) for encoder in (teacher, model))
        assert terms["lwf"].item() == pytest.approx(0.5 * float((p * (p.log() - q.log())).sum() / len(p)), rel=1e-4) and terms["lwf"] > 1e-6
        terms["lwf"].backward()
        assert any(p.grad is not None and p.grad.abs().sum() > 0 for n, p in method.clip.named_parameters() if "visual" not in n)
        method.end(session)


def test_a_frozen_copy_is_in_eval_mode_and_asks_for_no_gradient() -> None:
    copied = base(make.tiny().train()).clip
    assert not copied.training and not any(p.requires_grad for p in copied.parameters())
