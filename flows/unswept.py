"""Importing without the garbage collector: of a million objects hardly one is dropped, and going through them takes a fifth of the time."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def unswept() -> Iterator[None]:
    """While modules are imported."""
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
