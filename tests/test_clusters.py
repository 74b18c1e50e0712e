"""Images told apart by the base model's own groups: worked numbers, which groups, and sessions without a label or a caption."""

import math

import pytest
import torch
from torch import Tensor

from cl.config import TrainConfig
from cl.errors import MethodError
from cl.learning.learner import learn
from cl.methods.compose import RecipeConfig
from cl.methods.recipe import Recipe
from cl.methods.terms.clusters import Clusters, discriminated, grouped
from tests.golden.numbers import sessions
from tests.test_lwf import batch_of
from tests.test_stored import grid

TRAIN = TrainConfig(max_steps=3, batch_size=6, lr=1e-3, device="cpu")


def built(*terms: object, **settings: object) -> Recipe:
    return RecipeConfig.model_validate({"terms": [{"kind": "clusters", **settings}, *terms]}).build(make_tiny(), 0).double()


def make_tiny():  # type: ignore[no-untyped-def]
    from tests import make

    return make.tiny().double()


def own(*rows: tuple[int, ...]) -> Tensor:
    return torch.tensor([[place in row for place in range(4)] for row in rows])


def test_it_has_its_worked_numbers() -> None:
    cosines = grid(3, 5) @ grid(4, 5, 1).T
    of = own((0, 1), (2,), (1, 3))
    rows = [discriminated(cosines[row : row + 1], of[row : row + 1], 8.0).item() for row in range(3)]
    assert rows == pytest.approx([6.0799247969, 7.1649916689, 6.4738543768], abs=1e-9)
    assert discriminated(cosines, of, 8.0).item() == pytest.approx(6.572923614219, abs=1e-11)
    terms = [8 * cosines[1, place] for place in range(4)]
    others, mine = sum(terms[place].exp() for place in (0, 1, 3)), (-terms[2]).exp()
    circle = torch.tensor(rows[1], dtype=torch.float64).exp() - others - mine  # without the two cross terms: 1 + the product of both sums
    assert circle.log().item() == pytest.approx(6.8849926504, abs=1e-9)  # with one of its own the softmax's cross-entropy
    assert circle.log().item() == pytest.approx(torch.nn.functional.cross_entropy(8 * cosines[1:2], torch.tensor([2])).item(), abs=1e-9)
    assert torch.autograd.gradcheck(lambda x: discriminated(x, of, 8.0), cosines.requires_grad_())
    for none in (torch.zeros(3, 4, dtype=torch.bool), torch.ones(3, 4, dtype=torch.bool)):
        value = discriminated(cosines, none, 8.0)
        assert value.isfinite() and torch.autograd.grad(value, cosines)[0].isfinite().all()


def test_groups_are_the_nearest_means_by_cosine_and_always_the_same() -> None:
    source = torch.Generator().manual_seed(1)
    middle = torch.nn.functional.normalize(torch.randn(3, 8, generator=source, dtype=torch.float64), dim=1)
    rows = torch.nn.functional.normalize(
        middle.repeat_interleave(20, 0) + 0.1 * torch.randn(60, 8, generator=source, dtype=torch.float64), dim=1
    )
    centres = grouped(rows, 3, torch.Generator().manual_seed(2))
    nearest = (rows @ centres.T).argmax(1)
    assert sorted(nearest.bincount().tolist()) == [20, 20, 20]
    for place in range(3):
        torch.testing.assert_close(centres[place], torch.nn.functional.normalize(rows[nearest == place].sum(0), dim=0))
    assert torch.equal(centres, grouped(rows, 3, torch.Generator().manual_seed(2)))
    again = grouped(rows[:1].expand(5, 8), 3, torch.Generator().manual_seed(0))  # equal rows fill one group
    assert again.isfinite().all()


@pytest.mark.parametrize("kind", ["bare", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("half", "captions"))])
def test_a_session_without_a_label_is_learned_and_its_centres_go_with_it(kind: str) -> None:
    first, second = sessions(kind)
    method = built("regress") if kind != "half" else built({"kind": "clip"})
    before = {name: tensor.shape for name, tensor in method.state_dict().items()}
    weight = method.clip.model.visual.proj.detach().clone()
    for session in (first, second):
        assert len(method.begin(session)) == 12  # whatever else teaches
        learn(method, session, TRAIN, 0)
        term = method.terms["clusters"]
        assert isinstance(term, Clusters) and term.centres.shape == (0, 32) and term._near.numel() == 0
    assert {name: tensor.shape for name, tensor in method.state_dict().items()} == before
    assert not torch.equal(weight, method.clip.model.visual.proj)


def test_each_image_is_of_the_clusters_that_the_base_model_has_nearest_and_centres_begin_there() -> None:
    session = sessions("bare")[0]
    method = built(weight=2.0, count=4, top=2)
    method.begin(session)
    term, base = method.terms["clusters"], make_tiny()
    assert isinstance(term, Clusters) and term.centres.shape == (4, 32) and term.centres.requires_grad
    pixels = torch.stack([base.transform()(session.data.image(row)) for row in range(12)]).double()
    cosines = base.encode_image(pixels) @ term.centres.T
    assert torch.equal(cosines.topk(2, dim=1).indices.sort(1).values, term._near.sort(1).values)
    of = torch.zeros(6, 4, dtype=torch.bool).scatter(1, term._near[:6], True)
    losses = method.losses(batch_of(method, session))
    assert losses["clusters"].item() == pytest.approx(2 * discriminated(cosines[:6], of, 14.3).item(), rel=1e-9)


def test_what_it_says_that_it_learns_from() -> None:
    wants = [RecipeConfig.model_validate({"terms": terms}).wants() for terms in (["clusters", "regress"], ["clusters", "clip"], ["clip"])]
    assert wants == [("labels", "captions", "unlabelled"), ("labels", "captions"), ("labels", "captions")]
    assert math.isclose(round(math.sqrt(12)), 3)


def test_too_few_rows_and_an_image_tower_that_rests_are_refused_by_name() -> None:
    session = sessions("bare")[0]
    with pytest.raises(MethodError, match=r"session 1 \(session 1\): 12 rows make 3 clusters, of which an image would be of 3"):
        built(top=3).check(session)
    with pytest.raises(MethodError, match="the term clusters moves images"):
        RecipeConfig.model_validate({"tune": {"kind": "whole", "part": "text"}, "terms": ["clip", "clusters"]}).build(make_tiny(), 0).check(
            sessions("labels")[0]
        )
