"""`evergreen`: the command line. Everything heavy is imported inside the commands, so that help comes at once."""

import os
import shutil
import signal
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from cl.errors import EvergreenError
from cl.names import visible
from flows.causes import cause
from flows.cli import advise as cli_advise
from flows.cli import data as cli_data
from flows.cli import diff as cli_diff
from flows.cli import ingest as cli_ingest
from flows.cli import init as cli_init
from flows.cli import methods as cli_methods
from flows.cli import models as cli_models
from flows.cli import room as cli_room
from flows.cli import servers as cli_servers
from flows.cli import sessions as cli_sessions
from flows.cli import status as cli_status
from flows.cli import update as cli_update
from flows.cli.options import ConfigArgument, MethodOption, RevOption, RootOption, SeedOption, SetOption
from flows.console import bar, err, out, table
from flows.servers.orchestrated import orchestrated, overrides_of, prepared_for
from flows.settings import Place, begin

if TYPE_CHECKING:
    from cl.reports.gallery import Comparison
    from cl.reports.report import Report
    from cl.run_config import RunConfig

_HELP = """Keeps a CLIP model learning as new data arrives, without forgetting what it knew.

First steps: `evergreen data glyphs` makes the embedded data set, `evergreen compare glyphs` learns its stream with several methods,
`evergreen up` opens the pages on which to look at the result."""

_LEARNING = "Learning"
app = typer.Typer(name="evergreen", no_args_is_help=True, pretty_exceptions_enable=False, rich_markup_mode="markdown")


def _version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        out().print(version("evergreen-clip"))
        raise typer.Exit


@app.callback(help=_HELP)
def _options(
    version: Annotated[bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")] = False,
) -> None: ...


@app.command(rich_help_panel=_LEARNING)
def run(
    config: ConfigArgument,
    method: MethodOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    data_root: RootOption = None,
    data_rev: RevOption = None,
) -> None:
    """Learn a stream with one method; sessions that were learned before are not learned again."""
    place, overrides = begin(), overrides_of(method, seed, settings)
    from flows.learn.shipped import find_config

    path = str(find_config(config, place))
    watched = orchestrated(place)
    with prepared_for():
        from flows.learn.job import learnable

        learnable(path, overrides, data_root, data_rev)  # a mistake is told without Prefect's help
        from flows.stream import learn_stream

    with watched:
        outcome = learn_stream(path, overrides, data_root, data_rev)
    _conclude([outcome["report"]], place, outcome["run"])


@app.command(rich_help_panel=_LEARNING)
def compare(config: ConfigArgument, settings: SetOption = None, data_root: RootOption = None, data_rev: RevOption = None) -> None:
    """Learn a stream with every method and seed of the config's `compare` section, and say how they compare."""
    place = begin()
    from flows.learn.shipped import find_config

    path = str(find_config(config, place))
    watched = orchestrated(place)
    with prepared_for():
        from flows.learn.configs import settings as settled
        from flows.learn.job import check_devices, check_methods, jobs_of

        check_devices(path, settings or [])
        check_methods(jobs_of(path, settings or [], data_root, data_rev))  # a mistake is told without Prefect's help
        from flows.compare import compare as learn_all

    with watched:
        outcome = learn_all(path, settings or [], data_root, data_rev)
    _conclude(outcome["reports"], place, outcome["run"], settled(path, settings or [], place))


@app.command(rich_help_panel=_LEARNING)
def report(
    config: ConfigArgument,
    folder: Annotated[Path, typer.Option("--out", help="Where to write report.md and report.html.")] = Path("report"),
    method: MethodOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    data_root: RootOption = None,
    data_rev: RevOption = None,
) -> None:
    """Write the report again from what is learned; nothing is learned. Without --method: of the comparison, or of what `update` learned."""
    begin()
    from cl.reports.write import write
    from flows.learn.job import finished, job_of, jobs_of
    from flows.look.opened import report_of_model
    from flows.registry.pages import again

    overrides = overrides_of(method, seed, settings)
    single = method is not None or seed is not None
    with prepared_for():
        if line := None if single or data_rev else report_of_model(config, overrides, data_root):
            reports, seen = [line], dict[str, "Comparison"]()
        else:
            jobs = [job_of(config, overrides, data_root, data_rev)] if single else jobs_of(config, overrides, data_root, data_rev)
            reports, seen = again(finished(jobs))
    write(reports, folder, seen)
    _tell(reports)
    err().print(f"Report: {folder / 'report.html'}", soft_wrap=True)


@app.command(rich_help_panel=_LEARNING)
def pretrain(
    folder: Annotated[Path, typer.Argument(help="Where to write the model, in open_clip's local-directory layout.")],
    data_root: RootOption = None,
    settings: SetOption = None,
) -> None:
    """Train the small base model of the glyph stream from nothing (the recipe of the one that is shipped)."""
    place = begin()
    from flows.learn.pretraining import make_base

    with bar("pretraining") as tell:
        scores = make_base(place.data_in(data_root) / "glyphs", settings or [], folder, tell)
    rows = [(name, metric, value) for name, own in scores.items() for metric, value in own.items()]
    out().print(table(f"{folder}, zero-shot on fonts it has not seen", ["domain", "metric", "score"], rows))


_PANELS: dict[str, tuple[Callable[..., Any], ...]] = {
    _LEARNING: (cli_methods.methods, cli_methods.parts, cli_advise.advise, cli_init.init, cli_update.update),
    "New data": (cli_ingest.ingest, cli_ingest.watch),
    "Models": (
        *(cli_models.predict, cli_models.export, cli_models.promote, cli_models.rollback),
        *(cli_models.history, cli_models.lineage, cli_models.bisect, cli_diff.diff),
        *(cli_sessions.sessions, cli_sessions.retry, cli_sessions.skip, cli_sessions.accept),
    ),
    "Operations": (cli_servers.up, cli_servers.serve, cli_status.status, cli_status.verify_resume, cli_room.prune, cli_room.withdraw),
}
for panel, commands in _PANELS.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)
app.add_typer(cli_data.app, name="data", rich_help_panel="New data")


def main() -> None:
    """Run the command line: exit code 2 and one sentence for what the user can mend, 130 for Ctrl-C, 143 for SIGTERM."""
    interrupted: list[int] = []

    def stop(number: int, frame: FrameType | None) -> None:
        interrupted.append(number)
        raise KeyboardInterrupt if number == signal.SIGINT else SystemExit(143)

    for number in (signal.SIGINT, signal.SIGTERM):  # leaving by exit also ends Prefect's embedded server
        signal.signal(number, stop)
    try:
        app()
    except EvergreenError as error:
        _fail(str(error))
    except SystemExit:
        if signal.SIGINT in interrupted:  # Lightning turns Ctrl-C into exit code 1
            sys.exit(130)
        raise
    except Exception as error:
        if told := cause(error):
            _fail(told)
        raise


def _fail(told: str) -> NoReturn:
    from flows.addresses import hushed

    sys.stderr.write(f"evergreen: {visible(hushed(' '.join(told.split())))}\n")
    sys.exit(2)


def _conclude(reports: list[dict[str, Any]], place: Place, run_id: str, compared: "RunConfig | None" = None) -> None:
    from cl.reports.report import Report

    told = [Report.from_json(report) for report in reports]
    _tell(told)
    if compared is not None:
        _beside(told, compared)
    console = err()
    console.print(f"Report: {place.reports / run_id / 'report.html'}", soft_wrap=True)
    program = "evergreen" if shutil.which("evergreen") else os.path.relpath(sys.argv[0])  # the environment may not be activated
    console.print(f"To look at runs, charts and models: {program} up", soft_wrap=True)


def _tell(reports: "Sequence[Report]") -> None:
    from cl.reports.tables import columns, grouped, overview

    groups = grouped(reports)
    names, rows = columns(groups), overview(groups)
    shown = [index for index, name in enumerate(names) if name not in ("seeds", "trainable", "stored MB")]  # those are in the report
    out().print(
        table(f"{reports[0].stream} (percent)", [names[index] for index in shown], [[row[index] for index in shown] for row in rows])
    )


def _beside(reports: "Sequence[Report]", config: "RunConfig") -> None:
    """The figures that others published under the config's protocol, one table for each block: blocks are never mixed."""
    from cl.reports.published import beside, rows
    from cl.reports.tables import grouped

    blocks, why = beside(config.compare.published if config.compare else (), config.model_dump(mode="json"))
    for block in blocks:
        out().print(table(f"{block.protocol} (percent)", ["method", *block.metrics, "source"], rows(block, grouped(reports))))
    if why:
        err().print(f"{why}.", soft_wrap=True)
