"""Reference pages: settings, public names, commands, shipped configs, what has no meaning together, and what others published."""

import inspect
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

import typer
from griffe import Docstring, DocstringSectionKind
from pydantic import BaseModel

import cl
from cl.explain import models_in
from cl.methods.combine import table as refusals
from cl.methods.describe import setting
from cl.reports.published import HOW, blocks
from cl.run_config import RunConfig
from docs.make.methods import escaped, linked
from flows.cli.main import app

SHIPPED = Path(__file__).parents[2] / "flows" / "configs"
_MIXED = """`evergreen compare papers/...` prints the block of its protocol beside its own rows, and none where settings differ from it.
Rows are comparable within a block and with nothing else. In percent; none of them was measured here."""
_BY_NAME = """Run by name: `evergreen compare glyphs`, `evergreen compare papers/mtil_order_1`. What data one reads stands in its
first lines; folders that are missing are told by name:
```sh
EVERGREEN_DATA=/path/to/data EVERGREEN_MODELS=/path/to/models evergreen compare photos
```
`photos` and `mini_imagenet` start from a local model, or, where that is not there, from a small one
that is trained on the first session."""
API = re.compile(r"^::: cl\.(\w+)$", re.M)


def settings() -> str:
    """Every section of a config, from the models that check it: settings, types, defaults."""
    models = {"": RunConfig} | _sections(RunConfig)
    told = [
        "# Settings\n\nMade from the models that check a config. Whatever is not named here is refused, with the path of what was meant.\n"
    ]
    for name, model in models.items():
        told.append(
            f"## {f'`{name}`' if name else 'The file'}\n\n{linked(inspect.cleandoc(model.__doc__ or ''))}\n\n{_table(model, name, models)}"
        )
    return "\n".join(told)


def _sections(model: type[BaseModel]) -> dict[str, type[BaseModel]]:
    """Every group of settings below a model, by the shortest path to it; of a union each member; methods have pages of their own."""
    groups: dict[str, type[BaseModel]] = {}
    waiting: list[tuple[str, type[BaseModel]]] = [("", model)]
    while waiting:
        above, each = waiting.pop(0)
        for name, field in each.model_fields.items():
            for member in dict.fromkeys(models_in(field.annotation) if name != "method" else ()):
                kind = member.model_fields.get("kind")
                word = f" ({get_args(kind.annotation)[0]})" if kind and get_origin(kind.annotation) is Literal else ""
                if member not in groups.values():
                    groups[f"{above}{name}{word}"] = member
                    waiting.append((f"{above}{name}.", member))
    return groups


def _table(model: type[BaseModel], above: str, models: dict[str, type[BaseModel]]) -> str:
    rows = []
    for name, field in model.model_fields.items():
        told = setting(name, field)
        groups = [path for path, each in models.items() if each in list(models_in(field.annotation))]
        default = "required" if field.is_required() else "" if groups or name == "method" else f"`{told.default}`"
        where = "a [method](../presets/index.md)" if name == "method" else ", ".join(f"[{path}](#{_slug(path)})" for path in groups)
        choices = "" if groups or name == "method" else told.choices
        words = "; ".join(filter(None, (choices and f"one of {choices}", told.words, where)))
        rows.append(f"| `{name}` | {_type(field.annotation)} | {default} | {escaped(linked(words))} |")
    return "\n".join(["| setting | type | default | what it is |", "|---|---|---|---|", *rows]) + "\n"


def _slug(path: str) -> str:
    return re.sub(r"[-\s]+", "-", re.sub(r"[^\w\s-]", "", path)).strip("-").lower()


def _type(annotation: Any) -> str:
    """In the words of YAML."""
    words = {
        bool: "true or false",
        int: "whole number",
        float: "number",
        str: "text",
        dict: "group",
        list: "list",
        tuple: "list",
        type(None): "null",
    }
    if annotation in words:
        return words[annotation]
    origin = get_origin(annotation)
    if origin is Literal:
        return "word"
    if origin in (dict, list, tuple):
        return words[origin]
    if origin is Annotated:
        return _type(get_args(annotation)[0])
    if any(True for _ in models_in(annotation)) and not get_args(annotation):
        return "group"
    return " or ".join(dict.fromkeys(_type(each) for each in get_args(annotation))) or "text"


def api(page: str) -> str:
    """The page about `cl` with each line `::: cl.NAME` replaced by what NAME says of itself."""
    return API.sub(lambda match: _name(match[1]), page)


def _name(name: str) -> str:
    public = getattr(cl, name)
    told = [f"### `cl.{name}`\n", _signature(f"cl.{name}", public), _docs(public)]
    if inspect.isclass(public) and public.__module__ == "cl.api":
        for each, member in vars(public).items():
            if not each.startswith("_") and inspect.getdoc(member) and not isinstance(member, property):
                told += [f"#### `{name}.{each}`\n", _signature(each, member), _docs(member)]
    return "\n".join(told)


def _signature(name: str, what: Any) -> str:
    if not callable(what) or (inspect.isclass(what) and what.__module__ != "cl.api"):
        return ""
    shown = inspect.signature(what, eval_str=False)
    kept = [each.replace(annotation=inspect.Parameter.empty) for each in shown.parameters.values() if each.name != "self"]
    return f"```python\n{name}{shown.replace(parameters=kept, return_annotation=inspect.Signature.empty)}\n```\n"


def _docs(what: Any) -> str:
    """A docstring of Google's style as Markdown."""
    told = []
    for section in Docstring(inspect.getdoc(what) or "", parser="google", parser_options={"warnings": False}).parsed:
        match section.kind:
            case DocstringSectionKind.text:
                told.append(linked(section.value))
            case DocstringSectionKind.parameters | DocstringSectionKind.attributes:
                told.append("\n".join(f"- `{each.name}`: {_flat(each.description)}" for each in section.value))
            case DocstringSectionKind.raises:
                told.append("\n".join(f"- raises `{each.annotation}`: {_flat(each.description)}" for each in section.value))
            case DocstringSectionKind.returns:
                told.append("Returns: " + " ".join(_flat(each.description) for each in section.value))
            case DocstringSectionKind.examples:
                told.append(
                    "\n".join(f"```pycon\n{text}\n```" if kind is DocstringSectionKind.examples else text for kind, text in section.value)
                )
    return "\n\n".join(told) + "\n"


def _flat(text: str) -> str:
    return linked(" ".join(text.split()))


def commands() -> str:
    """Every command with its options, as `--help` has them."""
    told = ["# Commands\n\nAs `evergreen COMMAND --help` tells them.\n"]
    for name, command in _walk(typer.main.get_command(app), ""):
        told.append(f"## `evergreen {name}`\n\n{linked(inspect.cleandoc(command.help or ''))}\n\n{_options(command)}")
    return "\n".join(told)


def _walk(group: Any, above: str) -> Iterator[tuple[str, Any]]:
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            yield from _walk(command, f"{above}{name} ")
        else:
            yield f"{above}{name}", command


def _options(command: Any) -> str:
    rows = []
    for each in command.params:
        names = (*each.opts, *each.secondary_opts) if each.param_type_name == "option" else (str(each.metavar or each.name).upper(),)
        if "--help" not in names:
            rows.append(f"| {', '.join(f'`{name}`' for name in names)} | {escaped(linked(str(each.help or '')))} |")
    return "\n".join(["| | |", "|---|---|", *rows]) + "\n" if rows else ""


def shipped() -> str:
    """The configs that can be run by name, in the words that each opens with."""
    told = [f"# Shipped configs\n\n{_BY_NAME}\n"]
    for folder in ("", "papers", "results"):
        told.append(f"## {folder or 'Examples'}\n")
        for path in sorted((SHIPPED / folder).glob("*.yaml")):
            name = path.relative_to(SHIPPED).with_suffix("").as_posix()
            lines = [line.removeprefix("#").strip() for line in path.read_text(encoding="utf-8").splitlines() if line.startswith("#")]
            told.append(f"### `{name}`\n\n{linked(' '.join(lines))}\n")
    return "\n".join(told)


def published() -> str:
    """What others published, block by block."""
    told = [f"# Published figures\n\n{_MIXED}\n"]
    for name, block in blocks().items():
        head = ["method", *block.metrics, "source"]
        rows = [
            [each.method, *("–" if value is None else str(value) for value in each.values), f"{linked(each.source)} ({HOW[each.how]})"]
            for each in block.figures
        ]
        lines = [head, ["---"] * len(head), *rows]
        told.append(f"## {block.protocol}\n\n`{name}`\n\n" + "\n".join(f"| {' | '.join(map(escaped, line))} |" for line in lines) + "\n")
    return "\n".join(told)


def together() -> str:
    """Which parts have no meaning together."""
    told = "These are refused by name before anything is learned, most of them when a config is read."
    return f"# What has no meaning\n\n{told}\n\n{refusals()}\n"
