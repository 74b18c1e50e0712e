"""Scores: against hand-made cases and plain loops, and that measuring leaves no trace."""

import numpy as np
import pytest
import torch

from cl.config import EvalConfig
from cl.evaluation.alike import among_images
from cl.evaluation.evaluate import evaluate, rank_of, retrieval, spread
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from tests import make


def test_retrieval_agrees_with_a_plain_loop_over_sorted_lists() -> None:
    random = np.random.default_rng(0)
    owner = np.repeat(np.arange(30), 3)
    similarity = random.normal(size=(30, 90)) + 1.5 * (owner[None] == np.arange(30)[:, None])
    metrics = retrieval(similarity, owner).metrics
    for k in (1, 5, 10):
        i2t = np.mean([any(owner[j] == i for j in np.argsort(-similarity[i])[:k]) for i in range(30)])
        t2i = np.mean([owner[j] in np.argsort(-similarity[:, j])[:k] for j in range(90)])
        assert metrics[f"t2i@{k}"] == t2i
        assert metrics[f"recall@{k}"] == (metrics[f"i2t@{k}"] + t2i) / 2
        # the best own text among k of all texts, or above all but k - 1 wrong ones: the same thing for k = 1
        assert metrics[f"i2t@{k}"] >= i2t and (k > 1 or metrics["i2t@1"] == i2t)


def test_features_that_collapsed_find_nothing() -> None:
    metrics = retrieval(np.ones((50, 50)), np.arange(50)).metrics
    assert metrics["i2t@10"] == metrics["t2i@10"] == 0.0


def test_a_matching_pair_first_everywhere_is_a_full_score() -> None:
    assert set(retrieval(np.eye(12), np.arange(12)).metrics.values()) == {1.0}


def test_images_find_their_class_among_the_others() -> None:
    i, j = np.mgrid[0:12, 0:6]
    features = np.sin((6 * i + j) ** 2) + 0.2
    features /= np.linalg.norm(features, axis=1, keepdims=True)
    labels = np.arange(12) % 3
    scores = among_images(features, labels)
    assert scores["image_recall@1"] == pytest.approx(1 / 3, abs=1e-9) and scores["image_map"] == pytest.approx(0.431671878, abs=1e-9)
    turned = np.linalg.qr(np.sin((7 * j[:6] + i[:6]) ** 2.0))[0]
    assert among_images(features @ turned, labels) == pytest.approx(scores, abs=1e-12)
    order = np.argsort(np.sin(labels + np.arange(12.0) ** 2))
    assert among_images(features[order], 9 - labels[order]) == pytest.approx(scores, abs=1e-12)


def test_images_that_collapsed_find_no_class_and_classes_of_one_image_are_not_asked() -> None:
    flat = among_images(np.ones((6, 1)), np.array([0, 0, 0, 1, 1, 1]))
    assert flat["image_recall@1"] == 0.0 and flat["image_map"] == pytest.approx(np.mean([1 / 2.5, 2 / 3.5]))
    assert np.isnan(list(among_images(np.eye(3), np.arange(3)).values())).all()


def test_rank_counts_ties_half() -> None:
    assert rank_of(np.array([[1.0, 2.0, 1.0]]), np.array([0])).tolist() == [1.5]


def test_limiting_a_set_spreads_over_it() -> None:
    rows = make.table(range(8), 10)
    assert spread(rows, 8).classes() == rows.classes()
    assert spread(rows, 1000) is rows and spread(rows, None) is rows


def test_top1_agrees_with_open_clip_image_by_image() -> None:
    method = ZeroShotConfig().build(make.tiny(), 0)
    stream = make.stream((0, 1, 2), (3, 4))
    examined = stream.exam(0)[0]
    score = evaluate(method, [examined], EvalConfig(batch_size=5))[examined.name]
    clip = method.clip.eval()
    index = {c.name: i for i, c in enumerate(examined.classes)}
    with torch.no_grad():
        texts = clip.model.encode_text(make.padded(clip, clip.tokenize([c.prompts[0] for c in examined.classes])), normalize=True)
        right = []
        for row, label in enumerate(examined.data.labels):
            image = clip.model.encode_image(clip.transform()(examined.data.image(row))[None], normalize=True)
            right.append(int((image @ texts.T).argmax()) == index[label or ""])
    assert score.hits.tolist() == right and score.metrics["top1"] == np.mean(right)


def test_measuring_changes_neither_weights_nor_mode_nor_random_state() -> None:
    method = ZeroShotConfig().build(make.tiny(), 0).train()
    before = {name: value.clone() for name, value in method.state_dict().items() if isinstance(value, torch.Tensor)}
    state = torch.get_rng_state()
    evaluate(method, make.stream((0, 1)).exam(0), EvalConfig())
    assert method.training and torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], method.state_dict()[name]) for name in before)


def test_a_set_with_captions_is_scored_both_ways() -> None:
    method = ZeroShotConfig().build(make.tiny(), 0)
    stream = make.stream((0, 1), labels=False, captions=True)
    scores = evaluate(method, stream.exam(0), EvalConfig())
    assert set(scores["set 1"].metrics) >= {"i2t@1", "t2i@10", "recall@5"}
    assert set(scores["probe"].metrics) == {"top1", "top5", "worst_class", "ece"}
    asked = evaluate(method, stream.exam(0), EvalConfig(alike=True))
    assert {*asked["probe"].metrics} - {*scores["probe"].metrics} == {"image_recall@1", "image_map"}
    assert asked["set 1"].metrics == scores["set 1"].metrics  # no label, no class to find
