"""The names that release 0.1.0 gave to what it learned, to see whether what lies there was learned from these data and settings."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from cl.data.classes import ClassName
from cl.streams.stream import Kind, Session

_BESIDE = ("device", "workers", "checkpoint")  # training settings that are in no name
_OTHERS = ("label", "train", "later")  # of a method


def start_name(base: str, settings: Mapping[str, Any], code: str, sources: Sequence[str]) -> str:
    """The name of the state before any session.

    Args:
        base: digest of the base model's weights.
        settings: a whole config as it was recorded.
        code: hash of the sources of `cl` that learned.
        sources: digests of the tables that the method learns from beside its sessions.
    """
    method = {name: value for name, value in settings["method"].items() if name not in _OTHERS}
    return _key("start", [base, method, settings["seed"], code, *sources])


def state_name(before: str, session: str, settings: Mapping[str, Any], name: str, index: int) -> str:
    """The name of a state; `session`: its `session_digest`."""
    method = settings["method"]
    own = {**settings["per_session"].get(name, {}), **method["train"], **(method["later"] if index > 1 else {})}
    first = settings["train"]
    train = {**first, **{key: float(value) if isinstance(first.get(key), float) else value for key, value in own.items()}}
    return _key(before, session, {key: value for key, value in train.items() if key not in _BESIDE})


def step_name(state: str, sets: Sequence[str], settings: Mapping[str, Any]) -> str:
    """The name of a matrix row; `sets`: the `set_digest` of each."""
    return _key(state, list(sets), settings["evaluate"])


def session_digest(session: Session) -> str:
    """What stood for a session: its name and its rows' ids are part of it."""
    return _hash(session.index, session.name, session.data.digest(), session.classes, _classes(session.vocabulary))


def set_digest(name: str, kind: Kind, rows: str, classes: Sequence[ClassName]) -> str:
    """What stood for an evaluation set; `rows`: the digest of its table."""
    return _hash(name, kind, rows, _classes(classes))


def _classes(classes: Sequence[ClassName]) -> list[Any]:
    return [(each.name, each.prompts) for each in classes]


def _key(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:32]
