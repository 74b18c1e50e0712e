"""Where copies of images lie below a project besides its data: all that is withdrawn has to be found there, and goes."""

import os
import re
import shutil
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from cl.disk.tensors import tensor_names
from cl.errors import StoreError
from cl.store.holds import Wanted, forget, holds
from cl.store.store import WEIGHTS, read_state
from flows.intake.dropped import DONE, REFUSED, session_of
from flows.settings import Place

WATCHED = "watched"  # a file of `mlruns/`: the folders that `evergreen watch` watched, one a line


@dataclass(frozen=True)
class Sought:
    """Images that must go: their collection and session, whether all of it goes, and how each is known."""

    collection: str
    session: str
    folder: str  # of the session
    whole: bool
    ids: tuple[str, ...]
    wanted: Wanted


def found(place: Place, sought: Sought, watched: Sequence[Path]) -> Iterator[Path]:
    """Files and folders that hold some of it, or tell of it, and can go; no link is followed."""
    yield from _fetched(place, sought)
    yield from _files(place.runs / "outlines")  # ids, labels and captions; they are made again
    yield from _quarantined(place, sought)
    yield from (path for path in _files(place.runs / "dropped") if holds(path, sought.wanted))
    yield from (path.parent for path in _files(place.steps / "interim") if path.suffix == ".safetensors" and holds(path, sought.wanted))
    for folder in watched:
        for shelf in (folder / DONE, folder / REFUSED):
            yield from _shelved(shelf, sought)
    yield from _pages(place, sought)


def rehearsed(place: Place) -> list[Path]:
    """The folders of all states, in which some of it may be kept to rehearse with."""
    return [each for each in sorted((place.steps / "states").glob("[!.]*")) if each.is_dir() and not each.is_symlink()]


def damaged(place: Place) -> list[str]:
    """What is wrong with states of which nobody can read what they keep; those that were pruned keep nothing."""
    faults = []
    for state in rehearsed(place):
        try:
            if not read_state(state).pruned or (state / WEIGHTS).exists():
                tensor_names(state / WEIGHTS)
        except StoreError as error:
            faults.append(str(error))
    return faults


class Purged(NamedTuple):
    """How many files or folders went, how many states lost rows, and what is wrong with those that could not be read."""

    gone: int
    lost: int
    unread: tuple[str, ...]


def purge(place: Place, sought: Sought, watched: Sequence[Path]) -> Purged:
    """Remove every copy.

    Raises:
        StoreError: one cannot be removed.
    """
    gone, lost, unread = 0, 0, list[str]()
    for path in list(found(place, sought, watched)):
        try:
            if path.is_dir() and not path.is_symlink():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
            gone += 1
        except FileNotFoundError:
            pass
        except OSError as error:
            raise StoreError(f"{path}: cannot be removed ({error.strerror}); make its folder writable") from error
    for state in rehearsed(place):
        try:
            lost += forget(state, sought.wanted) > 0
        except StoreError as error:  # the images may be in its file as they are
            unread.append(f"{error}; nobody can say whether it holds some of it: to be sure, delete {state}")
    return Purged(gone, lost, tuple(unread))


def watched_in(place: Place) -> list[Path]:
    """The folders that were watched, as `watch` noted, and any in the project that look like it."""
    file, watched = place.runs / WATCHED, list[Path]()
    if file.is_file() and not file.is_symlink():
        watched += [Path(line) for line in file.read_text(encoding="utf-8", errors="surrogateescape").splitlines() if line]
    for parent, folders, _ in os.walk(place.root):
        here = Path(parent)
        if {DONE, REFUSED} & set(folders):
            watched.append(here)
        away = {"mlruns", ".git", ".venv", ".dvc", "node_modules", DONE, REFUSED}
        folders[:] = [name for name in folders if name not in away and len(here.relative_to(place.root).parts) < 4]
    return [folder for folder in dict.fromkeys(watched) if folder.is_dir()]


def note_watched(place: Place, folder: Path) -> None:
    """Note that a folder is watched, so that what it keeps of withdrawn data can be found."""
    line = f"{folder.resolve()}\n"
    file = place.runs / WATCHED
    known = file.read_text(encoding="utf-8", errors="surrogateescape") if file.exists() else ""
    if "\n" not in str(folder) and line not in known:
        with file.open("a", encoding="utf-8", errors="surrogateescape") as end:
            end.write(line)


def _fetched(place: Place, sought: Sought) -> Iterator[Path]:
    for version in sorted(place.versions.glob("*")):
        if version.is_dir() and not version.is_symlink():
            named = sought.whole and (version / sought.collection / sought.folder).exists()
            if named or any(holds(path, sought.wanted) for path in _files(version)):
                yield version


def _quarantined(place: Place, sought: Sought) -> Iterator[Path]:
    own = place.runs / "ingest" / f"{sought.collection}-{sought.session}"
    if sought.whole and own.exists():
        yield own
    for path in _files(place.runs / "ingest"):
        if not path.is_relative_to(own) or not sought.whole:
            listed = path.is_relative_to(own) and path.name in _REPORTS and _tells(path, sought.ids)
            if listed or holds(path, sought.wanted):
                yield path


_REPORTS = ("report.csv", "report.json", "refused.csv", "refused.json")


def _shelved(shelf: Path, sought: Sought) -> Iterator[Path]:
    if shelf.is_symlink() or not shelf.is_dir():
        return
    for entry in sorted(shelf.iterdir()):
        inside = [path for path in ([entry] if entry.is_file() else _files(entry)) if not path.is_symlink() and holds(path, sought.wanted)]
        mine = re.sub(r"\.\d+$", "", session_of(entry)) == sought.session
        yield from [entry, *(entry.parent.glob(f"{_plain(entry.name)}.reason.txt"))] if inside and sought.whole and mine else inside


def _pages(place: Place, sought: Sought) -> Iterator[Path]:
    """Pages that show pictures of it: what they say in numbers lies elsewhere, and they can be written again."""
    marks = [f"{sought.folder}/"] if sought.whole else [f"{sought.folder}/{each}" for each in sought.ids]
    for root in (place.reports, place.runs / "artifacts"):
        for path in _files(root):
            if path.suffix == ".html" and _tells(path, marks):
                yield path


def _tells(path: Path, words: Collection[str]) -> bool:
    try:
        text = path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return False
    return any(word in text for word in words)


def _files(root: Path) -> Iterator[Path]:
    """Every plain file below a folder; links are not followed."""
    if root.is_symlink():
        return
    for parent, _, names in os.walk(root):
        for name in sorted(names):
            path = Path(parent, name)
            if not path.is_symlink():
                yield path


def _plain(name: str) -> str:
    return re.sub(r"([\[\]*?])", r"[\1]", name)
