"""Mod-X: the worked numbers, which rows count, and that the reduction is a sum."""

import numpy as np
import pytest
import torch

from cl.learning.loader import Collate, Rows
from cl.methods.base import Batch, Method
from cl.methods.losses import alignment, kept_rows
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.mod_x import ModXConfig
from cl.streams.stream import Session
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


def test_swapping_images_and_texts_changes_nothing() -> None:
    assert alignment(S, O).item() == pytest.approx(alignment(S.T, O.T).item(), abs=1e-15)


def aligned(student: torch.Tensor, teacher: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The loss, and its gradient in the student's cosines."""
    student = student.clone().requires_grad_()
    loss = alignment(student, teacher)
    return loss.detach(), torch.autograd.grad(loss, student)[0]


def masks(teacher: torch.Tensor) -> tuple[list[bool], list[bool]]:
    own = torch.eye(len(teacher), dtype=torch.bool)
    return kept_rows(teacher, own).tolist(), kept_rows(teacher.T, own).tolist()


def test_a_wrong_row_of_the_worked_teacher_counts_in_its_columns_alone() -> None:
    other = O.clone()
    other[1] = torch.tensor([0.7, 0.3, 0.64], dtype=torch.float64)  # still wrong; its columns keep their winners
    assert masks(other) == masks(O) == ([True, False, True], [True, True, False])
    (loss, gradient), before = aligned(S, other), aligned(S, O)[1]
    q, p, p_before = (np.exp(matrix[:, 1].numpy()) / np.exp(matrix[:, 1].numpy()).sum() for matrix in (S, other, O))
    texts = 0.027466912033 + (p * np.log(p / q)).sum()  # column 0 as it was; column 2 is wrong
    assert 2 * loss.item() - texts == pytest.approx(0.009368670864, abs=1e-12)  # what the images' rows gave before
    assert torch.equal(gradient[:, [0, 2]], before[:, [0, 2]])
    np.testing.assert_allclose((gradient - before)[:, 1].numpy(), (p_before - p) / 2, atol=1e-12)


@pytest.mark.parametrize("axes", [(0, 1), (1, 0)], ids=["images", "texts"])
def test_where_every_column_is_wrong_wrong_rows_may_be_anything_and_right_ones_may_not(axes: tuple[int, int]) -> None:
    teacher = torch.tensor(
        [
            [0.3, 0.1, 0.1, 0.0, 0.2],
            [0.1, 0.3, 0.0, 0.1, 0.2],
            [0.0, 0.1, 0.4, 0.2, 0.1],
            [0.9, 0.8, 0.7, 0.2, 0.8],
            [0.5, 0.6, 0.9, 0.9, 0.4],
        ],
        dtype=torch.float64,
    )
    other = teacher.clone()
    other[3:] = torch.tensor([[0.95, 0.6, 0.99, -0.5, 0.5], [0.4, 0.35, 0.8, 0.3, 0.1]])
    right, none = [True, True, True, False, False], [False] * 5
    assert masks(teacher) == masks(other) == (right, none)
    student = cosines(5, 4)
    (loss, gradient), (loss_too, gradient_too) = (aligned(student.permute(axes), each.permute(axes)) for each in (teacher, other))
    assert torch.equal(loss, loss_too) and torch.equal(gradient, gradient_too)
    assert loss.item() == pytest.approx(by_hand(student.numpy(), teacher.numpy()), rel=1e-12) and loss > 0
    assert gradient.permute(axes)[3:].abs().max() == 0 and (gradient.permute(axes)[:3].abs().amax(-1) > 1e-3).all()
    for row in range(3):
        moved = teacher.clone()
        moved[row, row] += 0.1
        assert masks(moved) == (right, none)
        assert abs(aligned(student.permute(axes), moved.permute(axes))[0] - loss) > 1e-4


def test_what_is_wrong_both_ways_changes_neither_loss_nor_gradient_to_the_last_bit() -> None:
    student, teacher = cosines(24, 5), cosines(24, 6)
    rows, columns = (~torch.tensor(kept) for kept in masks(teacher))
    both = rows[:, None] & columns[None] & ~torch.eye(24, dtype=torch.bool)
    assert 20 < both.sum() < 300
    # a rise beside the pair leaves the wrong wrong
    rise = torch.rand(24, 24, generator=torch.Generator().manual_seed(7), dtype=torch.float64)
    louder = teacher + both * rise
    assert masks(louder) == masks(teacher)
    (loss, gradient), (loss_too, gradient_too) = aligned(student, teacher), aligned(student, louder)
    assert torch.equal(loss, loss_too) and torch.equal(gradient, gradient_too)
    assert gradient[both].abs().max() == 0 < loss
    once = (rows[:, None] & ~columns[None]) * rise * 1e-3  # too little to make another text the best of its column
    assert masks(teacher + once) == masks(teacher) and not torch.equal(aligned(student, teacher + once)[0], loss)


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
    assert "align" not in made["off"]
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


def test_twice_the_weight_is_twice_the_term_and_neither_models_scale_has_a_part_in_it() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2), labels=False, captions=True)

    def losses(alpha: float = 20.0, up: float = 0.0, teacher_up: float = 0.0) -> tuple[dict[str, torch.Tensor], list[torch.Tensor]]:
        method = ModXConfig(alpha=alpha).build(make.tiny(), 0)
        batch = ready(method, session)
        with torch.no_grad():
            method.clip.logit_scale.add_(up)
            method._teachers["session"].clip.logit_scale.add_(teacher_up)
        terms = method.losses(batch)
        weights = [weight for name, weight in method.clip.named_parameters() if not name.endswith("logit_scale")]
        return terms, list(torch.autograd.grad(terms["align"], weights, allow_unused=True))

    (once, gradient), (twice, doubled) = losses(), losses(alpha=40)
    assert twice["align"] == 2 * once["align"] > 0 and twice["contrast"] == once["contrast"]  # a factor of two is exact
    assert all(torch.equal(2 * one, two) for one, two in zip(gradient, doubled, strict=True))
    assert sum(one.abs().sum() for one in gradient) > 0
    for up, teacher_up in ((1.0, 0.0), (0.0, 1.0)):
        scaled, same = losses(up=up, teacher_up=teacher_up)
        assert scaled["align"] == once["align"] and (scaled["contrast"] != once["contrast"]) == bool(up)
        assert all(torch.equal(one, other) for one, other in zip(gradient, same, strict=True))


def test_a_labelled_image_is_paired_with_its_class_prompt() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = ModXConfig(fixed_alpha=True, alpha=1).build(make.tiny(), 0)
    batch = ready(method, session)
    teacher = method._teachers["session"].clip
    prompts = [session.vocabulary[label].prompts[0] for label in batch.labels]
    tokens = method.clip.tokenize(prompts)
    with torch.no_grad():
        now = method.clip.encode_image(batch.images) @ method.clip.encode_text(tokens).T
        then = teacher.encode_image(batch.images) @ teacher.encode_text(tokens).T
        same = batch.labels[:, None] == batch.labels[None]
        assert method.losses(batch)["align"].item() == pytest.approx(alignment(now, then, same).item(), rel=0.02)
