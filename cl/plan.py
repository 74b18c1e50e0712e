"""What a run will do before it does it: the stream, and the content-addressed name of every state and every step."""

import functools
import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter

from cl.config import TrainConfig
from cl.data.table import Supervision
from cl.data.told import Told
from cl.disk.unchanged import Glance, glance, recalled
from cl.errors import ConfigError, MethodError, ModelError
from cl.evaluation.ask import Question, Start
from cl.evaluation.cells import measured
from cl.learning.defaults import settled, told
from cl.methods import Method, MethodConfig
from cl.methods.closed_form.zero_shot import ZeroShotConfig
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.part import PartConfig
from cl.methods.terms.objective import ObjectiveConfig
from cl.models.clip import Clip, ModelConfig, load
from cl.models.source import find
from cl.release import code_version, made_with
from cl.run_config import RunConfig, train_config
from cl.store.units import units
from cl.streams.arrived import taught_with
from cl.streams.config import StreamConfig
from cl.streams.doubts import cut
from cl.streams.outline import joint_of, stream_of
from cl.streams.stream import Session, Stream
from cl.text import did_you_mean, some

HOLDS: dict[Supervision, tuple[str, ...]] = {
    "labels": ("labels",),
    "captions": ("captions",),
    "both": ("labels", "captions"),
    "none": ("unlabelled",),
}  # what sessions can hold for a method to learn from


@dataclass(frozen=True)
class Plan:
    """A run before it happens. Position t is the model after session t, 0 before any.

    `states[t]` names the weights: base model, method, the settings that are not at their default, seed, the versions of the units
    that compute (`cl.store.units`), and the content of every session up to t. `keys[t]` names the weights together with what they are
    examined on: sessions added later leave learned states valid and only ask for new rows.
    """

    config: RunConfig
    stream: Stream
    states: tuple[str, ...]
    keys: tuple[str, ...]
    data: str
    base: str
    root: Path
    chosen: tuple[str, ...] = ()  # training settings that nobody set, each with its reason, and those that play no part
    descends: bool = True  # whether any weight is trained by gradient

    def build(self) -> Method:
        """The method before anything is learned, over a fresh copy of the base model."""
        return self.config.method.located(self.root).build(load(self.config.model), self.config.seed)

    def frozen(self) -> Method:
        """The base model, which the first row is about: learning is measured against it, not against first prompts or zeros."""
        return ZeroShotConfig().build(load(self.config.model), self.config.seed)

    def questions(self, index: int) -> list[Question]:
        """What is asked at a step: the sets of the stream's exam, none of them built before it is needed."""
        stream = self.stream
        sets = [(test, session) for session in stream.sessions for test in session.tests] + [(probe, None) for probe in stream.probes]
        asked = zip(sets, stream.questions(index), stream.questions(0), strict=True)
        return [
            Question(
                test.name,
                now,
                first,
                functools.partial(stream.asked, test, session, index),
                functools.partial(stream.asked, test, session, 0),
                session if session and session.index <= index else None,
            )
            for (test, session), now, first in asked
        ]

    def start(self, store: Path) -> Start:
        """The model before any session, in a store."""
        return Start(store, self.base, self.frozen, self.config.evaluate)

    def remarks(self) -> list[Told]:
        """What is doubtful about the stream or left out of it, and how many captions this model cuts."""
        captions = (text for session in self.stream.sessions for texts in session.data.captions for text in texts)
        return [*self.stream.told, *cut(captions, base_model(self.config.model, True).tokenizer, "{} tokens that the model")]


def plan(config: RunConfig, data_root: Path, data_version: str, learns: bool = True, outlines: Path | None = None) -> Plan:
    """Build the stream and the chain of keys; say now what a method could not use later.

    Who only looks at what was learned (not `learns`) needs the keys alone: no tokenizer is built and no session checked. With a folder of
    `outlines` (`cl.streams.outline`) no image is opened of a stream that was planned before.

    Raises:
        ConfigError, DataError, ModelError, MethodError: what is wrong with settings, data, model, or a session.
    """
    if learns:
        check_wants(config, data_root)
    stream = read_stream(config, data_root, data_version, outlines)
    base, digest = base_model(config.model, learns), base_digest(config.model, learns, outlines)
    method = build_method(config.method.located(data_root), base, config.seed)
    _meant(config, [session.name for session in stream.sessions])
    trains = [train_config(config, session) for session in stream.sessions]
    for session, train in zip(stream.sessions, trains, strict=True) if learns else ():
        check_session(config.method, method, session, train)
    said = dict.fromkeys(line for train in trains for line in told(train, method))
    states = [recipe_key(config, digest, method)]
    for session, train in zip(stream.sessions, trains, strict=True):
        states.append(state_key(states[-1], session.digest, settled(train, method)))
    how = measured(config.evaluate)
    beside = ["known"] if config.evaluate.known_unknown else []
    keys = tuple(_key(state, stream.questions(index), how, *beside) for index, state in enumerate(states))
    return Plan(config, stream, tuple(states), keys, data_version, digest, data_root, tuple(said), bool(list(method.trainable())))


def recipe_key(config: RunConfig, base: str, method: Method) -> str:
    """The name of the model before any session: of base model, method, the settings that are not at their default, seed, and units."""
    return _key("start", base, config.method.spelled(), config.seed, units(method), *method.sources())


def state_key(parent: str, session: str, train: TrainConfig, *switch: str) -> str:
    """The name of the state that comes of `parent` by a session's content under settled training settings.

    `switch`: the `recipe_key`, where the parent was made by another one. What was chosen for a session is part of it: that may be chosen
    otherwise one day.
    """
    return _key(parent, session, train.changed("device", "devices", "strategy", "chunk", "workers", "checkpoint"), *switch)


def check_wants(config: RunConfig, root: Path) -> None:
    """Raise where no session can hold what the method learns from, by what the settings and a collection's notes say: no image is opened.

    Raises:
        DataError: a collection's notes cannot be read.
        MethodError: says what the method wants, and what the stream teaches with.
    """
    kinds, wants = sorted(taught_with(config.stream, root)), config.method.wants()
    held = {each for kind in kinds for each in (*HOLDS[kind], *(("unlabelled",) if config.stream.labelled else ()))}
    if kinds and not held & set(wants):
        raise MethodError(
            f"{config.name}: {config.method.title()} learns from {' or '.join(wants)}, and the stream teaches with {some(sorted(held))} "
            f"(stream.supervision: {some(kinds)}); {_culprits(config.method, held)}choose another method or other terms, or give "
            "the sessions what these want"
        )


def _culprits(method: MethodConfig, held: set[str]) -> str:
    # parts that cannot use what the stream teaches with, where a recipe could without them
    recipe = method.expanded() if isinstance(method, PresetConfig) else method
    parts = recipe.parts() if isinstance(recipe, RecipeConfig) else []
    narrow = [part for part in parts if not part.absent() and part.wants() != PartConfig.learns and not held & set(part.wants())]
    pairs = [part.called() for part in narrow if isinstance(part, ObjectiveConfig) and "labels" in held]
    remedy = f"set labels: pairs on {some(pairs)}, or " if pairs else ""
    return f"{some([part.called() for part in narrow])} cannot use that: {remedy}" if narrow else ""


def check_session(config: MethodConfig, method: Method, session: Session, train: TrainConfig) -> None:
    """Raise where a method cannot use a session, before anything is learned.

    Raises:
        MethodError: names the session, and what to do.
    """
    method.check(session)
    own = sorted({**config.train, **config.later})
    if own and not list(method.trainable()):
        raise MethodError(
            f"{config.called()}: method.train sets {some(own)}, and no weight is trained by gradient steps here; leave "
            f"{'them' if len(own) > 1 else 'it'} out"
        )
    if train.augment and not method.pixels and list(method.trainable()):
        raise MethodError(
            f"session {session.index} ({session.name}): train.augment is set, which makes a new image at every step, and "
            f"{config.title()} computes image features once; give it a train of its own with augment: false"
        )


def build_method(config: MethodConfig, clip: Clip, seed: int) -> Method:
    """The method over a model that it may change.

    Raises:
        MethodError: names the method, and what of the model it cannot work with.
    """
    try:
        return config.build(clip, seed)
    except ModelError as error:  # another method could learn with the same model
        raise MethodError(f"{config.called()} cannot learn with this model: {error}") from error


def read_stream(config: RunConfig, data_root: Path, data_version: str, outlines: Path | None = None) -> Stream:
    """The stream of a config, whatever its method; kept, so that a plan made next has the same sessions though more have come in.

    Raises:
        ConfigError, DataError: what is wrong with its settings or data.
    """
    return _stream(config.stream.model_dump_json(), data_root, data_version, config.joint, outlines)


def _meant(config: RunConfig, sessions: Sequence[str]) -> None:
    open_ended = config.joint or config.stream.kind == "collection"  # its sessions have another name, or are still to come
    unknown = [] if open_ended else [name for name in config.per_session if name not in sessions]
    if unknown:
        raise ConfigError(f"{config.name}: per_session.{unknown[0]}: no such session; {did_you_mean(unknown[0], sessions)}")


@functools.lru_cache(maxsize=2)
def _stream(config: str, root: Path, data_version: str, together: bool, outlines: Path | None) -> Stream:
    # the methods of a comparison share one stream, and with it the pixels decoded for evaluation
    made: StreamConfig = TypeAdapter(StreamConfig).validate_json(config)
    if together:
        return joint_of(_stream(config, root, data_version, False, outlines), made, root, outlines)
    return stream_of(made, root, outlines)


def base_model(config: ModelConfig, reads: bool) -> Clip:
    """The model that a run starts from, for who does not change it; with its tokenizer if it `reads`.

    Raises:
        ModelError: it is not there or cannot be used.
    """
    return _loaded(config, reads)[0]


@functools.lru_cache(maxsize=2)
def _loaded(config: ModelConfig, reads: bool) -> tuple[Clip, Path | None, Glance | None]:
    weights = find(config.name, config.pretrained).weights
    seen = glance(weights) if weights else None  # before it is read: what is noted of it holds for what was read, or for nothing
    return load(config, reads=reads), weights, seen


@functools.lru_cache(maxsize=2)
def base_digest(config: ModelConfig, reads: bool, notes: Path | None) -> str:
    """The digest of `base_model`, as `Clip.digest`: in a folder of `notes` it is kept for as long as the file of weights is as it was.

    Raises:
        ModelError: as `base_model`.
    """
    clip, weights, seen = _loaded(config, reads)
    if notes is None or seen is None:
        return clip.digest()
    made_of = [clip.model_cfg, clip.preprocess_cfg, str(weights), made_with(), code_version()]
    note = notes / "models" / f"{_key(*made_of)}.json"
    note.parent.mkdir(parents=True, exist_ok=True)
    return recalled(seen, note, clip.digest)


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]
