"""`evergreen status` and `verify-resume`: how learning stands, and whether it survives being killed."""

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from cl.errors import ConfigError
from cl.text import plural
from flows.cli.options import RootOption, SetOption
from flows.console import err, out, table
from flows.settings import Place, begin, check_project, stores


def status(
    config: Annotated[str | None, typer.Argument(metavar="[CONFIG]", help="Say it session by session; default: every stream.")] = None,
    method: Annotated[str | None, typer.Option("--method", metavar="NAME", help="Of this method.")] = None,
    seed: Annotated[int | None, typer.Option("--seed", min=0, help="Of this seed.")] = None,
    settings: SetOption = None,
    data_root: RootOption = None,
) -> None:
    """Say what is learned, running, waiting, interrupted or failed, and how to go on."""
    place = begin(writes=False)
    check_project(place)
    if config:
        chosen = [*([f"method={method}"] if method else []), *([f"seed={seed}"] if seed is not None else [])]
        return _sessions(config, [*chosen, *(settings or [])], data_root)
    from flows.look.status import champion, collections_in, streams
    from flows.tracking.runs import connect

    client = connect(place) if stores(place) else None  # else it would be made here, to say that nothing is in it
    known = streams(place, client) if client else []
    rows = [row[:-2] for row in known]
    columns = ["stream", "method", "seed", "state", "sessions", "version", "when (UTC)", "note"]
    out().print(table("", columns, rows) if rows else f"Nothing is learned yet in {place.root}.", soft_wrap=not rows)
    for model in dict.fromkeys(row.model for row in known if row.model):
        if client and (told := champion(place, client, model)):
            out().print(told, soft_wrap=True)
    if not rows and (waiting := collections_in(place.data_in(data_root))):
        told = ", ".join(f"{name} has {count}" for name, count in waiting.items())
        out().print(
            f"Sessions wait: {told}. A config with stream: {{kind: collection, ...}} learns them: evergreen update CONFIG", soft_wrap=True
        )
    for command in dict.fromkeys(row.command for row in known if row.command):
        out().print(f"go on with: {command}", soft_wrap=True)


def _sessions(config: str, overrides: list[str], data_root: str | None) -> None:
    from flows.history.entries import history_of
    from flows.learn.configs import settings
    from flows.learn.far import where
    from flows.learn.job import job_of, title, turns
    from flows.learn.progress import sessions
    from flows.look.status import as_update
    from flows.registry.publish import command
    from flows.tracking.reap import held

    place = Place.find()
    words = command("learn-stream", {"config": config, "overrides": overrides, "data_root": data_root})
    if history_of(place, settings(config, overrides, place).name).read():
        return _model(config, overrides, data_root, as_update(words))
    job = job_of(config, overrides, data_root)
    key = turns(job, learns=False)[-1].key
    rows, running = sessions(job), held(job.place, key)
    out().print(table(title(job), ["", "session", "state", ""], rows))
    if running:
        far = where(job.place, key)
        out().print(f"A process is learning it now{': ' if far else '.'}{far}", soft_wrap=True)
    elif any(row.state != "learned" for row in rows):
        grows = job.settings["stream"]["kind"] == "collection"
        out().print(f"go on with: {as_update(words) if grows else words}", soft_wrap=True)


def _model(config: str, overrides: list[str], data_root: str | None, command: str) -> None:
    """The sessions of a model that has a history, whatever settings each was learned with."""
    from flows.learn.far import where
    from flows.learn.job import job_of
    from flows.learn.progress import of_model
    from flows.line.work import work
    from flows.look.listed import told
    from flows.tracking.reap import held
    from flows.tracking.runs import slug

    at = work(job_of(config, overrides, data_root, whole=False))
    standing, name = at.standing(), slug(at.config.name)
    waiting = [arrival.name for arrival in at.waiting(standing)]
    out().print(table(at.config.name, ["", "session", "state", ""], of_model(standing, at.place.steps, waiting)))
    for line in (*at.remarks(standing), *told(standing, name)):
        out().print(line, soft_wrap=True)
    if held(at.place, f"learner-{name}"):
        far = where(at.place, f"history-{at.journal.read()[0].id}")
        out().print(f"A process is learning it now{': ' if far else '.'}{far}", soft_wrap=True)
    elif waiting and not standing.waiting:
        out().print(f"go on with: {command}", soft_wrap=True)


def verify_resume(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A YAML file, or the name of a shipped config.")],
    kills: Annotated[int, typer.Option(min=1, help="How often the learning process is killed.")] = 5,
    seed: Annotated[int, typer.Option(help="Of the moments at which it is killed.")] = 0,
    settings: SetOption = None,
    data_root: RootOption = None,
    keep: Annotated[Path | None, typer.Option(help="A new folder to learn in, which stays; default: one that goes.")] = None,
) -> None:
    """Prove on your own config that a run which is killed and started again ends as one that never was: exit code 0, or 1 if not.

    The stream is learned twice in projects of their own, undisturbed and killed at random moments; yours is not touched.
    """
    place = begin()
    from flows.learn.job import job_of, planned
    from flows.learn.shipped import find_config
    from flows.learn.verify import Trial, verify

    path, overrides = str(find_config(config, place)), settings or []
    job = job_of(path, overrides, data_root)
    planned(job)  # a mistake is told now
    words = (path, *(word for setting in overrides for word in ("--set", setting)))
    with tempfile.TemporaryDirectory(prefix="evergreen-verify-") as folder:
        scratch = _new(keep) if keep else Path(folder)
        verdict = verify(Trial(job.settings["name"], words, place.root, job.folder), scratch, kills, seed, err().print)
    rows = [(check.what, check.whole, check.broken, "yes" if check.equal else "NO") for check in verdict.checks]
    out().print(
        table(f"{plural(verdict.kills, 'kill')} over {verdict.seconds:.0f} s", ["what", "undisturbed", "killed and resumed", "equal"], rows)
    )
    if not all(check.equal for check in verdict.checks):
        raise typer.Exit(1)


def _new(folder: Path) -> Path:
    if folder.exists():
        raise ConfigError(f"--keep {folder}: exists already; choose another folder")
    return folder.resolve()
