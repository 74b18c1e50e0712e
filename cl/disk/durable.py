"""The last act of writing: what was written beside its place gets its name, and neither a crash nor a power cut leaves half of it there."""

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def beside(target: Path) -> Iterator[Path]:
    """Where to write a file that gets its name when the block ends well, and of which nothing stays when it does not.

    Raises:
        OSError: the place cannot be written.
    """
    part = target.with_name(f".{target.name}.{uuid.uuid4().hex}.part")
    try:
        yield part
        land(part, target)
    finally:
        part.unlink(missing_ok=True)


def land(part: Path, target: Path) -> None:
    """Rename a file or folder to `target`, which it replaces; its bytes reach the disk before the name does.

    Raises:
        OSError: the place cannot be written, or a folder that is not empty is there.
    """
    flush(part)
    os.replace(part, target)
    flush(target.parent, deep=False)


def flush(path: Path, deep: bool = True) -> None:
    """Have a file, or a folder with all that is in it, on the disk and not only on its way there; not `deep`: the folder's names alone.

    Raises:
        OSError: the disk does not take it.
    """
    for each in (*(path.rglob("*") if deep and path.is_dir() else ()), path):
        handle = os.open(each, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def shared(path: Path) -> None:
    """Let those read a file who may read its folder: safetensors makes it its owner's alone, and a team works in one project folder."""
    path.chmod(path.parent.stat().st_mode & 0o666)
