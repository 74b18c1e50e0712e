"""REAL-Linear: heads that stay near their texts, to the published numbers."""

import pytest
import torch
from torch import Tensor
from torch.nn.functional import normalize

from cl.config import TrainConfig
from cl.data.classes import ClassName
from cl.learning.learner import learn
from cl.methods import CONFIGS
from cl.methods.compose import RecipeConfig
from cl.methods.losses import classification, similarities
from cl.methods.recipe import Recipe, plain_batch
from cl.methods.terms.text_rows import _dealt
from cl.methods.tuners.base import Tuner
from cl.methods.view import View
from cl.models.zero_shot import class_features
from tests import make

TRAIN = TrainConfig(max_steps=5, batch_size=8, lr=1e-2, device="cpu")


def waves(n: int, d: int, offset: int) -> Tensor:
    i, j = torch.arange(n, dtype=torch.float64)[:, None] + offset, torch.arange(d, dtype=torch.float64)
    return torch.sin(7 * i + j + i * j)


def texts_of(n: int, d: int) -> Tensor:
    c, j = torch.arange(n, dtype=torch.float64)[:, None], torch.arange(d, dtype=torch.float64)
    return normalize(torch.cos(3 * c + 2 * j + c * j), dim=1)


def probe(**settings: object) -> Recipe:
    method = CONFIGS["linear_probe"](**settings).build(make.tiny(), 0)
    assert isinstance(method, Recipe)
    return method


@torch.no_grad()
def zero_shot(names: tuple[ClassName, ...]) -> Tensor:
    clip = make.tiny()
    return class_features(clip.encode_text, clip.tokenize, names)


def test_one_mean_over_images_and_texts_is_what_two_means_weigh_to() -> None:
    texts, labels = texts_of(3, 6), torch.tensor([0, 1, 2, 1])
    rows = texts + 0.1 * waves(3, 6, 60)
    images, words = (similarities(100.0, each, rows) for each in (normalize(waves(4, 6, 0), dim=1), texts))
    one = classification(torch.cat([images, words]), torch.cat([labels, torch.arange(3)]))
    assert abs(one.item() - 17.331962) < 5.1e-7
    two = (4 * classification(images, labels) + 3 * classification(words, torch.arange(3))) / 7
    assert abs(one.item() - two.item()) < 1e-12


def test_half_of_what_was_trained_and_half_of_the_text_are_the_published_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = texts_of(3, 6)
    method = probe(average=0.5)
    method.tuner.head.rows = torch.nn.Parameter(texts + 0.1 * waves(3, 6, 60))
    method.tuner.head.names = list(make.COLOURS[:3])
    method.tuner._new = list(make.names((0, 1, 2)))
    monkeypatch.setattr(Tuner, "answers", lambda self, names: texts)
    method.tuner.end(make.session(1, (0, 1, 2), (0, 1, 2)))
    rows = method.tuner.head.rows.detach()
    assert (rows[0] - torch.tensor([0.513567, -0.247424, -0.312854, 0.523570, -0.125830, -0.433095])).abs().max() < 5.1e-7
    assert (rows.norm(dim=1) - torch.tensor([0.948882, 1.009417, 1.012070])).abs().max() < 5.1e-7


@pytest.mark.parametrize(("average", "lr"), [(0.0, 1e-2), (0.5, 0.0)])
def test_nothing_kept_of_what_was_trained_or_nothing_trained_is_zero_shot(average: float, lr: float) -> None:
    session = make.session(1, (0, 1), (0, 1))
    method = probe(average=average, texts_in_batch=True)
    learn(method, session, TRAIN.model_copy(update={"lr": lr}), 0)
    assert torch.allclose(method.class_features(session.vocabulary), zero_shot(session.vocabulary), atol=1e-6)


def test_only_rows_that_a_session_brings_are_averaged() -> None:
    first, back = make.session(1, (0, 1), (0, 1)), make.session(2, (1, 2), (0, 1, 2))
    half, whole = probe(average=0.5, candidates="seen"), probe(candidates="seen")
    for method in (half, whole):
        learn(method, first, TRAIN, 0)
    new = zero_shot(make.names((0, 1)))
    assert torch.allclose(half.tuner.head.rows, (whole.tuner.head.rows + new) / 2, atol=1e-6)
    half.load_state_dict(whole.state_dict())
    for method in (half, whole):
        learn(method, back, TRAIN, 0)
    assert half.tuner.head.names == list(make.COLOURS[:3]) and torch.equal(half.tuner.head.rows[:2], whole.tuner.head.rows[:2])
    assert torch.allclose(half.tuner.head.rows[2], (whole.tuner.head.rows[2] + zero_shot(make.names((2,)))[0]) / 2, atol=1e-6)


def test_text_rows_are_prompts_of_the_classes_that_compete_each_as_its_class() -> None:
    session = make.session(1, (0, 1), (0, 1))
    two = tuple(ClassName(known.name, (*known.prompts, f"{known.name}!")) for known in session.vocabulary)
    session = type(session)(session.index, session.name, session.data, session.tests, session.classes, two)
    terms = ({"kind": "clip", "weight": 0.5, "scale": 20.0}, {"kind": "text_rows", "weight": 0.5, "scale": 20.0})
    for tune in ({"kind": "head"}, {"kind": "whole"}):
        method = RecipeConfig(tune=tune, terms=terms).build(make.tiny(), 0)
        table = method.begin(session)
        assert method.lesson is not None
        batch = plain_batch(method.clip, table.take(range(4)), method.lesson, range(4))
        losses = method.losses(batch)
        view = View(batch, method.lesson, method.tuner, method.seed)
        drawn = _dealt(4, 4, view.draw("text_rows"))  # all four prompts, in some order
        assert sorted(drawn.tolist()) == [0, 1, 2, 3]
        clip, prompts = make.tiny(), [prompt for known in two for prompt in known.prompts]
        with torch.no_grad():
            words = torch.stack([clip.encode_text(clip.tokenize([prompt]))[0] for prompt in prompts])
            rows = zero_shot(two) if tune["kind"] == "head" else words[[0, 2]]
            expected = classification(20.0 * words @ rows.T, torch.tensor([0, 0, 1, 1])) / 2
        assert losses["text_rows"].item() == pytest.approx(expected.item(), abs=1e-5)


def test_prompts_come_up_equally_often_and_fewer_than_rows_come_up_again() -> None:
    counts = torch.bincount(_dealt(5, 32, torch.Generator().manual_seed(0)), minlength=5)
    assert sorted(counts.tolist()) == [6, 6, 6, 7, 7] and len(set(_dealt(9, 4, torch.Generator().manual_seed(1)).tolist())) == 4


def test_texts_in_the_batch_keep_a_class_without_images_in_its_place() -> None:
    session = make.session(1, (0, 1, 2, 3), (0, 1, 2, 3))
    shown = session.data.where([label != "green" for label in session.data.labels])
    session = type(session)(session.index, session.name, shown, session.tests, session.classes, session.vocabulary)
    words, answers = zero_shot(session.vocabulary), []
    for texts in (False, True):
        method = probe(texts_in_batch=texts)
        learn(method, session, TRAIN.model_copy(update={"max_steps": 40}), 0)
        answers.append((words @ method.tuner.head.rows.detach().T).argmax(1).tolist())
    assert answers[0][1] != 1 and answers[1] == [0, 1, 2, 3]


def test_the_paper_has_its_preset() -> None:
    config = CONFIGS["real_linear"]()
    told = config.recipe().spelled()
    assert told["tune"] == {"kind": "head", "average": 0.5}
    assert [(term["kind"], term["weight"], term["scale"]) for term in told["terms"]] == [("clip", 0.5, 100.0), ("text_rows", 0.5, 100.0)]
    assert {key: config.training(False)[key] for key in ("epochs", "batch_size", "lr", "weight_decay")} == {
        "epochs": 10,
        "batch_size": 32,
        "lr": 1e-4,
        "weight_decay": 0.01,
    }
