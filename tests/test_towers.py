"""Two rounds, one for each tower: what moves in which, what is asked in which, and that the image tower rests in the second."""

from typing import Any

import pytest
import torch
from pydantic import ValidationError
from torch import Tensor

from cl.config import TrainConfig
from cl.learning.learner import learn
from cl.methods import CONFIGS, Method
from cl.methods.compose import RecipeConfig
from cl.methods.recipe import Recipe
from tests import make
from tests.golden.numbers import sessions
from tests.laws.life import copied

TRAIN = TrainConfig(max_steps=2, batch_size=6, lr=1e-3, device="cpu")
TERMS: list[Any] = ["identity", "clip", {"kind": "vocabulary", "texts": 6}]


def built(terms: list[Any] = TERMS, rounds: Any = "towers") -> Recipe:
    return RecipeConfig.model_validate({"terms": terms, "rounds": rounds}).build(make.tiny(), 0)


def overheard(method: Recipe, monkeypatch: pytest.MonkeyPatch) -> list[tuple[set[str], dict[str, Tensor], int]]:
    """Of each step the names of its losses, the weights it begins with, and how many values its pixels have."""
    steps: list[tuple[set[str], dict[str, Tensor], int]] = []
    inner = method.losses

    def losses(batch: Any) -> Any:
        summed = inner(batch)
        steps.append((set(summed), copied(method), batch.images.numel()))
        return summed

    monkeypatch.setattr(method, "losses", losses)
    return steps


@pytest.mark.parametrize("kind", ["mixed", pytest.param("labels", marks=pytest.mark.slow)])
def test_each_round_moves_its_tower_by_its_terms_alone(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = built()
    steps = overheard(method, monkeypatch)
    learn(method, sessions(kind)[0], TRAIN, 0)
    assert len(steps) == 4 and [count > 0 for _, _, count in steps] == [True, True, False, False]
    assert [names & {"identity"} for names, _, _ in steps] == [{"identity"}] * 2 + [set()] * 2
    assert [bool(names & {"classify", "contrast"}) for names, _, _ in steps] == [False, False, True, True]
    assert all("vocabulary" in names for names, _, _ in steps)
    first, between, last = steps[0][1], steps[2][1], copied(method)

    def moved(one: dict[str, Tensor], two: dict[str, Tensor]) -> set[str]:
        return {name.removeprefix("clip.model.") for name, tensor in one.items() if not torch.equal(tensor, two[name])}

    images, texts = moved(first, between) - {"logit_scale"}, moved(between, last) - {"logit_scale"}
    assert images and all(name.startswith("visual.") for name in images)
    assert texts and not any(name.startswith("visual.") for name in texts)
    assert all(parameter.requires_grad for parameter in method.trainable())


def test_features_of_images_after_the_second_round_are_those_after_the_first_to_the_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    session, method = sessions("labels")[0], built()
    pixels = torch.stack([method.clip.transform()(session.data.image(row)) for row in range(6)])
    seen: list[Tensor] = []
    inner = method.losses

    def losses(batch: Any) -> Any:
        with torch.no_grad():
            seen.append(method.encode_image(pixels))
        return inner(batch)

    monkeypatch.setattr(method, "losses", losses)
    learn(method, session, TRAIN, 0)
    method.train()  # as it was when the others were asked: torch has another attention for eval mode
    with torch.no_grad():
        assert torch.equal(method.encode_image(pixels), seen[2]) and not torch.equal(seen[0], seen[2])


def test_the_second_round_learns_from_features_that_are_those_of_the_pixels() -> None:
    session, method = sessions("mixed")[0], built()
    rounds = method.rounds(session)
    next(rounds)
    assert method.turns == 2 and method.pixels and method.beside == ("partner:label",)
    with torch.no_grad():
        method.clip.model.visual.proj.mul_(torch.linspace(0.5, 2, 32))
    next(rounds)
    assert method.lesson is not None and not method.pixels and method.beside == () and method.tuner.known is not None
    pixels = torch.stack([method.clip.transform()(session.data.image(row)) for row in range(12)])
    with torch.no_grad():
        torch.testing.assert_close(method.tuner.known, method.encode_image(pixels))
        teacher = method.teacher("session")
        assert teacher.known is not None and not torch.allclose(teacher.known, method.tuner.known, atol=1e-3)  # as the session began
    assert next(rounds, None) is None


def test_a_term_of_which_there_are_two_is_silent_twice(monkeypatch: pytest.MonkeyPatch) -> None:
    method = built([*TERMS, {"kind": "clip", "scale": 10.0}, "l2"])
    steps = overheard(method, monkeypatch)
    learn(method, sessions("labels")[0], TRAIN, 0)
    assert [names for names, _, _ in steps] == [{"identity", "vocabulary", "l2"}] * 2 + [
        {"classify", "clip2.classify", "vocabulary", "l2"}
    ] * 2


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"terms": ["clip"], "rounds": "towers"}, "none of the terms that are asked teaches"),
        ({"terms": ["identity", "vocabulary"], "rounds": "towers"}, "none of the terms that are asked teaches"),
        ({"terms": TERMS, "rounds": "towers", "tune": {"kind": "whole", "part": "image"}}, "set tune to whole, with part whole"),
        ({"terms": TERMS, "rounds": "towers", "tune": "projections"}, "set tune to whole, with part whole"),
    ],
)
def test_what_has_no_meaning_in_them_is_refused(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(ValidationError, match=told):
        RecipeConfig.model_validate(settings)


def test_the_preset_is_that_recipe_and_wants_what_its_terms_want() -> None:
    preset = CONFIGS["retrieve_then_align"]
    spelled = RecipeConfig.model_validate({"terms": ["identity", "clip", "vocabulary"], "rounds": "towers"})
    assert preset().spelled() == spelled.spelled() and preset().wants() == ("labels",)
    method: Method = preset(by="identity").build(make.tiny(), 0)  # type: ignore[call-arg]
    assert isinstance(method, Recipe)


@pytest.mark.slow
def test_texts_find_images_after_the_second_round_and_not_before_it(monkeypatch: pytest.MonkeyPatch) -> None:
    colours, train = range(8), TrainConfig(max_steps=40, batch_size=24, lr=1e-3, device="cpu")
    session = make.session(1, colours, colours, each=6, captions=True)
    method = built(["identity", "clip"])
    examined = session.tests[0].data
    pixels = torch.stack([method.clip.transform()(examined.image(row)) for row in range(len(examined))])
    labels = [make.COLOURS.index(str(label)) for label in examined.labels]

    def found() -> float:
        """Of the four images nearest to each colour's prompt how many are of it."""
        with torch.no_grad():
            texts = method.encode_text(method.clip.tokenize([f"a {colour} square" for colour in make.COLOURS]))
            near = (texts @ method.encode_image(pixels).T).topk(4, dim=1).indices
        return (torch.tensor(labels)[near] == torch.arange(8)[:, None]).double().mean().item()

    between: list[float] = []
    inner = method.losses

    def losses(batch: Any) -> Any:
        if not batch.images.numel() and not between:
            between.append(found())
        return inner(batch)

    monkeypatch.setattr(method, "losses", losses)
    learn(method, session, train, 0)
    assert found() > between[0] + 0.3, (between, found())
