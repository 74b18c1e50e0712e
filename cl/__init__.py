"""Evergreen's learning side: streams, methods, measurement. Talks to no server.

The names of `__all__` are for everybody who works in Python, and stay. Whatever else lies in here may change without notice.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from cl.api import (
        Matrix,
        Model,
        Report,
        Stream,
        learn_stream,
        load_model,
        matrix,
        read_stream,
        recipe,
        summary,
        write_glyphs,
        write_report,
    )
    from cl.errors import EvergreenError

__all__ = [
    "EvergreenError",
    "Matrix",
    "Model",
    "Report",
    "Stream",
    "learn_stream",
    "load_model",
    "matrix",
    "read_stream",
    "recipe",
    "summary",
    "write_glyphs",
    "write_report",
]


def __getattr__(name: str) -> Any:
    """A public name when it is first asked for: torch and all it brings take seconds to import, `import cl` does not."""
    if name not in __all__:
        raise AttributeError(f"module 'cl' has no attribute {name!r}; public are {', '.join(__all__)}")
    public = getattr(import_module("cl.errors" if name == "EvergreenError" else "cl.api"), name)
    globals()[name] = public
    return public


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
