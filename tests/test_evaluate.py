"""Scores: against hand-made cases and plain loops, and that measuring leaves no trace."""

import numpy as np
import torch

from cl.config import EvalConfig
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
