"""In which measured methods a part is: presets as they were set for the tables, and recipes of RESULTS.md, g."""

import re
from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any

import yaml

from cl.methods import CONFIGS
from cl.methods.compose import PresetConfig
from cl.methods.tuners.whole import WholeConfig
from docs.make.results import ROOT, has_rows, measured, slug

_SHOWN = 8  # recipes by name; the others are counted


def of_part(kind: str) -> str:
    """What was measured of a part, by itself and in what it is part of, as Markdown; a sentence where it is in nothing measured."""
    presets = [f"[`{name}`](../presets/{name}.md)" for name, kinds in _presets().items() if kind in kinds]
    recipes = [f"`{name}`" for name, kinds in _recipes().items() if kind in kinds]
    told = [measured(kind, "part")] if has_rows(kind) or not presets + recipes else []
    if presets:
        told.append(f"Measured as part of the preset{'s' * (len(presets) > 1)} {', '.join(presets)}.\n")
    if recipes:
        more = f", and {len(recipes) - _SHOWN} more" if len(recipes) > _SHOWN else ""
        told.append(f"In recipes of {_link()}: {', '.join(recipes[:_SHOWN])}{more}.\n")
    return "\n".join(told)


def of_recipes() -> str:
    """What was measured of recipes that are no preset, as Markdown."""
    return f"Each of the {len(_recipes())} methods of {_link()} is a recipe.\n"


@cache
def _presets() -> dict[str, set[str]]:
    """The kinds of parts that measured presets have, by default or in a config of the tables."""
    found: dict[str, set[str]] = {}
    for settings in _tried():
        config = CONFIGS[settings["name"]].model_validate(settings)
        if isinstance(config, PresetConfig) and has_rows(config.called()):
            kinds = {part.called() for part in config.expanded().parts() if not part.absent()}
            found.setdefault(config.called(), set()).update(kinds)
    return {name: found[name] for name in CONFIGS if name in found}


def _tried() -> Iterator[dict[str, Any]]:
    yield from ({"name": name} for name in CONFIGS)
    for path in sorted((ROOT / "flows" / "configs" / "results").glob("*.yaml")):
        for method in yaml.safe_load(path.read_text(encoding="utf-8"))["compare"]["methods"]:
            if isinstance(method, dict) and method["name"] in CONFIGS:  # joint is none
                yield method


@cache
def _recipes() -> dict[str, set[str]]:
    """The kinds of parts of the recipes that section g has a figure of, in a row or among the others; presets' own left out."""
    told = yaml.safe_load((ROOT / "bench" / "results.yaml").read_text(encoding="utf-8"))
    all_of_them: Mapping[str, Any] = told["singles"] | told["combinations"]
    section = _section()
    return {
        name: set(_kinds(recipe))
        for name, recipe in all_of_them.items()
        if name not in CONFIGS and re.search(rf"(?:^\| |, |: ){re.escape(name)} (?:\||-?\d)", section, re.M)
    }


def _kinds(recipe: Mapping[str, Any]) -> Iterator[str]:
    for part in (*recipe["terms"], *(value for seat, value in recipe.items() if seat != "terms")):
        yield part["kind"] if isinstance(part, dict) else part
    if "tune" not in recipe:
        yield WholeConfig.called()


def _section() -> str:
    (found,) = re.findall(r"^## g\. .*?(?=^## )", (ROOT / "RESULTS.md").read_text(encoding="utf-8"), re.M | re.S)
    return str(found)


def _link() -> str:
    heading = _section().splitlines()[0].removeprefix("## ")
    return f"[{heading}](../results.md#{slug(heading)})"
