"""Which classes compete in a step: those of the lesson, all seen, or those that the batch shows."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from pydantic import TypeAdapter

from cl.config import TrainConfig
from cl.learning.learner import learn
from cl.methods import AnyMethodConfig
from cl.methods.compose import RecipeConfig
from cl.methods.memories.exemplars import ReservoirConfig
from cl.methods.presets.finetune import FinetuneConfig
from cl.methods.presets.mod_x import ModXConfig
from cl.methods.presets.replay import ReplayConfig
from cl.methods.recipe import Recipe
from cl.models.flops import counted
from cl.streams.stream import Session
from tests import make
from tests.test_lwf import batch_of, shaken

FIRST, SECOND = make.stream((0, 1, 2), (3, 4, 5), each=2).sessions


def begun(settings: dict[str, Any], session: Session = SECOND) -> Recipe:
    """In fp64, with a session begun."""
    method = TypeAdapter(AnyMethodConfig).validate_python(settings).build(make.tiny().double(), 0)
    assert isinstance(method, Recipe)
    method.begin(session)
    return method


@pytest.mark.parametrize(("candidates", "compete"), [("lesson", (3, 4, 5)), ("seen", (0, 1, 2, 3, 4, 5)), ("batch", (3, 4))])
def test_the_loss_is_the_cross_entropy_among_the_classes_that_compete(candidates: str, compete: tuple[int, ...]) -> None:
    method = begun({"name": "finetune", "candidates": candidates})
    batch = batch_of(method, SECOND, rows=4)  # two rows of each of two classes
    texts = method.clip.encode_text(method.clip.tokenize([SECOND.vocabulary[index].prompts[0] for index in compete]))
    logits = method.clip.scale() * method.clip.encode_image(batch.images) @ texts.T
    targets = torch.tensor([compete.index(int(label)) for label in batch.labels])
    (loss,) = method.losses(batch).values()
    assert loss.item() == pytest.approx(F.cross_entropy(logits, targets).item(), abs=1e-12)
    want, got = (torch.autograd.grad(each, method.clip.model.text_projection)[0] for each in (F.cross_entropy(logits, targets), loss))
    assert torch.allclose(got, want, rtol=1e-9, atol=1e-15) and want.abs().sum() > 0


def test_a_step_costs_no_more_however_many_classes_were_seen() -> None:
    def flops(candidates: str, classes: int) -> int:
        session = make.session(1, range(classes), range(classes), each=2)
        method = begun({"name": "finetune", "candidates": candidates}, session)
        batch = batch_of(method, session, rows=4)
        return counted(lambda: method.losses(batch))[1]

    assert flops("batch", 2) == flops("batch", 8) < flops("lesson", 8)


def test_what_pairs_a_label_with_its_prompt_is_the_same_among_fewer() -> None:
    batch = batch_of(begun({"name": "mod_x"}), SECOND, rows=4)
    aligned = []
    for candidates in ("lesson", "batch"):
        method = begun({"name": "mod_x", "candidates": candidates})
        shaken(method)  # away from the teacher
        aligned.append(method.losses(batch)["align"].item())
    assert aligned[0] == pytest.approx(aligned[1], abs=1e-12) and aligned[0] > 0


def test_exemplars_compete_only_where_the_batch_shows_them() -> None:
    method = ReplayConfig(candidates="batch", capacity=6).build(make.tiny(), 0)
    learn(method, FIRST, TrainConfig(max_steps=1, batch_size=6, device="cpu"), 0)
    method.begin(SECOND)
    assert method.lesson is not None and method.lesson.candidates == (0, 1, 2, 3, 4, 5)
    seen: list[int] = []
    encode = method.tuner.classes
    method.tuner.classes = lambda names: (seen.append(len(names)), encode(names))[1]  # type: ignore[method-assign]
    learn(method, SECOND, TrainConfig(max_steps=3, batch_size=3, device="cpu"), 0)
    assert len(seen) == 3 and max(seen) <= 3


def test_the_importance_is_told_among_the_lesson_s_whatever_a_step_shows() -> None:
    from cl.methods.terms.fit import FitConfig
    from cl.methods.terms.hold import HoldConfig

    measured = []
    for candidates in ("lesson", "batch"):
        method = RecipeConfig(terms=(FitConfig(), HoldConfig()), candidates=candidates).build(make.tiny(), 0)
        method.begin(FIRST)
        with torch.no_grad():
            method.end(FIRST)
        measured.append(method.terms["hold"].importance)  # among one class nothing is important
    assert torch.equal(*measured) and measured[0].any()


def test_the_default_is_in_no_name_and_a_preset_s_is_the_recipe_s() -> None:
    assert "candidates" not in FinetuneConfig().spelled() and "candidates" not in FinetuneConfig(candidates="lesson").spelled()
    assert ModXConfig(candidates="batch").spelled()["candidates"] == "batch"
    spelled = RecipeConfig(memory=ReservoirConfig(), candidates="batch").spelled()
    assert ReplayConfig(candidates="batch").spelled() == spelled
