"""JSON and folders, written beside their place and renamed, and read with a word on what is wrong."""

import json
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cl.disk.durable import beside, land
from cl.errors import StoreError


def write_json(value: Any, path: Path, indent: int | None = 1) -> None:
    """Write JSON whole or not at all.

    Raises:
        OSError: the place cannot be written.
    """
    text = json.dumps(value, indent=indent, ensure_ascii=False, allow_nan=True)
    with beside(path) as part:
        part.write_text(text, encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read JSON.

    Raises:
        StoreError: missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path}: not there or not JSON ({error})") from error


@contextmanager
def new_folder(folder: Path) -> Iterator[Path]:
    """A temporary folder that gets its name when the block ends well and vanishes when it does not.

    Raises:
        StoreError: the place cannot be written.
    """
    part = folder.with_name(f".{folder.name}.{uuid.uuid4().hex}.part")
    try:
        part.mkdir(parents=True)
        yield part
        if folder.exists():  # damaged, or finished meanwhile by another process: what is written now is whole
            shutil.rmtree(folder)
        land(part, folder)
    except OSError as error:
        raise StoreError(f"{folder}: cannot be written ({error.strerror or error}); free space or make it writable") from error
    finally:
        shutil.rmtree(part, ignore_errors=True)
