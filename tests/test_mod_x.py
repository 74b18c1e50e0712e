"""Mod-X: the worked numbers, which rows count, and that the reduction is a sum."""

import numpy as np
import pytest
import torch

from cl.loader import Collate, Rows
from cl.losses import alignment, kept_rows
from cl.methods.base import Batch, Method
from cl.methods.finetune import FinetuneConfig
from cl.methods.mod_x import ModXConfig
from cl.stream import Session
from tests import make

S = torch.tensor([[0.8, 0.1, 0.3], [0.2, 0.6, 0.4], [0.5, 0.3, 0.7]], dtype=torch.float64)
O = torch.tensor([[0.9, 0.2, 0.1], [0.7, 0.5, 0.65], [0.4, 0.1, 0.6]], dtype=torch.float64)  # noqa: E741
OWN = torch.eye(3, dtype=torch.bool)


def by_hand(student: np.ndarray, teacher: np.ndarray, *, mask_diagonal: bool = False) -> float:
    """Row by row and entry by entry, with replaced rows left out."""
    total, n = 0.0, len(student)
    for now, then in ((student, teacher), (student.T, teacher.T)):
        for i in range(n):
            if max(then[i]) > then[i][i]:
                continue
            used = [j for j in range(n) if not (mask_diagonal and j == i)]
            z_now, z_then = sum(np.exp(now[i][j]) for j in used), sum(np.exp(then[i][j]) for j in used)
            for j in used:
                p, q = np.exp(then[i][j]) / z_then, np.exp(now[i][j]) / z_now
                total += p * (np.log(p) - np.log(q))
    return total / 2


def cosines(n: int, seed: int) -> torch.Tensor:
    source = torch.Generator().manual_seed(seed)
    return (torch.randn(n, n, generator=source, dtype=torch.float64) * 0.3 + 0.5 * torch.eye(n, dtype=torch.float64)).tanh()


def total(student: torch.Tensor, scale: float, alpha: float = 20.0) -> torch.Tensor:
    logits, target = scale * student, torch.arange(len(student))
    entropy = torch.nn.functional.cross_entropy
    return (entropy(logits, target) + entropy(logits.T, target)) / 2 + alpha * alignment(student, O)


def test_the_worked_rows_value_and_gradient() -> None:
    assert kept_rows(O, OWN).tolist() == [True, False, True]
    assert kept_rows(O.T, OWN).tolist() == [True, True, False]
    student = S.clone().requires_grad_()
    loss = alignment(student, O)
    loss.backward()
    assert loss.item() == pytest.approx(0.021835940249, abs=1e-12)
    expected = [
        [-0.006993583969, -0.033966833858, 0.028743641285],
        [-0.048945029296, 0.005635321141, 0],
        [0.032406655876, 0.028403382345, -0.005283553523],
    ]
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-12)
    assert student.grad[1, 2] == 0


@pytest.mark.parametrize(("scale", "expected"), [(1.0, 1.291551900557), (1 / 0.07, 0.464048286306), (100.0, 0.436718805665)])
def test_the_worked_totals(scale: float, expected: float) -> None:
    assert total(S, scale).item() == pytest.approx(expected, abs=1e-11)


def test_a_teacher_equal_to_the_student_and_one_that_is_all_wrong_both_give_zero() -> None:
    assert alignment(S, S).item() == pytest.approx(0, abs=1e-15)
    dominant = torch.eye(5, dtype=torch.float64) * 0.8 + cosines(5, 0) * 0.01
    student = cosines(5, 1).requires_grad_()
    loss = alignment(student, dominant.roll(1, 0))
    loss.backward()
    assert loss.item() == 0 and student.grad is not None and student.grad.abs().max() == 0


@pytest.mark.parametrize("mask", [False, True])
@pytest.mark.parametrize("n", [1, 2, 7, 64])
def test_it_is_the_sum_over_rows_as_a_plain_double_loop_has_it(n: int, mask: bool) -> None:
    student, teacher = cosines(n, 2), cosines(n, 3)
    value = alignment(student, teacher, mask_diagonal=mask).item()
    assert value == pytest.approx(by_hand(student.numpy(), teacher.numpy(), mask_diagonal=mask), rel=1e-10, abs=1e-14)
    if n == 1:
        assert value == 0


def test_swapping_images_and_texts_changes_nothing_and_a_wrong_row_may_be_anything() -> None:
    assert alignment(S, O).item() == pytest.approx(alignment(S.T, O.T).item(), abs=1e-15)
    other = O.clone()
    other[1] = torch.tensor([0.7, 0.3, 0.64])  # still wrong; its columns keep their winners
    assert kept_rows(other.T, OWN).tolist() == kept_rows(O.T, OWN).tolist()
    images = torch.nn.functional.kl_div(S.log_softmax(-1), other.softmax(-1), reduction="none").sum(-1)[kept_rows(other, OWN)].sum()
    assert images.item() == pytest.approx(0.009368670864, abs=1e-12)


def test_ties_count_as_right_and_so_does_any_equal_text() -> None:
    tied = torch.tensor([[0.5, 0.5], [0.1, 0.9]])
    assert kept_rows(tied, torch.eye(2, dtype=torch.bool)).tolist() == [True, True]
    twin = torch.tensor([[0.4, 0.5], [0.1, 0.9]])
    assert kept_rows(twin, torch.eye(2, dtype=torch.bool)).tolist() == [False, True]
    assert kept_rows(twin, torch.ones(2, 2, dtype=torch.bool)).tolist() == [True, True]


def ready(method: Method, session: Session) -> Batch:
    method.begin(session)
    rows = Rows(session.data, method.clip, session.vocabulary, pixels=True, seed=0)
    batch = Collate(method.clip.tokenize)([rows[(row, 0, 0)] for row in range(6)])
    with torch.no_grad():
        for index, weight in enumerate(method.clip.parameters()):
            weight.add_(0.2 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
    return batch


def test_alpha_counts_for_280_pairs_unless_fixed_and_zero_is_plain_fine_tuning() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2), labels=False, captions=True)
    made = {}
    for name, config in {
        "plain": FinetuneConfig(),
        "off": ModXConfig(alpha=0),
        "rule": ModXConfig(),
        "fixed": ModXConfig(fixed_alpha=True),
    }.items():
        method = config.build(make.tiny(), 0)
        made[name] = {term: value.item() for term, value in method.losses(ready(method, session)).items()}
    assert made["plain"]["contrast"] == made["off"]["contrast"] == made["rule"]["contrast"]
    assert made["off"]["align"] == 0
    assert made["rule"]["align"] == pytest.approx(made["fixed"]["align"] * 280 / 6, rel=1e-6)
    assert made["fixed"]["align"] > 0


def test_the_logit_scale_moves_by_the_contrastive_term_alone() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2), labels=False, captions=True)
    method = ModXConfig().build(make.tiny(), 0)
    terms = method.losses(ready(method, session))
    scale = method.clip.logit_scale
    assert torch.autograd.grad(terms["align"], scale, allow_unused=True, retain_graph=True) == (None,)
    (moved,) = torch.autograd.grad(terms["contrast"], scale)
    assert moved.abs() > 0


def test_a_labelled_image_is_paired_with_its_class_prompt() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = ModXConfig(fixed_alpha=True, alpha=1).build(make.tiny(), 0)
    batch = ready(method, session)
    teacher = method._teachers[0]
    tokens = method.candidate_tokens()[method.position(batch.labels)]
    with torch.no_grad():
        now = method.clip.encode_image(batch.images) @ method.clip.encode_text(tokens).T
        then = teacher.encode_image(batch.images) @ teacher.encode_text(tokens).T
        same = batch.labels[:, None] == batch.labels[None]
        assert method.losses(batch)["align"].item() == pytest.approx(alignment(now, then, same).item(), rel=0.02)
