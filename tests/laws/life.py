"""The laws themselves: a method lives through two sessions, and each law that it breaks is a sentence."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from torch import Tensor

from cl.config import EvalConfig, TrainConfig
from cl.errors import MethodError
from cl.evaluation.evaluate import evaluate
from cl.learning.interim import Interim
from cl.learning.learner import learn
from cl.methods import Method
from cl.methods.closed_form import Sums
from cl.methods.features import ClassRows
from cl.methods.persist import memory, restore
from cl.methods.recipe import Recipe
from cl.streams.stream import Session
from tests import make
from tests.laws.cases import build, config, sessions
from tests.test_resume import cut_short

FAST = TrainConfig(max_steps=2, batch_size=6, lr=1e-2, device="cpu")


def broken(settings: dict[str, Any], kind: str, *, brief: bool = False) -> list[str]:
    """The laws that a method breaks on a kind of data; none where it refuses that by name and changes nothing.

    Brief: without those about scoring, about being killed, and about sessions with next to nothing in them.
    """
    first, second = sessions(kind)
    try:
        method = build(settings)
    except MethodError as error:
        named = [part.called() for part in config(settings).parts() if part.called() in str(error)]
        return [] if named else [f"is refused where it is made, without naming a part: {error}"]
    if told := refusal(method, first):
        return [*_refused_rightly(settings, kind, method, first, told)]
    told = [*_lived(settings, method, first, second, brief)]
    return told if brief else [*told, *_thin(settings)]


def refusal(method: Method, session: Session) -> str | None:
    """What a method says of a session that it cannot use."""
    try:
        method.check(session)
    except MethodError as error:
        return str(error)
    return None


def _refused_rightly(settings: dict[str, Any], kind: str, method: Method, session: Session, told: str) -> Iterator[str]:
    # of rows that lack nothing, and of captions among no classes, a part may want what no row can say
    holds = {"labels": {"labels"}, "captions": {"captions"}, "mixed": {"labels", "captions"}}.get(kind, set())
    wants = set(config(settings).wants())
    if holds & wants and "unlabelled" not in wants:
        yield f"refuses {kind}, and says that it learns from {', '.join(sorted(wants))}"
    if session.name not in told:
        yield f"refuses without naming the session: {told}"
    before = copied(method)
    try:
        learn(method, session, FAST, 0)
    except MethodError:
        yield from (f"a refusal has changed {name}" for name in changed(before, copied(method)))
    else:
        yield "is refused by check and learns all the same"


def _lived(settings: dict[str, Any], method: Method, first: Session, second: Session, brief: bool) -> Iterator[str]:
    names, frozen, moving = list(memory(method)), still(method), weights(method)
    yield from _begins(build(settings), first)
    learn(method, first, FAST, 0)
    if weights(method) and not changed(moving, weights(method)):
        yield "has learned nothing: what descends is where it was"
    yield from (f"{name} is no number" for name in lost(method))
    if list(memory(method)) != names:
        yield "its state has other names after a session"
    yield from (f"{name} is frozen and has changed" for name in changed(frozen, still(method)))
    kept = {name: tensor.clone() for name, tensor in memory(method).items()}
    yield from () if brief else _scored(settings, method, kept, first)
    learn(method, second, FAST, 0)
    loaded = build(settings)
    restore(loaded, kept, "a law")
    learn(loaded, second, FAST, 0)
    yield from (f"{name} is another once it was saved and loaded" for name in changed(copied(method), copied(loaded)))
    if not brief and [*method.trainable()]:
        resumed = _cut(settings, kept, second)
        yield from (f"{name} is another once its session was cut short" for name in changed(copied(method), copied(resumed)))


def _begins(method: Method, session: Session) -> Iterator[str]:
    wanted = {*method.trainable()}
    for parameter in method.parameters():  # as the learner does before it asks for rounds
        parameter.requires_grad_(parameter in wanted)
    if not isinstance(method, Recipe):
        next(iter(method.rounds(session)))
        return
    before = dict(method.tuner.weights())
    asked = {kind for term in method._terms() for kind in term.needs().teachers}
    next(iter(method.rounds(session)))
    weights = dict(method.tuner.weights())
    if list(weights) != list(before):
        yield "its weights have other names once a session begins"
    if not method.tuner.grows and any(weights.get(name) is not tensor for name, tensor in before.items()):
        yield "its weights are other tensors once a session begins, and it does not grow"
    if set(method._teachers) != asked:
        yield f"its terms ask for {sorted(asked)} as teachers, and there are {sorted(method._teachers)}"
    moving = {tensor.untyped_storage().data_ptr() for tensor in method.trainable() if tensor.numel()}
    for kind, teacher in method._teachers.items():
        theirs = [*teacher.parameters(), *teacher.buffers(), *teacher.clip.parameters(), *teacher.clip.buffers()]
        if moving & {tensor.untyped_storage().data_ptr() for tensor in theirs if tensor.numel()}:
            yield f"the {kind} teacher shares storage with what trains"
        if any(tensor.requires_grad for tensor in theirs):
            yield f"the {kind} teacher gets a gradient"
        if any(part is module for part in (teacher, teacher.clip) for module in method.modules()):
            yield f"the {kind} teacher is a module of the method, and would be saved"


def _scored(settings: dict[str, Any], method: Method, kept: Mapping[str, Tensor], session: Session) -> Iterator[str]:
    before, random = copied(method), torch.get_rng_state()
    scores = evaluate(method, session.tests, EvalConfig(geometry=0))
    yield from (f"scoring changes {name}" for name in changed(before, copied(method)))
    if not torch.equal(random, torch.get_rng_state()):
        yield "scoring draws from the global generator"
    loaded = build(settings)
    restore(loaded, kept, "a law")
    again = evaluate(loaded.eval(), session.tests, EvalConfig(geometry=0))
    if {name: score.metrics for name, score in scores.items()} != {name: score.metrics for name, score in again.items()}:
        yield "it scores otherwise once it was saved and loaded"


def _cut(settings: dict[str, Any], kept: Mapping[str, Tensor], session: Session) -> Method:
    """A method that was killed in the second step of a session, and the one that went on from what the first one had kept."""

    def begun() -> Method:
        method = build(settings)
        restore(method, kept, "a law")
        return method

    with TemporaryDirectory() as folder:
        interim = Interim(Path(folder) / "interim", 1e-9)
        cut_short(begun(), session, FAST, interim, 1, between=False)
        assert interim.read() is not None, "nothing was kept of a session that was killed"
        resumed = begun()
        learn(resumed, session, FAST, 0, interim=interim)
    return resumed


def _thin(settings: dict[str, Any]) -> Iterator[str]:
    """Sessions of one class, of one row, and without a label."""
    one = make.session(1, (0,), (0,), each=6)
    row = make.session(1, (0, 1), (0, 1), captions=True)
    bare = make.session(1, (0, 1), (0, 1))
    thin = {"one class": one, "one row": replace(row, data=row.data.take([0])), "no label": replace(bare, data=bare.data.without("label"))}
    for what, session in thin.items():
        method = build(settings)
        before = copied(method)
        try:
            learn(method, session, FAST, 0)
        except MethodError as error:
            if session.name not in str(error):
                yield f"{what}: refused without naming the session: {error}"
            yield from (f"{what}: a refusal has changed {name}" for name in changed(before, copied(method)))
            continue
        yield from (f"{what}: {name} is no number" for name in lost(method))


def copied(method: Method) -> dict[str, Tensor]:
    """Everything that outlives a session, as it is now."""
    return {name: tensor.clone() for name, tensor in method.state_dict().items() if isinstance(tensor, Tensor)}


def still(method: Method) -> dict[str, Tensor]:
    """The parameters that do not descend, but for what sums are added up in."""
    moving = {id(tensor) for tensor in method.trainable()}
    if isinstance(method, Sums):
        moving |= {id(module.rows) for module in method.modules() if isinstance(module, ClassRows)}
    return {name: tensor.detach().clone() for name, tensor in method.named_parameters() if id(tensor) not in moving}


def weights(method: Method) -> dict[str, Tensor]:
    """What descends in a recipe, as it is now; keys of a closed form that trains them are put away when a session is over."""
    return {name: each.detach().clone() for name, each in method.tuner.weights().items()} if isinstance(method, Recipe) else {}


def lost(method: Method) -> list[str]:
    """The names of what outlives a session and is no number any more; notes of a closed form may be infinite."""
    return [name for name, tensor in copied(method).items() if tensor.is_floating_point() and tensor.isnan().any()]


def changed(before: Mapping[str, Tensor], now: Mapping[str, Tensor]) -> list[str]:
    """The names whose tensors differ in any bit, or that only one of the two has."""
    shared = before.keys() & now.keys()
    return sorted((before.keys() ^ now.keys()) | {name for name in shared if not torch.equal(before[name], now[name])})
