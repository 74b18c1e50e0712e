"""`evergreen advise`: which recipes to try first on a stream, by what was measured on those most like it."""

import json
from typing import Annotated

import typer

from flows.cli.options import ConfigArgument, RootOption, SetOption
from flows.console import bar, out, table
from flows.settings import begin


def advise(
    config: ConfigArgument,
    settings: SetOption = None,
    data_root: RootOption = None,
    images: Annotated[bool, typer.Option("--images/--no-images", help="Whether images of earlier sessions may be kept.")] = True,
) -> None:
    """Name the recipes to try first on a stream, with the measured rows that say so; nothing is learned."""
    begin()
    from cl.reports.advice import choices, measured, nearest, unlike
    from flows.learn.job import job_of
    from flows.look.advise import facts

    with bar("asking the base model"):
        found = facts(job_of(config, settings or [], data_root))
    stream, _ = nearest(found, list(measured().values()))
    out().print(f"Nearest of what was measured ({stream.where}): {stream.what}.", soft_wrap=True)
    out().print(f"What differs: {'; '.join(unlike(found, stream))}.", soft_wrap=True)
    beside = next(row for row in stream.rows if row.recipe["name"] == stream.rows[0].recipe["name"])
    chosen = choices(stream, images=images)
    rows = [(each.row.name.replace("`", ""), f"{each.row.last:.1f}", _drop(each.row.drop), each.why) for each in chosen]
    known = (
        ("zero-shot", f"{stream.zero_shot:.1f}", "0.0", "nothing learned"),
        (beside.name.replace("`", ""), beside.last, _drop(beside.drop), "the floor"),
    )
    out().print(table("measured there, percent", ["recipe", "taught, at the end", "lost of what is not taught", "why"], [*rows, *known]))
    for each in chosen:
        out().print(f"method: {json.dumps(each.row.recipe)}", soft_wrap=True, markup=False, highlight=False)
    out().print("Hold any of them against zero_shot and finetune on held-out images: evergreen compare", soft_wrap=True)


def _drop(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
