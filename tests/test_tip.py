"""Caches of features beside zero-shot: to the published numbers, exact without any row, the same in any order, and trained by session."""

import math
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from cl.config import EvalConfig, TrainConfig
from cl.data.table import ImageTable, concat
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import ConfigError
from cl.evaluation.evaluate import evaluate
from cl.learning.learner import learn
from cl.methods import CONFIGS
from cl.methods.closed_form.keys import Keys, prints_of, without
from cl.methods.closed_form.tip import Tip, TipConfig, TrainedTip
from cl.methods.closed_form.votes import ALPHAS, BETAS, Kept, affinities, cached, left_out, scores
from cl.methods.persist import memory, restore
from cl.run_config import parse_config
from cl.streams.stream import Session
from tests import make

TRAIN = TrainConfig(max_steps=5, batch_size=8, lr=1e-2, device="cpu")


def waves(n: int, d: int, offset: int) -> Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None] + offset, torch.arange(d, dtype=torch.float64)
    return normalize(torch.sin(7 * i + j + i * j), dim=1)


def texts_of(n: int, d: int) -> Tensor:
    c, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return normalize(torch.cos(3 * c + 2 * j + c * j), dim=1)


X, Q, T = waves(6, 4, 0), waves(2, 4, 6), texts_of(3, 4)
Y = torch.tensor([0, 1, 2, 0, 1, 2])


def asked(texts: Tensor, keys: Tensor, owners: Tensor, alpha: float, beta: float) -> Tensor:
    """Rows as a method's class features have them."""
    own = [keys[owners == each] for each in range(len(texts))]
    told = torch.tensor([[alpha, beta, len(each)] for each in own], dtype=torch.float64)
    return torch.cat([texts, told, torch.nn.utils.rnn.pad_sequence(own, batch_first=True).flatten(1)], 1)


def close(values: Tensor, expected: list[float] | list[list[float]]) -> bool:
    return bool((values - torch.tensor(expected, dtype=torch.float64)).abs().max() < 5.1e-7)


def test_what_was_published_comes_out() -> None:
    zero_shot = [[-0.792603, 22.883329, -1.963938], [-97.801254, 1.387585, -74.807817]]
    assert close((Q @ X.T)[0], [-0.701993, -0.211281, -0.228749, -0.060448, -0.767513, 0.617713])
    assert close(100 * Q @ T.T, zero_shot)
    assert close(cached(Q, X, Y, 3, 5.5), [[0.003017, 0.001339, 0.123303], [0.083340, 0.058494, 0.015280]])
    assert close(cached(Q, X, Y, 3, 1.0), [[0.528621, 0.468573, 0.974958], [0.779262, 0.765274, 0.806943]])
    assert close(scores(Q, asked(T, X, Y, 1.0, 5.5), 100.0)[0], [-0.789586, 22.884668, -1.840635])
    assert close(cached(Q, 0.7 * X + 0.3 * waves(6, 4, 20), Y, 3, 5.5)[0], [0.003200, 0.002042, 0.070962])


def test_the_gradient_of_keys_is_the_one_by_hand() -> None:
    keys, labels = X.clone().requires_grad_(True), torch.tensor([1, 2])
    logits = 100 * Q @ T.T + cached(Q, keys, Y, 3, 5.5)
    loss = cross_entropy(logits, labels)
    loss.backward()
    assert abs(loss.item() - 38.119307) < 5.1e-7 and keys.grad is not None and abs(keys.grad.norm().item() - 0.164108) < 5.1e-7
    wrong = (logits.detach().softmax(1) - torch.eye(3, dtype=torch.float64)[labels]) / 2
    by_hand = 5.5 * torch.stack([((affinities(Q, X, 5.5)[:, i] * wrong[:, Y[i]])[:, None] * Q).sum(0) for i in range(6)])
    assert (keys.grad - by_hand).abs().max() < 1e-15


def test_limits_are_zero_shot_counts_and_the_nearest_key() -> None:
    counts = torch.tensor([0, 0, 0, 1, 1, 2])
    assert torch.equal(scores(Q, asked(T, X, counts, 0.0, 5.5), 100.0), torch.stack([100 * (Q @ each) for each in T], 1))
    assert (scores(Q, asked(T, X, counts, 1.0, 0.0), 0.0) - torch.tensor([3.0, 2.0, 1.0])).abs().max() < 1e-15
    sharp = scores(Q, asked(T, X, Y, 1.0, 200.0), 0.0)
    assert torch.equal(sharp.argmax(1), Y[(Q @ X.T).argmax(1)])


def test_a_class_without_a_key_is_zero_shot_and_another_class_changes_no_bit() -> None:
    texts = texts_of(5, 4)
    few, more = (scores(Q, asked(texts[:k], X, Y, 3.0, 5.5), 100.0) for k in (3, 5))
    assert torch.equal(few, more[:, :3]) and torch.equal(more[:, 4], 100 * (Q @ texts[4]))
    many = torch.cat([Y, torch.full((20,), 3)])  # and one with more keys than any of them
    assert torch.equal(few, scores(Q, asked(texts, torch.cat([X, waves(20, 4, 30)]), many, 3.0, 5.5), 100.0)[:, :3])


def test_one_image_alone_is_answered_as_in_a_batch_and_a_turn_of_all_features_changes_nothing() -> None:
    queries, features = waves(9, 4, 40), asked(T, X, Y, 2.0, 5.5)
    together = scores(queries, features, 100.0)
    alone = torch.cat([scores(each[None], features, 100.0) for each in queries])
    turn = torch.linalg.qr(waves(4, 4, 70)).Q
    assert (together - alone).abs().max() < 1e-12
    assert (scores(queries @ turn, asked(T @ turn, X @ turn, Y, 2.0, 5.5), 100.0) - together).abs().max() < 1e-12


@pytest.mark.parametrize("share", [0.0, 0.3])
def test_leaving_out_the_own_key_is_computing_without_the_row(share: float) -> None:
    owners = torch.arange(30) % 4
    images = normalize(waves(4, 6, 90)[owners] + 0.9 * waves(30, 6, 0), dim=1)
    keys, texts = (1 - share) * images + share * waves(30, 6, 50), texts_of(4, 6)
    right = {}
    for alpha in ALPHAS:
        for beta in BETAS:
            right[alpha, beta] = 0
            for row in range(30):
                others = torch.arange(30) != row
                answer = 10 * images[row : row + 1] @ texts.T + alpha * cached(images[row : row + 1], keys[others], owners[others], 4, beta)
                right[alpha, beta] += int(answer.argmax() == owners[row])
    best = max(right.values())
    assert left_out(Kept(images, keys, owners, texts), 10.0, ALPHAS, BETAS, range(30)) == min(at for at in right if right[at] == best)
    assert len({*right.values()}) > 3 and best > right[0.0, 1.0]  # there is something to choose


def test_a_cache_tells_clusters_that_random_texts_do_not_and_a_second_session_changes_no_bit_of_it() -> None:
    noise = torch.Generator().manual_seed(0)
    centres, texts = (normalize(torch.randn(6, 16, generator=noise, dtype=torch.float64), dim=1) for _ in range(2))
    owners = torch.arange(60) % 6
    keys, queries = (normalize(centres[owners] + 0.05 * torch.randn(60, 16, generator=noise, dtype=torch.float64), dim=1) for _ in range(2))
    first = owners < 3
    chosen = left_out(Kept(keys[first], keys[first], owners[first], texts[:3]), 100.0, ALPHAS, BETAS, range(30))
    one = scores(queries[first], asked(texts[:3], keys[first], owners[first], *chosen), 100.0)
    right, plain = ((logits.argmax(1) == owners[first]).double().mean() for logits in (one, 100 * queries[first] @ texts[:3].T))
    assert right == 1.0 and plain < 0.6
    assert torch.equal(scores(queries[first], asked(texts, keys, owners, *chosen), 100.0)[:, :3], one)


def test_one_key_one_class_and_keys_that_are_all_equal_give_numbers() -> None:
    for keys, owners in ((X[:1], Y[:1]), (X, torch.zeros(6, dtype=torch.int64)), (X[:1].expand(6, 4), Y)):
        kept = Kept(keys, keys, owners, T)
        alpha, beta = left_out(kept, 100.0, ALPHAS, BETAS, range(len(keys)))
        assert scores(Q, asked(T, keys, owners, alpha, beta), 100.0).isfinite().all() and alpha in ALPHAS and beta in BETAS
    equal = scores(Q, asked(T, X[:1].expand(6, 4), Y, 1.0, 5.5), 0.0)
    assert (equal - equal[:, :1]).abs().max() < 1e-15  # two keys of each class vote alike


def row_of(colour: str, image: int) -> ImageTable:
    return ImageTable.of([f"{colour}-{image}"], [f"{colour} {image}".encode()], labels=[colour])


def filled(rows: list[tuple[str, int]], most: int | None, *cuts: int) -> Keys:
    """Keys of rows that came in several sessions; a row's feature says which row it is."""
    keys, every = Keys(3), [0, *cuts, len(rows)]
    for start, end in pairwise(every):
        some = rows[start:end]
        table = concat([row_of(*each) for each in some])
        features = torch.tensor([[len(colour), image, 1.0] for colour, image in some])
        welcome = keys.welcome([name for name, _ in some], prints_of(table), most)
        names = [some[row][0] for row in welcome]
        places = keys.add(names, prints_of(table)[welcome], features[welcome], torch.zeros(len(welcome), 0), most)
        assert len(places) == len(welcome)  # whoever is welcome stays
        assert {keys.images[place, 1].item() for place in places} == {features[row, 1].item() for row in welcome}
    return keys


ROWS = [(colour, image) for image in range(9) for colour in ("red", "blue", "green")][:-2]


def same(one: Keys, two: Keys) -> bool:
    return one.names == two.names and all(torch.equal(a, b) for a, b in zip(one.buffers(), two.buffers(), strict=True))


@pytest.mark.parametrize("most", [None, 4])
def test_keys_are_the_same_in_any_order_and_cut_into_any_sessions(most: int | None) -> None:
    once = filled(ROWS, most)
    assert same(once, filled(ROWS, most, 5, 6, 20)) and same(once, filled(ROWS[::-1], most, 3))
    assert [len(range(*span.indices(99))) for span in once.spans().values()] == ([8, 8, 9] if most is None else [4, 4, 4])
    assert {once.of()[place] for place in range(len(once))} == {"red", "blue", "green"}


def test_what_is_dropped_was_never_there_and_of_one_image_twice_one_stays() -> None:
    gone, left = [row for row in ROWS if row[0] == "blue" or row[1] % 3 == 0], [row for row in ROWS if row[0] != "blue" and row[1] % 3]
    keys = filled(ROWS, None, 7)
    keys.drop([name for name, _ in gone], prints_of(concat([row_of(*each) for each in gone])))
    assert same(keys, filled(left, None)) and "blue" not in keys.names
    twice = filled([*left, left[0]], None)
    twice.drop([left[0][0]], prints_of(row_of(*left[0])))
    assert same(twice, filled(left, None))
    twice.drop(["red"], prints_of(row_of("blue", 1)))  # an image of another class
    assert same(twice, filled(left, None))


def test_a_state_on_disk_loses_the_rows_of_an_image_and_can_still_be_read(tmp_path: Path) -> None:
    session = make.session(1, (0, 1), (0, 1))
    tip = learned(TipConfig(captions=0.5), session)
    file = write_tensors(memory(tip), tmp_path / "m.safetensors") and tmp_path / "m.safetensors"
    marks = {bytes(mark.tolist()) for mark in prints_of(session.data.where([label == "red" for label in session.data.labels]))}
    left, count = without(read_tensors(file), marks.__contains__)
    loaded = TipConfig(captions=0.5).build(make.tiny(), 0)
    restore(loaded, left, "test")
    assert count == 8 and loaded.cache.spans().keys() == {"green"} and len(loaded.cache.texts) == 8
    assert torch.equal(loaded.class_features(make.names((1,))), tip.class_features(make.names((1,))))


def learned(config: TipConfig, *sessions: Session) -> Tip:
    method = config.build(make.tiny(), 0)
    for session in sessions:
        learn(method, session, TRAIN, 0)
    return method


@torch.no_grad()
def logits(method: Tip, data: ImageTable, colours: tuple[int, ...]) -> Tensor:
    images = torch.stack([method.clip.transform()(data.image(row)) for row in range(len(data))])
    return method.classify(images, method.class_features(make.names(colours))).double()


def test_a_cache_learns_colours_that_zero_shot_does_not_know_and_old_answers_stay() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    tip, data = learned(TipConfig(alpha="auto", beta="auto"), first), first.tests[0].data
    frozen = CONFIGS["zero_shot"]().build(make.tiny(), 0)
    before = logits(tip, data, (0, 1))
    score, plain = (evaluate(each, first.tests, EvalConfig(geometry=0))["set 1"].metrics["top1"] for each in (tip, frozen))
    assert score > plain + 0.3
    learn(tip, second, TRAIN, 0)
    assert (logits(tip, data, (0, 1)) - before).abs().max() < 1e-5
    assert evaluate(tip, second.tests, EvalConfig(geometry=0))["set 2"].metrics["top1"] > 0.9
    other = learned(TipConfig(alpha="auto", beta="auto"), second, first)
    assert (logits(other, data, (0, 1, 2, 3)) - logits(tip, data, (0, 1, 2, 3))).abs().max() < 1e-4


def test_captions_are_a_second_key_and_a_row_without_one_is_told_by_its_class() -> None:
    session = make.session(1, (0, 1), (0, 1), captions=True)
    bare = make.session(1, (0, 1), (0, 1))
    plain, none, some, all_of_it = (learned(TipConfig(captions=share), session) for share in (0.0, 0.0, 0.3, 1.0))
    assert torch.equal(plain.keyed(), none.keyed()) and plain.cache.texts.shape == (16, 0)
    told = some.cache.texts.double()
    assert (told.norm(dim=1) - 1).abs().max() < 1e-6 and len({tuple(row.tolist()) for row in told}) > 2
    assert (some.keyed() - (0.7 * plain.keyed() + 0.3 * told)).abs().max() < 1e-6 and (all_of_it.keyed() - told).abs().max() < 1e-6
    classes = learned(TipConfig(captions=1.0), bare)
    prompts = classes.texts(make.names((1, 0)))  # green comes before red
    assert (classes.keyed() - prompts.double().repeat_interleave(8, 0)).abs().max() < 1e-6


def test_captions_that_tell_classes_apart_help_where_images_do_not() -> None:
    noise, centres, owners = torch.Generator().manual_seed(0), normalize(waves(3, 16, 0), dim=1), torch.arange(60) % 3
    blind = normalize(torch.randn(60, 16, generator=noise, dtype=torch.float64), dim=1)
    words = normalize(centres[owners] + 0.1 * torch.randn(60, 16, generator=noise, dtype=torch.float64), dim=1)
    queries = normalize(centres[owners] + 0.2 * torch.randn(60, 16, generator=noise, dtype=torch.float64), dim=1)
    right = [(cached(queries, (1 - share) * blind + share * words, owners, 3, 5.5).argmax(1) == owners).double().mean() for share in (0, 1)]
    assert right[1] > 0.95 and right[0] < 0.7


def test_training_moves_the_keys_of_its_session_and_no_others() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    config = TipConfig(keys="trained", alpha=3.0)
    trained = config.build(make.tiny(), 0)
    assert isinstance(trained, TrainedTip)
    learn(trained, first, TRAIN, 0)
    plain = learned(TipConfig(), first)
    assert trained.cache.names == plain.cache.names and not torch.equal(trained.cache.images, plain.cache.images)
    old = {name: trained.cache.images[span].clone() for name, span in trained.cache.spans().items()}
    learn(trained, second, TRAIN, 0)
    assert all(torch.equal(trained.cache.images[trained.cache.spans()[name]], rows) for name, rows in old.items())
    assert len(trained.cache) == 32 and not len(trained.fresh)
    full = config.model_copy(update={"shots": 5})
    capped = learned(full, first)
    assert len(capped.cache) == 10 and torch.equal(capped.cache.prints, learned(TipConfig(shots=5), first).cache.prints)


def test_a_loss_of_trained_keys_is_that_of_all_seen_classes() -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = learned(TipConfig(keys="trained"), first)
    data = method.begin(second)
    from cl.learning.loader import Collate, Rows

    rows = Rows(data, method.clip, method.vocabulary, pixels=False)
    loss = method.losses(Collate(method.clip.tokenize)([rows[(row, 0, 0)] for row in range(8)]))["classify"]
    with torch.no_grad():
        expected = cross_entropy(logits(method, data.take(range(8)), (0, 1, 2, 3)), torch.tensor([2] * 8))
    assert math.isclose(loss.item(), expected.item(), rel_tol=1e-5)


def test_what_is_chosen_by_leave_one_out_has_no_place_where_keys_are_trained() -> None:
    bare = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}
    with pytest.raises(ConfigError, match="alpha and beta cannot be auto where keys are trained"):
        parse_config({**bare, "method": {"name": "tip_adapter_f", "beta": "auto"}}, "here")


def test_a_named_cache_is_spelled_as_the_same_cache_that_says_it() -> None:
    own = TipConfig(alpha="auto", beta="auto", captions=0.5)
    assert CONFIGS["caps_adapter"]().spelled() == own.spelled() == {"name": "tip", "alpha": "auto", "beta": "auto", "captions": 0.5}
    assert CONFIGS["tip_adapter"](alpha=1.0, beta=5.5).spelled() == {"name": "tip"}
    assert CONFIGS["tip_adapter_f"]().training(False)["epochs"] == 20 and not CONFIGS["tip_adapter"]().training(False)
    assert CONFIGS["tip_adapter_f"](train={"epochs": 3}).training(False)["epochs"] == 3
