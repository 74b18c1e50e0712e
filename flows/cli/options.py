"""Options that several commands have, and what a path means that a person types."""

import os
from pathlib import Path
from typing import Annotated

import typer


def _from_here(typed: str | None) -> str | None:
    """A path that a person types is one from where they are, whichever project they work with; without it the project's own is meant."""
    return os.path.abspath(Path(typed).expanduser()) if typed else None


RootOption = Annotated[
    str | None,
    typer.Option(
        "--data-root", envvar="EVERGREEN_DATA", callback=_from_here, help="The folder with the data sets  [default: the project's data]"
    ),
]
SetOption = Annotated[
    list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change a setting, such as train.lr=1e-4; may be repeated.")
]
ConfigArgument = Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped config such as `glyphs`.")]
MethodOption = Annotated[str | None, typer.Option("--method", metavar="NAME", help="Use this method; `evergreen methods` lists them.")]
SeedOption = Annotated[int | None, typer.Option("--seed", min=0, help="Use this seed.")]
RevOption = Annotated[str | None, typer.Option("--data-rev", metavar="REV", help="Learn from the data as it was at this git revision.")]
