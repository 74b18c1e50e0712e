"""What learns here: this release of Evergreen, and the libraries that its numbers rest on."""

import functools
import hashlib
import importlib.metadata
from pathlib import Path

_NAMES = ("evergreen-clip", "torch", "lightning", "open_clip_torch", "avalanche-lib")


def made_with() -> dict[str, str]:
    """Versions by package, Evergreen's own first.

    >>> "torch" in made_with()
    True
    """
    return {name: importlib.metadata.version(name) for name in _NAMES}


@functools.cache
def code_version() -> str:
    """16 hex digits over the sources of `cl`: other code is another result, whether committed or not."""
    state = hashlib.sha256()
    root = Path(__file__).parent
    for path in sorted(root.rglob("*.py")):
        state.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return state.hexdigest()[:16]
