"""`evergreen promote`, `rollback`, `history`, `lineage`, `bisect`, `predict`, `export`: what becomes of the models that were learned."""

import csv
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from cl.errors import ConfigError, StoreError
from cl.text import some
from flows.cli.options import RootOption
from flows.console import bar, err, out, table
from flows.settings import Place, begin, check_project, stores

if TYPE_CHECKING:
    from flows.by_hand import Made
    from flows.look.bisect import Kind

_WHY = 1000  # characters: MLflow keeps a change in a tag
ModelArgument = Annotated[
    str, typer.Argument(metavar="MODEL", help="The name of a registered model: that of its config, in small letters and dashes.")
]
VersionArgument = Annotated[str, typer.Argument(metavar="MODEL", help="NAME (its champion), NAME@ALIAS or NAME/VERSION.")]
NumberArgument = Annotated[str | None, typer.Argument(metavar="VERSION", help="A version number or alias, where MODEL is a name.")]


def _reason(why: str) -> str:
    if len(why) > _WHY:
        raise ConfigError(f"--why has {len(why)} characters; at most {_WHY} are kept in the history")
    return why


WhyOption = Annotated[str, typer.Option(callback=_reason, help="A reason, kept in the history.")]


def promote(model: VersionArgument, version: NumberArgument = None, why: WhyOption = "by hand") -> None:
    """Make a version the champion, whatever the gate said of it; what it has learned is what `update` goes on from."""
    from flows.by_hand import promote as choose
    from flows.registry.predict import chosen
    from flows.tracking.runs import connect

    if version is None and not set("@/") & set(model):
        raise ConfigError(f"promote: which version? `evergreen promote {model} challenger`; `evergreen history {model}` lists them")
    place = opened()
    client = connect(place)
    asked = chosen(place, client, _whole(model, version))
    _tell(asked.name, choose(place, client, asked.name, str(asked.version), why))


def rollback(
    model: ModelArgument,
    to: Annotated[str | None, typer.Option(metavar="VERSION", help="Default: the champion before this one.")] = None,
    why: WhyOption = "rollback",
) -> None:
    """Make an earlier version the champion again; sessions that it has not learned are left out until somebody retries them."""
    from flows.by_hand import rollback as choose
    from flows.tracking.runs import connect

    place = opened()
    _tell(model, choose(place, connect(place), model, to, why))


def history(
    model: Annotated[str | None, typer.Argument(metavar="[MODEL]", help="The name of a registered model; default: the only one.")] = None,
) -> None:
    """List what became of a model: sessions, verdicts, champions; who, and why. Of one that only `run` has made: its champions."""
    from flows.history.entries import history_of
    from flows.history.story import story
    from flows.registry.champion import only
    from flows.tracking.runs import connect

    place = opened()
    model = model or only(place, connect(place))
    entries = history_of(place, model).read()
    if entries:
        rows = [(moment, *told) for moment, *told in story(entries)]
        return out().print(table(model, ["when (UTC)", "what", "session", "version", "who", "why"], rows))
    from flows.registry.champion import history as changes

    made = [
        (made.when[:19].replace("T", " "), made.alias, made.before or "–", made.after, made.who, made.why)
        for made in changes(place, connect(place), model)
    ]
    out().print(table(model, ["when (UTC)", "alias", "from", "to", "who", "why"], made))


def lineage(model: VersionArgument, version: NumberArgument = None) -> None:
    """Show what made a model: data, base model, code, settings, each session with its state, and the versions it grew out of."""
    place = opened()
    from flows.registry.lineage import lineage as trace
    from flows.registry.predict import chosen
    from flows.tracking.runs import connect

    client = connect(place)
    asked = chosen(place, client, _whole(model, version))
    traced = trace(place, client, asked)
    out().print(table(f"{asked.name} version {traced.version}", ["made from", ""], list(traced.facts.items())))
    out().print(table("settings", ["setting", "value"], list(traced.settings.items())))
    columns = ["session", "steps", "images seen", "seconds", "state", "version"]
    out().print(table("sessions, in order", columns, traced.sessions))


def bisect(
    model: VersionArgument,
    examined: Annotated[
        str | None, typer.Option("--set", metavar="NAME", help="The evaluation set that broke: a session or a probe.")
    ] = None,
    label: Annotated[str | None, typer.Option("--class", metavar="NAME", help="The class that broke.")] = None,
    domain: Annotated[str | None, typer.Option("--domain", metavar="NAME", help="The domain that broke.")] = None,
    data_root: RootOption = None,
    data_rev: Annotated[
        str | None, typer.Option("--data-rev", metavar="REV", help="The data it learned from; default: as it was told then.")
    ] = None,
) -> None:
    """Find the session after which a set, a class or a domain got worse: from what was measured then, else by asking each state now."""
    given: dict[Kind, str | None] = {"set": examined, "class": label, "domain": domain}
    asked = [(kind, name) for kind, name in given.items() if name is not None]
    if len(asked) != 1:
        raise ConfigError("bisect: give one of --set NAME, --class NAME, --domain NAME")
    place = opened()
    from flows.look.bisect import course
    from flows.registry.predict import chosen
    from flows.tracking.runs import connect

    client, (kind, name) = connect(place), asked[0]
    version = chosen(place, client, model)
    with bar(f"asking about {name}") as tell:
        traced = course(place, client, version, kind, name, data_root, data_rev, tell)
    how = "measured now" if traced.measured else "as it was measured"
    out().print(f"{version.name} version {version.version}: {name}, {how}", soft_wrap=True)
    rows = [(each.session, *("–" if score != score else score for score in each[1:3]), each.images) for each in traced.effects]
    out().print(table("", ["session", "before", "after", "test images there before"], rows))
    worst = traced.worst()
    if worst:
        out().print(f"{name} lost most in session {worst.session}: {worst.before:.3f} before, {worst.after:.3f} after.", soft_wrap=True)
    elif traced.judged():
        out().print(f"{name} never got worse.", soft_wrap=True)
    else:
        out().print(f"No session came after one with test images of {name}, so there is nothing to compare.", soft_wrap=True)


def predict(
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE...", help="Image files.")],
    labels: Annotated[str | None, typer.Option(help='Candidate classes, separated by commas; one that holds a comma in "quotes".')] = None,
    query: Annotated[str | None, typer.Option(help="A text; the images are ranked by how well it fits.")] = None,
    model: Annotated[
        str | None, typer.Option(help="NAME, NAME@ALIAS or NAME/VERSION; of a single model ALIAS or VERSION  [default: its champion]")
    ] = None,
    as_of: Annotated[datetime | None, typer.Option(help="The champion of that day (UTC).")] = None,
    template: Annotated[
        str | None, typer.Option(help="What is asked about a class, such as 'a photo of a {}.'; default: as it was learned.")
    ] = None,
    none: Annotated[bool, typer.Option("--none", help="Also say which images show none of the classes.")] = False,
    to: Annotated[Path | None, typer.Option("--out", metavar="FILE", help="Write every answer to a new .csv or .jsonl file.")] = None,
) -> None:
    """Say what a registered model sees in images. Without --labels and --query: which of the classes that it has learned."""
    if labels is not None and query is not None:
        raise ConfigError("predict: give either --labels a,b,c or --query TEXT")
    if none and query is not None:
        raise ConfigError("predict: --none is about classes, and --query ranks images; give one of the two")
    if template is not None and template.count("{}") != 1:
        raise ConfigError(f"--template: found {template!r}, expected a text with one {{}} for the class name")
    place = opened()
    from flows.registry.answers import check, classified, ranked, write
    from flows.registry.predict import classify, rank, served
    from flows.tracking.runs import connect

    if to:
        check(to)
    asked = served(place, connect(place), model, as_of)
    if query is not None:
        with bar("looking at images") as tell:
            fits = rank(asked, images, query, tell)
        err().print(f"{asked.name} version {asked.version}")
        if to:
            return write(list(ranked(asked, query, fits)), to)
        out().print(table("", ["image", f"cosine with {query!r}"], [(str(path), cosine) for path, cosine in fits]))
        return
    with bar("looking at images") as tell:
        answers = classify(asked, images, listed(labels or ""), template, tell, none)
    err().print(f"{asked.name} version {asked.version}")
    if to:
        return write(list(classified(asked, images, answers)), to)
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
    place = opened()
    from flows.registry.predict import export as write
    from flows.tracking.runs import connect

    version = write(place, connect(place), model, folder, layout)
    err().print(f"{folder}: {version.name} version {version.version}, in the layout of {layout}", soft_wrap=True)


def opened() -> Place:
    """The project, whose models are looked at; in a wrong folder nothing is made."""
    place = begin(writes=False)
    check_project(place)
    if not stores(place):
        from flows.intake.readers import registers

        raise StoreError(f"no model is registered yet in {place.root}; {registers(place)}")
    return place


def listed(text: str) -> list[str]:
    """The names in a list, as a row of a CSV table has them.

    >>> listed('cat, "dog, wet", , bird')
    ['cat', 'dog, wet', 'bird']
    """
    return [name.strip() for name in next(csv.reader([text], skipinitialspace=True), []) if name.strip()]


def _whole(model: str, version: str | None) -> str:
    if version is None:
        return model
    if set("@/") & set(model):
        raise ConfigError(f"{model} {version}: two versions are named; give one")
    return f"{model}/{version}"


def _tell(model: str, made: "Made") -> None:
    change, say = made.change, out().print
    before = "" if change.before is None else " already" if change.before == change.after else f", as {change.before} was before"
    say(f"{model}: version {change.after} is {change.alias}{before}")
    for version in made.answered:
        say(f"{model}: version {version} waited for a person's word, and is {'agreed with' if version == change.after else 'declined'}")
    if made.left:
        say(f"{model}: rolled back: {some(made.left, 10)}; evergreen retry {model} SESSION learns one again", soft_wrap=True)
    if made.came:
        say(f"{model}: learned now: {some(made.came, 10)}", soft_wrap=True)
    if made.again:
        say(f"{model}: learned again by the next update, from version {change.after}: {some(made.again, 10)}", soft_wrap=True)
