"""JSON and folders that carry a digest over themselves: a bit that flips on the disk is noticed and told, not believed."""

import hashlib
import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from cl.errors import StoreError

_DIGEST = "digest"


def sealed(value: Mapping[str, Any]) -> dict[str, Any]:
    """Plain JSON values with the SHA-256 of all of them.

    >>> sorted(sealed({"top1": 0.5}))
    ['digest', 'top1']
    """
    plain = json.loads(json.dumps(value))
    return {**plain, _DIGEST: _over(plain)}


def unsealed(value: Any, source: str, old: Collection[str]) -> dict[str, Any]:
    """What was sealed.

    Version 0.1.0 sealed nothing: without a digest a value is believed if it has exactly the keys `old`, those that 0.1.0 wrote.
    One whose digest lost its name has a key more.

    Raises:
        StoreError: it is not what was written.

    >>> unsealed(sealed({"top1": 0.5}), "x", ())
    {'top1': 0.5}
    """
    content = dict(value) if isinstance(value, dict) else {}
    digest = content.pop(_DIGEST, None)
    if not content or (digest != _over(content) if digest is not None else set(content) != set(old)):
        raise StoreError(f"{source}: damaged, it is not what was written")
    return content


def sha256(path: Path) -> str:
    """Hex SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def contents(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder, by its path from there."""
    return {path.relative_to(folder).as_posix(): sha256(path) for path in sorted(folder.rglob("*")) if path.is_file()}


def _over(plain: Mapping[str, Any]) -> str:
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
