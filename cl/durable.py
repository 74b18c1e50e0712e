"""The last act of writing: what was written beside its place gets its name, and neither a crash nor a power cut leaves half of it there."""

import os
from pathlib import Path


def land(part: Path, target: Path) -> None:
    """Rename a file or folder to `target`, which it replaces; its bytes reach the disk before the name does.

    Raises:
        OSError: the place cannot be written, or a folder that is not empty is there.
    """
    for path in (*(part.rglob("*") if part.is_dir() else ()), part):
        _flush(path)
    os.replace(part, target)
    _flush(target.parent)


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
