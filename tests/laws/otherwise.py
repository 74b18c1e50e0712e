"""Every part, and every closed form, with one field set otherwise than it is by itself: read from the fields of whatever is registered."""

from collections.abc import Iterator
from types import UnionType
from typing import Annotated, Any, Literal, Union, get_args, get_origin

from pydantic.fields import FieldInfo

from cl.methods import CONFIGS, PARTS
from cl.methods.compose import Composed
from cl.methods.part import SEATS
from tests.laws.cases import alone, preset, small

_LEFT_OUT = {"kind", "name", "label", "train", "later", "terms", *SEATS}
_TEXTS = {"template": "the {} one"}  # what is no name of a file or a model
_WITH: dict[str, dict[str, Any]] = {  # what a field plays no part without
    "whole, cache": {"part": "text"},
    "projections, cache": {"towers": "text"},
    "lora, cache": {"towers": "text"},
    "prompts, form": {"depth": 12},  # as it is by itself: it is of the bridged ones
    "prompts, cache": {"depth": 12, "form": "text"},
    "prompts, mixing": {"depth": 12, "form": "multimodal"},
    "prompts, share": {"reg": "balance"},
    "prompts, scale_target": {"reg": "balance"},
    "proto_triplet, prototypes": {"margin": 2.0},  # images of another class are further away than the margin that it has by itself
}
_PARTNERS = {
    "pseudolabels, restart": {"tune": {"kind": "prompts", "form": "multimodal"}},
    "interpolate, reference": {"tune": {"kind": "prompts", "depth": 2}},  # which the method makes, and not the model that comes
}


def otherwise() -> Iterator[tuple[str, dict[str, Any]]]:
    """A name, and a method's settings."""
    for seat, kinds in PARTS.items():
        for kind, config in kinds.items():
            own = small(seat, kind)
            for field, value in _values(config.model_fields, own):
                part = own | _WITH.get(f"{kind}, {field}", {}) | {field: value}
                yield f"{kind}, {field}: {value}", _beside(seat, kind, part) | _PARTNERS.get(f"{kind}, {field}", {})
    for name, method in CONFIGS.items():
        if not issubclass(method, Composed):  # presets are recipes of parts
            for field, value in _values(method.model_fields, own := preset(name)):
                yield f"{name}, {field}: {value}", own | {field: value}


def _beside(seat: str, kind: str, part: dict[str, Any]) -> dict[str, Any]:
    whole = alone(seat, kind)
    return whole | ({"terms": [*whole["terms"][:-1], part]} if seat == "terms" else {seat: part})


def _values(fields: dict[str, FieldInfo], own: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """Words, yes and no, and numbers where there is none or where the one that is there lies at the end of what may be."""
    for name, field in fields.items():
        given = own.get(name, field.get_default(call_default_factory=True))
        at_end = any(given in (getattr(rule, "ge", None), getattr(rule, "le", None)) for rule in field.metadata)
        for kind in _kinds(field.annotation) if name not in _LEFT_OUT else ():
            if get_origin(kind) is Literal:
                yield from ((name, word) for word in get_args(kind) if word != given)
            elif kind is bool:
                yield name, not given
            elif kind is type(None) and given is not None:
                yield name, None
            elif kind is str and name in _TEXTS:
                yield name, _TEXTS[name]
            elif kind in (int, float) and (at_end or not isinstance(given, int | float)):
                yield name, 4 if kind is int else 0.5


def _kinds(annotation: Any) -> Iterator[Any]:
    if get_origin(annotation) is Annotated:
        yield from _kinds(get_args(annotation)[0])
    elif get_origin(annotation) in (Union, UnionType):
        for each in get_args(annotation):
            yield from _kinds(each)
    else:
        yield annotation
