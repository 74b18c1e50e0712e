"""Linear probe, ridge regression and Gaussian discriminants on frozen features: right, order-free, and zero-shot where untaught."""

import copy

import numpy as np
import pytest
import torch
from safetensors.torch import load, save
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis

from cl.config import EvalConfig, TrainConfig
from cl.data.table import ImageTable
from cl.errors import MethodError, StoreError
from cl.evaluation.evaluate import evaluate
from cl.learning.learner import learn
from cl.methods.base import Method, MethodConfig
from cl.methods.closed_form.gda import GDAConfig, pooled
from cl.methods.closed_form.moments import Moments
from cl.methods.closed_form.presets import NCMConfig, SLDAConfig
from cl.methods.closed_form.ridge import RidgeConfig
from cl.methods.features import ClassRows
from cl.methods.persist import memory, restore
from cl.methods.presets.linear_probe import LinearProbeConfig
from cl.methods.recipe import Recipe
from cl.models.zero_shot import class_features
from cl.streams.stream import Session, joint
from tests import make

TRAIN = TrainConfig(max_steps=5, batch_size=8, lr=1e-2, device="cpu")
CLOSED = [RidgeConfig(projection=None), RidgeConfig(projection=50, penalty=0.1), GDAConfig(alpha=0.1)]
ALL = [*CLOSED, LinearProbeConfig()]


def learned(config: MethodConfig, *sessions: Session) -> Method:
    method = config.build(make.tiny(), 0)
    for session in sessions:
        learn(method, session, TRAIN, 0)
    return method


@torch.no_grad()
def features(data: ImageTable) -> torch.Tensor:
    clip = make.tiny()
    return clip.encode_image(torch.stack([clip.transform()(data.image(row)) for row in range(len(data))])).double()


@torch.no_grad()
def logits(method: Method, data: ImageTable, classes: tuple[object, ...]) -> torch.Tensor:
    images = torch.stack([method.clip.transform()(data.image(row)) for row in range(len(data))])
    return method.classify(images, method.class_features(classes)).double()


def indicators(data: ImageTable, names: list[str]) -> np.ndarray:
    return np.array([[label == name for name in names] for label in data.labels], dtype=np.float64)


def test_ridge_weights_solve_the_penalised_least_squares_of_all_sessions_together() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    x = torch.cat([features(first.data), features(second.data)]).numpy()
    y = np.concatenate([indicators(each.data, list(make.COLOURS[:4])) for each in (first, second)])
    stacked = np.concatenate([x, np.sqrt(0.3) * np.eye(x.shape[1])])
    expected = np.linalg.lstsq(stacked, np.concatenate([y, np.zeros((x.shape[1], 4))]), rcond=None)[0]
    weights, known = learned(RidgeConfig(penalty=0.3, projection=None), first, second).weights([each.name for each in second.vocabulary])
    np.testing.assert_allclose(weights.numpy().T, expected, atol=1e-6)
    assert known.all()


def test_ridge_over_random_features_is_ridge_over_those_features() -> None:
    (session,) = make.stream((0, 1, 2)).sessions
    method = learned(RidgeConfig(projection=50, penalty=0.3), session)
    lifted = method.lift(features(session.data)).numpy()
    y = indicators(session.data, list(make.COLOURS[:3]))
    expected = np.linalg.solve(lifted.T @ lifted + 0.3 * np.eye(50), lifted.T @ y)
    np.testing.assert_allclose(method.weights([each.name for each in session.vocabulary])[0].numpy().T, expected, atol=1e-6)


def test_random_features_are_fixed_by_the_seed_and_keep_their_length_on_average() -> None:
    clip = make.tiny()
    first, again, other = (RidgeConfig(projection=4000).build(clip, seed) for seed in (0, 0, 1))
    unit = torch.nn.functional.normalize(torch.randn(20, clip.model_cfg["embed_dim"], generator=torch.Generator().manual_seed(0)), dim=1)
    assert torch.equal(first.lift(unit), again.lift(unit)) and not torch.equal(first.lift(unit), other.lift(unit))
    assert first.lift(unit).square().sum(1).numpy() == pytest.approx(1.0, rel=0.15)


@pytest.mark.parametrize("config", CLOSED)
def test_sessions_add_up_to_the_joint_solution_in_any_order(config: MethodConfig) -> None:
    stream = make.stream((0, 1), (2,), (3, 4))
    data, classes = stream.sessions[2].tests[0].data, stream.sessions[2].vocabulary
    together = logits(learned(config, *joint(stream).sessions), data, classes)
    assert torch.allclose(logits(learned(config, *stream.sessions), data, classes), together, atol=1e-5)
    assert torch.allclose(logits(learned(config, *reversed(stream.sessions)), data, classes), together, atol=1e-5)


def test_gaussian_discriminants_follow_the_published_formula() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    x = torch.cat([features(first.data), features(second.data)]).numpy()
    names = np.array(first.data.labels + second.data.labels)
    means = np.stack([x[names == name].mean(0) for name in make.COLOURS[:4]])
    centred = x - means[[make.COLOURS.index(name) for name in names]]
    covariance = np.cov(centred.T)
    n, d = x.shape
    inverse = d * np.linalg.inv((n - 1) * covariance + np.trace(covariance) * np.eye(d))
    method = learned(GDAConfig(alpha=0.5), first, second)
    weights, bias, _ = method.discriminant([each.name for each in second.vocabulary])
    np.testing.assert_allclose(weights.numpy(), means @ inverse, rtol=1e-3)
    np.testing.assert_allclose(bias.numpy(), -np.einsum("kd,de,ke->k", means, inverse, means) / 2, rtol=1e-3)
    with torch.no_grad():
        text = class_features(method.clip.encode_text, method.clip.tokenize, second.vocabulary)
        zero_shot = (method.clip.scale() * features(second.data).float() @ text.T).numpy()
    expected = zero_shot + 0.5 * (features(second.data).numpy() @ (means @ inverse).T + bias.numpy())
    np.testing.assert_allclose(logits(method, second.data, second.vocabulary).numpy(), expected, rtol=1e-3)


def test_gaussian_discriminants_rank_as_linear_discriminant_analysis_with_that_covariance() -> None:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(90, 5)) + np.repeat(rng.normal(size=(3, 5)), 30, 0)
    y = np.repeat(np.arange(3), 30)
    means = np.stack([x[y == label].mean(0) for label in range(3)])
    moments = Moments(5)
    moments.add([str(label) for label in y], torch.from_numpy(x))
    metric, factor = pooled(moments, "ks")
    inverse = factor * metric.inverse.numpy()

    class Given:  # what sklearn's estimator asks of a covariance estimator
        def fit(self, rows: np.ndarray) -> "Given":
            self.covariance_ = np.linalg.inv(inverse)
            return self

    oracle = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(3, 1 / 3), covariance_estimator=Given()).fit(x, y)
    scores = x @ (means @ inverse).T - np.einsum("kd,de,ke->k", means, inverse, means) / 2
    mine = np.exp(scores - scores.max(1, keepdims=True))
    np.testing.assert_allclose(mine / mine.sum(1, keepdims=True), oracle.predict_proba(x), atol=1e-6)


def test_with_one_sample_per_class_gaussian_discriminants_are_zero_shot() -> None:
    session = make.session(1, (0, 1), (0, 1), each=1)
    method = learned(GDAConfig(), session)
    plain = make.tiny()
    with torch.no_grad():
        text = class_features(plain.encode_text, plain.tokenize, session.vocabulary)
        expected = plain.scale() * features(session.tests[0].data).float() @ text.T
    assert torch.allclose(logits(method, session.tests[0].data, session.vocabulary), expected.double(), atol=1e-4)
    assert pooled(Moments(3), "ks")[1] == pooled(Moments(3), 0.1)[1] == 0.0


@pytest.mark.parametrize("config", ALL)
def test_classes_never_taught_are_zero_shot(config: MethodConfig) -> None:
    stream = make.stream((0, 1), (2, 3))
    method, zero_shot = learned(config, stream.sessions[0]), make.tiny()
    probe = stream.probes[0]
    with torch.no_grad():
        text = class_features(zero_shot.encode_text, zero_shot.tokenize, probe.classes)
        expected = (zero_shot.scale() * features(probe.data).float() @ text.T).double()
    assert torch.allclose(logits(method, probe.data, probe.classes), expected, atol=1e-4)


@pytest.mark.parametrize("config", ALL)
def test_a_memory_saved_and_loaded_gives_the_same_scores_and_goes_on_the_same(config: MethodConfig) -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = learned(config, first)
    kept = load(save({name: tensor.clone() for name, tensor in memory(method).items()}))
    resumed = config.build(make.tiny(), 0)
    restore(resumed, kept, "kept")
    data, classes = second.tests[0].data, second.vocabulary
    assert torch.equal(logits(resumed, data, classes), logits(method, data, classes))
    for each in (method, resumed):
        learn(each, second, TRAIN, 0)
    assert torch.equal(logits(resumed, data, classes), logits(method, data, classes))


def test_a_memory_of_another_width_is_refused() -> None:
    method = learned(RidgeConfig(projection=50), make.session(1, (0, 1), (0, 1)))
    with pytest.raises(StoreError, match="shapes do not fit"):
        restore(RidgeConfig(projection=51).build(make.tiny(), 0), memory(method), "kept")


@pytest.mark.parametrize("config", ALL)
def test_the_clip_stays_as_it_is_and_features_are_forgotten_after_the_session(config: MethodConfig) -> None:
    method = config.build(make.tiny(), 0)
    digest = method.clip.digest()
    steps = learn(method, make.session(1, (0, 1), (0, 1)), TRAIN, 0).steps
    assert method.clip.digest() == digest and (not isinstance(method, Recipe) or method.tuner.known is None)
    assert steps == (5 if config.name == "linear_probe" else 0)


@pytest.mark.parametrize("config", ALL)
def test_a_session_without_labels_is_refused_before_training(config: MethodConfig) -> None:
    with pytest.raises(MethodError, match="none of its 16 rows has a label"):
        config.build(make.tiny(), 0).check(make.session(1, (0, 1), (0, 1), labels=False, captions=True))


@pytest.mark.parametrize("config", [*CLOSED[:2], GDAConfig(), NCMConfig(), SLDAConfig()])
def test_closed_forms_learn_colours_that_zero_shot_does_not_know(config: MethodConfig) -> None:
    stream = make.stream((0, 1), (2, 3))
    exam = [dataset for session in stream.sessions for dataset in session.tests]
    method = config.build(make.tiny(), 0)
    for session in stream.sessions:
        learn(method, session, TRAIN, 0)
    scores = evaluate(method, exam, EvalConfig())
    assert min(score.metrics["top1"] for score in scores.values()) > 0.9


def test_an_untrained_probe_is_zero_shot_and_a_trained_one_is_not() -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = LinearProbeConfig().build(make.tiny(), 0)
    method.begin(session)
    with torch.no_grad():
        text = class_features(method.clip.encode_text, method.clip.tokenize, session.vocabulary)
        assert torch.allclose(method.class_features(session.vocabulary), text, atol=1e-6)
    learn(method, session, TRAIN, 0)
    assert not torch.allclose(method.class_features(session.vocabulary), text, atol=1e-3)


def test_a_probes_gradient_is_that_of_softmax_regression() -> None:
    session = make.session(1, (0, 1), (0, 1), each=4)
    method = LinearProbeConfig().build(make.tiny(), 0)
    data = method.begin(session)
    from cl.learning.loader import Collate, Rows

    rows = Rows(data, method.clip, method.vocabulary, pixels=False)
    batch = Collate(method.clip.tokenize)([rows[(row, 0, 0)] for row in range(8)])
    method.losses(batch)["classify"].backward()
    x, w, scale = features(data).numpy(), method.tuner.head.rows.detach().double().numpy(), method.clip.scale().item()
    y = indicators(data, ["red", "green"])
    scores = np.exp(scale * x @ w.T)
    expected = scale * (scores / scores.sum(1, keepdims=True) - y).T @ x / 8
    np.testing.assert_allclose(method.tuner.head.rows.grad.numpy(), expected, atol=1e-4)


def test_a_probe_leaves_the_rows_of_earlier_sessions_alone_unless_all_seen_classes_compete() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    for candidates in ("session", "seen"):
        method = learned(LinearProbeConfig(candidates=candidates), first)
        before = copy.deepcopy(method.tuner.head.rows.detach())
        learn(method, second, TRAIN, 0)
        assert method.tuner.head.names == list(make.COLOURS[:4])
        assert torch.equal(method.tuner.head.rows[:2], before) == (candidates == "session")


def test_rows_by_class_keep_their_place_when_more_arrive() -> None:
    rows = ClassRows(2)
    rows.add(["cat", "dog", "cat"], torch.tensor([[1.0, 0.0], [5.0, 5.0], [2.0, 1.0]]))
    rows.grow(["owl", "cat"], torch.tensor([[7.0, 7.0], [9.0, 9.0]]))
    sums, known = rows.find(["owl", "cat", "emu"])
    assert sums.tolist() == [[7, 7], [3, 1], [0, 0]] and known.tolist() == [True, True, False]
    assert rows.names == ["cat", "dog", "owl"]
