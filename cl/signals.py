"""Ctrl-C and SIGTERM held back while something is under way that should not be cut short."""

import signal
import threading
from types import FrameType
from typing import Any

NUMBERS = (signal.SIGINT, signal.SIGTERM)


class Held:
    """Between `hold` and `release` a signal waits; a second one, or one that comes outside, goes on to whoever handled it before.

    Signals belong to the main thread: in any other one nothing is held. One that is ignored stays so.
    """

    def __init__(self) -> None:
        self.before: dict[int, Any] = {}
        self.holding = False
        self.came: int | None = None

    def install(self) -> None:
        """Stand before the handlers there are."""
        if threading.current_thread() is threading.main_thread():
            handled = [number for number in NUMBERS if signal.getsignal(number) not in (None, signal.SIG_IGN)]
            self.before = {number: signal.signal(number, self._take) for number in handled}

    def remove(self) -> None:
        """Put them back, where nobody has put in others since."""
        for number, handler in self.before.items():
            if signal.getsignal(number) == self._take:
                signal.signal(number, handler)
        self.before = {}

    def hold(self) -> None:
        """From now on a signal waits."""
        self.holding = True

    def release(self) -> None:
        """From now on none does; the one that waited is raised by `deliver`."""
        self.holding = False

    def deliver(self) -> None:
        """Raise the signal that waited, if there is one."""
        if self.came is not None:
            number, self.came = self.came, None
            self.remove()
            signal.raise_signal(number)

    def _take(self, number: int, frame: FrameType | None) -> None:
        first, self.came = self.came is None, number
        if not (self.holding and first):
            self.deliver()
