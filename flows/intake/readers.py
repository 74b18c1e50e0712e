"""The configs of a project that learn a collection, which of them cannot use a session that comes into it, and what makes a first model."""

from pathlib import Path

from cl.data.table import Supervision
from cl.errors import EvergreenError
from cl.text import either, some
from flows.settings import Place

NOBODY = "`evergreen update CONFIG` makes one of sessions that `evergreen ingest` brought, `evergreen run CONFIG` of any other stream"


def cannot_use(place: Place, into: str, supervision: Supervision) -> list[str]:
    """A line for each config in the project's folder whose method will refuse a session of this kind at every `update`."""
    told = []
    for file in sorted(place.root.glob("*.y*ml")):
        if not _mentions(file, into):
            continue
        from cl.plan import HOLDS  # this and the next bring torch: seconds, where no config learns the collection
        from cl.run_config import read_config
        from flows.learn.configs import collections

        try:
            run = read_config(file)
        except EvergreenError:
            continue  # no config of ours, or one that says so itself when it is used
        if into in collections(run) and not set(HOLDS[supervision]) & set(run.method.wants()):
            wants, holds = " or ".join(run.method.wants()), " and ".join(HOLDS[supervision])
            told.append(
                f"{file.name} cannot use it: {run.method.name} learns from {wants}, and the session holds {holds}; "
                "choose another method there, or another collection for such sessions"
            )
    return told


def unread(place: Place, into: str) -> list[str]:
    """A line where configs lie in the project's folder and none of them learns the collection."""
    files = sorted(place.root.glob("*.y*ml"))
    ours = [file for file in files if "stream:" in _text(file)]
    if not ours or any(_mentions(file, into) for file in ours):
        return []
    return [
        f"no config here learns {into} ({some([file.name for file in ours])}): one does whose stream is "
        f"{{kind: collection, sources: {{{into}: {into}}}}}"
    ]


def registers(place: Place) -> str:
    """What makes a first model in a project, by the configs that lie in its folder."""
    files = [file for file in sorted(place.root.glob("*.y*ml")) if "stream:" in _text(file)]
    grows = [f"`evergreen update {file.name}`" for file in files if "collection" in _text(file)]
    fixed = [f"`evergreen run {file.name}`" for file in files if "collection" not in _text(file)]
    return f"{either([*grows, *fixed][:3])} makes one" if files else NOBODY


def _mentions(file: Path, into: str) -> bool:
    text = _text(file)
    return "collection" in text and into in text


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError):
        return ""  # no config of ours
