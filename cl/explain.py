"""What is wrong with settings, in a sentence for who wrote them: where, what was found, what there is."""

import difflib
import re
import reprlib
from collections.abc import Iterator, Sequence
from typing import Any, get_args

from pydantic import BaseModel
from pydantic import ValidationError as PydanticError
from pydantic_core import ErrorDetails, PydanticCustomError

from cl.text import either

_MAPS = frozenset({"model_attributes_type", "model_type", "dict_type"})
_DAY = "a date, such as 2024-05-31, or with a time, 2024-05-31T12:00"
_WANTED = {
    **dict.fromkeys(("tuple_type", "list_type"), "a list, such as [...]"),
    **dict.fromkeys(("float_type", "float_parsing", "finite_number"), "a number"),
    **dict.fromkeys(("int_type", "int_parsing", "int_from_float", "int_parsing_size"), "a whole number"),
    **dict.fromkeys(("bool_type", "bool_parsing"), "true or false"),
    **dict.fromkeys(("date_type", "datetime_type", "date_parsing", "datetime_parsing"), _DAY),
    **dict.fromkeys(("date_from_datetime_parsing", "datetime_from_date_parsing", "datetime_object_invalid"), _DAY),
    "string_type": "text",
    "greater_than": "a number above {gt}",
    "greater_than_equal": "a number of at least {ge}",
    "less_than": "a number below {lt}",
    "less_than_equal": "a number of at most {le}",
    "string_too_long": "at most {max_length} characters",
    "string_too_short": "at least {min_length} characters",
    "string_pattern_mismatch": "a name that begins with a letter or digit and has, besides those, only `_`, `.`, `-` and spaces",
}
_SAID = "told"


def told(sentence: str) -> PydanticCustomError:
    """What a validator raises to have its own words told after the path of the setting, without what was found."""
    return PydanticCustomError(_SAID, "{sentence}", {"sentence": sentence})


def explain(error: PydanticError, tree: Any, schema: type[BaseModel] | None = None) -> str:
    """One line for a pydantic error: `train.lrr: unknown setting, did you mean lr?; train.lr: expected a number above 0 (found -1)`.

    `tree`: what was validated, which tells settings from members of unions in pydantic's paths; None: not at hand.
    """
    problems = error.errors()
    inner = {problem["loc"][:end] for problem in problems for end in range(len(problem["loc"]))}
    real = [problem for problem in problems if problem["type"] != "too_short" or problem["loc"] not in inner]  # short for want of those
    sentences = _sentences(real, tree, schema)
    more = len(sentences) - 3
    return "; ".join(sentences[:3]) + (f"; and {more} more" if more > 0 else "")


def _sentences(problems: Sequence[ErrorDetails], tree: Any, schema: type[BaseModel] | None) -> list[str]:
    """One of each place: where a setting may be one thing or another, pydantic tells for each why it is none of it."""
    places: dict[str, list[ErrorDetails]] = {}
    for problem in problems:
        places.setdefault(_path(problem, tree), []).append(problem)
    told = []
    for where, each in places.items():
        if all(_wanted(problem) for problem in each):
            told.append(_expected(where, each))
        else:
            told += [_told(where, problem, schema) for problem in each]
    return told


def _expected(where: str, problems: Sequence[ErrorDetails]) -> str:
    words = [word for problem in problems if problem["type"] == "literal_error" for word in _words(problem)]
    others = list(dict.fromkeys(_wanted(problem) for problem in problems if problem["type"] != "literal_error"))
    close = difflib.get_close_matches(str(problems[0]["input"]), words, n=1)
    meant = f"; did you mean {close[0]}?" if close else ""
    return f"{where}: expected {', or '.join([*filter(None, [either(words)]), *others])} (found {_short(problems[0]['input'])}){meant}"


def _words(problem: ErrorDetails) -> list[str]:
    return [word.strip("'") for word in re.split(", | or ", problem["ctx"]["expected"])]


def _wanted(problem: ErrorDetails) -> str:
    """What pydantic wanted at a place, as people would say it; nothing where a sentence of its own says it."""
    kind, bounds = problem["type"], problem.get("ctx", {})
    if kind == "literal_error":
        return "" if problem["loc"][-1] == "kind" else either(_words(problem))
    if kind in _MAPS and _chosen(problem["loc"]):
        return "a group of settings"
    numbers = {name: bound for name, bound in bounds.items() if isinstance(bound, int | float)}
    return _WANTED.get(kind, "").format(
        **{name: f"{bound:,}" if isinstance(bound, int) else f"{bound:,g}" for name, bound in numbers.items()}
    )


def _chosen(loc: Sequence[str | int]) -> bool:
    return str(loc[-1:]).startswith("('dict[")  # a member of a union, as pydantic names it


def _told(where: str, problem: ErrorDetails, schema: type[BaseModel] | None) -> str:
    kind = problem["type"]
    if kind == "extra_forbidden":
        return f"{where}: unknown setting{_meant(str(problem['loc'][-1]), _known(schema, problem['loc'][:-1]))}"
    if kind == "missing":
        return f"{where}: this setting is required"
    if kind == _SAID:
        return f"{where}: {problem['msg']}"
    if kind in ("union_tag_not_found", "union_tag_invalid"):
        key = str(problem.get("ctx", {}).get("discriminator", "")).strip("'")
        return _untagged(f"{where}.{key}", problem, _kinds(schema, problem["loc"], key))
    if kind == "literal_error":  # the kind of a group, where there is just one
        return _untagged(where, problem, _kinds(schema, problem["loc"][:-1], "kind"))
    if kind in _MAPS:
        example = _example(schema, problem["loc"], problem["input"])
        return f"{where}: expected a group of settings, such as {{{example}}} (found {_short(problem['input'])})"
    if kind == "too_short":
        length = problem["ctx"]["actual_length"]
        return f"{where}: {length or 'none'} given, and at least {problem['ctx']['min_length']} is needed"
    words = str(problem["ctx"]["error"]) if kind == "value_error" else problem["msg"]  # a validator's own, or pydantic's
    return f"{where}: {words[:1].lower()}{words[1:]} (found {_short(problem['input'])})"


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
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]  # as YAML has them
    shown = reprlib.Repr()  # YAML's aliases make a thousand million words of ten lines
    shown.maxlevel, shown.maxstring = 3, 80
    return shown.repr(value)[:80]


def _path(problem: ErrorDetails, tree: Any) -> str:
    # pydantic names the chosen member of a union as if it were a key; what was given has no such key
    told, loc, known = [], problem["loc"], tree is not None
    for place, part in enumerate(loc):
        inside = (isinstance(tree, dict) and part in tree) or (
            isinstance(tree, list | tuple) and isinstance(part, int) and part < len(tree)
        )
        tag = isinstance(tree, dict) and part in (tree.get("kind"), tree.get("name"))
        last = place == len(loc) - 1
        if not inside and isinstance(part, str) and (tag or not last or (known and problem["type"] != "missing")):
            continue
        told.append(str(part))
        tree, known = (tree[part], known) if inside else (None, False)
    return ".".join(told) or "top level"


def _known(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> list[str]:
    # names of the settings at a place
    return list(dict.fromkeys(name for group in _at(schema, loc) for name in group.model_fields))


def _kinds(schema: type[BaseModel] | None, loc: Sequence[str | int], key: str) -> list[str]:
    # what a group of settings at a place may be called
    fields = (group.model_fields[key] for group in _at(schema, loc) if key in group.model_fields)
    return sorted({str(kind) for field in fields for kind in get_args(field.annotation)})


def _example(schema: type[BaseModel] | None, loc: Sequence[str | int], value: Any) -> str:
    kinds, groups = _kinds(schema, loc, "kind"), _at(schema, loc)
    if isinstance(value, str) and groups and all("name" in group.model_fields for group in groups):
        return f"name: {_short(value)}"  # who writes `model: ViT-B-32` means that
    return f"kind: {kinds[0]}" if kinds else "name: value"


def _at(schema: type[BaseModel] | None, loc: Sequence[str | int]) -> list[type[BaseModel]]:
    # the groups of settings that may stand at a place; a part of the place that is no setting names the chosen member of a union
    groups = [schema] if schema else []
    for part in loc:
        having = [group for group in groups if part in group.model_fields]
        inner = [each for group in having for each in models_in(group.model_fields[str(part)].annotation)]
        chosen = [group for group in groups if any(part in get_args(field.annotation) for field in group.model_fields.values())]
        groups = inner if having else chosen or groups
    return groups


def models_in(annotation: Any) -> Iterator[type[BaseModel]]:
    """Every group of settings that a type may hold: of a union its members, of a list what stands in it."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        yield annotation
    for part in get_args(annotation):
        yield from models_in(part)
