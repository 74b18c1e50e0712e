"""What stands beside a row (another image, a wrong caption, a second text), how it is drawn, and the terms that compare it."""

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize, softplus

from cl.config import TrainConfig
from cl.data.table import ImageTable
from cl.data.wording import another_number, exchanged
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods.base import Batch, Beside
from cl.methods.compose import RecipeConfig
from cl.methods.lesson import Pairs
from cl.methods.losses import apart, contrastive, outweighed, pair_losses, triplet
from cl.methods.recipe import Recipe
from cl.methods.terms.alip import ALIP, ALIPConfig
from cl.methods.terms.proto_triplet import among
from cl.streams.stream import Session
from tests import make
from tests.test_objectives import fixture
from tests.test_stored import grid

TRAIN = TrainConfig(max_steps=2, batch_size=4, lr=1e-3, device="cpu")
LABELS = ["red", "red", "green", "green", "red", None]
TEXTS = [["two red dogs"], ["a red cat chases three birds", "a bird"], [], ["green paint"], ["ink"], ["some ten dyes"]]
EXTRAS: dict[str, list[Any]] = {
    "identity": ["rex", "rex", None, "tom", None, "tom"],
    "rewrites": [["a pair of dogs", "dogs"], [], [], ["paint of green"], [], []],
    "counterfactuals": [["no dogs at all", "nine red dogs"], [], ["nothing"], [], [], ["soot"]],
}


def table() -> ImageTable:
    return ImageTable.of([str(n) for n in range(6)], [make.png(n % 3, n) for n in range(6)], LABELS, TEXTS, **EXTRAS)


def session(data: ImageTable | None = None) -> Session:
    return Session(1, "here", data or table(), make.session(1, (0, 1), (0, 1)).tests, (0, 1), make.names((0, 1)))


def built(*terms: Any, **seats: Any) -> Recipe:
    return RecipeConfig.model_validate({"terms": ["clip", *terms], **seats}).build(make.tiny().double(), 0).double()


def batch_of(method: Recipe, epoch: int = 0, data: ImageTable | None = None) -> Batch:
    method.begin(session(data))
    assert method.lesson is not None
    rows = Rows(method.lesson.data, method.clip, method.vocabulary, beside=method.beside)
    batch = Collate(method.clip.tokenize, torch.float64, method.beside)([rows[(row, epoch, 0)] for row in range(len(rows))])
    return batch


def raw(rows: int, width: int, shift: float = 0.0) -> Tensor:
    """sin(7i + 3j + ij + shift), in fp64."""
    i, j = torch.arange(rows, dtype=torch.float64)[:, None], torch.arange(width, dtype=torch.float64)[None]
    return torch.sin(7 * i + 3 * j + i * j + shift)


# worked numbers


def test_the_contrast_of_images_has_its_worked_numbers_and_a_floor_where_targets_are_smooth() -> None:
    one, two, ids = grid(4, 6), grid(4, 6, 1), torch.tensor([0, 1, 1, 2])
    same = ids[:, None] == ids[None]
    losses = [contrastive(one, two, 1 / 0.07), contrastive(one, two, 1 / 0.07, None, 0.1), contrastive(one, two, 1 / 0.07, same)]
    assert [each.item() for each in losses] == pytest.approx([4.004159255664, 4.190119908733, 5.934735682424], abs=1e-11)
    eye = torch.eye(4, dtype=torch.bool)
    assert contrastive(one, two, 1 / 0.07, eye, 0.1).item() == pytest.approx(losses[1].item(), abs=1e-12)
    assert contrastive(two, one, 1 / 0.07, same, 0.1).item() == pytest.approx(contrastive(one, two, 1 / 0.07, same, 0.1).item(), abs=1e-12)
    smooth = torch.full((16, 16), 0.1 / 16, dtype=torch.float64) + 0.9 * torch.eye(16, dtype=torch.float64)
    floor = contrastive(smooth.log(), torch.eye(16, dtype=torch.float64), 1.0, None, 0.1)  # logits that are their targets'
    assert floor.item() == pytest.approx(0.565, abs=5e-4) and floor.item() == pytest.approx(torch.special.entr(smooth[0]).sum().item())
    everyone = torch.ones(4, 4, dtype=torch.bool)
    assert contrastive(one, one[:1].expand(4, 6), 0.0, everyone).item() == pytest.approx(math.log(4), abs=1e-12)
    assert torch.autograd.gradcheck(lambda a, b: contrastive(a, b, 5.0, same, 0.1), [one.requires_grad_(), two.requires_grad_()])


def test_the_triplet_of_prototypes_has_its_worked_numbers() -> None:
    images, classes, targets = raw(4, 6), raw(3, 6, 1), torch.tensor([0, 1, 2, 0])
    rows = [triplet(apart(images[row : row + 1], classes), targets[row : row + 1], 0.5).item() for row in range(4)]
    assert rows == pytest.approx([1.3552831952, 0.0732320141, 0.0, 0.4337677207], abs=1e-9)
    assert triplet(apart(images, classes), targets, 0.5).item() == pytest.approx(0.465570732490, abs=1e-11)
    unit = apart(normalize(images, dim=1), normalize(classes, dim=1))
    assert triplet(unit, targets, 0.5).item() == pytest.approx(0.547211771223, abs=1e-11)
    order = torch.tensor([2, 0, 1])
    assert triplet(unit[:, order], order.argsort()[targets], 0.5).item() == pytest.approx(0.547211771223, abs=1e-11)
    margin = torch.tensor(5.0, dtype=torch.float64, requires_grad=True)  # every row is active
    assert torch.autograd.grad(triplet(unit, targets, margin), margin)[0].item() == pytest.approx(1)
    same = apart(images, classes[:1].expand(3, 6))
    assert triplet(same, targets, 0.5).item() == pytest.approx(0.5, abs=1e-12)
    assert triplet(unit[:, :1], torch.zeros(4, dtype=torch.int64), 0.5).item() == 0
    free = images.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: triplet(apart(x, classes), targets, 0.5), free)


def test_among_images_a_row_is_no_part_of_its_own_prototype() -> None:
    images, labels = grid(6, 5), torch.tensor([7, 7, 2, 7, 2, 9])
    queries, targets = among(images, labels)
    assert targets.tolist() == [1, 1, 0, 1, 0] and queries.shape == (5, 3)  # the class of one row has no query
    for row, (index, target) in enumerate(zip((0, 1, 2, 3, 4), targets.tolist(), strict=True)):
        for place, label in enumerate((2, 7, 9)):
            mates = [each for each in range(6) if labels[each] == label and not (place == target and each == index)]
            want = ((images[index] - images[mates].mean(0)).square().sum() + 1e-6).sqrt()
            assert queries[row, place].item() == pytest.approx(want.item(), abs=1e-12)


def test_a_wrong_caption_has_its_worked_numbers() -> None:
    images, right, wrong = (grid(3, 5, shift) for shift in (0, 1, 2))
    rows = [outweighed(*(each[row : row + 1] for each in (images, right, wrong)), 1.0).item() for row in range(3)]
    assert rows == pytest.approx([0.6133496274, 0.3358848989, 0.3207399940], abs=1e-9)
    assert outweighed(images, right, wrong, 1.0).item() == pytest.approx(0.423324840127, abs=1e-11)
    scale = torch.tensor(1 / 0.07, dtype=torch.float64, requires_grad=True)
    images.requires_grad_()
    loss = outweighed(images, right, wrong, scale)
    assert loss.item() == pytest.approx(0.029538536619, abs=1e-11)
    loss.backward()
    more = (images.detach() * (wrong - right)).sum(1, keepdim=True)
    want = (scale * torch.sigmoid(scale * more) * (wrong - right)).detach() / 3
    assert images.grad is not None and torch.allclose(images.grad, want, atol=1e-15) and scale.grad is None
    tie = right.clone().requires_grad_()
    even = outweighed(images, right, tie, 1.0)
    assert even.item() == pytest.approx(math.log(2), abs=1e-12)
    torch.testing.assert_close(torch.autograd.grad(even, tie)[0], images.detach() / 2 / 3)  # half, however wrong the caption
    flat = [outweighed(right, right, -right, 1.0), outweighed(right, -right, right, 1.0)]  # all that there is at a scale of 1
    assert [each.item() for each in flat] == pytest.approx([0.126928, 2.126928], abs=5e-7)
    assert torch.autograd.gradcheck(
        lambda a, b, c: outweighed(a, b, c, 3.0), [each.detach().requires_grad_() for each in (images, right, wrong)]
    )


ALIP_WORKED = {  # value, |gX|, gX[3,5], |gY|, dls, |gZ|
    1.0: (0.0840280183, 0.2769297615, 0.0204631678, 0.2020832264, -0.0745598047, 0.0365156276),
    0.8: (0.1894921083, 0.6331219788, 0.0449580988, 0.4653929614, -0.1566616670, 0.0802407170),
}
ALIP_GATES = {
    1.0: [[0.847211216766, 0.696515490153, 0.581287417275, 0.664004773864], [0.935089934271], [0.722330840888]],
    0.8: [
        [1, 1, 0.863717138008, 0.986624320192],
        [1, 1, 0.846533463584, 1.093435364440],
        [1, 1, 0.953220766687, 1.312034150344],
    ],
}


def third() -> Tensor:
    i, j = torch.arange(4, dtype=torch.float64)[:, None], torch.arange(6, dtype=torch.float64)[None]
    return torch.sin((i + 1) * (j + 2)) + 0.8 * torch.cos((i + 2) * (3 * j + 1))


def seen(images: Tensor, firsts: Tensor, seconds: Tensor, scale: Tensor, there: Tensor) -> Any:
    """A view of captioned rows, some with a second text."""
    same = torch.eye(len(images), dtype=torch.bool)
    return SimpleNamespace(
        images=images,
        there=lambda what: there,
        captioned=torch.ones(len(images), dtype=torch.bool),
        some_captioned=True,
        captioned_pairs=Pairs(images, firsts, same),
        beside=lambda what: seconds[there],
        scale=scale,
        batch=SimpleNamespace(beside={"second:caption": Beside(torch.arange(int(there.sum()))[:, None], there)}),
        alike=lambda rows: torch.eye(len(rows), dtype=torch.bool),
    )


def gated(mean: float = 1.0, **settings: Any) -> ALIP:
    term = ALIPConfig(warm=False, **settings).build(None, 0).double()  # type: ignore[arg-type]
    term.means.fill_(mean)
    return term


@pytest.mark.parametrize("mean", ALIP_WORKED)
def test_alip_has_its_worked_numbers(mean: float) -> None:
    raws = [each.requires_grad_() for each in (*fixture(), third())]
    log = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
    term, units = gated(mean), [normalize(each, dim=-1) for each in raws]
    losses = term(seen(*units, log.exp(), torch.ones(4, dtype=torch.bool)))  # type: ignore[misc]
    loss = losses["first"] + losses["second"]
    one, two, three, scale = torch.autograd.grad(loss, [*raws, log])
    parts = [loss, one.norm(), one[3, 5], two.norm(), scale, three.norm()]
    assert [each.item() for each in parts] == pytest.approx(ALIP_WORKED[mean], abs=1e-9)
    if mean == 1:
        assert term.means.tolist() == pytest.approx([0.998132012145, 0.998171566597, 0.998262042968], abs=1e-11)
    again = gated(mean)
    for weights, want in zip(again._weights(*(each.detach() for each in units)), ALIP_GATES[mean], strict=True):
        assert weights.tolist()[: len(want)] == pytest.approx(want, abs=1e-10)


def test_alip_above_its_means_is_two_contrasts_and_a_row_without_a_second_text_weighs_one() -> None:
    one, two, three = (normalize(each, dim=-1) for each in (*fixture(), third()))
    scale, same = torch.tensor(10.0, dtype=torch.float64), torch.eye(4, dtype=torch.bool)
    losses = gated(-2.0)(seen(one, two, three, scale, torch.ones(4, dtype=torch.bool)))
    assert losses["first"].item() == pytest.approx(contrastive(one, two, scale, same).item(), abs=1e-12)
    assert losses["second"].item() == pytest.approx(contrastive(one, three, scale, same).item(), abs=1e-12)
    there = torch.tensor([True, False, True, False])
    losses, term = gated(1.0)(seen(one, two, three, scale, there)), gated(1.0)
    sample, first, second = term._weights(one[there], two[there], three[there])
    rows = pair_losses(one, two, scale, same)
    assert losses["first"].item() == pytest.approx(
        (sample[0] * first[0] * rows[0] + rows[1] + sample[1] * first[1] * rows[2] + rows[3]).item() / 4
    )
    seconds = pair_losses(one[there], three[there], scale, torch.eye(2, dtype=torch.bool))
    assert losses["second"].item() == pytest.approx((sample * second * seconds).mean().item())
    alone = gated(1.0)(seen(one, two, three, scale, torch.zeros(4, dtype=torch.bool)))
    assert list(alone) == ["first"] and alone["first"].item() == pytest.approx(contrastive(one, two, scale, same).item())


def alip_by_hand(u: np.ndarray, v: np.ndarray, w: np.ndarray, scale: float, mean: float) -> float:
    count, total = len(u), 0.0
    fits = {"texts": (v * w).sum(1), "first": (u * v).sum(1), "second": (u * w).sum(1)}
    means = {name: 0.99 * mean + 0.01 * each.mean() for name, each in fits.items()}
    for i in range(count):
        sample = min(1.0, math.exp(2 * (fits["texts"][i] - means["texts"])))
        for name, texts in (("first", v), ("second", w)):
            pair = math.exp(2 * (fits[name][i] - means[name])) if sample < 1 else 1.0
            own = scale * float(u[i] @ texts[i])
            ways = [[scale * float(u[i] @ each) for each in texts], [scale * float(each @ texts[i]) for each in u]]
            total += sample * pair * sum(math.log(sum(map(math.exp, way))) - own for way in ways) / 2 / count
    return total


@pytest.mark.parametrize("count", [1, 2, 7, 33])
def test_alip_is_that_of_a_plain_loop_and_of_finite_differences(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    source = torch.Generator().manual_seed(count)
    images = torch.randn(count, 5, generator=source, dtype=torch.float64)
    raws = [images, *(images + torch.randn(count, 5, generator=source, dtype=torch.float64) for _ in range(2))]
    units, every = [normalize(each, dim=-1) for each in raws], torch.ones(count, dtype=torch.bool)
    scale = torch.tensor(7.0, dtype=torch.float64)
    losses = gated(0.5)(seen(*units, scale, every))  # type: ignore[misc]
    loss = losses["first"] + losses["second"]
    assert loss.item() == pytest.approx(alip_by_hand(*(each.numpy() for each in units), 7.0, 0.5), rel=1e-11, abs=1e-12)  # type: ignore[misc]
    with torch.autocast("cpu", torch.bfloat16):
        cast = gated(0.5).float()(seen(*(each.float() for each in units), scale.float(), every))  # type: ignore[misc]
    assert (cast["first"] + cast["second"]).item() == pytest.approx(loss.item(), rel=1e-5, abs=1e-6)
    term = gated(0.5)
    weights = term._weights(*units)
    assert not any(each.requires_grad for each in term._weights(*(each.clone().requires_grad_() for each in units)))
    monkeypatch.setattr(term, "_weights", lambda *features: weights)

    def through(one: Tensor, two: Tensor, three: Tensor, log: Tensor) -> Tensor:
        held = term(seen(*(normalize(each, dim=-1) for each in (one, two, three)), log.exp(), every))  # type: ignore[misc]
        return held["first"] + held["second"]

    if count < 33:
        assert torch.autograd.gradcheck(through, [each.requires_grad_() for each in (*raws, scale.log())])


@pytest.mark.parametrize("corner", ["all equal", "texts are images", "texts are not images"])
def test_alip_is_finite_with_its_gradients_where_all_fits_are_one(corner: str) -> None:
    images = fixture()[0].float()
    texts = {"all equal": images[:1].expand(4, 6), "texts are images": images, "texts are not images": -images}[corner].clone()
    if corner == "all equal":
        images = texts.clone()
    free = [each.requires_grad_() for each in (images, texts, texts.clone())]
    term = ALIPConfig().build(None, 0)  # type: ignore[arg-type]
    losses = term(seen(*(normalize(each, dim=-1) for each in free), torch.tensor(10.0), torch.ones(4, dtype=torch.bool)))  # type: ignore[misc]
    slopes = torch.autograd.grad(losses["first"] + losses["second"], free)
    assert all(each.isfinite().all() for each in (*losses.values(), *slopes))


def test_warm_means_begin_with_each_sessions_first_batch() -> None:
    term = ALIPConfig().build(None, 0).double()  # type: ignore[arg-type]
    one, two, three = (normalize(each, dim=-1) for each in (*fixture(), third()))
    for _ in range(2):
        term.begin(None)  # type: ignore[arg-type]
        assert not term.begun and term.means.tolist() == [1, 1, 1]
        weights = term._weights(one, two, three)
        assert term.means.tolist() == pytest.approx(
            [(two * three).sum(1).mean().item(), (one * two).sum(1).mean().item(), (one * three).sum(1).mean().item()]
        )
        term._weights(-one, two, three)  # the means move, by a hundredth
        assert term.means[1].item() == pytest.approx(0.98 * (one * two).sum(1).mean().item())
    assert max(each.max().item() for each in weights[:1]) == 1


# wording


@pytest.mark.parametrize(
    ("text", "drawn", "becomes"),
    [
        ("ten kittens often listen", 0, "two kittens often listen"),  # whole words only
        ("often a tent", 0, None),
        ("one dog", 0, None),  # grammar would tell
        ("Three dogs and 4 cats", 0, "Two dogs and 4 cats"),
        ("Three dogs and 4 cats", 1, "Three dogs and 2 cats"),
        ("a 10.5 m boat, 3:15", 0, None),
        ("two-way, a 4-5 match", 0, None),
        ("TWO dogs.", 1, "FOUR dogs."),
        ("10 boats, two men", 1, "10 boats, three men"),
        ("", 3, None),
    ],
)
def test_one_number_becomes_another(text: str, drawn: int, becomes: str | None) -> None:
    assert another_number(text, drawn) == becomes


def test_every_other_number_is_drawn_and_never_the_same() -> None:
    drawn_texts = {another_number("seven dogs", drawn) for drawn in range(100)}
    assert len(drawn_texts) == 8 and "seven dogs" not in drawn_texts and not any("one " in str(each) for each in drawn_texts)


@pytest.mark.parametrize(
    ("text", "drawn", "becomes"),
    [
        ("a dog on the cat", 0, "a cat on the dog"),
        ("Dogs chase a ball.", 0, "Chase dogs a ball."),
        ("Dogs chase a ball.", 2, "Dogs ball a chase."),
        ("the dog and the Dog", 5, None),
        ("a dog", 5, None),
    ],
)
def test_two_words_change_places(text: str, drawn: int, becomes: str | None) -> None:
    assert exchanged(text, drawn) == becomes


# how it is drawn


def rows_of(*beside: Any, data: ImageTable | None = None, **settings: Any) -> Rows:
    return Rows(data or table(), make.tiny(), make.names((0, 1)), beside=beside, seed=3, **settings)


def test_a_partner_is_another_row_of_its_own_drawn_for_each_epoch_or_a_second_crop() -> None:
    rows = rows_of("partner:label", "partner:identity")
    plain = [rows.pixels_of(row, 0) for row in range(6)]

    def which(pixels: Any) -> int | None:
        return next((row for row, each in enumerate(plain) if torch.equal(each, pixels)), None)

    drawn = {row: {which(rows[(row, epoch, 0)].beside[0]) for epoch in range(30)} for row in range(5)}
    assert drawn == {0: {1, 4}, 1: {0, 4}, 2: {3}, 3: {2}, 4: {0, 1}}
    assert rows[(5, 0, 0)].beside[0] is None and rows[(2, 0, 0)].beside[1] is None and which(rows[(5, 0, 0)].beside[1]) == 3
    first, again = rows[(0, 4, 0)].beside[0], rows_of("partner:label")[(0, 4, 9)].beside[0]
    assert isinstance(first, Tensor) and isinstance(again, Tensor) and torch.equal(first, again)  # whatever the step
    alone = rows_of("partner:label", data=table().take([0, 2]))
    crops = [alone[(0, epoch, 0)].beside[0] for epoch in (0, 0, 1)]
    assert torch.equal(crops[0], crops[1]) and not torch.equal(crops[0], crops[2]) and not torch.equal(crops[0], plain[0])  # type: ignore[arg-type]
    twice = rows_of("partner:label", data=ImageTable.of(["a", "a2"], [make.png(0, 0), make.png(0, 1)], ["red", "red"]))
    assert torch.equal(twice[(0, 0, 0)].beside[0], twice.pixels_of(1, 0))  # type: ignore[arg-type]


def test_a_sample_that_a_memory_brings_twice_is_no_partner_of_itself() -> None:
    data = table().take([0, 0, 2])
    rows = rows_of("partner:label", data=data)
    rows.cropped = lambda row, epoch: torch.tensor([row, epoch])  # type: ignore[method-assign]
    assert [rows[(0, epoch, 0)].beside[0].tolist() for epoch in range(3)] == [[0, 0], [0, 1], [0, 2]]  # type: ignore[union-attr]


def test_second_texts_and_wrong_ones_are_drawn_from_what_the_row_has() -> None:
    asked = ("wrong:column", "wrong:numbers", "wrong:words", "second:caption", "second:rewrite", "second:label")
    rows = rows_of(*asked, original=1.0)
    said = {row: [{rows[(row, epoch, 0)].beside[place] for epoch in range(40)} for place in range(6)] for row in range(6)}
    assert said[0][0] == {"no dogs at all", "nine red dogs"} and said[2][0] == {None} and said[5][0] == {"soot"}
    assert len(said[0][1]) == 8 and said[3][1] == {None} and all(str(each).endswith("dyes") for each in said[5][1])
    assert said[0][2] == {"two dogs red", "red two dogs", "dogs red two"} and said[4][2] == {None}
    assert said[1][3] == {"a bird", "a red cat chases three birds"} and said[0][3] == {None}
    assert said[0][4] == {"a pair of dogs", "dogs"} and said[1][4] == {None}
    assert said[0][5] == {"a red square"} and said[2][5] == {None} == said[5][5]  # without a caption there is no second text


def test_a_rewrite_is_a_caption_like_any_unless_captions_have_a_share_and_words_alone_are_none() -> None:
    data = ImageTable.of(["a"], [make.png(0, 0)], None, [["one caption"]], rewrites=[["said anew", "word", "told otherwise"]])
    visits = 10_000

    def counts(original: float | None) -> dict[str, int]:
        rows = rows_of(data=data, original=original)
        told = [rows[(0, epoch, 0)].text for epoch in range(visits)]
        return {text: told.count(text) for text in dict.fromkeys(told)}

    for original, want in ((None, 1 / 3), (0.8, 0.8), (0.0, 0.0), (1.0, 1.0)):
        counted = counts(original)
        share = counted.get("one caption", 0) / visits
        assert abs(share - want) <= 4 * math.sqrt(want * (1 - want) / visits) and "word" not in counted
    assert abs(counts(None)["said anew"] / visits - 1 / 3) < 4 * math.sqrt(2 / 9 / visits)


def test_without_rewrites_captions_are_drawn_as_ever() -> None:
    plain = ImageTable.of([str(n) for n in range(6)], [make.png(n % 3, n) for n in range(6)], LABELS, TEXTS)
    for original in (None, 0.2):
        one, two = rows_of(data=plain), rows_of(data=plain, original=original)
        assert [one[(row, epoch, 0)].text for row in range(6) for epoch in range(9)] == [
            two[(row, epoch, 0)].text for row in range(6) for epoch in range(9)
        ]


# terms


def test_identity_is_the_contrast_of_images_with_their_partners() -> None:
    for by, there in (("label", [True] * 5 + [False]), ("identity", [True, True, False, True, False, True])):
        method = built({"kind": "identity", "by": by, "weight": 2.0, "scale": 10.0})
        batch = batch_of(method)
        beside = batch.beside[f"partner:{by}"]  # type: ignore[index]
        assert beside.there.tolist() == there
        names = [name for name in (LABELS if by == "label" else EXTRAS["identity"]) if name]
        same = torch.tensor([[one == two for two in names] for one in names])
        want = contrastive(method.clip.encode_image(batch.images[beside.there]), method.clip.encode_image(beside.values), 10.0, same, 0.1)
        assert method.losses(batch)["identity"].item() == pytest.approx(2 * want.item(), rel=1e-9)


def test_counterfactual_weighs_the_caption_that_was_drawn_against_the_wrong_one() -> None:
    method = built({"kind": "counterfactual", "weight": 3.0})
    batch = batch_of(method)
    there = [0, 5]
    images, right = method.clip.encode_image(batch.images[there]), method.clip.encode_text(batch.texts[there])
    wrong = method.clip.encode_text(batch.beside["wrong:column"].values)
    want = softplus(method.clip.scale() * ((images * wrong).sum(1) - (images * right).sum(1))).mean()
    loss = method.losses(batch)["counterfactual"]
    assert loss.item() == pytest.approx(3 * want.item(), rel=1e-9)
    assert torch.autograd.grad(loss, method.clip.logit_scale, allow_unused=True)[0] is None


@pytest.mark.parametrize("kind", ["identity", "counterfactual", "proto_triplet", "alip"])
def test_a_batch_that_has_nothing_for_a_term_gives_it_a_zero_with_a_graph(kind: str) -> None:
    method = built(
        {"kind": kind, **({"wrong": "numbers"} if kind == "counterfactual" else {}), **({"by": "identity"} if kind == "identity" else {})}
    )
    bare = table().take([2, 4]) if kind != "proto_triplet" else table().take([5, 5])
    losses = method.losses(batch_of(method, data=bare if kind != "alip" else table().take([2, 2])))
    zeros = [loss for name, loss in losses.items() if name not in ("contrast", "classify")]
    assert [each.item() for each in zeros] == [0] and zeros[0].requires_grad


def test_permuting_the_batch_changes_nothing() -> None:
    method = built(
        {"kind": "identity"},
        {"kind": "counterfactual", "wrong": "words"},
        "proto_triplet",
        {"kind": "alip", "second": "rewrite", "warm": False},
    )
    batch = batch_of(method)
    first = {name: loss.item() for name, loss in method.losses(batch).items()}
    method.begin(session())
    order = [3, 5, 0, 4, 1, 2]
    rows = Rows(table(), method.clip, method.vocabulary, beside=method.beside)
    again = Collate(method.clip.tokenize, torch.float64, method.beside)([rows[(row, 0, 0)] for row in order])
    assert {name: loss.item() for name, loss in method.losses(again).items()} == pytest.approx(first, rel=1e-9)


REFUSED: list[tuple[Any, ImageTable, str]] = [
    ("identity", table().without("label"), "none of its 6 rows has a label, and the term identity"),
    ({"kind": "identity", "by": "identity"}, table().without("label"), "has no column identity"),
    ("proto_triplet", table().without("label"), "none of its 6 rows has a label, and the term proto_triplet"),
    ("counterfactual", table().take([1, 3]), "counterfactual: it has no column counterfactuals"),
    ({"kind": "counterfactual", "wrong": "numbers"}, table().take([3, 4]), "no caption with a number from two to ten"),
    ({"kind": "counterfactual", "wrong": "words"}, table().take([4]), "no caption with two words to exchange"),
    ("alip", table().take([0, 3]), "alip compares two texts, and it has no row with two captions"),
    ({"kind": "alip", "second": "rewrite"}, table().take([1]), "no row with a caption and a rewrite"),
    ({"kind": "alip", "second": "label"}, table().take([2, 5]), "no row with a caption and a label"),
]


@pytest.mark.parametrize(("term", "data", "told"), REFUSED)
def test_a_session_that_lacks_what_a_term_compares_is_refused_by_name(term: Any, data: ImageTable, told: str) -> None:
    with pytest.raises(MethodError, match=told) as caught:
        learn(built(term), session(data), TRAIN, 0)
    assert "session 1 (here)" in str(caught.value)


def test_identity_over_an_image_tower_that_rests_is_refused() -> None:
    with pytest.raises(MethodError, match="the image tower is not tuned"):
        built("identity", tune={"kind": "whole", "part": "text"}).check(session())


def test_identity_may_teach_alone_and_what_is_beside_is_on_every_step() -> None:
    method = RecipeConfig.model_validate({"terms": ["identity"]}).build(make.tiny(), 0)
    before = method.clip.model.visual.proj.detach().clone()
    learn(method, session(), TRAIN.model_copy(update={"augment": True}), 0)
    assert not torch.equal(before, method.clip.model.visual.proj)
