"""What a state's tensors were called before methods were made of parts: one table, from the old names to those of now."""

from collections.abc import Collection, Mapping
from typing import TypeVar

T = TypeVar("T")

RENAMED = {
    "importance": "terms.hold.importance",
    "prompts": "tuner.prompts",
    "head": "tuner.head",
    "moment": "moments.second",
    "sums": "moments.sums",
}

KINDS = {  # of a state that did not note them: the method that made it, and by name each of its parts that others may have too
    "replay": {"memory": "Rehearsal"},
    "ewc": {"terms.hold": "Hold"},
    "cpe_clip": {"tuner": "Prompted"},
    "pseudolabel": {"tuner": "Prompted"},
    "linear_probe": {"tuner": "Head"},
}


def renamed(tensors: Mapping[str, T], expected: Collection[str]) -> dict[str, T]:
    """The same under the names that a method expects, where it expects a name of now and not the old one.

    >>> renamed({"importance": 1, "clip.model.logit_scale": 2}, {"terms.hold.importance", "clip.model.logit_scale"})
    {'terms.hold.importance': 1, 'clip.model.logit_scale': 2}
    >>> renamed({"importance": 1}, {"importance"})
    {'importance': 1}
    """
    wanted = set(expected)
    return {new if (new := _now(name)) in wanted and name not in wanted else name: tensor for name, tensor in tensors.items()}


def _now(name: str) -> str:
    old = next((old for old in RENAMED if name == old or name.startswith(f"{old}.")), None)
    return name if old is None else RENAMED[old] + name.removeprefix(old)
