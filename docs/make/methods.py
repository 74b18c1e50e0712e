"""A page per preset and per part, from its own words: what it does, its paper, its settings, and what was measured."""

import inspect
import re
from collections.abc import Iterator

from cl.methods import CONFIGS, PARTS
from cl.methods.base import MethodConfig
from cl.methods.compose import PresetConfig
from cl.methods.describe import as_yaml, learned_from, sentence, settings
from docs.make.results import measured
from docs.make.within import of_part, of_recipes

SEATS = {
    "terms": "Terms: what is minimised",
    "tune": "Tuners: which weights move",
    "memory": "Memories: what of earlier data is kept",
    "merge": "Merges: what becomes of the weights",
    "rounds": "Rounds: how often a session is learned from",
}


def pages() -> dict[str, str]:
    """Markdown by path below the site's sources."""
    made = {f"presets/{name}.md": _preset(name, config) for name, config in CONFIGS.items()}
    for seat, kinds in PARTS.items():
        made |= {f"parts/{kind}.md": _part(seat, kind, config) for kind, config in kinds.items()}
    return made | {"presets/index.md": _presets(), "parts/index.md": _parts()}


def linked(text: str) -> str:
    """Papers as links."""
    return re.sub(r"(?<!\[)arXiv:(\d{4}\.\d{4,5})", r"[arXiv:\1](https://arxiv.org/abs/\1)", text)


def prose(config: type) -> str:
    """What a class says of itself, with its code and that of what it builds left to the source."""
    return linked(inspect.cleandoc(config.__doc__ or ""))


def escaped(cell: str) -> str:
    """Text in a cell of a table."""
    return cell.replace("|", "\\|").replace("\n", " ")


def table(config: type) -> str:
    """Settings with their defaults, its own first."""
    own = sorted(settings(config), key=lambda each: each.name in (*PARTS, "candidates"))
    rows = [f"| `{each.name}` | `{each.default}` | {escaped(each.choices)} | {escaped(linked(each.words))} |" for each in own]
    return "\n".join(["| setting | default | one of | what it is |", "|---|---|---|---|", *rows]) + "\n" if rows else "It has none.\n"


def _preset(name: str, config: type[MethodConfig]) -> str:
    kind = "A recipe with a name" if issubclass(config, PresetConfig) else "A method of its own family, not made of parts"
    if name == "recipe":
        kind = "Any combination of [parts](../parts/index.md) that has a meaning"
    return "\n".join(
        [
            f"# {name}\n\n{prose(config)}\n",
            f"{kind}. It learns from {learned_from(config)}.\n",
            f"## Settings\n\n{table(config)}",
            f"## In full\n\nWhat `evergreen methods {name}` prints, to paste into a config and change:\n\n```yaml\n{as_yaml(name)}\n```\n",
            f"## Measured\n\n{of_recipes() if name == 'recipe' else measured(name, 'method')}",
        ]
    )


def _part(seat: str, kind: str, config: type) -> str:
    where = f"terms: [{{kind: {kind}}}]" if seat == "terms" else f"{seat}: {{kind: {kind}}}"
    return "\n".join(
        [
            f"# {kind}\n\n{prose(config)}\n",
            f"{SEATS[seat]}. In a recipe: `{where}`.\n",
            f"## Settings\n\n{table(config)}",
            f"## Measured\n\n{of_part(kind)}",
        ]
    )


def _presets() -> str:
    rows = [f"| [`{name}`]({name}.md) | {learned_from(config)} | {linked(sentence(config))} |" for name, config in CONFIGS.items()]
    told = "# Methods\n\nEach page has what a method does, its paper, every setting with its default, and what was measured of it.\n"
    more = "`joint` learns the data of all sessions at once, by any of them: the usual upper bound.\n"
    return "\n".join([told, "| method | learns from | what it does |", "|---|---|---|", *rows, "", more])


def _parts() -> str:
    return "\n".join(["# Parts\n\nWhat a [recipe](../presets/recipe.md) can be made of.\n", *_seats()])


def _seats() -> Iterator[str]:
    for seat, kinds in PARTS.items():
        yield f"## {SEATS[seat]}\n\nThe field `{seat}` of a recipe.\n\n| kind | what it does |\n|---|---|"
        yield from (f"| [`{kind}`]({kind}.md) | {linked(sentence(config))} |" for kind, config in kinds.items())
        yield ""
