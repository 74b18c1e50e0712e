"""`evergreen promote`, `rollback`, `history`, `lineage`, `bisect`, `predict`, `export`: what becomes of the models that were learned."""

from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cl.errors import ConfigError
from flows.console import err, out, table
from flows.settings import begin

if TYPE_CHECKING:
    from flows.registry import Change

ModelArgument = Annotated[str, typer.Argument(metavar="MODEL", help="The name of a registered model: that of its config.")]
VersionArgument = Annotated[str, typer.Argument(metavar="MODEL", help="NAME (its champion), NAME@ALIAS or NAME/VERSION.")]
WhyOption = Annotated[str, typer.Option(help="A reason, kept in the history.")]


def promote(
    model: ModelArgument,
    version: Annotated[str, typer.Argument(help="A version number or alias, such as challenger.")],
    why: WhyOption = "by hand",
) -> None:
    """Make a version the champion, whatever the gate said of it."""
    from flows.registry import CHAMPION, change, find
    from flows.tracking import connect

    place = begin()
    client = connect(place)
    _tell(model, change(place, client, model, CHAMPION, str(find(client, model, version).version), why))


def rollback(
    model: ModelArgument,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="Default: the champion before this one.")] = None,
    why: WhyOption = "rollback",
) -> None:
    """Make an earlier version the champion again."""
    from flows.registry import CHAMPION, change, earlier
    from flows.tracking import connect

    place = begin()
    client = connect(place)
    _tell(model, change(place, client, model, CHAMPION, to or earlier(place, client, model), why))


def history(model: ModelArgument) -> None:
    """List every change of champion and challenger: when, who, from, to, why."""
    from flows.registry import history as changes
    from flows.tracking import connect

    place = begin()
    rows = [
        (made.when[:19].replace("T", " "), made.alias, made.before or "–", made.after, made.who, made.why)
        for made in changes(place, connect(place), model)
    ]
    out().print(table(model, ["when (UTC)", "alias", "from", "to", "who", "why"], rows))


def lineage(model: ModelArgument, version: Annotated[str, typer.Argument(help="A version number or alias.")] = "champion") -> None:
    """Show what made a model: its data, base model, code, settings, and each session with its content key."""
    from flows.lineage import lineage as trace
    from flows.tracking import connect

    found = trace(connect(begin()), model, version)
    out().print(table(f"{model} version {found.version}", ["made from", ""], list(found.facts.items())))
    out().print(table("sessions, in order", ["session", "images", "state"], found.sessions))


def bisect(
    config: Annotated[str, typer.Argument(metavar="CONFIG", help="A config whose stream is learned.")],
    examined: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="The evaluation set that broke: a session or a probe.")
    ] = None,
    label: Annotated[str | None, typer.Option("--class", metavar="NAME", help="The class that broke.")] = None,
    settings: Annotated[
        list[str] | None, typer.Option("--override", metavar="KEY=VALUE", help="Change a setting; may be repeated.")
    ] = None,
    data_root: Annotated[str | None, typer.Option("--data-root", envvar="EVERGREEN_DATA", help="The folder with the data sets.")] = None,
) -> None:
    """Find the session after which a set or a class got worse, from what was measured when the stream was learned."""
    if (examined is None) == (label is None):
        raise ConfigError("bisect: give either --set NAME or --class NAME")
    begin()
    from flows.job import job_of
    from flows.lineage import scores

    rows = scores(job_of(config, settings or [], data_root), examined, label)
    name = examined or label
    worst = min(range(1, len(rows)), key=lambda i: rows[i][1] - rows[i - 1][1], default=0)
    out().print(table(f"{name} after each session", ["after", "score"], rows))
    if not worst or rows[worst][1] >= rows[worst - 1][1]:
        out().print(f"{name} never got worse.")
    else:
        out().print(f"{name} lost most in session {rows[worst][0]}: {rows[worst - 1][1]:.3f} before, {rows[worst][1]:.3f} after.")


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    labels: Annotated[str | None, typer.Option(help="Candidate classes, separated by commas.")] = None,
    query: Annotated[str | None, typer.Option(help="A text; the images are ranked by how well it fits.")] = None,
    model: Annotated[str, typer.Option(help="NAME, NAME@ALIAS or NAME/VERSION.")] = "glyphs",
    as_of: Annotated[datetime | None, typer.Option(help="The champion of that day (UTC).")] = None,
    template: Annotated[
        str | None, typer.Option(help="What is asked about a class, such as 'a photo of a {}.'; default: as it was learned.")
    ] = None,
) -> None:
    """Say what a registered model sees in images. Without --labels and --query: which of the classes that it has learned."""
    if labels is not None and query is not None:
        raise ConfigError("predict: give either --labels a,b,c or --query TEXT")
    if template is not None and template.count("{}") != 1:
        raise ConfigError(f"--template: found {template!r}, expected a text with one {{}} for the class name")
    place = begin()
    from flows.predict import classify, rank, served
    from flows.tracking import connect

    found = served(place, connect(place), model, as_of)
    err().print(f"{found.name} version {found.version}")
    if query is not None:
        out().print(table(query, ["image", "cosine"], [(str(path), cosine) for path, cosine in rank(found, images, query)]))
        return
    names = [name.strip() for name in (labels or "").split(",") if name.strip()]
    answers = classify(found, images, names, template)
    rows = [(str(path), *(f"{name} {share:.3f}" for name, share in best[:3])) for path, best in zip(images, answers, strict=True)]
    out().print(table("", ["image", "first", "second", "third"][: len(rows[0])], rows))


def export(
    model: VersionArgument,
    folder: Annotated[Path, typer.Argument(help="A new folder.")],
    layout: Annotated[
        Literal["open_clip", "hugging_face"], typer.Option(help="For `local-dir:` in a config and open_clip; or for `transformers`.")
    ] = "open_clip",
) -> None:
    """Write a registered model to a folder of its own, in safetensors."""
    place = begin()
    from flows.predict import export as write
    from flows.tracking import connect

    version = write(place, connect(place), model, folder, layout)
    err().print(f"{folder}: {version.name} version {version.version}, in the layout of {layout}", soft_wrap=True)


def _tell(model: str, made: "Change") -> None:
    out().print(f"{model}: version {made.after} is {made.alias}" + (f", as {made.before} was before" if made.before else ""))
