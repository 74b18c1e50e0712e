"""`evergreen update`: what an event or a schedule starts, by hand."""

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from cl.errors import ConfigError
from flows.cli.options import ConfigArgument, MethodOption, RootOption, SeedOption, SetOption
from flows.console import err, out, table
from flows.servers.orchestrated import orchestrated, overrides_of, prepared_for
from flows.settings import Place, begin

if TYPE_CHECKING:
    from flows.learn.job import Job


def update(
    config: ConfigArgument,
    method: MethodOption = None,
    seed: SeedOption = None,
    settings: SetOption = None,
    data_root: RootOption = None,
    rebuild: Annotated[bool, typer.Option("--rebuild", help="Learn all that the champion knows anew beside it; the gate judges.")] = False,
    yes: Annotated[bool, typer.Option("--yes", help="With --rebuild: without being asked.")] = False,
) -> None:
    """Learn the sessions that wait, if the config's policy says so; what an event or a schedule starts, by hand."""
    place, overrides = begin(), overrides_of(method, seed, settings)
    from flows.learn.shipped import find_config

    path = str(find_config(config, place))
    watched = orchestrated(place)
    with prepared_for():
        from flows.learn.job import prepared

        job = prepared(path, overrides, data_root)
        from flows.update import update as bring_up_to_date
    if rebuild:
        _agreed(job, yes)
    with watched:
        outcome = bring_up_to_date(path, overrides, data_root, rebuild)
    _conclude_update(outcome, place)


def _agreed(job: "Job", yes: bool) -> None:
    """Say what would be learned anew, and ask."""
    from flows.line.rebuild import planned
    from flows.line.work import work

    at = work(job)
    err().print(planned(at, at.standing()), soft_wrap=True)
    if yes:
        return
    if not sys.stdin.isatty():
        raise ConfigError("update --rebuild learns again what is learned: --yes says that it may, where there is no terminal to ask at")
    typer.confirm("Go on?", abort=True)


def _conclude_update(outcome: dict[str, Any], place: Place) -> None:
    rows = [(name, word) for name, word in outcome["sessions"].items()]
    if not rows:
        return
    out().print(table("", ["session", "state"], rows))
    report = place.reports / outcome["run"] / "report.html"
    if report.exists():
        err().print(f"Report: {report}", soft_wrap=True)
