"""What methods and parts there are, in their own words: first sentences, settings with their defaults, presets as recipes to paste."""

from collections.abc import Container, Iterator
from typing import Any, Literal, NamedTuple, get_args, get_origin

import yaml
from pydantic import ValidationError
from pydantic.fields import FieldInfo
from pydantic_core import to_jsonable_python

from cl.config import Config
from cl.errors import ConfigError
from cl.methods import CONFIGS, PARTS
from cl.methods.base import MethodConfig
from cl.methods.compose import PresetConfig, RecipeConfig
from cl.methods.part import PartConfig
from cl.text import did_you_mean

_OF_ALL = frozenset({"label", "train", "later", "kind", "name"})  # no knobs of the one or the other


class Setting(NamedTuple):
    """One setting: its default as YAML, what else it may be where that is a list of words, and what it is for."""

    name: str
    default: str
    choices: str
    words: str


def sentence(config: type[Config]) -> str:
    """The first line of its description."""
    return (config.__doc__ or "").splitlines()[0]


def parts() -> list[tuple[str, str, str]]:
    """Every part: the field of a recipe that it stands in, its kind, and what it does."""
    return [(seat, kind, sentence(config)) for seat, kinds in PARTS.items() for kind, config in kinds.items()]


def part(kind: str) -> tuple[str, type[PartConfig]]:
    """The part of a kind, with its field.

    Raises:
        ConfigError: there is none.
    """
    known = _parts()
    if kind not in known:
        other = _elsewhere(kind, "methods", CONFIGS)
        raise ConfigError(f"parts: there is no part {kind!r}{other}; {did_you_mean(kind, sorted(known), most=len(known))}")
    return known[kind]


def _parts() -> dict[str, tuple[str, type[PartConfig]]]:
    return {name: (seat, config) for seat, kinds in PARTS.items() for name, config in kinds.items()}


def _elsewhere(name: str, command: Literal["methods", "parts"], known: Container[str]) -> str:
    """Where a name is at home that was asked for in the wrong place."""
    return f", but a {command[:-1]}: `evergreen {command} {name}`" if name in known else ""


def learned_from(config: type[MethodConfig]) -> str:
    """What a session must hold some of, as its check has it; in brackets the settings that change that."""
    own, changed = config().wants(), dict[tuple[str, str], list[str]]()
    for name, word in _choices(config):
        try:
            other = config.model_validate({name: word}).wants()
        except ValidationError:  # it wants another setting beside it
            continue
        more = " or ".join(each for each in other if each not in own)
        told = f"also {more}" if set(own) < set(other) else f"{' or '.join(other)} alone"
        if other != own:
            changed.setdefault((name, told), []).append(word)
    aside = [f"{name}: {' or '.join(words)}: {told}" for (name, told), words in changed.items()]
    if config is RecipeConfig:
        aside.append("or what all its parts can use")
    return " or ".join(own) + (f" ({'; '.join(aside)})" if aside else "")


def _choices(config: type[Config]) -> Iterator[tuple[str, str]]:
    """Each setting that is one of a list of words, and each word that is not its default."""
    for name, field in config.model_fields.items():
        if name not in _OF_ALL | {*PARTS} and get_origin(field.annotation) is Literal:
            yield from ((name, word) for word in _words(field.annotation) if word != field.default)


def settings(config: type[Config]) -> list[Setting]:
    """What can be set, but for what all have."""
    return [setting(name, field) for name, field in config.model_fields.items() if name not in _OF_ALL]


def setting(name: str, field: FieldInfo) -> Setting:
    """A field of a group of settings, in words; one that has to be given has no default."""
    default = "" if field.is_required() else _plain(to_jsonable_python(field.get_default(call_default_factory=True)))
    words = _words(field.annotation)
    return Setting(name, default, ", ".join(words) if set(words) != {"a number"} else "", field.description or "")


def as_yaml(name: str) -> str:
    """A method as YAML that can be pasted into a config: a preset as the recipe that it stands for; what it is and can, as comments.

    Raises:
        ConfigError: there is none of that name.
    """
    if name not in CONFIGS:
        raise ConfigError(
            f"methods: there is no method {name!r}{_elsewhere(name, 'parts', _parts())}; {did_you_mean(name, sorted(CONFIGS))}"
        )
    config = CONFIGS[name]()
    lines = [f"# {line}".rstrip() for line in _prose(f"{name}: {config.__doc__}")]
    spelled: Config = config
    if isinstance(config, PresetConfig):
        lines += ["#", f"# Its settings, as they are where nobody sets them in {{name: {name}, ...}}:"]
        lines += [f"#   {each.name}: {each.default}{_remark(each)}" for each in settings(type(config)) if each.name not in PARTS]
        lines += ["#", "# It stands for this recipe:"]
        spelled = config.expanded().model_copy(update={"train": config.train, "later": config.later})
    lines += ["method:", *(f"  {line}" for line in _group(spelled))]
    return "\n".join(lines)


def _prose(text: str) -> list[str]:
    return [line.strip() for line in text.strip().splitlines()]


def _group(config: Config) -> Iterator[str]:
    # a line of YAML for each setting, with what it is for behind it
    told = {each.name: _remark(each) for each in settings(type(config))}
    for name in sorted(type(config).model_fields, key=lambda name: name not in ("name", "kind")):
        value = getattr(config, name)
        if value is None or (name in ("train", "later") and not value):
            continue
        if isinstance(value, PartConfig):
            yield f"{name}:"
            yield from (f"  {line}" for line in _group(value))
        elif isinstance(value, tuple) and all(isinstance(each, PartConfig) for each in value):
            yield f"{name}:"
            for each in value:
                yield from ((f"  - {line}" if place == 0 else f"    {line}") for place, line in enumerate(_group(each)))
        else:
            yield f"{name}: {_plain(config.model_dump(mode='json')[name])}{told.get(name, '')}"


def _words(annotation: Any) -> list[str]:
    if get_origin(annotation) is Literal:
        return [str(word) for word in get_args(annotation)]
    if annotation in (int, float):
        return ["a number"]
    return list(dict.fromkeys(word for each in get_args(annotation) for word in _words(each)))


def _remark(setting: Setting) -> str:
    told = "; ".join(filter(None, (setting.choices and f"one of {setting.choices}", setting.words)))
    return f"  # {told}" if told else ""


def _plain(value: Any) -> str:
    return yaml.safe_dump(value, default_flow_style=True, width=10_000, sort_keys=False).removesuffix("...\n").strip()
