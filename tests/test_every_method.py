"""The contract of a method, run over the whole union: a new method is covered by being registered."""

import json
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
from pydantic import TypeAdapter

from cl.config import EvalConfig, TrainConfig
from cl.data.table import ImageTable, concat
from cl.disk.tensors import read_tensors, write_tensors
from cl.errors import MethodError
from cl.evaluation.evaluate import evaluate
from cl.learning.learner import learn
from cl.learning.loader import Collate, Rows
from cl.methods import CONFIGS, AnyMethodConfig, Batch, Method
from cl.methods.persist import memory, restore
from cl.streams.stream import Session, Stream
from tests import make
from tests.golden.numbers import OF_KNOWN_PARTS

FAST = TrainConfig(max_steps=3, batch_size=6, lr=1e-3, device="cpu")
SMALL = {"texts": 8, "projection": 40}  # settings that only make a method cheaper, used where it has them
OTHERS = {name for name, config in CONFIGS.items() if config().spelled().get("name", name) != name} - {"tip_adapter_f"}  # which trains
METHODS = sorted({*CONFIGS} - OTHERS - OF_KNOWN_PARTS)
EACH = [*METHODS, *(pytest.param(name, marks=pytest.mark.slow) for name in sorted(OF_KNOWN_PARTS))]


@cache
def stream() -> Stream:
    return make.stream((0, 1), (2, 3), each=6)


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Method:
    config = CONFIGS[name]
    method = config(**{key: value for key, value in SMALL.items() if key in config.model_fields}).build(make.tiny().to(dtype), seed)
    return method.to(dtype)  # what it adds to the model too


def usable(name: str, session: Session) -> Session:
    """The session as it is, with captions, with half of its labels hidden, or with all of them: the first that the method takes."""
    both = make.session(session.index, (0, 1), (0, 1), captions=True)
    half = session.data.take(range(0, len(session.data), 2)), session.data.take(range(1, len(session.data), 2)).without("label")
    hidden = (replace(session, data=data) for data in (concat(half), session.data.without("label")))
    for candidate in (session, both, *hidden):
        try:
            build(name).check(candidate)
        except MethodError:
            continue
        return candidate
    pytest.fail(f"{name} takes none of four kinds of sessions")


def batch_of(method: Method, data: ImageTable) -> Batch:
    rows = Rows(data, method.clip, method.vocabulary, pixels=method.pixels, seed=0, beside=method.beside)
    return Collate(method.clip.tokenize, beside=method.beside)([rows[(row, 0, 0)] for row in range(min(6, len(data)))])


def state(method: Method) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in method.state_dict().items()}


def assert_same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert [name for name in one if not torch.equal(one[name], two[name])] == []


@pytest.mark.parametrize("name", EACH)
def test_every_loss_term_reaches_a_weight_that_trains(name: str) -> None:
    method = build(name)
    learn(method, usable(name, stream().sessions[0]), FAST, 0)
    session = usable(name, stream().sessions[1])
    wanted = {id(parameter) for parameter in method.trainable()}
    for parameter in method.parameters():
        parameter.requires_grad_(id(parameter) in wanted)
    if not wanted:
        return
    for data in method.rounds(session):
        method.train()
        weights = list(method.trainable())
        with torch.no_grad():  # a teacher equal to the student would hide a term without a gradient behind a zero
            for index, weight in enumerate(weights):
                weight.add_(0.02 * torch.randn(weight.shape, generator=torch.Generator().manual_seed(index)))
        terms = method.losses(batch_of(method, data))
        assert terms
        for term, value in terms.items():
            gradients = torch.autograd.grad(value, weights, retain_graph=True, allow_unused=True)
            assert any(gradient is not None and gradient.abs().max() > 0 for gradient in gradients), f"{name}: {term} trains nothing"
        break


@pytest.mark.parametrize("name", EACH)
def test_what_does_not_train_stays_bit_for_bit_and_what_trains_moves(name: str) -> None:
    method = build(name)
    trained = {id(parameter) for parameter in method.trainable()}
    frozen = {key: (p, p.detach().clone()) for key, p in method.named_parameters() if id(p) not in trained}
    before = {key: p.detach().clone() for key, p in method.named_parameters() if id(p) in trained}
    learn(method, usable(name, stream().sessions[0]), FAST, 0)
    assert [key for key, (now, then) in frozen.items() if not torch.equal(now, then)] == []
    if any(p.numel() for p in method.trainable()):  # where trained keys are put away, tests/test_tip.py looks at them there
        assert any(not torch.equal(p, before[key]) for key, p in method.named_parameters() if key in before)


@pytest.mark.parametrize("name", EACH)
def test_a_logit_scale_above_the_bound_is_clamped_only_where_it_trains(name: str) -> None:
    method = build(name)
    with torch.no_grad():
        method.clip.logit_scale.fill_(math.log(120))
    before = method.clip.logit_scale.detach().clone()
    trains = any(parameter is method.clip.logit_scale for parameter in method.trainable())
    learn(method, usable(name, stream().sessions[0]), FAST, 0)
    now = method.clip.logit_scale.detach()
    assert float(now.exp()) < 115 if trains else torch.equal(now, before)  # wise_ft ends between 100 and where it began


@pytest.mark.parametrize("name", EACH)
def test_a_teacher_shares_no_storage_with_the_student(name: str) -> None:
    method = build(name)
    session = usable(name, stream().sessions[0])
    next(iter(method.rounds(session)))
    own = {tensor.untyped_storage().data_ptr() for tensor in (*method.parameters(), *method.buffers())}
    kept = [value for held in vars(method).values() if isinstance(held, list) for value in held]
    for teacher in (value for value in kept if isinstance(value, torch.nn.Module)):
        assert not own & {tensor.untyped_storage().data_ptr() for tensor in teacher.parameters()}
        assert not any(tensor.requires_grad for tensor in teacher.parameters())


@pytest.mark.parametrize("name", EACH)
def test_saved_and_loaded_it_goes_on_as_if_never_interrupted(name: str, tmp_path) -> None:
    first, second = (usable(name, session) for session in stream().sessions)
    through = build(name)
    learn(through, first, FAST, 0)
    write_tensors(memory(through), tmp_path / "m.safetensors")
    learn(through, second, FAST, 0)
    resumed = build(name)
    restore(resumed, read_tensors(tmp_path / "m.safetensors"), "test")
    learn(resumed, second, FAST, 0)
    assert_same(state(through), state(resumed))


@pytest.mark.parametrize("name", EACH)
def test_scoring_changes_nothing_and_a_loaded_method_scores_the_same(name: str, tmp_path) -> None:
    method = build(name)
    learn(method, usable(name, stream().sessions[0]), FAST, 0)
    before, random = state(method), torch.get_rng_state()
    sets = [*stream().sessions[0].tests, *stream().probes]
    scores = evaluate(method, sets, EvalConfig())
    assert_same(before, state(method))
    assert torch.equal(random, torch.get_rng_state())
    write_tensors(memory(method), tmp_path / "m.safetensors")
    loaded = build(name)
    restore(loaded, read_tensors(tmp_path / "m.safetensors"), "test")
    again = evaluate(loaded.eval(), sets, EvalConfig())
    assert {key: score.metrics for key, score in scores.items()} == {key: score.metrics for key, score in again.items()}


@pytest.mark.parametrize("name", EACH)
def test_the_same_seed_repeats_and_the_global_generator_is_left_alone(name: str) -> None:
    session = usable(name, stream().sessions[0])
    results = []
    for noise in (0, 1):
        torch.manual_seed(noise)
        method = build(name)
        learn(method, session, FAST, 0)
        results.append(state(method))
    assert_same(*results)


@pytest.mark.parametrize("name", EACH)
def test_another_seed_gives_other_weights(name: str) -> None:
    session = usable(name, stream().sessions[0])
    if not list(build(name).trainable()):
        return
    one, two = build(name, 0), build(name, 1)
    learn(one, session, FAST, 0)
    learn(two, session, FAST, 1)
    assert any(not torch.equal(first, second) for first, second in zip(one.state_dict().values(), two.state_dict().values(), strict=True))


@pytest.mark.parametrize(("each", "colours", "hide"), [(6, (0,), False), (1, (0, 1), False), (6, (0, 1), True)])
@pytest.mark.parametrize("name", EACH)
def test_a_thin_session_is_learned_or_refused_by_name_before_anything_changes(name: str, each: int, colours, hide: bool) -> None:
    session = make.session(1, colours, colours, each=each)
    if hide:
        session = Session(1, "bare", session.data.without("label", "captions"), session.tests, session.classes, session.vocabulary)
    method = build(name)
    before = state(method)
    try:
        learn(method, session, FAST, 0)
    except MethodError as error:
        assert session.name in str(error)
        assert_same(before, state(method))
        return
    scores = evaluate(method, session.tests, EvalConfig())
    assert all(value == value for score in scores.values() for value in score.metrics.values())


@pytest.mark.parametrize("name", EACH)
def test_settings_survive_json(name: str) -> None:
    config = CONFIGS[name]()
    assert TypeAdapter(AnyMethodConfig).validate_python(json.loads(config.model_dump_json())) == config
    assert (config.__doc__ or "").strip(), f"{name} has no description for `evergreen methods`"
