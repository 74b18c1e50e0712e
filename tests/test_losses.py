"""The loss functions against worked numbers, an independent loop and their closed-form gradients."""

import numpy as np
import pytest
import torch

from cl.methods.losses import classification, contrastive, distillation, similarities

TEACHER = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
STUDENT = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 3.0]], dtype=torch.float64)


def kl_by_hand(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    total = 0.0
    for t_row, s_row in zip(teacher / temperature, student / temperature, strict=True):
        t_sum, s_sum = sum(np.exp(t_row)), sum(np.exp(s_row))
        for t, s in zip(t_row, s_row, strict=True):
            total += np.exp(t) / t_sum * (np.log(np.exp(t) / t_sum) - np.log(np.exp(s) / s_sum))
    return temperature**2 * total / len(teacher)


def test_cosines_are_multiplied_in_full_precision_under_autocast() -> None:
    source = torch.Generator().manual_seed(0)
    images, texts = (torch.nn.functional.normalize(torch.randn(8, 64, generator=source), dim=-1).bfloat16() for _ in range(2))
    with torch.autocast("cpu", torch.bfloat16):
        cosines = similarities(torch.tensor(100.0), images, texts)
    assert cosines.dtype == torch.float32 and torch.equal(cosines, 100 * images.float() @ texts.float().T)
    assert (cosines - (100 * images @ texts.T).float()).abs().max() > 0.01  # which is what it guards against


def test_distillation_gives_the_worked_number_and_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = distillation(student, TEACHER)
    loss.backward()
    assert loss.item() == pytest.approx(0.165593852328, abs=1e-12)
    expected = [[-0.165953811221, 0.044302431139, 0.121651380081], [-0.003445519587, 0.072650630479, -0.069205110892]]
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-12)


def test_distillation_at_temperature_two_gives_the_worked_number_and_gradient() -> None:
    student = STUDENT.clone().requires_grad_()
    loss = distillation(student, TEACHER, temperature=2.0)
    loss.backward()
    assert loss.item() == pytest.approx(0.205141648718, abs=1e-12)
    expected = [[-0.173147057722, 0.026137447615, 0.147009610107], [-0.018292730856, 0.100275062802, -0.081982331946]]
    assert student.grad is not None
    np.testing.assert_allclose(student.grad.numpy(), expected, atol=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_agrees_with_a_plain_loop(temperature: float) -> None:
    source = torch.Generator().manual_seed(3)
    teacher, student = (torch.randn(7, 11, generator=source, dtype=torch.float64) * 4 for _ in range(2))
    assert distillation(student, teacher, temperature).item() == pytest.approx(
        kl_by_hand(teacher.numpy(), student.numpy(), temperature), rel=1e-12
    )


def test_distillation_is_zero_at_equality_and_blind_to_a_constant_per_row_and_to_the_order_of_columns() -> None:
    assert distillation(TEACHER, TEACHER).item() == pytest.approx(0.0, abs=1e-15)
    shifted = STUDENT + torch.tensor([[5.0], [-3.0]], dtype=torch.float64)
    assert distillation(shifted, TEACHER).item() == pytest.approx(distillation(STUDENT, TEACHER).item(), abs=1e-14)
    order = [2, 0, 1]
    assert distillation(STUDENT[:, order], TEACHER[:, order]).item() == pytest.approx(distillation(STUDENT, TEACHER).item(), abs=1e-14)


def test_distillation_has_a_direction_and_teaches_only_the_student() -> None:
    assert distillation(TEACHER, STUDENT).item() != pytest.approx(distillation(STUDENT, TEACHER).item(), abs=1e-3)
    teacher, student = TEACHER.clone().requires_grad_(), STUDENT.clone().requires_grad_()
    distillation(student, teacher).backward()
    assert teacher.grad is None and student.grad is not None


def test_distillation_gradient_agrees_with_finite_differences() -> None:
    assert torch.autograd.gradcheck(lambda student: distillation(student, TEACHER), STUDENT.clone().requires_grad_())


def test_contrastive_agrees_with_the_reference_loss_of_open_clip() -> None:
    from open_clip.loss import ClipLoss

    source = torch.Generator().manual_seed(0)
    images, texts = (
        torch.nn.functional.normalize(torch.randn(6, 5, generator=source, dtype=torch.float64), dim=-1).requires_grad_() for _ in range(2)
    )
    scale = torch.tensor(14.0, dtype=torch.float64, requires_grad=True)
    reference = ClipLoss()(images, texts, scale)
    wanted = torch.autograd.grad(reference, [images, texts, scale])
    gradients = torch.autograd.grad(contrastive(images, texts, scale), [images, texts, scale])
    torch.testing.assert_close(contrastive(images, texts, scale), reference, rtol=0, atol=1e-14)
    for mine, theirs in zip(gradients, wanted, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=0, atol=1e-14)


def test_equal_texts_share_their_target_and_no_equal_texts_means_the_plain_loss() -> None:
    source = torch.Generator().manual_seed(1)
    images, texts = (torch.nn.functional.normalize(torch.randn(3, 4, generator=source, dtype=torch.float64), dim=-1) for _ in range(2))
    scale = torch.tensor(5.0, dtype=torch.float64)
    torch.testing.assert_close(contrastive(images, texts, scale, torch.eye(3, dtype=torch.bool)), contrastive(images, texts, scale))
    same = torch.tensor([[True, True, False], [True, True, False], [False, False, True]])
    logits = (5.0 * images @ texts.T).numpy()
    share = same.numpy() / same.numpy().sum(1, keepdims=True)
    by_hand = -np.mean([(share * (z - np.log(np.exp(z).sum(1, keepdims=True)))).sum(1).mean() for z in (logits, logits.T)])
    assert contrastive(images, texts, scale, same).item() == pytest.approx(by_hand, rel=1e-12)


def test_classification_is_the_mean_negative_log_probability() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 1.0]], dtype=torch.float64)
    by_hand = (np.log(1 + np.exp(-2)) + np.log(1 + np.exp(1))) / 2
    assert classification(logits, torch.tensor([0, 0])).item() == pytest.approx(by_hand, rel=1e-12)
