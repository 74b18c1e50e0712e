"""What learning asks of the machine it runs on: a device, so many threads, and memory that stays."""

import ctypes
import functools
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from cl.errors import ConfigError

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX = -1, -2, -4  # of glibc's malloc.h


def device(wanted: str, rank: int = 0) -> torch.device:
    """The device that `train.device` means here: auto is a GPU where there is one, of several the one that has the rank's number.

    Raises:
        ConfigError: a GPU is asked for, and there is none.
    """
    there = wanted != "cpu" and torch.cuda.is_available()
    if wanted == "gpu" and not there:
        raise ConfigError("train.device: gpu, and this machine has none that torch can use; auto or cpu")
    if there and rank >= torch.cuda.device_count():
        raise ConfigError(f"train.devices: {torch.cuda.device_count()} GPUs are here, and rank {rank} finds none; ask for fewer")
    return torch.device("cuda", rank) if there else torch.device("cpu")


@contextmanager
def threads(wanted: int | None) -> Iterator[None]:
    """Let torch use so many CPU threads inside; None: as many as before."""
    before = torch.get_num_threads()
    torch.set_num_threads(wanted or before)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@functools.cache
def keep_memory() -> bool:
    """Ask the allocator to keep what it frees, for as long as the process lives; False where it is not glibc.

    By default every tensor over a few MB is fetched from the system and handed back, and its pages are zeroed anew at each step.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return False
    return all([mallopt(_MMAP_MAX, 0), mallopt(_TRIM_THRESHOLD, (1 << 31) - 1), mallopt(_TOP_PAD, 64 << 20)])


@contextmanager
def quiet() -> Iterator[None]:
    """Without the hardware lines, advice and adverts that Lightning greets every fit with."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.pytorch.utilities.rank_zero")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*(does not have many workers|LeafSpec|isinstance).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
