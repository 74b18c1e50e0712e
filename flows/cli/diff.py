"""`evergreen diff`: how one version of a model answers otherwise than another, as a page and in a few lines."""

import json
from pathlib import Path
from typing import Annotated

import typer

from cl.errors import ConfigError
from cl.names import slug
from cl.text import plural
from flows.cli.models import listed, opened
from flows.cli.options import RootOption
from flows.console import bar, err, out, table

_GROUPS = 5  # of each direction that the terminal shows


def diff(
    before: Annotated[str, typer.Argument(metavar="A", help="A version: NAME (its champion), NAME@ALIAS or NAME/VERSION.")],
    after: Annotated[str, typer.Argument(metavar="B", help="The version to hold against it.")],
    on: Annotated[
        Path | None,
        typer.Option(metavar="FOLDER", help="Images, with labels or captions or without  [default: the test images of B's stream]"),
    ] = None,
    labels: Annotated[
        str | None, typer.Option(help="With --on: candidate classes, separated by commas  [default: what A and B have learned]")
    ] = None,
    folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write diff.html and diff.json  [default: a folder in mlruns/reports]")
    ] = None,
    data_root: RootOption = None,
    data_rev: Annotated[str | None, typer.Option("--data-rev", metavar="REV", help="The data of B's stream, as B learned it.")] = None,
) -> None:
    """Show which images broke and which came right between two versions; of images that nobody has labelled, where the two differ."""
    if labels is not None and on is None:
        raise ConfigError("diff: --labels names the classes of images that --on gives; without --on those of B's stream are asked")
    place = opened()
    from cl.reports.diff_page import diff_page, summary, verdict
    from cl.reports.write import save
    from flows.look.diff import difference
    from flows.tracking.runs import connect

    with bar("asking both versions") as tell:
        compared = difference(place, connect(place), (before, after), on, listed(labels or ""), data_root, data_rev, tell)
    folder = folder or place.reports / f"diff-{slug(compared.before)}-{slug(compared.after)}"
    save({"diff.html": diff_page(compared), "diff.json": json.dumps(compared.to_json(), indent=1)}, folder)
    out().print(table(f"{compared.before} → {compared.after} (percent)", *summary(compared)))
    for told, groups in (("broke", compared.broke), ("came right", compared.mended), ("differ", compared.differ)):
        for group in [each for each in groups if each.was][:_GROUPS]:
            out().print(f"{told}: {group.was} → {group.now}, {plural(group.images, 'image')} of {group.set}", soft_wrap=True)
    out().print(verdict(compared), soft_wrap=True)
    err().print(f"Report: {folder / 'diff.html'}", soft_wrap=True)
