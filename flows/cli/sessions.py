"""`evergreen sessions`, `retry`, `skip`, `accept`: what became of each session of a model, and what a person wants of one."""

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Annotated

import typer

from cl.errors import StoreError
from cl.names import slug
from cl.text import some
from flows.cli.models import ModelArgument, WhyOption
from flows.cli.options import RootOption
from flows.console import out, table
from flows.settings import Place, begin, check_project, stores

if TYPE_CHECKING:
    from flows.history.entries import Retry, Skipped
    from flows.history.standing import Standing

SessionArgument = Annotated[str, typer.Argument(metavar="SESSION", help="A session, as `evergreen sessions` names it.")]


def sessions(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="A model that `update` learns; default: the only one.")] = None,
    config: Annotated[str | None, typer.Option("--config", metavar="CONFIG", help="Also list what waits by this config.")] = None,
    data_root: RootOption = None,
) -> None:
    """List what became of each session: learned, set aside, skipped, rolled back, waiting for a person; why, and since when."""
    from flows.history.conclude import standing_of
    from flows.look.listed import only, rows, told
    from flows.look.opened import arrivals_of

    place = begin(writes=False)
    check_project(place)
    at = arrivals_of(config, data_root) if config else None
    name = slug(model or (at.config.name if at else only(place)))
    if at and slug(at.config.name) != name:
        raise StoreError(f"--config {config}: it is for the model {slug(at.config.name)}, and not for {name}")
    standing = standing_of(place, name) if at else _stands(place, name)
    waiting = [arrival.name for arrival in at.waiting(standing)] if at else []
    out().print(table(name, ["session", "state", "why", "since (UTC)", "weights"], rows(standing, waiting)))
    for line in told(standing, name):
        out().print(line, soft_wrap=True)


def retry(model: ModelArgument, session: SessionArgument) -> None:
    """Learn and judge a session again at the next update, such as one that was refused and whose data are mended."""
    from flows.history.wishes import retry as wish
    from flows.registry.champion import whoami

    def write(place: Place, name: str, standing: "Standing") -> str:
        _write(place, name, standing, wish(standing, session, whoami()))
        return f"{session} is learned again by the next `evergreen update`"

    _wish(model, write)


def skip(
    model: ModelArgument,
    session: SessionArgument,
    why: WhyOption = "by hand",
    config: Annotated[
        str | None, typer.Option("--config", metavar="CONFIG", help="Which data it waits in; default: those learned last.")
    ] = None,
    data_root: RootOption = None,
) -> None:
    """Leave a session out: one that waits, or that was refused; its sets are shown and never judged by."""
    from flows.history.wishes import skip as wish
    from flows.look.opened import arrivals_of, named
    from flows.registry.champion import whoami

    def write(place: Place, name: str, standing: "Standing") -> str:
        there: Collection[str] = ()
        if session not in standing.sessions:
            there = arrivals_of(config, data_root).arrivals.there() if config else named(place, standing, data_root)
        said = wish(standing, session, why, whoami(), there)
        _write(place, name, standing, said)
        return f"{session} is skipped; evergreen retry {name} {session} takes it back in"

    _wish(model, write)


def accept(model: ModelArgument, session: SessionArgument, why: WhyOption = "by hand") -> None:
    """Take a session whatever the gate says of it; where it grew from the champion of now, its version becomes champion at once."""
    from flows.by_hand import accept as written
    from flows.history.wishes import accept as wish
    from flows.registry.champion import whoami
    from flows.registry.question import settle
    from flows.tracking.runs import connect

    def write(place: Place, name: str, standing: "Standing") -> str:
        said, client = wish(standing, session, why, whoami()), connect(place)
        version = written(place, client, name, said)
        if version:
            settle(place, client, name, version, said.by, why)
            return f"{session} is accepted: version {version} is champion"
        now = _stands(place, name)
        if session in {learned.session for learned in now.line}:
            return f"{session} is accepted; the next `evergreen update` makes a version of it champion"
        return f"{session} is accepted; the next `evergreen update` learns it from the champion of now and takes it whatever the gate says"

    _wish(model, write)


def _write(place: Place, name: str, standing: "Standing", said: "Retry | Skipped") -> None:
    """Note a wish; where a person is asked about the session, the question is answered with it."""
    from flows.history.entries import history_of, note

    asked = standing.waiting
    note(history_of(place, name), said, expect=standing.last)
    if asked and asked.session == said.session:
        from flows.registry.question import settle
        from flows.tracking.runs import connect

        settle(place, connect(place), name, None, said.by, f"{said.session} is left out")


def _wish(model: str, write: Callable[[Place, str, "Standing"], str]) -> None:
    """Have a wish written while nobody learns the model, and say what follows."""
    from flows.history.idle import idle

    place, name = begin(), slug(model)
    _stands(place, name)
    with idle(place, name):
        told = write(place, name, _stands(place, name))
    out().print(f"{name}: {told}", soft_wrap=True)


def _stands(place: Place, name: str) -> "Standing":
    from flows.history.conclude import standing_of
    from flows.look.listed import histories
    from flows.registry.lost import lost
    from flows.tracking.runs import connect

    standing = standing_of(place, name)
    if standing.opened is None:
        if stores(place) and (why := lost(place, connect(place), name)):
            raise StoreError(why)
        there = histories(place)
        told = f"there are histories of {some(there, 10)}" if there else "`evergreen update CONFIG` begins one"
        raise StoreError(f"model {name}: it has no history here; {told}")
    return standing
