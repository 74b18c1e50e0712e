"""Heads of sums against their papers' formulas, scikit-learn, and what they would be of all rows at once: worked numbers first."""

import itertools
import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from sklearn.covariance import ShrunkCovariance
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge as Oracle
from sklearn.mixture import GaussianMixture

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.data.table import concat
from cl.errors import MethodError, ModelError
from cl.learning.learner import learn
from cl.methods import CONFIGS
from cl.methods.closed_form.em import Held, assigned, maximised
from cl.methods.closed_form.folds import PENALTIES, UNJUDGED, fold_error
from cl.methods.closed_form.gda import ALPHAS, GDA
from cl.methods.closed_form.judging import Looked
from cl.methods.closed_form.moments import Moments, distances
from cl.methods.closed_form.ridge import Ridge
from cl.methods.closed_form.taught import Taught
from cl.methods.persist import memory
from cl.models.clip import build
from cl.models.source import TINY
from cl.models.unprojected import both, width
from tests import make
from tests.families import family
from tests.worked import features, labels, texts

CLIP = make.tiny()  # which no head changes
ABC = ["0", "1", "2"]


def head(**settings: object) -> GDA | Ridge:
    """A head over features of six numbers, in place of the tiny model's."""
    method = CONFIGS[str(settings["name"])](**settings).build(CLIP, 0)
    assert isinstance(method, GDA | Ridge)
    method.width = 6
    method.moments = Moments(6)
    if isinstance(method, Ridge) and settings.get("projection") is None:
        method.gram = torch.zeros(6, 6, dtype=torch.float64)
        method.sums = type(method.sums)(6)
    if isinstance(method, GDA) and settings.get("unlearnable"):
        method.apart = type(method.apart)(36)
    return method


def rows(x: torch.Tensor, names: list[str], start: int = 0) -> Taught:
    return Taught(names, x, x, torch.arange(start, start + len(x)))


def gaussian(method: GDA, x: torch.Tensor, names: list[str] = ABC) -> torch.Tensor:
    weights, bias, _ = method.discriminant(names)
    return x @ weights.T + bias


def test_gaussian_discriminants_are_the_worked_ones_and_so_is_what_is_left_when_rows_go() -> None:
    x, names, asked = features(12, 6), labels(5, 4, 3), features(2, 6, 20)
    method = head(name="gda", alpha=1.0)
    method.add(rows(x, names))
    logits = (gaussian(method, asked) + math.log(1 / 3)).tolist()
    assert logits[0] == pytest.approx([-0.753760, -3.270141, -0.995116], abs=5e-7)
    assert logits[1] == pytest.approx([-0.284081, -4.600288, 0.321622], abs=5e-7)
    metric, factor = method.pooled()
    assert float(factor * metric.inverse.trace()) == pytest.approx(24.004005, abs=5e-7)
    assert float(torch.logdet(factor * metric.inverse)) == pytest.approx(7.325438, abs=5e-7)
    assert float(method.moments.scatter().trace()) / 11 == pytest.approx(0.769218, abs=5e-7)
    method.subtract(rows(x, names).take([0, 8]))
    logits = (gaussian(method, asked) + math.log(1 / 3)).tolist()
    assert logits[0] == pytest.approx([-0.616292, -3.983441, -0.966085], abs=5e-7)
    assert logits[1] == pytest.approx([-0.315819, -4.653713, 0.383113], abs=5e-7)


def test_streaming_discriminants_are_the_worked_exact_ones_and_those_of_scikit_learn() -> None:
    x, names, asked = features(12, 6), [*"001102210210"], features(2, 6, 20)
    method = head(name="slda")
    method.add(rows(x, names))
    assert float(method.moments.scatter().trace()) / 12 == pytest.approx(0.689792, abs=5e-7)
    logits = gaussian(method, asked)
    assert logits[0].tolist() == pytest.approx([-41.721879, 11.146310, 9.051064], abs=5e-7)
    assert logits[1].tolist() == pytest.approx([-29.511285, 3.773905, 0.337295], abs=5e-7)
    shrunk = ShrunkCovariance(assume_centered=False, shrinkage=0.3)  # of scikit-learn: towards the mean variance, not 1
    oracle = LinearDiscriminantAnalysis(solver="lsqr", shrinkage=0.3).fit(x.numpy(), [int(name) for name in names])
    scatter = method.moments.scatter() / 12
    mixed = 0.7 * scatter + 0.3 * scatter.trace() / 6 * torch.eye(6, dtype=torch.float64)
    assert np.allclose(oracle.covariance_, mixed, atol=1e-12) and shrunk.shrinkage == 0.3
    covariance = (1 - 1e-4) * scatter + 1e-4 * torch.eye(6, dtype=torch.float64)

    class Given:  # what scikit-learn's estimator asks of a covariance estimator
        def fit(self, rows: np.ndarray) -> "Given":
            self.covariance_ = covariance.numpy()
            return self

    oracle = LinearDiscriminantAnalysis(solver="lsqr", priors=np.full(3, 1 / 3), covariance_estimator=Given())
    oracle.fit(x.numpy(), [int(name) for name in names])
    assert np.allclose(logits.softmax(1), oracle.predict_proba(asked.numpy()), atol=1e-10)


def test_nearest_class_means_are_the_worked_cosines() -> None:
    x, asked = features(12, 6), features(2, 6, 40)
    method = head(name="ncm")
    method.add(rows(x, [str(row % 3) for row in range(12)]))
    cosines = gaussian(method, asked)
    assert cosines[0].tolist() == pytest.approx([-0.439817, 0.033159, 0.068644], abs=5e-7)
    assert cosines[1].tolist() == pytest.approx([-0.574589, 0.112820, -0.235045], abs=5e-7)


def test_ridge_is_scikit_learns_and_the_worked_one_with_and_without_random_features() -> None:
    x, names, asked = features(12, 6), [*"001102210210"], features(2, 6, 20)
    method = head(name="ridge", penalty=0.1, projection=None)
    method.add(rows(x, names))
    weights, _ = method.weights(ABC)
    assert weights.sum(1).tolist() == pytest.approx([2.215878, 0.789119, 2.394884], abs=5e-7)
    ranked = asked @ weights.T
    assert ranked[0].tolist() == pytest.approx([-0.575084, 1.011072, -0.162404], abs=5e-7)
    assert ranked[1].tolist() == pytest.approx([-0.278458, 0.265032, 0.150132], abs=5e-7)
    indicators = np.array([[name == each for each in ABC] for name in names], dtype=np.float64)
    oracle = Oracle(alpha=0.1, fit_intercept=False, solver="cholesky").fit(x.numpy(), indicators)
    assert np.allclose(weights, oracle.coef_, atol=1e-12)
    assert method.factor() is method.factor()  # until the sums are others, in place or loaded
    one, two = (head(name="ridge", penalty=0.1, projection=None) for _ in range(2))
    one.add(rows(x[:6], names[:6]))
    assert not torch.allclose(one.weights(ABC)[0], weights)
    two.add(rows(x, names))
    one.load_state_dict(two.state_dict())
    assert torch.equal(one.weights(ABC)[0], weights)
    one.subtract(rows(x[:6], names[:6]))
    assert not torch.allclose(one.weights(ABC)[0], weights)
    wide = head(name="ridge", penalty=2 / 20, projection=20)  # a penalty of 1 over features of another length
    j, m = torch.arange(6, dtype=torch.float64)[:, None], torch.arange(20, dtype=torch.float64)
    wide.random = 2**0.5 * torch.sin(11 * j + 3 * m + j * m)
    wide.add(rows(features(30, 6), [str(row % 3) for row in range(30)]))
    ranked = wide.lift(features(2, 6, 40)) @ wide.weights(ABC)[0].T
    assert ranked[0].tolist() == pytest.approx([0.263825, 0.304201, 0.082133], abs=5e-7)
    assert ranked[1].tolist() == pytest.approx([-0.176064, 0.285948, 0.756300], abs=5e-7)


def test_the_error_on_a_fold_is_the_worked_one_from_rows_and_from_sums() -> None:
    x = features(30, 6)
    y = torch.nn.functional.one_hot(torch.arange(30) % 3).double()
    fit, judge = slice(0, 20), slice(20, 30)
    errors = fold_error(x[fit].T @ x[fit], y[fit].T @ x[fit], x[judge].T @ x[judge], y[judge].T @ x[judge], [0.1, 10.0], 10)
    assert float(errors[0]) == pytest.approx(12.502850, abs=5e-7)
    for penalty, told in zip((0.1, 10.0), errors.tolist(), strict=True):
        weights = torch.linalg.solve(x[fit].T @ x[fit] + penalty * torch.eye(6, dtype=torch.float64), x[fit].T @ y[fit])
        assert float((y[judge] - x[judge] @ weights).square().sum()) == pytest.approx(told, rel=1e-12)


def test_a_chosen_penalty_is_that_of_the_least_error_over_folds_in_any_order() -> None:
    drawn = torch.Generator().manual_seed(3)
    x = torch.nn.functional.normalize(torch.randn(60, 32, generator=drawn, dtype=torch.float64), dim=1)
    names, prints = [str(row % 3) for row in range(60)], torch.randperm(1000, generator=drawn)[:60]
    every = Taught(names, x, x, prints)

    def chosen(folds: int, *parts: list[int]) -> float:
        method = CONFIGS["ridge"](projection=None, folds=folds).build(CLIP, 0)
        for part in parts:
            method.add(every.take(part))
        return method.penalty()

    y = torch.tensor([[float(name == each) for each in ABC] for name in names], dtype=torch.float64)
    for folds in (2, 3):
        errors = []
        for penalty in PENALTIES:
            error = 0.0
            for fold in range(folds):
                judge = prints % folds == fold
                gram = x[~judge].T @ x[~judge] + penalty * torch.eye(32, dtype=torch.float64)
                error += float((y[judge] - x[judge] @ torch.linalg.solve(gram, x[~judge].T @ y[~judge])).square().sum())
            errors.append(error)
        best = PENALTIES[int(np.argmin(errors))]
        assert chosen(folds, list(range(60))) == chosen(folds, list(range(40, 60)), list(range(40))[::-1]) == best
    assert chosen(2, [0]) == UNJUDGED  # one row: no fold judges another


@pytest.mark.parametrize("settings", [{}, {"shrinkage": 0.1}, {"precision": "identity"}], ids=str)
def test_what_a_row_would_be_answered_without_itself_is_what_the_rest_answers(settings: dict) -> None:
    x, names, text = features(12, 6), labels(5, 4, 3), texts(3, 6)
    method = head(name="gda", **settings)
    method.add(rows(x, names))
    own = torch.tensor([int(name) for name in names])
    without = method.without_itself(x, own, ABC)
    bits = method.right(rows(x, names), dict(zip(ABC, text, strict=True)))
    metric, _ = method.pooled()
    for row in range(12):
        rest = head(name="gda", **settings)
        rest.add(rows(x, names).take([at for at in range(12) if at != row]))
        alone = gaussian(rest, x[row : row + 1])[0]
        if settings == {"precision": "identity"}:
            alone = alone * method.clip.scale().item()
        else:  # trace and number of rows are held, and what a row's classes have in common is left out
            share = metric.share if settings else 1.0
            added = 0.1 if settings else float(method.moments.scatter().trace()) / 11
            inverse = (share * rest.moments.scatter() + added * torch.eye(6, dtype=torch.float64)).inverse()
            means = rest.moments.means(ABC)[0]
            alone = (1.0 if settings else 6.0) * ((means @ inverse) @ x[row] - ((means @ inverse) * means).sum(1) / 2)
        assert torch.allclose(without[row] - without[row, 0], alone - alone[0], atol=1e-10)
        zero_shot = method.clip.scale().item() * x[row] @ text.T
        told = [bool(int(bits[row]) >> place & 1) for place in range(len(ALPHAS))]
        assert told == [int((zero_shot + alpha * alone).argmax()) == int(own[row]) for alpha in ALPHAS]


def test_alpha_is_that_with_which_most_rows_are_right_and_the_least_of_equals() -> None:
    method = head(name="gda")
    assert method.alpha() == 1.0  # no row was tried
    tried = 1 << len(ALPHAS)
    method.notes.right = torch.tensor([tried | 0b000110, tried | 0b001100, tried | 0b001100, 0b100000])
    assert method.alpha() == 10.0
    method.notes.right = torch.tensor([tried, 0])
    assert method.alpha() == ALPHAS[0]


SUMS = [
    {"name": "gda", "alpha": 10.0},
    {"name": "gda", "alpha": 1.0, "shrinkage": 0.1, "unlearnable": True},
    {"name": "ncm"},
    {"name": "slda"},
    {"name": "ridge", "projection": None},
    {"name": "ridge", "projection": 30},
]


def scores(method: GDA | Ridge, x: torch.Tensor) -> torch.Tensor:
    return gaussian(method, x) if isinstance(method, GDA) else method.lift(x) @ method.weights(ABC)[0].T


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_rows_in_any_order_and_split_are_rows_at_once_and_what_is_taken_out_was_never_there(settings: dict) -> None:
    def taught(*parts: list[int]) -> GDA | Ridge:
        method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
        for part in parts:
            method.add(every.take(part))
        return method

    drawn = torch.Generator().manual_seed(5)
    x = torch.nn.functional.normalize(torch.randn(200, 32, generator=drawn, dtype=torch.float64), dim=1)
    every = Taught([str(row % 3) for row in range(200)], x, x, torch.randperm(5000, generator=drawn)[:200])
    whole, asked = taught(list(range(200))), x[:7] + 0.1

    def near(method: GDA | Ridge) -> torch.Tensor:
        return distances(asked, method.moments.means(ABC)[0], method.metric().inverse)

    shuffled = torch.randperm(200, generator=drawn).tolist()
    for parts in ((shuffled,), (shuffled[:50], shuffled[50:]), (list(range(100, 200)), list(range(100)))):
        assert torch.allclose(scores(taught(*parts), asked), scores(whole, asked), atol=1e-10)
        assert torch.allclose(near(taught(*parts)), near(whole), rtol=1e-10)
    whole.subtract(every.take(shuffled[:80]))
    assert torch.equal(whole.moments.second, whole.moments.second.T)
    assert torch.allclose(near(whole), near(taught(shuffled[80:])), rtol=1e-10)
    assert torch.allclose(scores(whole, asked), scores(taught(shuffled[80:]), asked), atol=1e-10)


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_a_new_class_changes_no_sum_of_another_and_a_turn_of_all_features_no_score(settings: dict) -> None:
    x, names = features(12, 6), labels(5, 4, 3)
    method = head(**settings)
    if settings.get("projection"):
        return  # random features do not turn along
    if isinstance(method, Ridge):
        method = head(**(settings | {"penalty": 0.1}))
    method.add(rows(x, names))
    tables = [method.moments.sums, *([method.sums] if isinstance(method, Ridge) else [])]
    before = [table.rows.clone() for table in tables]
    unturned = scores(method, x)
    turn = torch.linalg.qr(torch.randn(6, 6, generator=torch.Generator().manual_seed(0), dtype=torch.float64))[0]
    turned = head(**(settings | ({"penalty": 0.1} if isinstance(method, Ridge) else {})))
    turned.add(rows(x @ turn, names))
    assert torch.allclose(scores(turned, x @ turn), unturned, atol=1e-9)
    method.add(rows(features(4, 6, 50), ["3"] * 4))
    assert all(torch.equal(table.rows[:3], rows) for table, rows in zip(tables, before, strict=True))


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_one_row_one_class_and_rows_that_are_all_equal_give_numbers(settings: dict) -> None:
    for x, names in ((features(1, 6), ["0"]), (features(5, 6), ["0"] * 5), (features(1, 6).expand(6, 6).clone(), labels(2, 2, 2))):
        wide = torch.nn.functional.pad(x, (0, 26))
        method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
        method.add(rows(wide, names))
        method.note(rows(wide, names), ())
        assert scores(method, wide).isfinite().all() and not method.notes.familiar.isnan().any()
        assert method.notes.familiar.isfinite().all() == (len(x) > 1)  # of the only row of a class nothing is known


def test_a_class_is_forgotten_without_its_images_as_if_it_had_never_been_taught() -> None:
    x, names = features(12, 6), labels(5, 4, 3)
    method, rest = head(name="gda", unlearnable=True), head(name="gda", unlearnable=True)
    method.add(rows(x, names))
    method.note(rows(x, names), ())
    rest.add(rows(x, names).take([0, 1, 2, 3, 4, 9, 10, 11]))
    method.forget(["1"])
    assert method.moments.sums.names == rest.moments.sums.names == ["0", "2"] and method.notes.prints.tolist() == [0, 1, 2, 3, 4]
    assert torch.allclose(gaussian(method, x, ["0", "2"]), gaussian(rest, x, ["0", "2"]), atol=1e-10)
    with pytest.raises(MethodError, match="class '1' was not learned here"):
        method.forget(["1"])
    with pytest.raises(MethodError, match="unlearnable: true"):
        head(name="gda").forget(["0"])
    partly = head(name="gda", unlearnable=True)
    partly.config = head(name="gda").config
    partly.add(rows(x, names).take([0, 1]))
    partly.config = method.config
    partly.add(rows(x, names).take([2, 3]))
    with pytest.raises(MethodError, match="not all of it while unlearnable was on"):
        partly.forget(["0"])
    assert partly.moments.count == 4


def test_expectation_maximisation_is_the_worked_one_and_that_of_scikit_learns_tied_mixture() -> None:
    x, text = features(30, 4), texts(3, 4)
    weights, second, told = (10 * x @ text.T).softmax(1), x.T @ x, []
    start = weights
    for _ in range(6):
        mixture, weights = maximised(x, second, weights, 1e-3)
        told.append(mixture.likelihood)
    assert mixture.shares.tolist() == pytest.approx([0.270975, 0.493849, 0.235176], abs=5e-7)
    assert mixture.means[0].tolist() == pytest.approx([0.498387, 0.129534, -0.118141, 0.042198], abs=5e-7)
    assert told == pytest.approx([-80.584537, -78.411828, -77.289558, -76.575130, -76.270942, -75.919629], abs=5e-7)

    class Started(GaussianMixture):  # from these weights
        def _initialize_parameters(self, rows: np.ndarray, *rest: object, **more: object) -> None:
            self._initialize(rows, start.numpy())

    oracle = Started(3, covariance_type="tied", reg_covar=1e-3, max_iter=5, tol=0)
    with pytest.warns(match="converge"):
        oracle.fit(x.numpy())
    assert np.allclose(oracle.means_, mixture.means, atol=1e-10) and np.allclose(oracle.covariances_, mixture.covariance, atol=1e-10)
    plain, weights = [], start
    for _ in range(20):
        mixture, weights = maximised(x, second, weights, 1e-9)
        plain.append(mixture.likelihood)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(plain))  # never falls
    assert torch.allclose(assigned(x, start).sum(1), torch.ones(30, dtype=torch.float64))


def test_rows_whose_class_is_known_hold_a_mixture_as_if_they_were_among_its_rows_and_its_likelihood_never_falls() -> None:
    x, known, names = features(30, 4), features(9, 4, 60), labels(4, 0, 3, 2)
    moments = Moments(4)
    moments.add(names, known)
    held, weights = Held.of(moments, ABC), (10 * x @ texts(3, 4).T).softmax(1)
    mixture, _ = maximised(x, x.T @ x, weights, 1e-3, held, equal=True)
    inside = torch.nn.functional.one_hot(torch.tensor([int(name) for name in names]), 4)[:, :3].double()
    every, whole = torch.cat([x, known[:7]]), torch.cat([weights, inside[:7]])  # the last two are of a class that is not asked about
    means = whole.T @ every / whole.sum(0)[:, None]
    assert torch.allclose(mixture.means, means, rtol=0, atol=1e-12)
    apart = torch.cat([every[:, None] - means, (known[7:] - known[7:].mean(0))[:, None].expand(2, 3, 4) / 3**0.5])
    covariance = torch.einsum("nk,nkd,nke->de", torch.cat([whole, torch.ones(2, 3).double()]), apart, apart) / 39
    covariance += 1e-3 * torch.eye(4, dtype=torch.float64)
    assert torch.allclose(mixture.covariance, covariance, rtol=0, atol=1e-12)
    normal = [torch.distributions.MultivariateNormal(mean, covariance) for mean in (*means, known[7:].mean(0))]
    told = torch.stack([each.log_prob(x) for each in normal[:3]], 1).logsumexp(1).sum() - 30 * math.log(3)
    told = told + sum(normal[int(name)].log_prob(row) for name, row in zip(names, known, strict=True))
    assert mixture.likelihood == pytest.approx(float(told), rel=1e-12)
    likelihoods = []
    for _ in range(20):
        mixture, weights = maximised(x, x.T @ x, weights, 1e-9, held, equal=True)
        likelihoods.append(mixture.likelihood)
    assert all(later >= earlier - 1e-6 for earlier, later in itertools.pairwise(likelihoods)) and likelihoods[-1] > likelihoods[0] + 1


def test_two_labels_a_class_are_not_outvoted_by_rows_that_zero_shot_mistakes() -> None:
    drawn = torch.Generator().manual_seed(2)
    centres = torch.nn.functional.normalize(torch.randn(8, 32, generator=drawn, dtype=torch.float64), dim=1)
    own = torch.arange(400) % 8
    x = torch.nn.functional.normalize(centres[own] + 0.25 * torch.randn(400, 32, generator=drawn, dtype=torch.float64), dim=1)
    names = tuple(ClassName(str(place), ("",)) for place in range(8))
    right = {}
    for unlabelled in ("leave_out", "em"):
        method = CONFIGS["gda"](unlabelled=unlabelled).build(CLIP, 0)
        method.texts = lambda classes: centres.roll(1, 0)[[int(each.name) for each in classes]]  # type: ignore[method-assign] - all wrong
        method.teach(Taught([names[place].name for place in own[:16]], x[:16], x[:16], torch.arange(16)), names)
        if unlabelled == "em":
            guess = method.ranked(Looked(x[16:200], x[16:200]), method.class_features(names)).logits.softmax(1)
            method.weigh(x[16:200], [each.name for each in names], guess)
        weights, bias, _ = method.discriminant([each.name for each in names])
        right[unlabelled] = float(((x[200:] @ weights.T + bias).argmax(1) == own[200:]).double().mean())
    assert right["em"] > right["leave_out"] + 0.05 and right["em"] > 0.9, right


def test_a_class_of_which_no_row_is_found_stays_untaught(monkeypatch: pytest.MonkeyPatch) -> None:
    method, x, holding = head(name="gda", unlearnable=True), features(12, 6), []
    found = torch.eye(3, dtype=torch.float64)[[0, 2] * 6]
    monkeypatch.setattr("cl.methods.closed_form.gda.assigned", lambda x, guess, held: holding.append(held) or found)
    for _ in range(2):
        method.weigh(x, ABC, torch.full((12, 3), 1 / 3, dtype=torch.float64))
    assert method.moments.sums.names == method.apart.names == ["0", "2"] and gaussian(method, x).isfinite().all()
    assert holding[0] is None and holding[1].counts.tolist() == [6, 0, 6] and holding[1].rows == 12  # what is known by then


def named_by_sight(method: GDA, known: tuple[int, ...]) -> None:
    """Put in place of the tiny model's random texts what its images of a colour have in common."""
    every = method.read(make.table(known, 4, seed=90))
    means = {name: every.unit[[each == name for each in every.names]].mean(0) for name in set(every.names)}
    method.texts = lambda classes: torch.nn.functional.normalize(torch.stack([means[each.name] for each in classes]), dim=1)  # type: ignore[method-assign]


def test_rows_without_a_label_teach_as_far_as_they_are_of_each_class_and_labels_hidden_in_them_change_nothing() -> None:
    session = make.session(1, (0, 1, 2, 3), (0, 1, 2, 3))
    bare = replace(session, data=session.data.without("label"))
    by_em, told = (CONFIGS["gda"](**more).build(CLIP, 0) for more in ({"unlabelled": "em", "unlearnable": True}, {}))
    by_em.clip.scale = lambda: torch.tensor(1000.0)  # type: ignore[method-assign] - colours are close to each other here
    try:
        named_by_sight(by_em, (0, 1, 2, 3))
        for method, taught in ((by_em, bare), (told, session)):
            method.check(taught)
            method.begin(taught)
            method.end(taught)
    finally:
        del CLIP.scale
    assert by_em.moments.count == pytest.approx(32) and len(by_em.notes) == 0
    places = [by_em.moments.sums.names.index(name) for name in told.moments.sums.names]
    assert torch.allclose(by_em.moments.sums.rows[places], told.moments.sums.rows, atol=0.1)
    assert torch.allclose(by_em.moments.second, told.moments.second, atol=1e-10)
    assert torch.allclose(by_em.apart.rows.sum(0), by_em.moments.second.flatten(), atol=1e-10)
    by_em.forget(["red"])
    assert by_em.moments.count == pytest.approx(24, abs=0.1)


def test_zero_shot_near_chance_is_refused_and_changes_nothing_and_labels_of_each_class_begin_in_its_place(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    session = make.session(1, (0, 1, 2, 3), (0, 1, 2, 3))
    half = replace(session, data=concat([session.data.take(range(16)), session.data.take(range(16, 32)).without("label")]))
    method = CONFIGS["gda"](unlabelled="em").build(CLIP, 0)
    method.check(half)
    assert len(method.begin(half)) == 32
    with pytest.raises(MethodError, match=r"session 1 \(session 1\): zero-shot gives its likeliest class 0.\d\d on average, .* needs 0.50"):
        method.end(half)
    assert method.moments.count == 0 and not len(method.notes)
    started: list[torch.Tensor] = []
    monkeypatch.setattr("cl.methods.closed_form.gda.assigned", lambda x, guess, held: assigned(x, started.append(guess) or guess, held))
    method.end(replace(session, data=session.data.unlabelled(range(0, 32, 4))))
    assert started[0].argmax(1).tolist() == [0, 0, 1, 1, 2, 2, 3, 3]
    assert method.moments.count == pytest.approx(32) and len(method.notes) == 24
    taught = method.read(session.data.where([row % 4 > 0 for row in range(32)]))
    own = torch.tensor([method.moments.sums.names.index(name) for name in taught.names])
    assert torch.allclose(method.notes.familiar, method.left_out(taught, own), rtol=1e-9)  # as of all rows, those without a label too
    with pytest.raises(MethodError, match="none of its 32 rows has a label"):
        CONFIGS["gda"]().build(CLIP, 0).check(replace(session, data=session.data.without("label")))


@pytest.mark.parametrize("settings", [{"name": "gda"}, {"name": "ridge", "projection": 30}], ids=str)
def test_rows_that_were_never_added_are_not_taken_out_and_nothing_changes(settings: dict) -> None:
    drawn = torch.Generator().manual_seed(5)
    x = torch.nn.functional.normalize(torch.randn(60, 32, generator=drawn, dtype=torch.float64), dim=1)
    every = Taught([str(row % 3) for row in range(60)], x, x, torch.arange(60))
    method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
    method.add(every.take(list(range(45))))
    method.note(every.take(list(range(45))), ())
    before = {name: tensor.clone() for name, tensor in memory(method).items()}
    strange = rows(x[:2], ["9", "9"])
    far = Taught(every.names[:9], 5 * x[:9], x[:9], torch.arange(9))
    for wrong, told in ((strange, r"never taught here \(9\)"), (far, "no rows|rows would be left")):
        with pytest.raises(MethodError, match=told):
            method.subtract(wrong)
        after = memory(method)
        assert before.keys() == after.keys() and all(torch.equal(before[name], after[name]) for name in before)


def test_a_ridge_whose_first_rows_an_older_release_learned_forgets_them_and_its_gate_begins_anew() -> None:
    drawn = torch.Generator().manual_seed(5)
    x = torch.nn.functional.normalize(torch.randn(60, 32, generator=drawn, dtype=torch.float64), dim=1)
    every = Taught([str(row % 3) for row in range(60)], x, x, torch.arange(60))
    old, config = every.take(list(range(30))), CONFIGS["ridge"](projection=30)
    method, rest = config.build(CLIP, 0), config.build(CLIP, 0)
    method.add(old)
    method.moments.clear()
    method.folds.clear()
    rest.add(every.take(list(range(30, 60))))
    method.add(every.take(list(range(30, 60))))
    method.note(every.take(list(range(30, 60))), ())
    method.subtract(old)
    assert torch.allclose(method.gram, rest.gram, atol=1e-10) and torch.allclose(method.sums.rows, rest.sums.rows, atol=1e-10)
    assert method.moments.count == 0 and not len(method.notes) and not method.folds.grams.any()
    assert method.penalty() == UNJUDGED and method.weights(ABC)[0].isfinite().all()


@pytest.mark.parametrize("name", ["gda", "ridge"])
def test_unprojected_features_are_wider_and_their_projection_is_the_feature(name: str) -> None:
    clip = build(TINY | {"embed_dim": 16})
    wide = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    unit, pooled = both(clip, wide)
    assert torch.allclose(unit, clip.encode_image(wide), atol=1e-6) and width(clip) == pooled.shape[1] > unit.shape[1] == 16
    assert torch.allclose(torch.nn.functional.normalize(pooled @ clip.model.visual.proj, dim=1), unit, atol=1e-5)
    small = {"projection": 40} if name == "ridge" else {}
    method = CONFIGS[name](features="unprojected", **small).build(clip, 0)
    one, two = make.stream((0, 1), (2, 3)).sessions
    for session in (one, two):
        method.begin(session)
        method.end(session)
    assert len(method.moments.second) == pooled.shape[1]
    data = make.table((0, 1, 2, 3), 4, seed=77)
    images = torch.stack([clip.transform()(data.image(row)) for row in range(len(data))])
    with torch.no_grad():
        answers = method.classify(images, method.class_features(two.vocabulary)).argmax(1)
    assert [two.vocabulary[place].name for place in answers.tolist()] == data.labels


def test_a_tower_that_pools_and_projects_in_one_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="this model's \\(ModifiedResNet\\) does not; choose features projected"):
        CONFIGS["gda"](features="unprojected").build(family("RN", tmp_path), 0)
    assert CONFIGS["gda"](features="unprojected").build(family("SigLIP", tmp_path), 0).width > 0


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_no_evaluation_set_is_read_while_a_session_is_learned(settings: dict) -> None:
    session = make.session(1, (0, 1), (0, 1))

    class Poisoned:
        def __getattr__(self, name: str) -> object:
            raise AssertionError(f"a test image was asked for its {name}")

    object.__setattr__(session, "tests", (Poisoned(),))
    method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
    learn(method, session, TrainConfig(device="cpu"), 0)
    assert method.moments.count == 16
    if isinstance(method, Ridge):  # what took a while to find is kept, and is what would be found again
        assert float(method.folds.chosen) == method.best_penalty() == method.penalty() in PENALTIES


def test_a_penalty_without_end_orders_classes_by_their_sums_and_an_alpha_of_0_is_zero_shot() -> None:
    x, names, asked = features(12, 6), labels(5, 4, 3), features(4, 6, 50)
    method = head(name="ridge", penalty=1e9, projection=None)
    method.add(rows(x, names))
    sums = torch.stack([x[[name == each for name in names]].sum(0) for each in ABC])
    assert torch.equal((asked @ method.weights(ABC)[0].T).argsort(1), (asked @ sums.T).argsort(1))
    zero = CONFIGS["gda"](alpha=0.0).build(CLIP, 0)
    session = make.session(1, (0, 1), (0, 1))
    learn(zero, session, TrainConfig(device="cpu"), 0)
    images = torch.randn(3, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        plain = CONFIGS["zero_shot"]().build(CLIP, 0)
        want = plain.classify(images, plain.class_features(session.vocabulary)).double()
        assert torch.allclose(zero.classify(images, zero.class_features(session.vocabulary)), want, atol=1e-4)


@pytest.mark.slow
def test_random_features_tell_clusters_that_lie_crosswise_and_plain_ones_do_not() -> None:
    drawn = torch.Generator().manual_seed(0)
    corners = torch.tensor([[1.0, 1.0], [-1.0, -1.0], [1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)

    def crossed(each: int) -> Taught:
        x = torch.cat([corners.repeat_interleave(each, 0), torch.zeros(4 * each, 30, dtype=torch.float64)], 1)
        x = torch.nn.functional.normalize(x + 0.2 * torch.randn(x.shape, generator=drawn, dtype=torch.float64), dim=1)
        return Taught(["0"] * (2 * each) + ["1"] * (2 * each), x, x, torch.randint(0, 10**9, (4 * each,), generator=drawn))

    told, asked = crossed(60), crossed(60)
    right = {}
    for projection in (None, 2000):
        method = CONFIGS["ridge"](projection=projection).build(CLIP, 0)
        method.add(told)
        answers = (method.lift(asked.wide) @ method.weights(["0", "1"])[0].T).argmax(1)
        right[projection] = float((answers == torch.tensor([int(name) for name in asked.names])).double().mean())
    assert right[2000] > 0.9 > 0.7 > right[None]
