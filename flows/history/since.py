"""What is another than when the head was learned: settings, release, and what computes."""

from collections.abc import Collection, Iterator, Mapping
from typing import Any

from cl.errors import ConfigError
from cl.release import made_with
from cl.run_config import parse_config
from cl.text import some
from flows.history.entries import Began, Learned
from flows.tracking.params import flat

_GROUPS = ("model", "method", "train", "per_session", "seed", "threads")  # of settings that make a model
_OWN = "evergreen-clip"


def since(head: Learned, began: Began) -> list[str]:
    """In words, what changed between the session that the head learned last and one that is begun on top of it.

    >>> old = {"train": {"lr": 0.1}, "method": {"name": "finetune"}}
    >>> list(settings(old, {"train": {"lr": 0.2}, "method": {"name": "finetune"}}))
    ['train.lr 0.1 -> 0.2']
    """
    before, now = head.versions, made_with()
    releases = [f"{name} {before[name]} -> {now[name]}" for name in now if name in before and before[name] != now[name]]
    if before.get(_OWN) is None and head.identity == "":
        releases.append(f"Evergreen 0.1.0 -> {now[_OWN]}")
    told = [
        f"since {head.session}: {what}: {some(changes, 6)}"
        for what, changes in (
            ("settings changed", list(settings(head.config, began.config, _chosen(began.config)))),
            ("released anew", releases),
        )
        if changes
    ]
    if head.identity and head.identity != began.identity and not any(settings(_recipe(head.config), _recipe(began.config))):
        told.append(f"since {head.session}: what the method computes changed: a unit's version was raised")
    return told


def settings(before: Mapping[str, Any], now: Mapping[str, Any], chosen: Collection[str] | None = None) -> Iterator[str]:
    """Each setting that makes a model and differs, with both values.

    `chosen`: those that are not at their default now. One that was not there before and is at its default was set by nobody: another
    release, or another method, has it. Nor does a method that is another one now unset what only the one before it had.

    >>> old = {"method": {"name": "replay", "capacity": 50}}
    >>> list(settings(old, {"method": {"name": "finetune", "scale": "trained"}}, {"method.name"}))
    ['method.name replay -> finetune']
    """
    old, new = (flat({name: tree[name] for name in _GROUPS if name in tree}) for tree in (before, now))
    switched = old.get("method.name") != new.get("method.name")
    for name in sorted(old.keys() | new.keys()):
        by_nobody = name not in old and chosen is not None and name not in chosen
        if old.get(name) != new.get(name) and not by_nobody and not (switched and name not in new and name.startswith("method.")):
            yield f"{name} {old.get(name, 'unset')} -> {new.get(name, 'unset')}"


def _chosen(config: Mapping[str, Any]) -> frozenset[str] | None:
    try:
        told = parse_config(dict(config), "the settings of now").model_dump(mode="json", exclude_defaults=True)
    except ConfigError:  # a session that was begun by another release
        return None
    return frozenset(flat({name: told[name] for name in _GROUPS if name in told}))


def _recipe(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree[name] for name in ("model", "method", "seed") if name in tree}
