"""The objectives over pairs against worked numbers, plain loops and finite differences, and in the corners where they could break."""

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, normalize

from cl.methods.losses import contrastive
from cl.methods.objectives import cloob, distance, geodesic, infoloob, mixed, retrieved, siglip, siglip_bias, uniformity

Loss = Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor]


def gap(u: Tensor, v: Tensor, same: Tensor | None, cross: float = 0.0) -> Tensor:
    return distance(u, v) + (uniformity(u, u, same) + uniformity(v, v, same)) / 2 + cross * uniformity(u, v, same)


LOSSES: dict[str, Loss] = {
    "clip": lambda u, v, s, same: contrastive(u, v, s, same),
    "siglip": lambda u, v, s, same: siglip(u, v, s, -10.0, same),
    "infoloob": infoloob,
    "cloob": lambda u, v, s, same: cloob(u, v, s, 8.0, same),
    "cloob 14.3": lambda u, v, s, same: cloob(u, v, 1.43 * s, 14.3, same),
    "mixed": lambda u, v, s, same: mixed(u, v, 0.3, 5.0, same),
    "gap": lambda u, v, s, same: contrastive(u, v, s, same) + gap(u, v, same),
    "gap crossed": lambda u, v, s, same: contrastive(u, v, s, same) + gap(u, v, same, 1.0),
}
PLAIN = torch.eye(4, dtype=torch.bool)
EQUAL = PLAIN.clone()
EQUAL[1, 3] = EQUAL[3, 1] = True

# value, |d images|, its entry [3, 5], |d texts|, d logit_scale: of the official code where there is one, through the normalisation
WORKED = {
    ("clip", False): (0.1892583456, 0.8312789007, 0.0462045055, 0.5434857666, -0.0834833394),
    ("clip", True): (2.1001748945, 1.8149432185, -0.5190440098, 0.8385153976, 1.6304592893),
    ("siglip", False): (2.0614483548, 1.5859308196, 0.1811008605, 1.2170245170, -6.4501052964),
    ("siglip", True): (7.6424230945, 3.5434466926, -1.7458494230, 1.7315187869, -5.9987978524),
    ("infoloob", False): (-0.6985481868, 0.6229760604, 0.2081113018, 0.4563943834, -0.0617478297),
    ("cloob", False): (-0.9180634762, 1.3723295887, 0.1896900358, 0.9497159811, -0.0777939312),
    ("cloob", True): (-0.2145805626, 1.2829823334, 0.0113902354, 0.7384219815, -0.0597141013),
    ("cloob 14.3", False): (-1.0001648997, 2.3166194639, 0.1322468849, 1.5656482136, -0.0398264352),
    ("mixed", False): (0.4088475790, 0.5870855704, 0.1392426118, 0.4093296911, 0.0),
    ("mixed", True): (1.9357227973, 1.6310225916, -0.4814709863, 0.9313532382, 0.0),
    ("gap", False): (-2.5712171836, 1.2515380735, 0.4349315999, 0.9734482075, -0.0834833394),
    ("gap crossed", False): (-5.2348280586, 1.9632640469, 0.6649257248, 1.5282379749, -0.0834833394),
    ("gap crossed", True): (-2.5953549166, 2.9571540067, -0.1758166631, 1.3264585807, 1.6304592893),
}


# of clip over two equal texts, where none but the own one is a positive: the same, but for how the texts share their gradient
UNSHARED = (2.1001748945, 1.8149432185, -0.5190440098, 1.2497694145, 1.6304592893)


def fixture(equal: bool = False) -> tuple[Tensor, Tensor]:
    """Four pairs in six dimensions, not yet of unit length; with two equal texts where that is asked."""
    i, j = torch.arange(4, dtype=torch.float64)[:, None], torch.arange(6, dtype=torch.float64)[None]
    images = torch.sin((i + 1) * (j + 2))
    texts = images + 0.8 * torch.cos((2 * i + 1) * (j + 1))
    if equal:
        texts[3] = texts[1]
    return images, texts


def unit(equal: bool = False) -> tuple[Tensor, Tensor]:
    return tuple(normalize(each, dim=-1) for each in fixture(equal))  # type: ignore[return-value]


def drawn(n: int, d: int = 5) -> tuple[Tensor, Tensor, Tensor]:
    """Unit rows that lean on their pair, and a random equivalence of them."""
    source = torch.Generator().manual_seed(n)
    images = torch.randn(n, d, generator=source, dtype=torch.float64)
    texts = images + torch.randn(n, d, generator=source, dtype=torch.float64)
    groups = torch.randint(0, max(2, n // 2), (n,), generator=source)
    return normalize(images, dim=-1), normalize(texts, dim=-1), groups[:, None] == groups[None]


def slopes(name: str, equal: bool, same: Tensor | None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Value, and gradients of images, texts and logit scale, through the normalisation."""
    images, texts = (each.requires_grad_() for each in fixture(equal))
    log = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
    loss = LOSSES[name](normalize(images, dim=-1), normalize(texts, dim=-1), log.exp(), same)
    gradients = torch.autograd.grad(loss, [images, texts, log], allow_unused=True)
    assert gradients[0] is not None and gradients[1] is not None
    return loss, gradients[0], gradients[1], torch.zeros(()) if gradients[2] is None else gradients[2]


def printed(loss: Tensor, images: Tensor, texts: Tensor, log: Tensor) -> list[float]:
    return [value.item() for value in (loss, images.norm(), images[3, 5], texts.norm(), log)]


@pytest.mark.parametrize(("name", "equal"), WORKED)
def test_the_worked_numbers_value_and_gradient(name: str, equal: bool) -> None:
    assert printed(*slopes(name, equal, EQUAL if equal else PLAIN)) == pytest.approx(WORKED[name, equal], abs=1e-10)


def test_the_fixture_is_the_one_that_the_numbers_are_of() -> None:
    u, v = unit()
    assert (u @ v.T)[0].tolist() == pytest.approx([0.964615283, -0.081074677, 0.152369515, 0.541304503], abs=1e-9)


def test_whether_equal_texts_share_a_target_is_nothing_to_clip_and_all_to_retrieval() -> None:
    shared, alone = slopes("clip", True, EQUAL), slopes("clip", True, None)
    assert printed(*alone) == pytest.approx(UNSHARED, abs=1e-10)
    for one, two in ((shared[1], alone[1]), (shared[2][[1, 3]].sum(0), alone[2][[1, 3]].sum(0))):  # a tower gets the sum of both texts'
        torch.testing.assert_close(one, two, rtol=0, atol=1e-14)
    u, v = unit(equal=True)
    assert cloob(u, v, 10.0, 8.0, None).item() == pytest.approx(-0.020, abs=5e-4)  # with them left out -0.2145805626


def test_the_slope_of_clip_is_what_is_expected_beyond_what_is_there() -> None:
    u, v = unit()
    logits = (10 * u @ v.T).requires_grad_()
    scale = torch.tensor(10.0, dtype=torch.float64, requires_grad=True)
    loss = contrastive(u, v, scale)
    target = torch.eye(4, dtype=torch.float64)
    want = ((logits.softmax(1) - target) + (logits.T.softmax(1) - target).T).detach() / 8
    by_logits = torch.autograd.grad(contrastive(logits, target, 1.0), logits)[0]  # scaled cosines as rows, texts as axes
    torch.testing.assert_close(by_logits, want, rtol=0, atol=1e-15)
    slope = torch.autograd.grad(loss, scale)[0] * scale
    assert slope.item() == pytest.approx((logits * want).sum().item(), abs=1e-14)


@pytest.mark.parametrize("copies", [2, 4])
def test_copies_of_a_text_have_a_floor_of_the_logarithm_of_their_number(copies: int) -> None:
    rows = torch.eye(4, dtype=torch.float64).repeat_interleave(copies, 0)
    assert contrastive(rows, rows, 100.0, (rows @ rows.T).bool()).item() == pytest.approx(math.log(copies), abs=1e-12)
    assert contrastive(rows, rows, 100.0).item() == pytest.approx(math.log(copies), abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_without_equal_texts_only_the_diagonal_is_a_positive(name: str) -> None:
    scale = torch.tensor(10.0, dtype=torch.float64)
    assert LOSSES[name](*unit(), scale, None).item() == pytest.approx(LOSSES[name](*unit(), scale, PLAIN).item(), abs=1e-14)


def test_the_parts_of_the_gap_have_their_worked_numbers() -> None:
    u, v = unit()
    parts = [distance(u, v), uniformity(u, u), uniformity(v, v), uniformity(u, v)]
    assert [each.item() for each in parts] == pytest.approx([0.3656866806, -3.2223241449, -3.0300002747, -2.6636108750], abs=1e-10)


@pytest.mark.parametrize(("scale", "bias", "loss"), [(10.0, -6.792084143098, 0.626221328068), (100.0, -71.777741637960, 0.435804841965)])
def test_the_best_bias_has_its_worked_number_and_no_slope(scale: float, bias: float, loss: float) -> None:
    best = siglip_bias(*unit(), scale).requires_grad_()
    value = siglip(*unit(), scale, best)
    assert best.item() == pytest.approx(bias, abs=1e-11) and value.item() == pytest.approx(loss, abs=1e-11)
    assert torch.autograd.grad(value, best)[0].item() == pytest.approx(0, abs=1e-10)


@pytest.mark.parametrize(("equal", "slope"), [(False, -0.8026728623), (True, -1.3168449462)])
def test_the_slope_of_the_bias_is_what_is_expected_beyond_what_is_there(equal: bool, slope: float) -> None:
    bias = torch.tensor(-10.0, dtype=torch.float64, requires_grad=True)
    value = siglip(*unit(equal), 10.0, bias, EQUAL if equal else PLAIN)
    assert torch.autograd.grad(value, bias)[0].item() == pytest.approx(slope, abs=1e-10)


# plain loops, entry by entry


def lse(values: list[float]) -> float:
    return float(np.log(np.sum(np.exp(values))))


def loob_by_hand(a: np.ndarray, b: np.ndarray, scale: float, same: np.ndarray) -> float:
    total = 0.0
    for i in range(len(a)):
        negatives = [scale * float(a[i] @ b[j]) for j in range(len(b)) if not same[i, j]]
        positives = [scale * float(a[i] @ b[j]) for j in range(len(b)) if same[i, j]]
        if negatives:
            total += lse(negatives) - sum(positives) / len(positives)
    return total / len(a) / scale


def retrieved_by_hand(queries: np.ndarray, memory: np.ndarray, beta: float) -> np.ndarray:
    rows = []
    for query in queries:
        weights = [np.exp(beta * query @ each) for each in memory]
        mean = sum(w * each for w, each in zip(weights, memory, strict=True)) / sum(weights)
        rows.append(mean / np.sqrt(sum(mean**2)))
    return np.array(rows)


def cloob_by_hand(u: np.ndarray, v: np.ndarray, scale: float, beta: float, same: np.ndarray) -> float:
    images = [retrieved_by_hand(rows, u, beta) for rows in (u, v)]
    texts = [retrieved_by_hand(rows, v, beta) for rows in (v, u)]
    return loob_by_hand(images[0], images[1], scale, same) + loob_by_hand(texts[0], texts[1], scale, same)


def siglip_by_hand(u: np.ndarray, v: np.ndarray, scale: float, bias: float, same: np.ndarray) -> float:
    total = 0.0
    for i in range(len(u)):
        for j in range(len(v)):
            logit = scale * u[i] @ v[j] + bias
            total += np.log(1 + np.exp(-logit if same[i, j] else logit))
    return float(total / len(u))


def uniformity_by_hand(a: np.ndarray, b: np.ndarray, same: np.ndarray) -> float:
    near = [np.exp(-2 * ((a[i] - b[j]) ** 2).sum()) for i in range(len(a)) for j in range(len(b)) if not same[i, j]]
    return float(np.log(np.mean(near))) if near else 0.0


def mixed_by_hand(u: np.ndarray, v: np.ndarray, share: float, scale: float, same: np.ndarray) -> float:
    mixtures = []
    for one, other in zip(u, v, strict=True):
        angle = np.arccos(one @ other)
        mixtures.append((np.sin(share * angle) * one + np.sin((1 - share) * angle) * other) / np.sin(angle))
    total = 0.0
    for rows in (u, v):
        for i in range(len(u)):
            own = scale * float(u[i] @ v[i])
            others = [scale * float(rows[i] @ mixtures[j]) for j in range(len(u)) if j != i and not same[i, j]]
            total += (lse([own, *others]) - own) / len(u)
    return total


def clip_by_hand(u: np.ndarray, v: np.ndarray, scale: float, same: np.ndarray) -> float:
    total = 0.0
    for one, other in ((u, v), (v, u)):
        for i in range(len(u)):
            logits = [scale * float(one[i] @ row) for row in other]
            positives = [logits[j] for j in range(len(u)) if same[i, j]]
            total += (lse(logits) - sum(positives) / len(positives)) / len(u) / 2
    return total


BY_HAND: dict[str, tuple[Loss, Callable[[np.ndarray, np.ndarray, np.ndarray], float]]] = {
    "clip": (lambda u, v, s, m: contrastive(u, v, 7.0, m), lambda u, v, m: clip_by_hand(u, v, 7, m)),
    "infoloob": (lambda u, v, s, m: infoloob(u, v, 7.0, m), lambda u, v, m: loob_by_hand(u, v, 7, m) + loob_by_hand(v, u, 7, m)),
    "cloob": (lambda u, v, s, m: cloob(u, v, 7.0, 5.0, m), lambda u, v, m: cloob_by_hand(u, v, 7, 5, m)),
    "siglip": (lambda u, v, s, m: siglip(u, v, 7.0, -2.0, m), lambda u, v, m: siglip_by_hand(u, v, 7, -2, m)),
    "distance": (lambda u, v, s, m: distance(u, v), lambda u, v, m: float(((u - v) ** 2).sum(1).mean())),
    "uniformity": (lambda u, v, s, m: uniformity(u, u, m), lambda u, v, m: uniformity_by_hand(u, u, m)),
    "across": (lambda u, v, s, m: uniformity(u, v, m), lambda u, v, m: uniformity_by_hand(u, v, m)),
    "mixed": (lambda u, v, s, m: mixed(u, v, 0.7, 7.0, m), lambda u, v, m: mixed_by_hand(u, v, 0.7, 7, m)),
}


@pytest.mark.parametrize("n", [2, 7, 33])
@pytest.mark.parametrize("name", BY_HAND)
def test_a_plain_loop_gives_the_same(name: str, n: int) -> None:
    images, texts, same = drawn(n)
    ours, by_hand = BY_HAND[name]
    wanted = by_hand(images.numpy(), texts.numpy(), same.numpy())
    assert ours(images, texts, torch.ones(()), same).item() == pytest.approx(wanted, rel=1e-11, abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
def test_gradients_agree_with_finite_differences(name: str) -> None:
    images, texts = (each.requires_grad_() for each in fixture(equal=True))
    log = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)

    def through(images: Tensor, texts: Tensor, log: Tensor) -> Tensor:
        return LOSSES[name](normalize(images, dim=-1), normalize(texts, dim=-1), log.exp(), EQUAL)

    assert torch.autograd.gradcheck(through, (images, texts, log))


@pytest.mark.parametrize("name", LOSSES)
def test_the_order_of_the_pairs_changes_nothing(name: str) -> None:
    images, texts, same = drawn(7)
    order, scale = torch.tensor([3, 0, 6, 1, 5, 2, 4]), torch.tensor(10.0, dtype=torch.float64)
    other = LOSSES[name](images[order], texts[order], scale, same[order][:, order])
    assert other.item() == pytest.approx(LOSSES[name](images, texts, scale, same).item(), abs=1e-12)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("corner", ["one pair", "all the same", "all equal", "text is image", "text is not image"])
def test_corners_are_finite_with_their_gradients(name: str, corner: str) -> None:
    images, texts = (each.float() for each in fixture())
    same = None
    match corner:
        case "one pair":
            images, texts = images[:1], texts[:1]
        case "all the same":
            same = torch.ones(4, 4, dtype=torch.bool)
        case "all equal":
            images, texts = images[:1].repeat(4, 1), images[:1].repeat(4, 1)
        case "text is image":
            texts = images.clone()
        case "text is not image":
            texts = -images
    images.requires_grad_(), texts.requires_grad_()
    loss = LOSSES[name](normalize(images, dim=-1), normalize(texts, dim=-1), torch.tensor(10.0), same)
    gradients = torch.autograd.grad(loss, [images, texts])
    assert loss.isfinite() and all(each.isfinite().all() for each in gradients)
    if corner in ("one pair", "all the same") and name in ("infoloob", "cloob", "cloob 14.3"):
        assert loss == 0 and not any(each.any() for each in gradients)  # nothing is left out of a row that has no negative
        assert uniformity(images, texts, torch.ones(len(images), len(images), dtype=torch.bool)) == 0


@pytest.mark.parametrize("name", LOSSES)
def test_autocast_around_it_changes_nothing(name: str) -> None:
    images, texts, same = drawn(33)
    images, texts = images.float(), texts.float()
    plain = LOSSES[name](images, texts, torch.tensor(10.0), same)
    with torch.autocast("cpu", torch.bfloat16):
        cast = LOSSES[name](images, texts, torch.tensor(10.0), same)
    assert cast.dtype == torch.float32 and cast.item() == pytest.approx(plain.item(), abs=1e-6)


def test_siglip_agrees_with_the_reference_loss_of_open_clip() -> None:
    from open_clip.loss import SigLipLoss

    images, texts, _ = drawn(7)
    scale, bias = (torch.tensor(each, dtype=torch.float64) for each in (10.0, -10.0))
    torch.testing.assert_close(siglip(images, texts, scale, bias), SigLipLoss()(images, texts, scale, bias), rtol=0, atol=1e-14)


def test_siglip_is_a_sum_over_rows_and_without_logits_as_many_coins() -> None:
    images, texts, same = drawn(7)
    parts = [siglip(images[rows], texts, 10.0, -2.0, same[rows]).item() * len(images[rows]) for rows in (slice(3), slice(3, 7))]
    assert sum(parts) / 7 == pytest.approx(siglip(images, texts, 10.0, -2.0, same).item(), abs=1e-13)
    assert siglip(images, texts, 0.0, 0.0, same).item() == pytest.approx(7 * math.log(2), abs=1e-13)
    bias = torch.tensor(-2.0, dtype=torch.float64, requires_grad=True)
    slope = torch.autograd.grad(siglip(images, texts, 10.0, bias, same), bias)[0]
    expected = (10 * images @ texts.T - 2).sigmoid()
    assert slope.item() == pytest.approx((expected - same.double()).sum().item() / 7, abs=1e-13)


def test_over_a_trained_clip_the_authors_bias_swamps_it_and_that_of_the_first_batch_does_not() -> None:
    """Features as CLIP has them: cosines of .5 within a modality, of .18 across and .30 of a pair."""
    source = torch.Generator().manual_seed(0)
    own = torch.linalg.qr(torch.randn(160, 160, generator=source, dtype=torch.float64))[0]
    directions = normalize(torch.randn(64, 157, generator=source, dtype=torch.float64), dim=1)
    others = normalize(torch.randn(64, 157, generator=source, dtype=torch.float64), dim=1)
    cones = own[:3]
    rows = directions @ own[3:]
    images = 0.5**0.5 * (cones[0] + rows)
    texts = 0.5**0.5 * (0.36 * cones[0] + (1 - 0.36**2) ** 0.5 * cones[1] + 0.24 * rows + (1 - 0.24**2) ** 0.5 * others @ own[3:])
    images, texts = normalize(images, dim=1).requires_grad_(), normalize(texts, dim=1)

    def steep(loss: Tensor) -> float:
        return float(torch.autograd.grad(loss, images)[0].norm())

    clip, best = steep(contrastive(images, texts, 100.0)), siglip_bias(images, texts, 100.0)
    swamped = siglip(images, texts, 100.0, -10.0)
    assert swamped.item() == pytest.approx(482, rel=0.1) and steep(swamped) > 50 * clip
    assert 1 < steep(siglip(images, texts, 100.0, best)) / clip < 5


def test_siglip_far_below_its_bias_pulls_at_what_belongs_together_alone() -> None:
    images, texts, same = drawn(7)
    logits = 10 * images @ texts.T - 200
    assert siglip(images, texts, 10.0, -200.0, same).item() == pytest.approx(-(logits * same).sum().item() / 7, abs=1e-9)


def test_a_batch_without_negatives_has_a_bias_all_the_same() -> None:
    images, texts, _ = drawn(7)
    assert siglip_bias(images, texts, 10.0, torch.ones(7, 7, dtype=torch.bool)).isfinite()
    assert siglip_bias(images[:1], texts[:1], 10.0).isfinite()


def test_retrieval_at_no_temperature_compares_the_mean_with_itself() -> None:
    images, texts = (each.requires_grad_() for each in unit())
    loss = cloob(images, texts, 10.0, 0.0)
    assert loss.item() == pytest.approx(2 / 10 * math.log(3), abs=1e-12) and loss.item() == pytest.approx(0.219722457734, abs=1e-12)
    # what is left is along the mean alone, which its length takes out again
    through = cloob(*(normalize(each, dim=-1) for each in (images, texts)), 10.0, 0.0)
    assert all(each.abs().max() < 1e-12 for each in torch.autograd.grad(through, [images, texts]))


def test_retrieval_of_the_nearest_has_the_worked_limit_and_no_gradient_across() -> None:
    u, v = (each.requires_grad_() for each in unit())
    loss = cloob(u, v, 10.0, 1e5)
    assert loss.item() == pytest.approx(-0.914479454689, abs=1e-11)
    limit = torch.zeros((), dtype=torch.float64)
    for memory, other in ((u, v), (v, u)):
        nearest = memory[(other @ memory.T).argmax(1).detach()]  # of the memory alone: nothing says which but a maximum
        for i in range(4):
            negatives = torch.stack([memory[i] @ nearest[j] * 10 for j in range(4) if j != i])
            limit = limit + (negatives.logsumexp(0) / 10 - memory[i] @ nearest[i]) / 4
    assert limit.item() == pytest.approx(loss.item(), abs=1e-12)

    def along(value: Tensor) -> list[Tensor]:
        """Gradients in the sphere: what retrieval does to a length its normalisation takes out again."""
        slopes = zip(torch.autograd.grad(value, [u, v]), (u, v), strict=True)
        return [each - (each * rows).sum(-1, keepdim=True) * rows for each, rows in slopes]

    for one, two in zip(along(loss), along(limit), strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=1e-12)


def test_what_is_retrieved_has_unit_length() -> None:
    images, texts, _ = drawn(33)
    torch.testing.assert_close(retrieved(images, texts, 8.0).norm(dim=-1), torch.ones(33, dtype=torch.float64))


@pytest.mark.parametrize("scale", [10.0, 30.0, 100.0])
def test_pairs_that_are_learned_already_go_on_pulling_under_infoloob_and_not_under_infonce(scale: float) -> None:
    raw = torch.eye(4, dtype=torch.float64).requires_grad_()
    texts = torch.eye(4, dtype=torch.float64)
    (loob,) = torch.autograd.grad(infoloob(normalize(raw, dim=-1), texts, scale), raw)
    (nce,) = torch.autograd.grad(contrastive(normalize(raw, dim=-1), texts, torch.tensor(scale, dtype=torch.float64)), raw)
    assert loob.norm().item() == pytest.approx(2 / math.sqrt(12), abs=1e-12) == pytest.approx(0.577350269190, abs=1e-12)
    assert nce.norm().item() == pytest.approx({10.0: 3.9e-4, 30.0: 2.4e-12, 100.0: 3e-42}[scale], rel=0.08)
    assert nce.norm().item() == pytest.approx(scale * math.sqrt(3 / 4) / (math.exp(scale) + 3), rel=1e-9)


@pytest.mark.parametrize("name", ["infoloob", "cloob"])
def test_a_scale_that_trained_would_only_ever_grow(name: str) -> None:
    for n in (4, 7, 33):
        log = torch.tensor(math.log(10), dtype=torch.float64, requires_grad=True)
        images, texts, _ = drawn(n)
        slope = torch.autograd.grad(LOSSES[name](images, texts, log.exp(), None), log)[0].item()
        one, other = (images, texts) if name == "infoloob" else (None, None)
        entropies = 0.0
        for a, b in ((one, other), (other, one)) if one is not None else _retrievals(images, texts):
            shares = (10 * a @ b.T).masked_fill(torch.eye(n, dtype=torch.bool), -torch.inf).softmax(1)
            entropies += torch.special.entr(shares).sum(1).mean().item()
        assert slope == pytest.approx(-entropies / 10, abs=1e-12) and slope < 0


def _retrievals(images: Tensor, texts: Tensor) -> list[tuple[Tensor, Tensor]]:
    both = ((images, texts), (texts, images))
    return [(retrieved(one, one, 8.0), retrieved(other, one, 8.0)) for one, other in both]


@pytest.mark.parametrize(("share", "images", "texts"), [(0.0, 0.287487572841, 0.166243098881), (1.0, 0.319455978833, 0.151459733749)])
def test_mixtures_that_are_all_text_or_all_image_have_their_worked_numbers(share: float, images: float, texts: float) -> None:
    u, v = unit()
    assert mixed(u, v, share, 5.0).item() == pytest.approx(images + texts, abs=1e-11)
    assert share or images + texts == pytest.approx(0.453730671722, abs=1e-12)
    # images against texts that are not mixed, or texts against images: one direction is CLIP's
    logits = 5 * (v @ u.T if share else u @ v.T)
    assert cross_entropy(logits, torch.arange(4)).item() == pytest.approx(images, abs=1e-11)


def test_a_mixture_has_unit_length_and_its_share_of_the_angle() -> None:
    u, v = unit()
    point = geodesic(u, v, 0.3)
    angle = (u * v).sum(-1).acos()
    torch.testing.assert_close(point.norm(dim=-1), torch.ones(4, dtype=torch.float64))
    torch.testing.assert_close((point * v).sum(-1).acos(), 0.3 * angle)


def test_swapping_the_sides_and_the_share_changes_nothing() -> None:
    images, texts, same = drawn(7)
    assert mixed(images, texts, 0.3, 5.0, same).item() == pytest.approx(mixed(texts, images, 0.7, 5.0, same).item(), abs=1e-12)


def test_pairs_that_are_equal_but_for_rounding_mix_without_nan() -> None:
    source = torch.Generator().manual_seed(0)
    images = normalize(torch.randn(200, 512, generator=source), dim=-1)
    texts = normalize(images + 1e-5 * torch.randn(200, 512, generator=source), dim=-1)
    images.requires_grad_()
    loss = mixed(images, texts, 0.3, 14.3)
    assert loss.isfinite() and torch.autograd.grad(loss, images)[0].isfinite().all()


def test_one_rotation_of_both_sides_changes_nothing_and_one_of_one_side_only_what_compares_them() -> None:
    images, texts, same = drawn(7)
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(1), dtype=torch.float64))[0]
    assert gap(images @ turn, texts @ turn, same, 1.0).item() == pytest.approx(gap(images, texts, same, 1.0).item(), abs=1e-12)
    turned = images @ turn
    assert uniformity(turned, turned, same).item() == pytest.approx(uniformity(images, images, same).item(), abs=1e-12)
    assert (
        abs(distance(turned, texts) - distance(images, texts)) > 0.1 and abs(uniformity(turned, texts) - uniformity(images, texts)) > 1e-3
    )


def test_uniformity_of_one_modality_is_that_of_its_distances() -> None:
    images, _, _ = drawn(33)
    wanted = torch.pdist(images).pow(2).mul(-2).exp().mean().log()
    assert uniformity(images, images).item() == pytest.approx(wanted.item(), abs=1e-12)
    assert distance(images, images).item() == pytest.approx(0, abs=1e-15)
