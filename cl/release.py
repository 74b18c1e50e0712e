"""What learns here: this release of Evergreen, and the libraries that its numbers rest on."""

import importlib.metadata

_NAMES = ("evergreen-clip", "torch", "lightning", "open_clip_torch", "avalanche-lib")


def made_with() -> dict[str, str]:
    """Versions by package, Evergreen's own first.

    >>> "torch" in made_with()
    True
    """
    return {name: importlib.metadata.version(name) for name in _NAMES}
