"""Worked numbers of heads by their definitions in NumPy, to more digits than are printed, and what official codes make of them."""

import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, logsumexp, softmax

from cl.methods import CONFIGS
from cl.methods.closed_form.em import maximised
from cl.methods.closed_form.gate import text_score
from cl.methods.closed_form.moments import Metric, Moments, left_out
from cl.methods.closed_form.taught import Taught
from cl.methods.closed_form.votes import cached
from cl.methods.losses import classification
from cl.methods.persist import memory
from tests.test_heads import ABC, CLIP, SUMS, gaussian, head, rows, scores
from tests.worked import features, labels, texts

EXACT = {"rtol": 0, "atol": 1e-12}
X, NAMES = features(12, 6), labels(5, 4, 3)
MIXED = [*"001102210210"]
Array = np.ndarray


def scattered(x: Array, y: Array, means: Array) -> Array:
    """Within classes."""
    centred = x - means[y]
    return np.asarray(centred.T @ centred)


def averages(x: Array, y: Array, count: int = 3) -> Array:
    return np.stack([x[y == each].mean(0) for each in range(count)])


def test_discriminants_with_and_without_shrinkage_are_those_of_their_definition() -> None:
    x, asked = X.numpy(), features(2, 6, 20)
    for names, settings, alone in ((NAMES, {"alpha": 1.0}, False), (MIXED, {"alpha": "alone", "shrinkage": 1e-4}, True)):
        y = np.array([int(name) for name in names])
        means = averages(x, y)
        within = scattered(x, y, means)
        if alone:
            metric = np.linalg.inv((1 - 1e-4) * within / 12 + 1e-4 * np.eye(6))
        else:
            metric = 6 * np.linalg.inv(within + np.trace(within / 11) * np.eye(6))
        told = asked.numpy() @ metric @ means.T - np.einsum("kd,de,ke->k", means, metric, means) / 2
        method = head(name="gda", **settings)
        method.add(rows(X, names))
        np.testing.assert_allclose(gaussian(method, asked), told, rtol=1e-12)


def test_cosines_with_means_and_ridge_on_random_features_are_those_of_their_definition() -> None:
    thirds, asked = np.arange(12) % 3, features(2, 6, 40)
    means = averages(X.numpy(), thirds)
    method = head(name="ncm")
    method.add(rows(X, [str(each) for each in thirds]))
    told = asked.numpy() @ (means / np.linalg.norm(means, axis=1, keepdims=True)).T
    np.testing.assert_allclose(gaussian(method, asked), told, **EXACT)
    lifted, asked_too = (np.maximum(each.numpy() @ random_features(), 0) for each in (features(30, 6), asked))
    indicators = np.eye(3)[np.arange(30) % 3]
    wide = head(name="ridge", penalty=2 / 20, projection=20)
    wide.random = torch.from_numpy(random_features())
    wide.add(rows(features(30, 6), [str(row % 3) for row in range(30)]))
    told = asked_too @ np.linalg.solve(lifted.T @ lifted + np.eye(20), lifted.T @ indicators)
    np.testing.assert_allclose(scores(wide, asked), told, **EXACT)


def random_features() -> Array:
    j, m = np.arange(6)[:, None], np.arange(20)
    return np.asarray(2**0.5 * np.sin(11 * j + 3 * m + j * m))


def test_caches_and_scores_by_texts_are_those_of_their_definition() -> None:
    keys, asked, words, owners = features(6, 4), features(2, 4, 6), texts(3, 4), [0, 1, 2, 0, 1, 2]
    for beta in (1.0, 5.5):
        told = [
            [sum(math.exp(-beta * (1 - float(q @ k))) for k, own in zip(keys, owners, strict=True) if own == each) for each in range(3)]
            for q in asked
        ]
        np.testing.assert_allclose(cached(asked, keys, torch.tensor(owners), 3, beta), told, **EXACT)
    logits = 100 * asked @ words.T + cached(asked, keys, torch.tensor(owners), 3, 5.5)
    told = -log_softmax(logits.numpy(), 1)[[0, 1], [1, 2]].mean()
    assert float(classification(logits, torch.tensor([1, 2]))) == pytest.approx(told, rel=1e-12)
    cosines = features(3, 6, 8) @ texts(5, 6).T
    for tau in (1.0, 0.01):
        np.testing.assert_allclose(text_score(cosines, "mcm", tau), softmax(cosines.numpy() / tau, 1).max(1), **EXACT)
    for scaled in (cosines, 100 * cosines):
        np.testing.assert_allclose(text_score(scaled, "energy", 1.0), logsumexp(scaled.numpy(), 1), rtol=1e-12)


def test_the_worked_distance_without_its_row_is_that_of_the_eleven_others() -> None:
    y = np.array([int(name) for name in NAMES])
    moments = Moments(6)
    moments.add(NAMES, X)
    means, counts, _ = moments.means(ABC)
    metric = Metric((moments.scatter() + 0.05 * torch.eye(6, dtype=torch.float64)).inverse(), 1.0)
    alone = left_out(X, torch.from_numpy(y), means, counts, metric)
    for row in range(12):
        x, rest = np.delete(X.numpy(), row, 0), np.delete(y, row)
        centres = averages(x, rest)
        apart = X[row].numpy() - centres
        told = np.einsum("kd,de,ke->k", apart, np.linalg.inv(scattered(x, rest, centres) + 0.05 * np.eye(6)), apart)
        np.testing.assert_allclose(alone[row], told, rtol=1e-10)


def test_a_mixture_is_that_of_its_definition_and_starts_with_what_it_was_given() -> None:
    x, words = features(30, 4), texts(3, 4)
    start = softmax(10 * x.numpy() @ words.numpy().T, 1)
    mixture, weights = maximised(x, x.T @ x, torch.from_numpy(start), 1e-3)
    means = start.T @ x.numpy() / start.sum(0)[:, None]
    apart = x.numpy()[:, None] - means
    covariance = np.einsum("nk,nkd,nke->de", start, apart, apart) / 30 + 1e-3 * np.eye(4)
    joint = np.log(start.mean(0)) - 0.5 * (
        np.einsum("nkd,de,nke->nk", apart, np.linalg.inv(covariance), apart) + np.linalg.slogdet(covariance)[1] + 4 * math.log(2 * math.pi)
    )
    np.testing.assert_allclose(mixture.covariance, covariance, **EXACT)
    np.testing.assert_allclose(mixture.means, means, **EXACT)
    assert mixture.likelihood == pytest.approx(logsumexp(joint, 1).sum(), rel=1e-12)
    np.testing.assert_allclose(weights, softmax(joint, 1), rtol=1e-10)


def test_scatter_row_by_row_and_part_by_part_is_the_one_of_sums() -> None:
    x, y = X.numpy(), np.array([int(name) for name in MIXED])
    whole, parts = Moments(6), (Moments(6), Moments(6))
    whole.add(MIXED, X)
    count, means, within = np.zeros(3), np.zeros((3, 6)), np.zeros((6, 6))
    for row, each in zip(x, y, strict=True):  # Welford
        apart = row - means[each]
        within += count[each] / (count[each] + 1) * np.outer(apart, apart)
        means[each] += apart / (count[each] + 1)
        count[each] += 1
    np.testing.assert_allclose(whole.scatter(), within, **EXACT)
    for part, some in zip(parts, (slice(0, 5), slice(5, 12)), strict=True):
        part.add(MIXED[some], X[some])
    (one, n, _), (two, m, _) = (part.means(ABC) for part in parts)
    apart = one - two
    chan = parts[0].scatter() + parts[1].scatter() + (apart.T * (n * m / (n + m))) @ apart
    np.testing.assert_allclose(whole.scatter(), chan, **EXACT)
    merged = [parts[0].sums.find(ABC)[0] + parts[1].sums.find(ABC)[0], parts[0].second + parts[1].second]
    np.testing.assert_allclose(whole.sums.find(ABC)[0], merged[0], **EXACT)
    np.testing.assert_allclose(whole.second, merged[1], **EXACT)


def recursed(x: Array, y: list[int]) -> tuple[Array, Array]:
    """The covariance and means of Deep SLDA's code: a new class's first row adds all of itself, and the count is that of all classes."""
    covariance, means, counts = np.zeros((6, 6)), np.zeros((5, 6)), np.zeros(5)
    for seen, (row, each) in enumerate(zip(x, y, strict=True)):
        apart = row - means[each]
        covariance = (seen * covariance + seen / (seen + 1) * np.outer(apart, apart)) / (seen + 1)
        counts[each] += 1
        means[each] += apart / counts[each]
    return covariance, means


def test_streaming_discriminants_do_not_hang_on_the_order_as_the_official_recursion_does() -> None:
    x, y, asked = X.numpy(), [int(name) for name in MIXED], features(2, 6, 20).numpy()
    official = {1: (1.002421, [-14.264463, 5.332755, 2.434469]), -1: (1.069322, [-17.875396, 6.101268, 2.831468])}
    ours = []
    for way, (trace, logits) in official.items():
        covariance, means = recursed(x[::way], y[::way])
        metric = np.linalg.inv((1 - 1e-4) * covariance + 1e-4 * np.eye(6))
        bias = np.einsum("kd,de,ke->k", means, metric, means) / 2
        assert np.trace(covariance) == pytest.approx(trace, abs=5e-7)
        assert (asked @ metric @ means.T - bias)[0, :3].tolist() == pytest.approx(logits, abs=5e-7)
        strangers = (features(100, 6, 100).numpy() @ metric @ means.T - bias).argmax(1) > 2  # classes without a row score 0 there
        assert strangers.sum() == 21
        method = head(name="slda")
        method.add(rows(X.flip(0) if way < 0 else X, MIXED[::way]))
        ours.append((gaussian(method, features(2, 6, 20)), float(method.moments.scatter().trace()) / 12))
        assert method.discriminant([*ABC, "3", "4"])[2].tolist() == [True] * 3 + [False] * 2  # which zero-shot answers for
    assert torch.allclose(ours[0][0], ours[1][0], rtol=0, atol=1e-10)
    assert [each[1] for each in ours] == pytest.approx([0.689792] * 2, abs=5e-7)


def test_a_penalty_does_not_hang_on_the_last_session_as_the_official_choice_does() -> None:
    x, y = features(30, 6), np.arange(30) % 3
    lifted, grid = np.maximum(x.numpy() @ random_features(), 0), [10.0**power for power in range(-8, 9)]

    def official(chosen: Array) -> float:  # of a session's rows the first four fifths say, the last judge
        phi, told, most = lifted[chosen], np.eye(3)[y[chosen]], int(len(chosen) * 0.8)
        gram, sums = phi[:most].T @ phi[:most], phi[:most].T @ told[:most]
        wrong = [((phi[most:] @ np.linalg.solve(gram + each * np.eye(20), sums) - told[most:]) ** 2).mean() for each in grid]
        return grid[int(np.argmin(wrong))]

    sessions = [np.flatnonzero(y < 2), np.flatnonzero(y == 2)]
    assert [official(each) for each in (*sessions, np.arange(30))] == [1.0, 1.0, 10.0]
    every = Taught([str(each) for each in y], x, x, torch.arange(30))
    chosen, grams = set(), []
    for parts in (sessions, sessions[::-1], [np.arange(30)]):
        method = CONFIGS["ridge"](projection=20).build(CLIP, 0)
        method.random = torch.from_numpy(random_features())
        method.moments, method.width = Moments(6), 6
        for part in parts:
            method.add(every.take(part.tolist()))
        chosen.add(method.penalty())
        grams.append(method.folds.grams)
    assert len(chosen) == 1 and all(torch.allclose(each, grams[0], **EXACT) for each in grams)


def test_the_recursion_of_rail_is_ridge_and_its_penalty_is_in_units_of_its_own_layer() -> None:
    inverse, weights = np.eye(6) / 0.1, np.zeros((6, 3))
    for each in ABC:  # a class at a time
        phi, told = X[[name == each for name in MIXED]].numpy(), np.eye(3)[[int(each)] * MIXED.count(each)]
        inverse = inverse - inverse @ phi.T @ np.linalg.inv(np.eye(len(phi)) + phi @ inverse @ phi.T) @ phi @ inverse
        weights = weights + inverse @ phi.T @ (told - phi @ weights)
    method = head(name="ridge", penalty=0.1, projection=None)
    method.add(rows(X, MIXED))
    np.testing.assert_allclose(method.weights(ABC)[0].T, weights, **EXACT)
    drawn = np.random.default_rng(0).uniform(-1, 1, (512, 15_000)) / 512**0.5
    unit = np.random.default_rng(1).normal(size=512)
    length = np.square(np.maximum(unit / np.linalg.norm(unit) @ drawn, 0)).sum()  # M / 6d, where ours is 1
    assert length == pytest.approx(15_000 / (6 * 512), rel=0.05) and CONFIGS["rail"]().penalty == pytest.approx(
        0.1 * 6 * 512 / 15_000, abs=5e-5
    )


@pytest.mark.parametrize("settings", SUMS, ids=str)
def test_another_order_of_the_names_is_another_order_of_the_answers_and_sums_are_in_double_precision(settings: dict) -> None:
    def taught(names: list[str]) -> list[torch.Tensor]:
        method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
        method.add(Taught(names, wide, wide, torch.arange(12)))
        assert {tensor.dtype for name, tensor in memory(method).items() if name.endswith(("rows", "second", "gram", "grams"))} == {
            torch.float64
        }
        return [scores(method, wide + 0.1)[:, place] for place in range(3)]

    wide = torch.nn.functional.pad(X, (0, 26))
    plain, renamed = taught(NAMES), taught([str((int(name) + 1) % 3) for name in NAMES])
    assert all(torch.allclose(plain[place], renamed[(place + 1) % 3], rtol=0, atol=1e-10) for place in range(3))


def test_states_are_as_large_as_their_sums() -> None:
    classes, beside = [f"class {place}" for place in range(40)], {"notes.", "extra"}

    def bytes_of(settings: dict) -> int:
        method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
        method.add(Taught(classes, torch.ones(40, 32).double(), torch.ones(40, 32).double(), torch.arange(40)))
        return sum(t.numel() * t.element_size() for name, t in memory(method).items() if not any(each in name for each in beside))

    moments = 8 * (32**2 + 40 * 33)
    assert bytes_of({"name": "gda"}) == moments
    assert bytes_of({"name": "gda", "unlearnable": True}) == moments + 8 * 40 * 32**2
    ridge = 8 * (50**2 + 40 * 50)
    assert bytes_of({"name": "ridge", "projection": 50, "penalty": 0.1}) == moments + ridge
    assert bytes_of({"name": "ridge", "projection": 50}) == moments + 2 * ridge + 8  # a fold, and the penalty
