"""Pseudolabels: which images are picked, how much they weigh, and that the method never sees what it must not."""

import dataclasses
from collections.abc import Sequence

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from cl.config import TrainConfig
from cl.data.table import ImageTable, concat
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.learning.module import Learner
from cl.methods.base import Batch
from cl.methods.compose import RecipeConfig
from cl.methods.features import FeatureCache
from cl.methods.persist import memory
from cl.methods.presets.cpe_clip import CPEClipConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.pseudolabel import PseudolabelConfig
from cl.methods.prompts import ImageContext, MixedPrompts, Mixing, TextContext
from cl.methods.recipe import Recipe
from cl.methods.rounds.picks import RULES, Counted, Pick, argmax_topk, count, official_stream, schedule, topk_per_class, unique, weights
from cl.streams.stream import Session
from tests import make

TRAIN = TrainConfig(max_steps=4, batch_size=8, optimizer="sgd", lr=0.1, warmup=0, clip_grad=None, device="cpu")
WORKED = np.array(
    [
        [0.60, 0.30, 0.10],
        [0.90, 0.06, 0.04],
        [0.55, 0.25, 0.20],
        [0.70, 0.20, 0.10],
        [0.10, 0.80, 0.10],
        [0.45, 0.40, 0.15],
        [0.34, 0.33, 0.33],
        [0.20, 0.50, 0.30],
    ]
)
TIED = np.full((3, 2), 0.5)


def rows_of(picks: Sequence[Pick], classes: int = 3) -> list[list[int]]:
    return [[pick.row for pick in picks if pick.label == label] for label in range(classes)]


def some_labels(known: Sequence[int] = (0, 1, 2), shots: int = 2, labelled: Sequence[int] | None = None, index: int = 1) -> Session:
    """A session whose first `shots` images of each of the `labelled` colours have a label, and the others none."""
    session = make.session(index, known, known)
    shown = [make.COLOURS[colour] for colour in (known if labelled is None else labelled)]
    keep = [label in shown and position % 8 < shots for position, label in enumerate(session.data.labels)]
    hidden = session.data.where([not kept for kept in keep]).without("label")
    return dataclasses.replace(session, data=concat([session.data.where(keep), hidden]))


def method_of(seed: int = 0, **settings: object) -> Recipe:
    return PseudolabelConfig(**settings).build(make.tiny(), seed)


def batch_of(method: Recipe, data: ImageTable, rows: Sequence[int]) -> Batch:
    made = Rows(data, method.clip, method.vocabulary, pixels=method.pixels)
    return Collate(method.clip.tokenize)([made[(row, 0, 0)] for row in rows])


# which images are picked


def test_every_rule_picks_what_the_worked_table_says() -> None:
    assert rows_of(topk_per_class(WORKED, 2)) == [[1, 3], [4, 7], [6, 7]]
    assert rows_of(argmax_topk(WORKED, 2)) == [[1, 3], [4, 7], []]
    assert rows_of(unique(WORKED, 2)) == [[1, 3], [4, 7], [6, 2]]
    assert [sorted(rows) for rows in rows_of(official_stream(WORKED, 2))] == [[0, 1], [4, 7], [2, 6]]
    assert [(pick.label, pick.probability) for pick in topk_per_class(WORKED, 2)][:3] == [(0, 0.9), (0, 0.7), (1, 0.8)]


def test_the_official_rule_depends_on_the_order_of_images_and_the_others_do_not() -> None:
    backwards = [[7 - row for row in rows] for rows in rows_of(official_stream(WORKED[::-1], 2))]
    assert [sorted(rows) for rows in backwards] == [[1, 3], [4, 7], [0]]
    for rule in (topk_per_class, unique, argmax_topk):
        order = np.random.default_rng(0).permutation(8)
        moved = [[int(order[row]) for row in rows] for rows in rows_of(rule(WORKED[order], 2))]
        assert moved == rows_of(rule(WORKED, 2))


def test_ties_go_to_the_earlier_image() -> None:
    assert rows_of(topk_per_class(TIED, 1), 2) == [[0], [0]]
    assert rows_of(argmax_topk(TIED, 1), 2) == [[0], []]
    assert rows_of(official_stream(TIED, 1), 2) == [[0], [1]]
    assert rows_of(unique(TIED, 1), 2) == [[0], [1]]


@pytest.mark.parametrize("rule", sorted(RULES))
def test_more_images_are_asked_for_than_there_are_and_none_at_all(rule: str) -> None:
    few = [len(rows) for rows in rows_of(RULES[rule](WORKED, 100))]
    assert few == {"topk_per_class": [8, 8, 8], "unique": [6, 2, 0], "argmax_topk": [6, 2, 0], "official_stream": [6, 2, 0]}[rule]
    assert RULES[rule](WORKED, 0) == RULES[rule](WORKED, 1)


def test_each_class_gets_exactly_k_and_none_left_out_is_more_probable() -> None:
    probabilities = np.random.default_rng(1).dirichlet(np.full(5, 0.3), size=60)
    for label, rows in enumerate(rows_of(topk_per_class(probabilities, 7), 5)):
        out = np.setdiff1d(np.arange(60), rows)
        assert len(set(rows)) == 7 and probabilities[rows, label].min() >= probabilities[out, label].max()


def test_unique_gives_no_image_to_two_classes() -> None:
    probabilities = np.random.default_rng(2).dirichlet(np.full(5, 0.3), size=60)
    picks = unique(probabilities, 12)
    assert len({pick.row for pick in picks}) == len(picks) == 60


def test_counts_name_the_least_sure_and_the_shared_images_and_accuracy_only_where_the_truth_is_known() -> None:
    picks = topk_per_class(WORKED, 2)
    assert count(picks, 3)[1:] == [Counted(1, 2, 0.5, 1, None), Counted(2, 2, 0.3, 1, None)]
    assert [each.accuracy for each in count(picks, 4, truth=[0, 0, 0, 1, 1, 0, 2, 2])] == [0.5, 0.5, 1.0, None]


# how many


def test_grip_grows_by_a_tenth_of_the_images_shared_among_the_classes() -> None:
    assert schedule("grip", 6210, 45) == [13, 27, 41, 55, 69, 82, 96, 110, 124, 138]
    assert schedule("grip", 100, 3) == [3, 6, 10, 13, 16, 20, 23, 26, 30, 33]
    assert schedule("grip", 37, 5) == [1, 1, 1, 2, 3, 3, 4, 4, 5, 6]  # 3 * 1 / 5 is nothing when rounded down, so one
    assert schedule("fpl", 100, 3) == [16] and schedule("ifpl", 100, 3) == [16] * 10


def test_grip_is_the_authors_rule_for_any_number_of_images_and_classes_but_never_nothing() -> None:
    for images in range(1, 300):
        for classes in range(1, 50):
            step, expected = int(images / 10), []
            for turn in range(1, 11):
                k = int(turn * step / classes)
                expected.append(max(images // classes if k * classes > images else k, 1))
            assert schedule("grip", images, classes) == expected


def test_grip_over_37_images_of_5_classes_gives_every_class_its_share_in_every_round() -> None:
    session = make.session(1, range(5), range(5))
    few = dataclasses.replace(session, data=session.data.take(range(37)).without("label"))
    method, shares = method_of(), []
    for lesson in method.rounds(few):
        shares.append([len(set(rows)) for rows in rows_of(method.several.picked[-1], 5)])
        assert len(lesson) == sum(shares[-1])
    assert shares == [[k] * 5 for k in (1, 1, 1, 2, 3, 3, 4, 4, 5, 6)]


# how much they weigh


def test_weights_balance_the_two_sets_as_the_authors_define_them() -> None:
    def total(**how: object) -> float:
        gamma, rate = weights(72, 576, "ssl", **how)
        return gamma * 1.2 + rate * 0.8

    assert total() == pytest.approx(10.4) == total(iterative=True) == total(rule="official_iterative")
    assert total(iterative=True, rule="official_iterative") == pytest.approx(0.95)
    assert weights(72, 576, "ssl", multimodal=True)[0] == pytest.approx(2.828, abs=1e-3)
    assert weights(72, 576, "ssl", multimodal=True, iterative=True, rule="official_iterative") == (0.125, 1.0)
    assert weights(72, 576, "trzsl") == (1.0, 0.125)
    assert weights(0, 576, "ul") == (1.0, 1.0)


def test_the_two_terms_are_weighted_means_over_their_own_rows() -> None:
    method, session = method_of(strategy="fpl", k=5), some_labels()
    data = method.begin(session)
    assert (len(data), data.labels[:2]) == (6 + 15, ["red", "red"])
    rows = [0, 3, 7, 8, 20]
    terms = method.losses(batch_of(method, data, rows))
    logits = method.clip.scale() * method.tuner.known[rows] @ method.class_features(session.vocabulary).T
    each = F.cross_entropy(logits, torch.tensor([("red", "green", "blue").index(data.labels[row]) for row in rows]), reduction="none")
    assert terms["labelled"].item() == pytest.approx(15 / 6 * each[:2].mean().item(), rel=1e-5)
    assert terms["pseudo"].item() == pytest.approx(each[2:].mean().item(), rel=1e-5)
    gradient = torch.autograd.grad(terms["labelled"] + terms["pseudo"], method.tuner.prompts.tokens)[0]
    assert torch.isfinite(gradient).all() and gradient.abs().sum() > 0


def test_a_batch_without_a_labelled_row_has_the_pseudolabel_term_alone() -> None:
    method = method_of(strategy="fpl", k=5)
    data = method.begin(some_labels())
    terms = method.losses(batch_of(method, data, [8, 9]))
    assert set(terms) == {"pseudo"} and torch.isfinite(terms["pseudo"])
    assert set(method.losses(batch_of(method, data, [0, 1]))) == {"labelled"}


# rounds


def test_a_round_picks_with_the_prompts_that_the_round_before_taught() -> None:
    method, session = method_of(iterations=2, strategy="ifpl", k=3), some_labels()
    rounds = method.rounds(session)
    next(rounds)
    with torch.no_grad():
        method.tuner.prompts.tokens.add_(3 * torch.randn(method.tuner.prompts.tokens.shape, generator=torch.Generator().manual_seed(0)))
        hidden = session.data.take(range(6, 24))
        images = torch.stack([method.clip.transform()(hidden.image(row)) for row in range(18)])
        scores = method.clip.scale() * method.encode_image(images) @ method.class_features(session.vocabulary).T
    next(rounds)
    expected = topk_per_class(scores.double().softmax(-1).numpy(), 3)
    assert [(pick.row, pick.label) for pick in method.several.picked[1]] == [(pick.row + 6, pick.label) for pick in expected]
    assert method.several.picked[1] != method.several.picked[0]


def test_the_first_round_picks_as_zero_shot_clip_does_with_the_streams_prompts() -> None:
    method, session = method_of(strategy="fpl", k=4), some_labels()
    data = method.begin(session)
    clip, hidden = make.tiny(), session.data.take(range(6, 24))
    with torch.no_grad():
        images = clip.encode_image(torch.stack([clip.transform()(hidden.image(row)) for row in range(18)]))
        texts = clip.encode_text(clip.tokenize([known.prompts[0] for known in session.vocabulary]))
    expected = topk_per_class((clip.scale() * images @ texts.T).detach().double().softmax(-1).numpy(), 4)
    assert [(pick.row - 6, pick.label) for pick in method.several.picked[0]] == [(pick.row, pick.label) for pick in expected]
    assert data.ids[6:] == [f"{hidden.ids[pick.row]} as {make.COLOURS[pick.label]}" for pick in expected]
    assert data.table["image"][6].as_py() == hidden.table["image"][expected[0].row].as_py()
    assert data.labels[6:] == [make.COLOURS[pick.label] for pick in expected] and len(set(data.ids)) == len(data)


@pytest.mark.parametrize("modality", ["text", "visual", "multimodal"])
def test_a_round_begins_with_the_first_prompts_of_the_session_or_with_the_last_round(modality: str) -> None:
    for restart in ("same_init", "warm"):
        method = method_of(modality=modality, restart=restart, strategy="ifpl", iterations=2, k=2)
        start = {name: tensor.clone() for name, tensor in method.tuner.prompts.state_dict().items()}
        rounds = method.rounds(some_labels())
        next(rounds)
        with torch.no_grad():
            for parameter in method.trainable():
                parameter.add_(0.1)
        next(rounds)
        same = all(torch.equal(tensor, start[name]) for name, tensor in method.tuner.prompts.state_dict().items())
        assert same == (restart == "same_init")


def test_a_session_begins_with_the_prompts_of_the_last_one_or_with_new_ones() -> None:
    first, second = some_labels((0, 1)), some_labels((0, 1), index=2)
    for sessions in ("continue", "fresh"):
        method = method_of(strategy="fpl", k=2, sessions=sessions)
        start = method.tuner.prompts.tokens.detach().clone()
        learn(method, first, TRAIN, 0)
        learned = method.tuner.prompts.tokens.detach().clone()
        method.begin(second)
        assert torch.equal(method.tuner.prompts.tokens, start if sessions == "fresh" else learned) and not torch.equal(start, learned)


def test_each_round_descends_and_takes_more_images() -> None:
    method = method_of(iterations=3)
    learned = learn(method, some_labels(), TRAIN, 0)
    assert learned.steps == 3 * 4
    assert [len(picks) for picks in method.several.picked] == [6, 12, 18]


def test_a_round_of_the_official_kind_goes_on_with_what_the_authors_forgot_to_copy_and_begins_the_rest_anew() -> None:
    moved = {}
    for modality in ("text", "visual", "multimodal"):
        method = method_of(modality=modality, restart="official", strategy="ifpl", iterations=3, k=2)
        start = {name: tensor.clone() for name, tensor in method.tuner.prompts.state_dict().items()}
        seen = []
        for _ in method.rounds(some_labels()):
            seen.append({name: tensor.clone() for name, tensor in method.tuner.prompts.state_dict().items()})
            with torch.no_grad():
                for parameter in method.trainable():
                    parameter.add_(0.1)
        for name in start:  # by how much it has moved when the third round begins
            moved[modality, name] = round(float((seen[2][name] - start[name]).abs().mean()), 4)
        if modality == "multimodal":
            assert not torch.equal(seen[1]["text_in.weight"], seen[2]["text_in.weight"])  # drawn anew each time
    assert moved["text", "tokens"] == 0.2 and moved["visual", "tokens"] == 0.0
    assert moved["multimodal", "text_tokens"] == moved["multimodal", "image_tokens"] == 0.2
    assert moved["multimodal", "text_in.weight"] not in (0.0, 0.2) and moved["multimodal", "mixer.attn.in_proj_weight"] not in (0.0, 0.2)


def test_held_out_rows_never_teach_and_pseudolabels_are_held_out_from_ten_a_class_on() -> None:
    session = make.session(1, (0, 1), (0, 1), each=30)
    keep = [row % 30 < 5 for row in range(60)]
    hidden = session.data.where([not kept for kept in keep]).without("label")
    session = dataclasses.replace(session, data=concat([session.data.where(keep), hidden]))
    for k, picked in ((9, 18), (10, 16)):
        method, taught = method_of(strategy="ifpl", k=k, iterations=2, hold_out=0.2), []
        for lesson in method.rounds(session):
            labelled, pseudo = lesson.ids[:8], lesson.ids[8:]
            assert len(pseudo) == picked and all(" as " in name for name in pseudo) and len(method.several.picked[-1]) == 2 * k
            assert tuple(method.lesson.group_weights.values()) == (pytest.approx(8 / picked), 1.0)  # of what is left, as the authors count
            taught.append(labelled)
        assert taught[0] == taught[1] and set(taught[0]) < set(session.data.ids[:10])
    none = method_of(strategy="none", hold_out=0.2)
    assert none.begin(session).ids == taught[0]


def test_the_first_round_can_ask_with_the_braces_that_the_authors_left_in() -> None:
    method = method_of(strategy="fpl", k=4, first_texts="official", template="a photo of a {}")
    asked = []
    method.tuner.tokens = lambda texts: asked.extend(texts) or method.clip.tokenize(texts)  # type: ignore[method-assign]
    method.begin(some_labels())
    assert asked == ["a photo of a {}red", "a photo of a {}green", "a photo of a {}blue"]


def test_by_default_later_rounds_do_not_weigh_labels_up() -> None:
    for strategy, labelled in (("fpl", 15 / 6), ("ifpl", 6 / 15)):
        method = method_of(strategy=strategy, k=5)
        method.begin(some_labels())
        assert tuple(method.lesson.group_weights.values()) == (pytest.approx(labelled), 1.0)


@pytest.mark.parametrize("config", [PseudolabelConfig(modality="multimodal"), CPEClipConfig()], ids=lambda config: config.name)
def test_biases_and_gains_of_prompts_decay_as_under_the_authors_plain_sgd(config: PseudolabelConfig | CPEClipConfig) -> None:
    method, train = config.build(make.tiny(), 0), TrainConfig(**config.training(False))
    flat = [parameter for parameter in method.trainable() if parameter.ndim < 2]
    before = [parameter.detach().clone() for parameter in method.trainable()]
    assert flat
    learner = Learner(method, train, 10)
    optimizer = learner.configure_optimizers()
    for parameter in method.trainable():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    for parameter, old in zip(method.trainable(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old * (1 - learner.top * train.weight_decay))


# what the method must not see


def test_nothing_about_an_unlabelled_row_but_its_pixels_reaches_the_prompts() -> None:
    session = some_labels()
    hidden = session.data.where([label is None for label in session.data.labels])
    images = [hidden.table["image"][row].as_py() for row in range(len(hidden))]
    lies = [make.COLOURS[7 - row % 3] for row in range(len(hidden))]
    poisoned = ImageTable.of([f"{lie}-{row}" for row, lie in enumerate(lies)], images, captions=[[lie] for lie in lies], domains=lies)
    other = dataclasses.replace(session, data=concat([session.data.where([label is not None for label in session.data.labels]), poisoned]))
    results = []
    for each in (session, other):
        method = method_of(iterations=2)
        learn(method, each, TRAIN, 0)
        results.append((method.several.picked, method.tuner.prompts.tokens))
    assert results[0][0] == results[1][0] and torch.equal(results[0][1], results[1][1])


def test_only_the_prompts_change_and_only_they_are_kept() -> None:
    for modality in ("text", "visual", "multimodal"):
        method = method_of(modality=modality, strategy="fpl", k=4)
        digest, before = method.clip.digest(), {name: tensor.clone() for name, tensor in method.tuner.prompts.state_dict().items()}
        learn(method, some_labels(), TRAIN, 0)
        assert method.clip.digest() == digest
        assert all(not torch.equal(tensor, before[name]) for name, tensor in method.tuner.prompts.state_dict().items()), modality
        assert {name.split(".")[0] for name in memory(method)} == {"tuner"}


# beside other parts


def test_any_tuner_learns_in_rounds_and_each_begins_with_the_sessions_first_weights() -> None:
    rounds = {"kind": "pseudolabels", "strategy": "ifpl", "k": 3, "iterations": 2}
    for tune in ("projections", "lora", "head", {"kind": "prompts", "depth": 2}):
        method = RecipeConfig(tune=tune, terms=["clip"], rounds=rounds).build(make.tiny(), 0)
        seen = []
        for lesson in method.rounds(some_labels()):
            seen.append({name: weight.detach().clone() for name, weight in method.tuner.weights().items()})
            assert set(method.losses(batch_of(method, lesson, [0, 7]))) == {"labelled", "pseudo"}
            with torch.no_grad():
                for weight in method.trainable():
                    weight.add_(0.1)
        assert len(seen) == 2 and all(torch.equal(seen[1][name], weight) for name, weight in seen[0].items()), tune
    moved = FinetuneConfig(rounds=rounds).build(make.tiny(), 0)
    assert learn(moved, some_labels(), TRAIN, 0).steps == 8 and len(moved.several.picked) == 2


@pytest.mark.parametrize("modality", ["text", "visual"])
def test_exemplars_are_taught_as_labelled_rows_and_never_picked(modality: str) -> None:
    config = PseudolabelConfig(memory={"kind": "reservoir", "capacity": 4}, strategy="fpl", k=3, modality=modality)
    method = config.build(make.tiny(), 0)
    learn(method, some_labels((0, 1)), TRAIN, 0)
    assert set(method.memory.exemplars.rows.labels) == {"red", "green"}
    second = dataclasses.replace(some_labels((2, 3), index=2), vocabulary=make.names((0, 1, 2, 3)), classes=(2, 3))
    data = method.begin(second)
    assert len(data) == 4 + 4 * 3 + 4 and data.ids[-4:] == method.memory.exemplars.rows.ids
    assert method.lesson.taught().ids == data.ids[:-4]
    assert method.lesson.groups.tolist() == [0] * 4 + [1] * 12 + [0] * 4
    assert method.lesson.group_weights == {"labelled": 12 / 8, "pseudo": 1.0}
    assert all(second.data.labels[pick.row] is None for pick in method.several.picked[0])
    batch = batch_of(method, data, [0, 5, 17])
    if modality == "text":  # features that were computed once are those of these rows
        images = torch.stack([method.clip.transform()(data.image(row)) for row in (0, 5, 17)])
        assert torch.allclose(method.tuner.known[[0, 5, 17]], method.encode_image(images), atol=1e-5)
    assert set(method.losses(batch)) == {"labelled", "pseudo"}


def test_texts_that_no_prompt_moves_are_encoded_once_a_session() -> None:
    asked = {}
    for modality in ("text", "visual"):
        method, session = method_of(modality=modality, strategy="fpl", k=3), some_labels()
        data = method.begin(session)
        inner, count = method.tuner.text, []
        method.tuner.text = lambda tokens, inner=inner, count=count: count.append(1) or inner(tokens)  # type: ignore[method-assign]
        for _ in range(3):
            method.losses(batch_of(method, data, [0, 8]))
        asked[modality] = len(count)
    assert asked == {"text": 3, "visual": 1}


def test_captions_of_labelled_rows_do_not_teach_where_labels_alone_do() -> None:
    session = make.session(1, (0, 1), (0, 1), captions=True)
    for config in (CPEClipConfig(depth=2), PseudolabelConfig(strategy="none"), FinetuneConfig()):
        method = config.build(make.tiny(), 0)
        terms = set(method.losses(batch_of(method, method.begin(session), [0, 9])))
        assert terms == {"cpe_clip": {"classify"}, "pseudolabel": {"labelled"}, "finetune": {"classify", "contrast"}}[config.name]


# paradigms


def test_the_paradigm_follows_from_the_labels_a_session_has() -> None:
    ssl, trzsl, ul = some_labels(), some_labels(labelled=(0, 1), shots=8), some_labels(shots=0)
    anything = method_of()
    for wanted, fitting in (("ssl", ssl), ("trzsl", trzsl), ("ul", ul)):
        method = method_of(paradigm=wanted)
        for session in (ssl, trzsl, ul):
            if session is fitting:
                method.check(session)
            else:
                with pytest.raises(MethodError, match=rf"paradigm {wanted} needs .* set paradigm \(method.paradigm, .*\) to auto or"):
                    method.check(session)
    for session in (ssl, trzsl, ul):
        anything.check(session)


def test_under_trzsl_only_unseen_classes_are_pseudolabels_and_the_labelled_rows_weigh_one() -> None:
    method, session = method_of(strategy="fpl", k=3), some_labels(labelled=(0, 2), shots=8)
    data = method.begin(session)
    assert data.labels == ["red"] * 8 + ["blue"] * 8 + ["green"] * 3
    assert tuple(method.lesson.group_weights.values()) == (1.0, pytest.approx(16 / 3)) and method.candidates == (0, 1, 2)


def test_without_labels_only_pseudolabels_teach() -> None:
    method = method_of(strategy="fpl", k=3)
    assert len(method.begin(some_labels(shots=0))) == 9 and tuple(method.lesson.group_weights.values()) == (1.0, 1.0)


def test_with_seen_candidates_old_classes_compete_and_can_be_picked() -> None:
    old = make.names((3, 4))
    session = some_labels((0, 1, 2), shots=0, index=2)
    later = dataclasses.replace(session, vocabulary=old + session.vocabulary, classes=(2, 3, 4))
    for candidates, classes in (("session", 3), ("seen", 5)):
        method = method_of(strategy="fpl", k=2, candidates=candidates)
        assert len(set(method.begin(later).labels)) == classes == len(method.candidates)


def test_a_session_that_pseudolabels_cannot_help_is_refused_before_training() -> None:
    with pytest.raises(MethodError, match=r"all 24 rows have a label .*method\.strategy, .*\) to none"):
        method_of().check(make.session(1, (0, 1, 2), (0, 1, 2)))
    with pytest.raises(MethodError, match="teaches no class"):
        method_of().check(make.session(1, (0, 1), (0, 1), labels=False, captions=True))
    with pytest.raises(MethodError, match="none of its 24 rows has a label"):
        method_of(strategy="none").check(some_labels(shots=0))


def test_without_a_strategy_the_labelled_rows_alone_teach() -> None:
    method = method_of(strategy="none")
    assert method.begin(some_labels()).labels == ["red", "red", "green", "green", "blue", "blue"]
    assert learn(method, some_labels(), TRAIN, 0).steps == 4 and method.several.picked == []


def test_balance_makes_later_sessions_step_less() -> None:
    method = method_of(strategy="fpl", reg="balance")
    later = dataclasses.replace(some_labels((0, 1), index=2), vocabulary=make.names((0, 1, 2, 3, 4)))
    method.begin(later)
    assert method.rate == pytest.approx(2 / 5)


# prompts


def test_prompts_have_the_published_number_of_parameters() -> None:
    def size(module: torch.nn.Module) -> int:
        return sum(parameter.numel() for parameter in module.parameters())

    assert size(TextContext(16, 512, seed=0)) == 8_192
    assert size(ImageContext(16, 768, seed=0)) == 12_288
    assert size(MixedPrompts(4, (512, 768), 32, seed=0)) == 532_608


def test_prompts_begin_with_the_published_spread() -> None:
    assert TextContext(16, 512, seed=0).tokens.std().item() == pytest.approx(0.02, rel=0.05)
    assert ImageContext(16, 768, seed=0).tokens.std().item() == pytest.approx(768**-0.5, rel=0.05)
    bound = (6 / (3 * 32**2 + 768)) ** 0.5
    image = MixedPrompts(4, (512, 768), 32, seed=0).image_tokens.detach()
    assert image.abs().max().item() == pytest.approx(bound, rel=1e-2) and image.abs().max() <= bound


def test_coop_words_stand_where_placeholder_words_would() -> None:
    method = method_of()
    clip = method.clip
    tokens = clip.tokenize(["X " * 16 + "red"])
    assert tokens.shape[1] == 1 + 16 + 1 + 1
    embedding = clip.model.token_embedding
    hook = embedding.register_forward_hook(
        lambda module, given, embedded: torch.cat([embedded[:, :1], method.tuner.prompts.tokens, embedded[:, 17:]], 1)
    )
    expected = clip.encode_text(tokens)
    hook.remove()
    assert torch.allclose(method.class_features(make.names((0,))), expected, atol=1e-6)


def test_joint_mixing_lets_every_token_meet_every_other_and_pairwise_its_partner_alone() -> None:
    for mixing, reach in (("joint8", [True] * 4), ("official_pairwise", [True, False, False, False])):
        prompts = MixedPrompts(4, (32, 32), 8, seed=0, mixing=mixing)
        before = prompts.text().layers[0]
        with torch.no_grad():
            prompts.image_tokens[0, 0] += 1.0
        moved = (prompts.text().layers[0] - before).abs().max(-1).values > 1e-7
        assert moved.tolist() == reach


@pytest.mark.parametrize("mixing", ["joint8", "official_pairwise"])
def test_where_the_mixer_adds_nothing_each_tower_gets_its_own_tokens(mixing: Mixing) -> None:
    prompts = MixedPrompts(4, (24, 40), 8, seed=0, mixing=mixing)
    with torch.no_grad():
        for last in (prompts.mixer.attn.out_proj, prompts.mixer.mlp.c_proj):
            last.weight.zero_()
            last.bias.zero_()
        assert torch.allclose(prompts.text().layers, prompts.text_out(prompts.text_in(prompts.text_tokens)), atol=1e-6)
        assert torch.allclose(prompts.vision().layers, prompts.image_out(prompts.image_in(prompts.image_tokens)), atol=1e-6)


def test_visual_prompts_leave_texts_as_they_were_and_text_prompts_leave_images() -> None:
    session = some_labels()
    images = torch.stack([make.tiny().transform()(session.data.image(row)) for row in range(2)])
    text, visual, both = method_of(modality="text"), method_of(modality="visual"), method_of(modality="multimodal")
    plain, tokens = make.tiny(), make.tiny().tokenize(["red"])
    same_image = [torch.allclose(method.encode_image(images), plain.encode_image(images), atol=1e-5) for method in (text, visual, both)]
    same_text = [torch.allclose(method.encode_text(tokens), plain.encode_text(tokens), atol=1e-5) for method in (text, visual, both)]
    assert same_image == [True, False, False] and same_text == [False, True, False]


def test_fixed_class_texts_take_the_given_template() -> None:
    method = method_of(modality="visual", template="a photo of a {}")
    expected = method.clip.encode_text(method.clip.tokenize(["a photo of a red"]))
    assert torch.allclose(method.class_features(make.names((0,))), expected, atol=1e-6)


# features computed once


def test_cached_features_teach_what_fresh_ones_do() -> None:
    cached, fresh = method_of(iterations=2), method_of(iterations=2, cache=False)
    assert (cached.pixels, fresh.pixels) == (False, True)
    session = some_labels()
    data = cached.begin(session)
    assert fresh.begin(session).ids == data.ids
    terms = [method.losses(batch_of(method, data, [0, 5, 8, 9])) for method in (cached, fresh)]
    assert all(terms[0][name].item() == pytest.approx(terms[1][name].item(), abs=1e-5) for name in ("labelled", "pseudo"))
    for method in (cached, fresh):
        learn(method, session, TRAIN, 0)
    assert cached.several.picked == [
        [Pick(p.row, p.label, pytest.approx(p.probability, abs=1e-5)) for p in picks] for picks in fresh.several.picked
    ]
    assert torch.allclose(cached.tuner.prompts.tokens, fresh.tuner.prompts.tokens, atol=1e-4)


def test_a_cache_is_refused_where_the_image_tower_changes() -> None:
    data = some_labels().data
    moving = [method_of(modality="visual"), method_of(modality="multimodal")]
    moving += [CPEClipConfig().build(make.tiny(), 0), FinetuneConfig().build(make.tiny(), 0)]
    for method in moving:
        with pytest.raises(MethodError, match="cannot be computed once"):
            FeatureCache().images(method.encode_image, method.clip, data)


def test_a_cache_computes_again_when_a_weight_or_a_row_changes_and_not_otherwise() -> None:
    method, data, cache = method_of(), some_labels().data, FeatureCache()
    first = cache.images(method.encode_image, method.clip, data)
    assert cache.images(method.encode_image, method.clip, data) is first
    with torch.no_grad():
        method.clip.model.visual.proj.mul_(torch.linspace(0.5, 1.5, method.clip.model.visual.proj.shape[1]))
    second = cache.images(method.encode_image, method.clip, data)
    assert not torch.allclose(first, second, atol=1e-3)
    assert len(cache.images(method.encode_image, method.clip, data.take(range(3)))) == 3


def test_prompts_learn_to_tell_colours_apart_from_few_labels() -> None:
    session, train = some_labels(), TRAIN.model_copy(update={"max_steps": 15, "momentum": 0.9})
    truth = [make.COLOURS.index(name.split("-")[0]) for name in session.data.ids]
    images = torch.stack([make.tiny().transform()(session.data.image(row)) for row in range(len(session.data))])

    def right(method: Recipe) -> float:
        with torch.no_grad():
            guess = method.classify(images, method.class_features(session.vocabulary)).argmax(-1)
        return (guess == torch.tensor(truth)).float().mean().item()

    method = method_of(iterations=2, weighting="balanced")  # a random model's pseudolabels are worth nothing: its labels have to lead
    before = right(method)
    learn(method, session, train, 0)
    assert right(method) > max(before, 0.6)


def test_settings_for_training_are_the_authors_unless_given() -> None:
    assert (PseudolabelConfig().training(False)["lr"], PseudolabelConfig(modality="multimodal").training(True)["lr"]) == (0.1, 0.01)
    config = PseudolabelConfig(train={"epochs": 5})
    train = config.training(False)
    assert (train["epochs"], train["batch_size"], train["weight_decay"]) == (5, 16, 0.1)
    assert TrainConfig(**train).warmup * 150 == pytest.approx(5)
    assert PseudolabelConfig(**config.model_dump()) == config


def test_what_was_picked_is_noted_by_round_and_class_and_judged_only_by_whoever_knows_the_truth() -> None:
    session = make.session(1, (0, 1), (0, 1), each=4)
    truth = dict(zip(session.data.ids, map(str, session.data.labels), strict=True))
    bare = dataclasses.replace(session, data=session.data.without("label"))
    method = method_of(strategy="ifpl", k=4, iterations=2)
    learn(method, bare, TrainConfig(max_steps=2, batch_size=4, device="cpu"), 0)
    noted = method.record(bare, truth)
    assert [(row["round"], row["picked"]) for row in noted] == [(1, 4), (1, 4), (2, 4), (2, 4)]
    names, ids = [known.name for known in session.vocabulary], bare.data.ids
    for row in noted:
        mine = [pick for pick in method.several.picked[row["round"] - 1] if names[pick.label] == row["class"]]
        assert row["accuracy"] == np.mean([truth[ids[pick.row]] == row["class"] for pick in mine])
    assert {row["accuracy"] for row in method.record(bare, {})} == {None}
