"""LwF as in the ZSCL code: both directions, the teacher's texts, the weight ensemble and the pull towards the start."""

import copy
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cl.config import TrainConfig
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods.base import Batch, Method, MethodConfig
from cl.methods.losses import distillation
from cl.methods.merges.ensemble import Ensemble
from cl.methods.persist import memory, restore
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.lwf import LwFConfig
from cl.methods.recipe import Recipe
from cl.methods.view import Site
from cl.models.clip import Clip
from cl.streams.stream import Session
from tests import make

T = torch.tensor([[2.0, 1.0, 0.0], [0.0, 1.0, 3.0]], dtype=torch.float64)
S = torch.tensor([[1.0, 1.0, 1.0], [0.0, 2.0, 3.0]], dtype=torch.float64)
FAST = TrainConfig(max_steps=3, batch_size=4, lr=1e-3, device="cpu")


def batch_of(method: Method, session: Session, rows: int = 6, step: int = 0) -> Batch:
    """The first rows of a session, as precise as the method's clip."""
    data = Rows(session.data, method.clip, session.vocabulary)
    batch = Collate(method.clip.tokenize)([data[(row, 0, step)] for row in range(rows)])
    return batch._replace(images=batch.images.to(method.clip.logit_scale))


def shaken(method: Method, amount: float = 0.02) -> None:
    """Move every weight but the logit scale a little, always alike."""
    with torch.no_grad():
        for name, parameter in method.clip.named_parameters():
            if "logit_scale" not in name:
                source = torch.Generator().manual_seed(parameter.numel())
                parameter.add_(amount * torch.randn(parameter.shape, generator=source).to(parameter))


def kl(teacher: np.ndarray, student: np.ndarray, temperature: float) -> float:
    """T^2 times the mean over rows of KL(teacher || student), in plain loops."""
    total = 0.0
    for t_row, s_row in zip(teacher / temperature, student / temperature, strict=True):
        t_sum, s_sum = sum(np.exp(t_row)), sum(np.exp(s_row))
        for t, s in zip(t_row, s_row, strict=True):
            p, q = np.exp(t) / t_sum, np.exp(s) / s_sum
            total += p * (np.log(p) - np.log(q))
    return temperature**2 * total / len(teacher)


def continues_as_if_never_saved(config: MethodConfig, sessions: Iterable[Session], path: Path) -> Method:
    """Learn, save, load into a new object, learn on: every tensor equals that of going straight on."""
    straight, before = config.build(make.tiny(), 3), config.build(make.tiny(), 3)
    first, *others = sessions
    learn(straight, first, FAST, 3)
    learn(before, first, FAST, 3)
    write_tensors(memory(before), path)
    after = config.build(make.tiny(), 3)
    restore(after, read_tensors(path), str(path))
    for session in others:
        learn(straight, session, FAST, 3)
        learn(after, session, FAST, 3)
    one, two = straight.state_dict(), after.state_dict()
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)
    return after


def started(config: LwFConfig | None = None, known: tuple[int, ...] = (0, 1, 2)) -> tuple[Recipe, Session]:
    """A method in double precision with a session begun."""
    method, session = (config or LwFConfig()).build(make.tiny().double(), 0), make.session(1, known, known)
    method.begin(session)
    return method, session


def teacher_of(method: Recipe) -> Clip:
    """The model as the session found it."""
    return method.teacher("session").clip


def test_both_directions_have_the_published_values() -> None:
    tempered = torch.log_softmax(T / 2, -1)
    entropy = -(tempered.exp() * tempered).sum(-1).mean()
    assert distillation(S, T, 2).item() == pytest.approx(0.205141648718, abs=1e-12)
    assert (distillation(S, T, 2) + 4 * entropy).item() == pytest.approx(4.057442835130, abs=1e-11)  # their form: cross-entropy
    tempered = torch.log_softmax(T.T / 2, -1)
    entropy = -(tempered.exp() * tempered).sum(-1).mean()
    assert (distillation(S.T, T.T, 2) + 4 * entropy).item() == pytest.approx(2.437749187160, abs=1e-11)
    assert distillation(T, S, 2).item() != pytest.approx(0.205141648718, abs=1e-3)  # the roles matter


def test_the_gradient_has_the_published_values_and_those_of_finite_differences() -> None:
    student = S.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(student, T, 2), student)
    published = [[-0.173147057722, 0.026137447615, 0.147009610107], [-0.018292730856, 0.100275062802, -0.081982331946]]
    assert torch.allclose(gradient, torch.tensor(published, dtype=torch.float64), atol=1e-11)
    assert torch.allclose(gradient, ((student / 2).softmax(-1) - (T / 2).softmax(-1)).detach(), atol=1e-14)  # (T / B)(p_s - p_t)
    assert torch.autograd.gradcheck(lambda s: distillation(s.T, T.T, 2), (student,))


def test_the_terms_are_those_of_plain_loops_over_images_and_class_names() -> None:
    method, session = started(LwFConfig(image_weight=0.5, text_weight=3.0, temperature=1.7))
    shaken(method)
    batch = batch_of(method, session)
    with torch.no_grad():
        terms = method.losses(batch)
        texts = teacher_of(method).encode_text(method.clip.tokenize([f"a {make.COLOURS[c]} square" for c in (0, 1, 2)]))
        student, teacher = (
            (method.clip.scale() * clip.encode_image(batch.images) @ texts.T).numpy() for clip in (method.clip, teacher_of(method))
        )
    assert student.shape == (6, 3)
    assert terms["keep_images"].item() == pytest.approx(0.5 * kl(teacher, student, 1.7), rel=1e-10)
    assert terms["keep_texts"].item() == pytest.approx(3.0 * kl(teacher.T, student.T, 1.7), rel=1e-10)
    assert terms["keep_images"] > 1e-6 and terms["keep_texts"] > 1e-6


def test_a_teacher_equal_to_the_student_leaves_only_the_smoothed_cross_entropy() -> None:
    method, session = started()
    batch = batch_of(method, session)
    terms = method.losses(batch)
    for name in ("keep_images", "keep_texts"):
        assert terms[name].item() == pytest.approx(0.0, abs=1e-12)
        gradients = torch.autograd.grad(terms[name], list(method.trainable()), allow_unused=True, retain_graph=True)
        assert all(g is None or g.abs().max() < 1e-10 for g in gradients)
    with torch.no_grad():
        logits = method.clip.scale() * method.encode_image(batch.images) @ method.tuner.classes(session.vocabulary).T
    assert terms["classify"].item() == pytest.approx(F.cross_entropy(logits, batch.labels, label_smoothing=0.2).item(), abs=1e-12)


def test_the_image_tower_gets_the_gradient_and_texts_scale_and_teacher_get_none() -> None:
    method, session = started()
    shaken(method)
    terms = method.losses(batch_of(method, session))
    (terms["keep_images"] + terms["keep_texts"]).backward()
    for name, parameter in method.clip.model.named_parameters():
        if not name.startswith("visual."):
            assert parameter.grad is None, name
    towers = [p.grad for n, p in method.clip.model.named_parameters() if n.startswith("visual.")]
    assert all(g is not None for g in towers) and sum(g.abs().sum() for g in towers) > 0
    assert all(p.grad is None for p in teacher_of(method).parameters())


@pytest.mark.parametrize("term", ["keep_images", "keep_texts"])
def test_the_gradient_of_a_term_is_that_of_finite_differences(term: str) -> None:
    method, session = started()
    shaken(method)
    batch, weight = batch_of(method, session), method.clip.model.visual.proj
    (gradient,) = torch.autograd.grad(method.losses(batch)[term], weight)
    direction = torch.randn(weight.shape, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    with torch.no_grad():
        values = []
        for step in (1e-5, -1e-5):
            weight.add_(step * direction)
            values.append(method.losses(batch)[term].item())
            weight.sub_(step * direction)
    assert (values[0] - values[1]) / 2e-5 == pytest.approx((gradient * direction).sum().item(), rel=1e-5)


def test_the_order_of_the_texts_changes_nothing() -> None:
    method, session = started()
    shaken(method)
    batch = batch_of(method, session)
    with torch.no_grad():
        before = method.losses(batch)
        term = method.terms["class_texts"]
        term._texts = term._texts[[2, 0, 1]]
        after = method.losses(batch)
    for name in ("keep_images", "keep_texts"):
        assert after[name].item() == pytest.approx(before[name].item(), rel=1e-12)


def test_the_teacher_encodes_the_texts_once_per_session(monkeypatch: pytest.MonkeyPatch) -> None:
    method, session = started()
    monkeypatch.setattr(teacher_of(method), "encode_text", lambda tokens: pytest.fail("texts encoded again"))
    for step in range(3):
        method.losses(batch_of(method, session, step=step))


def test_the_teacher_shares_no_storage_and_stays_while_the_student_moves() -> None:
    method, session = started()
    before = copy.deepcopy(teacher_of(method).state_dict())
    assert not {p.data_ptr() for p in method.trainable()} & {p.data_ptr() for p in teacher_of(method).parameters()}
    optimizer = torch.optim.AdamW(method.trainable(), lr=1e-3)
    for step in range(3):
        optimizer.zero_grad()
        sum(method.losses(batch_of(method, session, step=step)).values()).backward()
        optimizer.step()
    assert all(torch.equal(before[name], value) for name, value in teacher_of(method).state_dict().items())
    with torch.no_grad():  # were the two one model, there would be nothing to keep
        assert method.losses(batch_of(method, session))["keep_images"] > 1e-8


def test_a_new_session_has_the_model_of_the_one_before_as_its_teacher() -> None:
    method = LwFConfig().build(make.tiny(), 0)
    first, second = make.stream((0, 1), (2, 3)).sessions
    learn(method, first, FAST, 0)
    assert not method._teachers and method.terms["class_texts"]._texts.numel() == 0
    learned = copy.deepcopy(method.clip.state_dict())
    method.begin(second)
    assert all(torch.equal(learned[name], value) for name, value in teacher_of(method).state_dict().items())


def test_the_logit_scale_never_moves() -> None:
    method = LwFConfig().build(make.tiny(), 0)
    before = method.clip.logit_scale.item()
    learn(method, make.session(1, (0, 1), (0, 1)), FAST, 0)
    assert method.clip.logit_scale.item() == before


def plain(seed: int = 0, smoothing: float = 0.0) -> Recipe:
    """Fine-tuning of all that it trains."""
    return FinetuneConfig(scale="frozen", smoothing=smoothing).build(make.tiny(), seed)


@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_without_weights_it_is_plain_fine_tuning_with_as_much_smoothing_bit_for_bit(smoothing: float) -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = LwFConfig(image_weight=0, text_weight=0, smoothing=smoothing).build(make.tiny(), 0)
    tuned = plain(smoothing=smoothing)
    for each in (method, tuned):
        learn(each, session, FAST, 0)
    assert not torch.equal(method.clip.model.visual.proj, make.tiny().model.visual.proj)
    for (name, mine), theirs in zip(method.clip.state_dict().items(), tuned.clip.state_dict().values(), strict=True):
        assert torch.equal(mine, theirs), name


def test_rows_of_both_kinds_weigh_as_in_fine_tuning() -> None:
    session = make.session(1, (0, 1), (0, 1), captions=True)
    method, tuned = (config.build(make.tiny().double(), 0) for config in (LwFConfig(smoothing=0), FinetuneConfig()))
    for each in (method, tuned):
        each.begin(session)
    batch = batch_of(method, session)
    batch = batch._replace(labels=batch.labels.where(torch.arange(6) < 2, -1))
    mine, theirs = method.losses(batch), tuned.losses(batch)
    for name in ("classify", "contrast"):
        assert mine[name].item() == pytest.approx(theirs[name].item(), abs=1e-12)


def test_a_session_without_class_names_is_refused_before_it_is_learned() -> None:
    session = make.session(1, (0, 1), (), labels=False, captions=True)
    with pytest.raises(MethodError, match=r"session 1.*teaches no class.*zscl"):
        LwFConfig().build(make.tiny(), 0).check(session)


class Recorded:
    """The weights after each step of a method, and those it started with."""

    def __init__(self, method: Recipe) -> None:
        self.weights = [{name: p.detach().clone() for name, p in method.tuner.weights().items()}]
        self._method, self._after = method, method.after_step
        method.after_step = self.after_step  # type: ignore[method-assign]

    def after_step(self) -> None:
        self.weights.append({name: p.detach().clone() for name, p in self._method.tuner.weights().items()})
        self._after()


@pytest.mark.parametrize(("steps", "counted"), [(5, (0, 1, 3, 5)), (4, (0, 1, 3, 4)), (1, (0, 1))])
def test_a_session_ends_with_the_mean_of_its_start_every_so_many_steps_and_the_last(steps: int, counted: tuple[int, ...]) -> None:
    method = LwFConfig(ensemble=2).build(make.tiny(), 0)
    recorded = Recorded(method)
    learn(method, make.session(1, (0, 1), (0, 1)), FAST.model_copy(update={"max_steps": steps}), 0)
    assert len(recorded.weights) == steps + 1
    for name, parameter in method.tuner.weights().items():
        mean = np.mean([recorded.weights[position][name].double().numpy() for position in counted], axis=0)
        np.testing.assert_allclose(parameter.detach().numpy(), mean, atol=1e-6, err_msg=name)
    assert not torch.equal(method.clip.model.visual.proj, recorded.weights[-1]["model.visual.proj"])


def test_as_long_as_the_authors_an_ensemble_has_their_twelve_snapshots() -> None:
    class Weights:
        def __init__(self) -> None:
            self.w = torch.zeros(1, dtype=torch.float64)

        def weights(self) -> dict[str, torch.Tensor]:
            return {"w": self.w}

    ensemble, tuner = Ensemble(100), Weights()
    at = Site(tuner, None, None, 0, None, None)  # type: ignore[arg-type]
    ensemble.start(at)
    for step in range(1001):
        tuner.w.fill_(step)
        ensemble.step(tuner.weights())  # type: ignore[arg-type]
    ensemble.close(at)
    assert tuner.w.item() == pytest.approx(sum(range(0, 1001, 100)) / 12) and ensemble.count == 12


def test_the_pull_is_the_sum_of_squared_moves_since_the_session_began() -> None:
    method, session = started(LwFConfig(l2=0.3))
    batch = batch_of(method, session)
    assert method.losses(batch)["l2"].item() == 0.0
    shaken(method)
    start = make.tiny().double().state_dict()
    total = sum(((p.detach() - start[name]) ** 2).sum().item() for name, p in method.clip.named_parameters())
    loss = method.losses(batch)["l2"]
    assert loss.item() == pytest.approx(0.3 * total, rel=1e-12)
    (gradient,) = torch.autograd.grad(loss, method.clip.model.visual.proj)
    moved = method.clip.model.visual.proj.detach() - start["model.visual.proj"]
    assert torch.allclose(gradient, 0.6 * moved, atol=1e-14)


def test_saved_and_loaded_it_goes_on_as_if_nothing_had_happened(tmp_path: Path) -> None:
    continues_as_if_never_saved(LwFConfig(ensemble=2, l2=1.0), make.stream((0, 1), (2, 3)).sessions, tmp_path / "state.safetensors")


def loss_of(method: Method, session: Session) -> float:
    """Cross-entropy of a session's test images among its classes."""
    asked = session.tests[0]
    transform, names = method.clip.transform(), [known.name for known in asked.classes]
    with torch.no_grad():
        images = torch.stack([transform(asked.data.image(row)) for row in range(len(asked.data))])
        logits = method.classify(images, method.class_features(asked.classes))
    return F.cross_entropy(logits, torch.tensor([names.index(label or "") for label in asked.data.labels])).item()


def test_it_learns_and_what_it_knew_about_its_class_names_moves_less_than_in_fine_tuning() -> None:
    session = make.session(1, (0, 1, 2), (0, 1, 2), each=4)
    train = TrainConfig(max_steps=6, batch_size=6, lr=1e-3, device="cpu")
    teacher, untaught = make.tiny(), loss_of(plain(), session)
    images = batch_of(plain(), session, rows=12).images
    with torch.no_grad():
        texts = teacher.encode_text(teacher.tokenize([known.prompts[0] for known in session.vocabulary]))
        target = teacher.scale() * teacher.encode_image(images) @ texts.T
    for seed in range(3):
        moved = []
        for method in (plain(seed), LwFConfig(smoothing=0).build(make.tiny(), seed)):
            learn(method, session, train, seed)
            with torch.no_grad():
                moved.append(distillation(method.clip.scale() * method.clip.encode_image(images) @ texts.T, target, 2).item())
        assert moved[1] < 0.5 * moved[0]
        assert loss_of(method, session) < 0.8 * untaught
