"""`evergreen init`: a project from nothing, by flags or by questions."""

import os
import re
import select
import stat
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar, cast

import typer

from cl.errors import ConfigError
from flows.console import err

if TYPE_CHECKING:
    from flows.new_project import Text

T = TypeVar("T")


def init(
    folder: Annotated[Path, typer.Argument(help="The project's folder; made where there is none.")] = Path("."),
    name: Annotated[str | None, typer.Option(help="Of the config and the model  [default: the folder's]")] = None,
    images: Annotated[Path | None, typer.Option(help="A first session: a folder per class, a table, tars or a zip.")] = None,
    captions: Annotated[bool | None, typer.Option("--captions/--labels", help="What says what is on an image.  [default: labels]")] = None,
    model: Annotated[str | None, typer.Option(help="An open_clip name and tag, or another model.  [default: ViT-B-32:openai]")] = None,
    git: Annotated[bool, typer.Option("--git/--no-git", help="Make it a git repository, if it lies in none.")] = True,
    dvc: Annotated[bool, typer.Option("--dvc/--no-dvc", help="Let DVC version the data.")] = True,
) -> None:
    """Make a folder a project: a commented config, git and DVC around it, and a first session where images are given."""
    root = Path(os.path.abspath(folder.expanduser()))
    os.environ["EVERGREEN_ROOT"] = str(root)
    from flows.new_project import Wish
    from flows.new_project import init as begin_project

    asks = sys.stdin.isatty() or _piped()
    name = name or _asked(asks, "What shall the model be called?", re.sub(r"[^\w.-]+", "-", root.name).strip("-.") or "model")
    if images is None and (typed := _asked(asks, "Where are the first images? (none: later)", "none")) != "none":
        images = Path(typed)
    if images is not None and not images.expanduser().exists():
        raise ConfigError(f"{images}: does not exist; give a folder or file with images, or none for later")
    text: Text = "captions" if captions else "labels"
    if captions is None:
        text = _asked(asks, "Do labels or captions say what is on them?", "labels", _text)
    model = model or _asked(asks, "Which model?", "ViT-B-32:openai")
    if images is not None:
        images = Path(os.path.abspath(images.expanduser()))  # from here, before anything looks from the project
    for note in begin_project(root, Wish(name, model, text, git, dvc)):
        err().print(note, soft_wrap=True)
    if images is not None:
        from flows.cli.ingest import ingest

        ingest(images, session="first")
    where = "" if root == Path.cwd() else f"cd {folder}; "
    first = "" if images is not None else "evergreen ingest IMAGES --session first; "
    err().print(f"Next: {where}{first}evergreen update {name}.yaml", soft_wrap=True)


def _text(typed: str) -> "Text":
    """Labels or captions; the question is put again after anything else (click.Choice is none of typer's own types)."""
    if typed not in ("labels", "captions"):
        raise typer.BadParameter(f"{typed!r} is neither labels nor captions")
    return "captions" if typed == "captions" else "labels"


def _asked(asks: bool, question: str, default: T, read: Callable[[str], T] | None = None) -> T:
    """The answer at a terminal or of whatever is piped in; the default where nobody is asked, or the answers have come to an end."""
    if not asks:
        return default
    try:
        return cast(T, typer.prompt(question, default=default, value_proc=read, err=True))
    except typer.Abort:
        if sys.stdin.isatty():
            raise
        return default


def _piped() -> bool:
    """Whether answers wait on standard input: `yes "" | evergreen init`. A schedule's standing open pipe must not be waited for."""
    try:
        kind = os.fstat(sys.stdin.fileno()).st_mode
    except (OSError, ValueError):
        return False
    return (stat.S_ISFIFO(kind) or stat.S_ISREG(kind)) and bool(select.select([sys.stdin], [], [], 0)[0])
