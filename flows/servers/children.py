"""Child processes that end when we do, however we end."""

import contextlib
import ctypes
import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import psutil

from flows.unswept import ends_at_once

_STOP = 10.0  # seconds a child may take to end by itself
_LOOK = 0.5  # seconds after which a child sees that its parent is gone
_PATIENCE = 30.0  # seconds it may take then to finish its step, save and tell; a server that died with its parent it would ask for a minute


@contextmanager
def child(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process while inside, which writes to `log`; it ends with its own children, also where we are killed."""
    log.parent.mkdir(parents=True, exist_ok=True)
    with log.open("wb") as file:
        # a session of its own: Ctrl-C in the terminal reaches only us, and its own children end with it
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        _end(process)


def die_with_parent() -> None:
    """For a new child before it becomes its program: no orphan even where we are killed with no chance to stop it.

    On Linux alone, and only for a parent's main thread: the kernel sends the signal when the thread ends that made the child.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGTERM)  # PR_SET_PDEATHSIG


@functools.cache
def end_with(parent: int) -> None:
    """Let this process end when the process `parent` does, on any system and whichever thread of it made us.

    It is asked as by SIGTERM, so that a step under way is kept; one that does not leave within a while is killed.
    """
    direct, started = os.getppid() == parent, _started(parent)

    def watch() -> None:
        while os.getppid() == parent if direct else started and _started(parent) == started:
            time.sleep(_LOOK)
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(_PATIENCE)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="end-with-parent", daemon=True).start()


def begin_worker(parent: int) -> None:
    """What a process of a pool does first: see `flows.unswept`; what it is to do enables the collector again, once it is imported."""
    ends_at_once()
    end_with(parent)
    gc.disable()


def _end(process: subprocess.Popen[bytes]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP)
        deadline = time.monotonic() + _STOP
        while _group_lives(process.pid) and time.monotonic() < deadline:
            time.sleep(0.1)
        if not _group_lives(process.pid):
            return


def _started(process: int) -> float | None:
    """When a process began, None for one that is gone; one that is dead and that nobody has waited for has its number still."""
    try:
        other = psutil.Process(process)
        return None if other.status() == psutil.STATUS_ZOMBIE else float(other.create_time())
    except psutil.NoSuchProcess:
        return None


def _group_lives(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except (ProcessLookupError, PermissionError):
        return False
    return True
