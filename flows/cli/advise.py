"""`evergreen advise`: which recipes to try first on a stream, by what was measured on those most like it."""

import json
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import ConfigArgument, RootOption, SetOption
from flows.console import bar, out, table
from flows.settings import begin

if TYPE_CHECKING:
    from collections.abc import Sequence

    from cl.reports.advice import Choice, Measured


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
    from flows.look.advise import facts, refused

    job = job_of(config, settings or [], data_root)
    with bar("asking the base model"):
        stream_facts = facts(job)
    stream, _ = nearest(stream_facts, list(measured().values()))
    chosen = choices(stream, images=images, refused=lambda row: refused(job, row.recipe))
    out().print(f"Nearest of what was measured ({stream.where}): {stream.what}.", soft_wrap=True)
    out().print(f"What differs: {'; '.join(unlike(stream_facts, stream))}.", soft_wrap=True)
    if not chosen:
        out().print("None of the recipes measured there can learn this stream with this model and these settings.", soft_wrap=True)
    out().print(
        table("measured there, percent", ["recipe", "taught, at the end", "lost of what is not taught", "why"], _rows(stream, chosen))
    )
    for each in chosen:
        out().print(f"method: {json.dumps(each.row.recipe)}", soft_wrap=True, markup=False, highlight=False)
    out().print("Hold any of them against zero_shot and finetune on held-out images: evergreen compare", soft_wrap=True)


def _rows(stream: "Measured", chosen: "Sequence[Choice]") -> list[tuple[str, str, str, str]]:
    """The recipes to try, then zero-shot and plain fine-tuning, where that is not among them."""
    taken = [each.row for each in chosen]
    plain = [(row, "plain fine-tuning") for row in stream.rows if row.recipe == {"name": "finetune"} and row not in taken]
    told = [(row.name.replace("`", ""), f"{row.last:.1f}", _drop(row.drop), why) for row, why in [*chosen, *plain]]
    return [*told[: len(chosen)], ("zero-shot", f"{stream.zero_shot:.1f}", "0.0", "nothing learned"), *told[len(chosen) :]]


def _drop(value: float | None) -> str:
    return "–" if value is None else f"{value:.1f}"
