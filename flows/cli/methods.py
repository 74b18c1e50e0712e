"""`evergreen methods` and `parts`: what there is to learn with."""

from typing import Annotated

import typer

from flows.console import out, table
from flows.settings import begin

Method = Annotated[
    str | None, typer.Argument(metavar="[NAME]", help="Print this one as a recipe that can be pasted into a config.", show_default=False)
]
Part = Annotated[str | None, typer.Argument(metavar="[KIND]", help="Print the settings of this one.", show_default=False)]


def methods(name: Method = None) -> None:
    """List the methods there are, and what a session must hold for each: labels, captions, or neither; or print one as YAML."""
    begin(writes=False)
    from cl.methods import CONFIGS
    from cl.methods.describe import as_yaml, learned_from, sentence

    if name is not None:
        out().print(as_yaml(name), soft_wrap=True, markup=False, highlight=False)
        return
    rows = [(name, learned_from(config), sentence(config)) for name, config in CONFIGS.items()]
    out().print(table("", ["method", "learns from", "what it does"], rows))


def parts(kind: Part = None) -> None:
    """List the parts that a recipe can be made of: terms, and what tunes, remembers and merges; or print the settings of one."""
    begin(writes=False)
    from cl.methods import describe

    if kind is None:
        out().print(table("", ["field", "kind", "what it does"], describe.parts()))
        return
    seat, config = describe.part(kind)
    out().print(f"{seat}: {kind}: {describe.sentence(config)}", soft_wrap=True, markup=False, highlight=False)
    out().print(table("", ["setting", "default", "one of", "what it is"], [tuple(each) for each in describe.settings(config)]))
