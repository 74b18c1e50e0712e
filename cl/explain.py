"""What is wrong with settings, in a sentence for who wrote them: where, what was found, what there is."""

import difflib
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic_core import ErrorDetails, PydanticCustomError

_MAPS = frozenset({"model_attributes_type", "model_type", "dict_type"})
_LISTS = frozenset({"tuple_type", "list_type"})
_SAID = "told"


def told(sentence: str) -> PydanticCustomError:
    """What a validator raises to have its own words told after the path of the setting, without what was found."""
    return PydanticCustomError(_SAID, "{sentence}", {"sentence": sentence})


def explain(error: PydanticError, tree: Any, schema: type[BaseModel] | None = None) -> str:
    """One line for a pydantic error: `train.lrr: unknown setting, did you mean lr?; train.lr: input should be greater than 0`."""
    problems = error.errors()
    inner = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    real = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in inner]  # short for want of those
    more = len(real) - 3
    return "; ".join(_told(problem, tree, schema) for problem in real[:3]) + (f"; and {more} more" if more > 0 else "")


def _told(problem: ErrorDetails, tree: Any, schema: type[BaseModel] | None) -> str:
    where, kind = _path(problem["loc"], tree), problem["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown setting{_meant(str(problem['loc'][-1]), _known(schema, problem['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: this setting is required"
    if kind == _SAID:
        return f"{where}: {problem['msg']}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key = str(problem.get("ctx", {}).get("discriminator", "")).strip("'")
        return _untagged(f"{where}.{key}", problem, _kinds(schema, problem["loc"], key))
    if kind == "literal_error" and problem["loc"][-1] == "kind":  # where there is just one
        return _untagged(where, problem, _kinds(schema, problem["loc"][:-1], "kind"))
    if kind in _MAPS:
        return f"{where}: expected a group of settings, such as {{{_example(schema, problem['loc'])}}} (found {_short(problem['input'])})"
    if kind == "too_short":
        length = problem["ctx"]["actual_length"]
        return f"{where}: {length or 'none'} given, and at least {problem['ctx']['min_length']} is needed"
    if kind in _LISTS:
        return f"{where}: expected a list, such as [...] (found {_short(problem['input'])})"
    return f"{where}: {problem['msg'][0].lower()}{problem['msg'][1:]} (found {_short(problem['input'])})"


def _meant(word: str, known: Sequence[str]) -> str:
    close = [name for name in known if len(word) > 2 and word in name] or difflib.get_close_matches(word, known)
    if close:
        return f", did you mean {close[0]}?"
    return f"; there are {', '.join(known)}" if 0 < len(known) <= 12 else ""


def _untagged(where: str, problem: ErrorDetails, kinds: list[str]) -> str:
    # a group of settings whose kind says which settings there are
    there_are = f"there are {', '.join(kinds)}"
    if problem["type"] == "union_tag_not_found":
        return f"{where}: this setting is required; {there_are}"
    tag = problem.get("ctx", {}).get("tag", problem["input"])
    close = difflib.get_close_matches(str(tag), kinds, n=1)
    return f"{where}: there is no {_short(tag)}; {there_are}" + (f"; did you mean {close[0]}?" if close else "")


def _short(value: Any) -> str:
    shown = reprlib.Repr()  # YAML's aliases make a thousand million words of ten lines
    shown.maxlevel, shown.maxstring = 3, 80
    return shown.repr(value)[:80]


def _path(loc: Sequence[str | int], tree: Any) -> str:
    # pydantic names the chosen member of a union as if it were a key; what was given has no such key
    told = []
    for place, part in enumerate(loc):
        inside = (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        )
        tag = isinstance(tree, dict) and part in (tree.get("kind"), tree.get("name"))
        if not inside and (tag or place < len(loc) - 1) and isinstance(part, str):
            continue
        told.append(str(part))
        tree = tree[part] if inside else None
    return ".".join(told) or "top level"


def _known(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> list[str]:
    # names of the settings at a place
    return list(dict.fromkeys(name for group in _at(schema, loc) for name in group.model_fields))


def _kinds(schema: type[BaseModel] | None, loc: Sequence[str | int], key: str) -> list[str]:
    # what a group of settings at a place may be called
    fields = (group.model_fields[key] for group in _at(schema, loc) if key in group.model_fields)
    return sorted({str(kind) for field in fields for kind in get_args(field.annotation)})


def _example(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> str:
    kinds = _kinds(schema, loc, "kind")
    return f"kind: {kinds[0]}" if kinds else "name: value"


def _at(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> list[type[BaseModel]]:
    # the groups of settings that may stand at a place; a part of the place that is no setting names the chosen member of a union
    groups = [schema] if schema else []
    for part in loc:
        inner = [each for group in groups if part in group.model_fields for each in models_in(group.model_fields[str(part)].annotation)]
        chosen = [group for group in groups if any(part in get_args(field.annotation) for field in group.model_fields.values())]
        groups = inner or chosen or groups
    return groups


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every group of settings that a type may hold: of a union its members, of a list what stands in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
