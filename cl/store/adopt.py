"""What of a state a method goes on with, part by part."""

from collections.abc import Collection, Mapping
from enum import StrEnum
from typing import Any

from torch import Tensor

from cl.methods import Method
from cl.methods.persist import CLIP, memory
from cl.methods.weights import named, signature
from cl.store.old_names import KINDS, renamed
from cl.store.store import State

_PARTS = ("tuner", "memory", "merge", "several")  # what the names of tensors begin with, but for terms, which have names of their own


class Why(StrEnum):
    """Why what a part left in a state is not gone on with; in the value the method that goes on stands for {now}."""

    METHOD = "{now} has no use for it"
    SETTINGS = "it does not fit the settings of now"


def adopt(method: Method, name: str, own: Mapping[str, Tensor], made: State) -> list[tuple[str, dict[str, Tensor], Why]]:
    """Put into a method, called `name`, each part of a state that fits it whole.

    Args:
        method: as it is built.
        name: of that method.
        own: what lies in the state beside the clip's weights.
        made: the state's note.

    Returns:
        What is left behind: the part, its tensors, and why.
    """
    fresh = {key: tensor.clone() for key, tensor in memory(method).items() if not key.startswith(CLIP)}
    bounds, left = method.bounds(), []
    parts = {*_PARTS, *bounds, *(made.bound or {} if made.format > 1 else {})}
    wanted = _by_part(fresh, parts)
    for part, held in _by_part(renamed(own, fresh), parts).items():
        why = _why(part, bounds.get(part), method, name, made)
        if why is None and held.keys() != wanted.get(part, {}).keys():
            why = Why.SETTINGS if made.method else Why.METHOD
        if why is None:
            try:
                method.load_state_dict(held, strict=False)
            except RuntimeError:  # another shape; what did fit is in, and goes out again
                method.load_state_dict(wanted[part], strict=False)
                why = Why.SETTINGS
        if why:
            left.append((part, held, why))
    return left


def _by_part(tensors: Mapping[str, Tensor], known: Collection[str]) -> dict[str, dict[str, Tensor]]:
    parts: dict[str, dict[str, Tensor]] = {}
    for name, tensor in tensors.items():
        first, _, rest = name.partition(".")
        part = f"terms.{rest.partition('.')[0]}" if first == "terms" else first if first in known else ""
        parts.setdefault(part, {})[name] = tensor
    return parts


def _why(part: str, now: Mapping[str, Any] | None, method: Method, name: str, made: State) -> Why | None:
    """What speaks against a part of a state, by the notes alone; `now`: what such a part is bound to in the method, if it has one."""
    if now is None:
        return Why.METHOD
    if made.format > 1:
        was = (made.bound or {}).get(part, {})
        return None if was == now else Why.SETTINGS if was.get("kind") == now["kind"] else Why.METHOD
    kind = KINDS.get(made.method, {}).get(part)
    if kind != now["kind"] if kind else made.method not in ("", name):
        return Why.METHOD
    fits = made.bound is None or _bound(made, method) == {key: value for key, value in now.items() if key != "kind"}
    return None if fits else Why.SETTINGS


def _bound(made: State, method: Method) -> dict[str, Any]:
    """What a state of format 1 was bound to, in words of now: EWC told its tower."""
    bound = dict(made.bound or {})
    if made.method == "ewc" and "part" in bound:
        return {"weights": signature(named(method.clip, method.clip.part(bound["part"])))}
    return bound
