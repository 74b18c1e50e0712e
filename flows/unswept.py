"""Beginning and ending without the garbage collector, which goes through a million objects and finds hardly one to drop.

Imports take a fifth less time without it; at the end of a process it takes two seconds for what the system does at once.
"""

import atexit
import gc
import logging
import os
import sys
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


def ends_at_once() -> None:
    """Let this process end with 0 as soon as all is done that was registered for its end from now on: for children, which nobody asks."""
    atexit.register(_end)


def _end() -> None:
    logging.shutdown()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(0)
