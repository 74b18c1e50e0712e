"""Data sets by name below a data root: one takes its place whole, and whatever happens the old or the new one is there."""

import os
import shutil
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from cl.data import collection
from cl.disk.durable import flush
from cl.errors import DataError
from flows.settings import Place


@contextmanager
def shelf_locked(place: Place) -> Iterator[None]:
    """Nobody else in this project adds data or pins it meanwhile."""
    with collection.locked(place.runs / "locks" / "data"):
        yield


def check_place(target: Path, replace: bool) -> None:
    """Raise where a data set cannot take this place.

    Raises:
        DataError: there is one and it is not to be replaced, or there are sessions, which are never replaced.
    """
    if collection.numbered(target):
        told = f"a collection with sessions, which never change; choose another name, or add to it: `evergreen ingest --into {target.name}`"
        raise DataError(f"{target}: {told}")
    if target.exists() and not replace:
        raise DataError(f"{target}: there is a data set of that name; choose another, or give --replace")


def put(fill: Callable[[Path], None], target: Path, replace: bool = True) -> None:
    """Have a data set written beside its place and put there; for who is alone.

    Raises:
        DataError: the place is taken, see `check_place`, or cannot be written.
    """
    _heal(target)
    check_place(target, replace)
    part = target.parent / f".{target.name}.{uuid.uuid4().hex}.part"
    old = part.with_suffix(".old.part")
    try:
        fill(part)
        flush(part)  # before the old one leaves its place: between the two names lies nothing that takes time
        if target.exists():
            os.replace(target, old)
        os.replace(part, target)
        flush(target.parent, deep=False)
    except OSError as error:
        raise DataError(f"{target}: cannot be written ({error.strerror}); free space or choose another --data-root") from error
    finally:
        _heal(target)


def _heal(target: Path) -> None:
    """Put back what was moved away by who did not come to put something else there, and remove what nobody needs."""
    for old in target.parent.glob(f".{target.name}.*.old.part"):
        if not target.exists():
            os.replace(old, target)
    for left in target.parent.glob(f".{target.name}.*.part"):
        shutil.rmtree(left, ignore_errors=True)
