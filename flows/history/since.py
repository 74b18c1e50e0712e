"""What is another than when the head was learned: settings, release, and what computes."""

from collections.abc import Iterator, Mapping
from typing import Any

from cl.release import made_with
from cl.text import some
from flows.history.entries import Began, Learned
from flows.tracking.runs import flat

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
            ("settings changed", list(settings(head.config, began.config))),
            ("released anew", releases),
        )
        if changes
    ]
    if head.identity and head.identity != began.identity and not any(settings(_recipe(head.config), _recipe(began.config))):
        told.append(f"since {head.session}: what the method computes changed: a unit's version was raised")
    return told


def settings(before: Mapping[str, Any], now: Mapping[str, Any]) -> Iterator[str]:
    """Each setting that makes a model and differs, with both values."""
    old, new = (flat({name: tree[name] for name in _GROUPS if name in tree}) for tree in (before, now))
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            yield f"{name} {old.get(name, 'unset')} -> {new.get(name, 'unset')}"


def _recipe(tree: Mapping[str, Any]) -> dict[str, Any]:
    return {name: tree[name] for name in ("model", "method", "seed") if name in tree}
