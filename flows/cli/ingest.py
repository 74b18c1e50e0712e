"""`evergreen ingest` and `evergreen watch`: new data, given or dropped, becomes a session of a collection."""

import signal
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from flows.cli.options import RootOption
from flows.console import bar, err, out, table
from flows.settings import begin

if TYPE_CHECKING:
    from flows.intake.ingest import Outcome

_SHOWN = 10

IntoOption = Annotated[str, typer.Option("--into", metavar="COLLECTION", help="The collection it becomes a session of.")]
CommitOption = Annotated[bool, typer.Option("--commit", help="Commit data.dvc, and nothing else, to git.")]


def ingest(
    path: Annotated[
        Path, typer.Argument(help="A folder per class, images with texts beside them, a table, WebDataset tars, or a zip of these.")
    ],
    session: Annotated[str, typer.Option("--session", metavar="NAME", help="What to call it.")],
    into: IntoOption = "inbox",
    label: Annotated[str | None, typer.Option("--label", "--labels", metavar="COLUMN", help="Teach this column's class names.")] = None,
    captions: Annotated[str | None, typer.Option(metavar="COLUMN", help="Teach this column's captions.")] = None,
    unlabelled: Annotated[bool, typer.Option("--unlabelled", help="Teach neither; labels only examine.")] = False,
    test_share: Annotated[
        float, typer.Option(min=0.0, max=0.9, help="Where nothing says what is test: hold out this share of each class.")
    ] = 0.2,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be taken in, and write nothing.")] = False,
    commit: CommitOption = False,
    data_root: RootOption = None,
) -> None:
    """Take in new data as the next session of a collection: check every sample, set the bad aside, version it, tell Prefect."""
    from cl.errors import DataError

    place = begin()
    if unlabelled and (label or captions):
        raise DataError("--unlabelled teaches neither labels nor captions; leave it or the column out")
    from flows.intake.ingest import Source, ingest

    source = Source(path, session, into, label, captions, unlabelled, test_share)
    with bar(f"looking at {path}") as tell:
        outcome = ingest(source, place.data_in(data_root), place, git=commit, dry=dry_run, tell=tell)
    _show(outcome, into)


def watch(
    folder: Annotated[Path, typer.Argument(metavar="DIR", help="Each folder, table, tar or zip in it becomes a session of its name.")],
    into: IntoOption = "inbox",
    every: Annotated[float, typer.Option(min=0.1, metavar="SECONDS", help="Time between two looks.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="Take what is there and end.")] = False,
    commit: CommitOption = False,
    data_root: RootOption = None,
) -> None:
    """Take in whatever is dropped into a folder, once nobody writes to it any more, until Ctrl-C.

    With --once the exit code is 2 if anything was refused.
    """
    place = begin()
    from flows.intake.dropped import apart, attend
    from flows.intake.ingest import Source, ingest
    from flows.removal.copies import note_watched

    def take(path: Path, session: str) -> str:
        with apart(path, place.runs / "dropped") as own:
            outcome = ingest(Source(own, session, into), place.data_in(data_root), place, git=commit)
        return "; ".join([line(outcome, into), *map(str, outcome.told)])

    def tell(text: str) -> None:
        err().print(text, soft_wrap=True)

    if folder.is_dir():
        note_watched(place, folder)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # Ctrl-C is how it ends, not an interruption
    tell(f"looking at {folder} for {every:g} s" if once else f"watching {folder}; Ctrl-C ends it")
    try:
        refused = attend(folder, take, tell, every, once)
    except KeyboardInterrupt:
        raise typer.Exit(0) from None
    if refused:
        raise typer.Exit(2)


def line(outcome: "Outcome", into: str) -> str:
    """What came of it, in one line."""
    entry = outcome.entry
    rows = f"train {entry.train:,}, test {entry.test:,} ({entry.supervision})" if outcome.new else "is there already"
    bad = f", {len(outcome.problems):,} set aside" if outcome.problems else ""
    return "; ".join([f"{into}/{entry.folder}: {rows}{bad}", *outcome.notes])


def _show(outcome: "Outcome", into: str) -> None:
    from cl.text import some
    from flows.intake.quarantine import told

    console = err()
    if outcome.problems:
        rows = [(problem.where, problem.reason, problem.detail) for problem in outcome.problems[:_SHOWN]]
        out().print(table(f"set aside: {told(outcome.problems)}", ["file", "reason", "detail"], rows))
        if outcome.report:
            console.print(f"all of them: {outcome.report}", soft_wrap=True)
    for remark in outcome.told:
        console.print(str(remark), soft_wrap=True)
    if outcome.new and outcome.classes:
        console.print(f"new classes: {some(outcome.classes, 50)}", soft_wrap=True)
    for name, known in outcome.alike.items():
        console.print(f"new class {name!r} looks like {known!r}: if they are one, ingest it under that name", soft_wrap=True)
    console.print(line(outcome, into), soft_wrap=True)
