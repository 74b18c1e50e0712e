"""One session learned on top of whatever a model is by then: the name of the state it will be, and how it is made."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from lightning.pytorch.loggers import Logger

from cl.config import TrainConfig
from cl.learning.defaults import settled, told
from cl.learning.host import keep_memory, threads
from cl.learning.interim import Interim
from cl.learning.learner import learn
from cl.learning.progress import Progress
from cl.methods import Method
from cl.models.clip import load
from cl.plan import base_digest, base_model, build_method, check_session, recipe_key, state_key
from cl.run_config import RunConfig, train_config
from cl.store.states import Dropped, Origin, keep_state, load_state
from cl.store.store import State, whole
from cl.streams.stream import Session


@dataclass(frozen=True)
class Onward:
    """A session about to be learned from `parent` (None: the base model) into a state that has its name already."""

    config: RunConfig
    root: Path
    session: Session
    withheld: Mapping[str, str]
    train: TrainConfig
    parent: str | None
    state: str
    identity: str  # `recipe_key` of what learns it
    chosen: tuple[str, ...]  # training settings that nobody set, each with its reason, and those that play no part
    made: str = ""  # the method that made the parent, where its state does not note it

    def build(self) -> Method:
        """The method before anything is learned, over a fresh copy of the base model."""
        return self.config.method.located(self.root).build(load(self.config.model), self.config.seed)


def onward(
    config: RunConfig,
    root: Path,
    session: Session,
    withheld: Mapping[str, str],
    parent: str | None,
    before: str | None,
    notes: Path | None = None,
) -> Onward:
    """What learning a session next would make.

    A line that grows under one recipe has the names that a run of the same sessions has.

    Args:
        config: settings that hold from this session on.
        root: where the data lie.
        session: at its place in the line.
        withheld: labels of its rows that are not taught.
        parent: the state it grows from.
        before: the identity under which that was learned; "" where nobody knows.
        notes: a folder that keeps the base model's digest, as `cl.plan.base_digest`.

    Raises:
        ModelError, MethodError: the method cannot learn with the model, or from the session.
    """
    base = base_model(config.model, True)
    method = build_method(config.method.located(root), base, config.seed)
    train = train_config(config, session)
    check_session(config.method, method, session, train)
    identity = recipe_key(config, base_digest(config.model, True, notes), method)
    switch = () if parent is None or before == identity else (identity,)
    name = state_key(parent or identity, session.digest, settled(train, method), *switch)
    return Onward(config, root, session, withheld, train, parent, name, identity, told(train, method))


def go_on(
    step: Onward, store: Path, *, logger: Logger | None = None, progress: Progress | None = None
) -> tuple[State, tuple[Dropped, ...]]:
    """The state, found or learned, and what a switch of method left behind. Being killed leaves nothing half-written.

    Raises:
        StoreError: the parent is not there, or the store cannot be written.
        LearningError: learning failed.
    """
    name, interim = step.config.method.called(), Interim(store / "interim" / step.state, step.train.checkpoint)
    known = whole(store / "states" / step.state) if (store / "states" / step.state).exists() else None
    keep_memory()
    with threads(step.config.threads):
        method, dropped = load_state(step.build, name, step.parent, store, step.made) if step.parent else (step.build(), ())
        if known is None:
            learned = learn(method, step.session, step.train, step.config.seed, logger=logger, progress=progress, interim=interim)
            record = method.record(step.session, step.withheld)
            origin = Origin(name, step.parent, step.session.name, step.session.index)
            known = keep_state(store, step.state, method, learned, record, origin)
    interim.clear()  # also one that a kill between the two left behind
    return known, dropped
