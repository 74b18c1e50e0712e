"""Whether an image shows a class that was taught: distances with a row left out, thresholds, and what heads answer by them."""

import math

import pytest
import torch
from safetensors.torch import load, save

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.data.table import ImageTable
from cl.errors import ConfigError, MethodError
from cl.evaluation.known import auroc
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method
from cl.methods.closed_form import Judging, shares_or_none
from cl.methods.closed_form.gate import meet, text_score, threshold
from cl.methods.closed_form.growing import Growing
from cl.methods.closed_form.moments import Metric, Moments, distances, left_out
from cl.methods.persist import memory, restore
from cl.run_config import parse_config
from tests import make
from tests.worked import features, labels, texts

CLIP = make.tiny()  # which no head changes
TRAIN = TrainConfig(device="cpu")
RIDGE = {"name": "ridge", "projection": 40, "penalty": 0.1}
GDA = {"name": "gda", "alpha": 1.0}
HEADS = [RIDGE, GDA, GDA | {"none": {"score": "relative"}}]
TEXTS = [{"name": "zero_shot", "none": {"score": "mcm"}}, RIDGE | {"none": {"score": "energy"}}]


def learned(settings: dict, *sessions: object) -> Judging:
    method = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
    for session in sessions:
        learn(method, session, TRAIN, 0)
    assert isinstance(method, Judging)
    return method


@torch.no_grad()
def judged(method: Judging, data: ImageTable, classes: tuple[ClassName, ...]) -> tuple[torch.Tensor, torch.Tensor | None]:
    return method.judge(pixels(method, data), method.class_features(classes))


def pixels(method: Method, data: ImageTable) -> torch.Tensor:
    return torch.stack([method.clip.transform()(data.image(row)) for row in range(len(data))])


def summed(x: torch.Tensor, names: list[str]) -> Moments:
    moments = Moments(x.shape[1])
    moments.add(names, x)
    return moments


def test_a_distance_with_its_row_left_out_is_the_worked_one() -> None:
    x, names = features(12, 6), labels(5, 4, 3)
    moments = summed(x, names)
    means, counts, _ = moments.means(["0", "1", "2"])
    metric = Metric((moments.scatter() + 0.05 * torch.eye(6, dtype=torch.float64)).inverse(), 1.0)
    squares = left_out(x, torch.tensor([int(name) for name in names]), means, counts, metric)
    assert squares[0].tolist() == pytest.approx([5.960651, 3.263428, 4.639108], abs=5e-7)
    assert float(distances(x[:1], means, metric.inverse)[0, 0]) == pytest.approx(0.661316, abs=5e-7)


@pytest.mark.parametrize("row", [0, 7, 11])
def test_a_distance_with_its_row_left_out_is_that_of_the_rest(row: int) -> None:
    x, names = features(12, 6), labels(5, 4, 3)
    moments, rest = summed(x, names), summed(x[[at for at in range(12) if at != row]], [n for at, n in enumerate(names) if at != row])
    means, counts, _ = moments.means(["0", "1", "2"])
    squares = left_out(x, torch.tensor([int(name) for name in names]), means, counts, moments.within(1e-3))[row]
    inverse = (0.999 / 12 * rest.scatter() + 1e-3 * torch.eye(6, dtype=torch.float64)).inverse()
    assert squares.tolist() == pytest.approx(distances(x[row : row + 1], rest.means(["0", "1", "2"])[0], inverse)[0].tolist(), rel=1e-10)
    mean, metric = moments.whole(1e-3)  # all rows as one class, about the mean of all
    alone = left_out(x, torch.zeros(12, dtype=torch.int64), mean[None], torch.tensor([12.0], dtype=torch.float64), metric)[row]
    others = x[[at for at in range(12) if at != row]]
    centred = others - others.mean(0)
    inverse = (centred.T @ centred / 12 + 1e-3 * torch.eye(6, dtype=torch.float64)).inverse()
    assert float(alone) == pytest.approx(float(distances(x[row : row + 1], others.mean(0)[None], inverse)), rel=1e-10)


def test_a_row_that_is_the_only_one_of_its_class_has_no_distance_to_it() -> None:
    x, names = features(4, 6), ["a", "a", "a", "b"]
    moments = summed(x, names)
    means, counts, _ = moments.means(["a", "b"])
    squares = left_out(x, torch.tensor([0, 0, 0, 1]), means, counts, moments.within(1e-3))
    assert math.isinf(squares[3, 1]) and squares[3, 0].isfinite() and squares[:3].isfinite().all()


def test_scores_by_texts_are_the_worked_ones() -> None:
    cosines = features(3, 6, 8) @ texts(5, 6).T
    assert text_score(cosines, "mcm", 1.0).tolist() == pytest.approx([0.384142, 0.249653, 0.387463], abs=5e-7)
    assert text_score(cosines, "mcm", 0.01).tolist() == pytest.approx([1.0, 0.827447, 1.0], abs=5e-7)
    assert text_score(cosines, "energy", 1.0).tolist() == pytest.approx([1.924092, 1.363133, 1.765699], abs=5e-7)
    assert text_score(100 * cosines, "energy", 1.0).tolist() == pytest.approx([96.734858, -2.265608, 81.756398], abs=5e-7)
    assert torch.equal(text_score(cosines, "max_cosine", 1.0), cosines.amax(1))
    for classes, told in ((10, 0.109367), (100, 0.011040), (1000, 0.001105)):
        one = torch.full((1, classes), 0.2, dtype=torch.float64).index_fill(1, torch.tensor([0]), 0.3)
        assert float(text_score(one, "mcm", 1.0)) == pytest.approx(told, abs=5e-7)


def test_every_name_twice_halves_mcm_and_adds_ln_2_to_the_energy() -> None:
    cosines = features(3, 6, 8) @ texts(5, 6).T
    twice = torch.cat([cosines, cosines], 1)
    assert torch.allclose(text_score(twice, "mcm", 1.0), text_score(cosines, "mcm", 1.0) / 2)
    assert torch.allclose(text_score(twice, "energy", 1.0), text_score(cosines, "energy", 1.0) + math.log(2))


def test_the_threshold_rejects_about_as_many_new_rows_as_it_was_asked_to() -> None:
    drawn = torch.Generator().manual_seed(0)
    told = [
        float((torch.randn(50, generator=drawn) < threshold(torch.randn(50, generator=drawn), 0.1)).double().mean()) for _ in range(400)
    ]
    assert sum(told) / 400 == pytest.approx(5 / 51, abs=0.01)
    assert threshold(torch.arange(99.0), 0.29) == 28.0  # 0.29 * 100 is 28.999999999999996


def test_on_distances_with_the_row_left_out_new_rows_are_rejected_at_that_rate_and_others_are_caught() -> None:
    drawn = torch.Generator().manual_seed(1)
    means, shape = torch.randn(6, 12, generator=drawn, dtype=torch.float64), torch.randn(12, 12, generator=drawn, dtype=torch.float64) / 4

    def rows(each: int, of: torch.Tensor = means) -> torch.Tensor:
        x = of.repeat_interleave(each, 0)
        return x + torch.randn(x.shape, generator=drawn, dtype=torch.float64) @ shape

    x, names = rows(25), [str(label) for label in range(6) for _ in range(25)]
    moments = summed(x, names)
    centres, counts, _ = moments.means([str(label) for label in range(6)])
    metric = moments.within(1e-3)
    alone = left_out(x, torch.arange(6).repeat_interleave(25), centres, counts, metric).amin(1)
    for reject in (0.05, 0.1):
        least = threshold(-alone, reject)
        new = float((-distances(rows(400), centres, metric.inverse).amin(1) < least).double().mean())
        spread = 2.576 * math.sqrt(reject * (1 - reject) * (1 / 150 + 1 / 2400))  # of 150 rows that set it, 2,400 that it judges
        assert abs(new - reject) < spread
        seen = float(
            (-distances(x, centres, metric.inverse).amin(1) < threshold(-distances(x, centres, metric.inverse).amin(1), reject)).sum()
        )
        assert seen <= reject * 150
    other = torch.randn(6, 12, generator=drawn, dtype=torch.float64) + 3
    assert float((-distances(rows(50, other), centres, metric.inverse).amin(1) < least).double().mean()) > 0.95


def test_which_side_an_image_is_on_the_gate_says_and_how_far_ahead_zero_shot() -> None:
    own, zero = torch.tensor([[9.0, 8.0, 0.0], [1.0, 5.0, 0.0]]), torch.tensor([[1.0, 3.0, 2.0], [1.0, 2.0, 4.0]])
    some, every = torch.tensor([True, True, False]), torch.ones(3, dtype=torch.bool)
    for known, best in ((None, [0, 2]), ([True, True], [0, 1]), ([False, False], [2, 2]), ([False, True], [2, 1])):
        ranked = meet(own, zero, some, None if known is None else torch.tensor(known))
        assert ranked.argmax(1).tolist() == best and torch.equal(ranked[:, 2], zero[:, 2])
        assert torch.allclose(ranked[:, 0] - ranked[:, 1], own[:, 0] - own[:, 1])
    assert torch.equal(meet(own, zero, every, torch.tensor([False, True])), own)
    assert torch.equal(meet(own, zero, ~every, torch.tensor([True, True])), zero)
    level = torch.zeros(1, 3)
    for known, best in ((False, 2), (True, 0)):
        assert meet(own[:1], level, some, torch.tensor([known])).argmax() == best


@torch.no_grad()
def apart(method: Judging, known: ImageTable, unknown: ImageTable, classes: tuple[ClassName, ...], score: str) -> float:
    features = method.class_features(classes)
    return auroc(*(method.familiarities(pixels(method, each), features)[score].numpy() for each in (known, unknown)))


@pytest.mark.parametrize("settings", HEADS, ids=str)
def test_a_colour_that_was_never_taught_is_none_of_these_until_it_is(settings: dict) -> None:
    first, second, third = make.stream((0, 1), (2, 3), (4,), each=12).sessions
    method = learned(settings, first, second)
    new = make.table((4,), 12, seed=50)
    old = make.table((0, 1, 2, 3), 8, seed=51)
    assert not judged(method, new, second.vocabulary).known.any()
    assert judged(method, old, second.vocabulary).known.double().mean() > 0.8
    assert apart(method, old, new, second.vocabulary, settings.get("none", {}).get("score", "mahalanobis")) > 0.95
    mixed = judged(method, new, third.vocabulary).logits.argmax(1)  # purple has a name and no image yet
    assert (mixed == 4).all()
    assert (judged(method, old, third.vocabulary).logits.argmax(1) != 4).double().mean() > 0.8
    learn(method, third, TRAIN, 0)
    assert judged(method, new, third.vocabulary).known.double().mean() > 0.8


@pytest.mark.parametrize("settings", [*HEADS, *TEXTS], ids=str)
def test_reject_0_finds_none_and_1_nothing_else_and_shares_sum_to_1(settings: dict) -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    data = second.tests[0].data
    for reject in (0.0, 0.3, 1.0):
        none = settings.get("none", {}) | {"reject": reject}
        method = learned(settings | {"none": none}, first, second)
        with torch.no_grad():
            shares = shares_or_none(method, second.vocabulary, pixels(method, data))
        assert shares.shape[1] == 5 and torch.allclose(shares.sum(1), torch.ones(len(data), dtype=torch.float64))
        assert set(shares[:, -1].tolist()) <= {0.0, 1.0} and (0 < reject < 1 or bool((shares[:, -1] == reject).all()))


@pytest.mark.parametrize("settings", [*HEADS, *TEXTS], ids=str)
def test_an_image_alone_is_judged_as_in_a_batch_and_after_being_saved(settings: dict) -> None:
    first, second = make.stream((0, 1), (2, 3)).sessions
    method = learned(settings, first, second)
    data, asked = make.table((0, 2, 4), 2, seed=3), make.names((0, 1, 2, 3, 5))
    whole = judged(method, data, asked)
    for row in range(len(data)):
        alone = judged(method, data.take([row]), asked)
        assert torch.allclose(alone.logits, whole.logits[row], atol=1e-4) and bool(alone.known == whole.known[row])
    fresh = CONFIGS[settings["name"]](**settings).build(CLIP, 0)
    restore(fresh, load(save({name: tensor.clone() for name, tensor in memory(method).items()})), "kept")
    again = judged(fresh, data, asked)
    assert torch.equal(again.logits, whole.logits) and torch.equal(again.known, whole.known)


@pytest.mark.parametrize("settings", TEXTS, ids=str)
def test_features_by_which_texts_are_judged_are_the_same_in_any_order_and_few(settings: dict) -> None:
    sessions = make.stream((0, 1), (2, 3), (0, 4), each=8).sessions
    one, other = learned(settings, *sessions), learned(settings, *reversed(sessions))
    assert len(one.kept) == 5 * 5 and torch.equal(one.kept.prints, other.kept.prints)
    assert torch.allclose(one.kept.features, other.kept.features, atol=1e-6)


def test_what_cannot_be_told_is_said() -> None:
    first = make.session(1, (0, 1), (0, 1))
    images = torch.zeros(1, 3, 32, 32)
    with pytest.raises(MethodError, match="this model's method does not tell it"):
        shares_or_none(CONFIGS["zero_shot"]().build(CLIP, 0), first.vocabulary, images)
    with pytest.raises(MethodError, match=r"1 name was never taught \(orange\)"):
        shares_or_none(learned(GDA, first), (*first.vocabulary, *make.names((5,))), images)
    with pytest.raises(MethodError, match="no class has two images"):
        shares_or_none(learned(GDA, make.session(1, (0, 1), (0, 1), each=1)), first.vocabulary, images)
    with pytest.raises(MethodError, match="never taught"):
        shares_or_none(learned(TEXTS[0], first), make.names((5, 6)), images)
    shares_or_none(learned(TEXTS[0], first), make.names((0, 6)), images)  # a text tells of a class without an image
    bare = {"name": "x", "stream": {"kind": "domains", "sources": {"d": "d"}}}
    with pytest.raises(ConfigError, match=r"method: .*none.score mahalanobis is a distance to class means"):
        parse_config({**bare, "method": {"name": "zero_shot", "none": {}}}, "here")


def test_without_a_threshold_zero_shot_says_who_is_taught() -> None:
    session = make.session(1, (0, 1), (0, 1), each=1)
    data, asked = make.table((0, 1, 5), 2, seed=3), make.names((0, 1, 5))
    gate, plain = learned(GDA, session), learned(GDA | {"mixed": "zero_shot"}, session)
    assert judged(gate, data, asked).known is None
    assert torch.equal(judged(gate, data, asked).logits, judged(plain, data, asked).logits)


def test_a_growing_table_drops_one_row_for_each_print_and_is_loaded_at_its_length() -> None:
    table = Growing(value=torch.zeros(0))
    table.append({"prints": torch.tensor([1, 2, 1, 3]), "value": torch.tensor([1.0, 2.0, 3.0, 4.0])})
    table.drop(torch.tensor([1, 3, 7]))
    assert table.prints.tolist() == [2, 1] and table.value.tolist() == [2.0, 3.0]
    fresh = Growing(value=torch.zeros(0))
    fresh.load_state_dict(table.state_dict())
    assert torch.equal(fresh.value, table.value) and len(fresh) == 2
