"""A page in headless Chromium, asked by its DevTools protocol: what is on it once its scripts have run, and how it looks."""

import base64
import contextlib
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from websockets.sync.client import connect

PROGRAM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run", "--remote-debugging-port=0")


class Page:
    """One tab."""

    def __init__(self, call: Callable[..., dict[str, Any]]) -> None:
        self.call = call

    def open(self, address: str) -> None:
        """Go there."""
        self.call("Page.navigate", url=address)
        self.until("document.readyState === 'complete'")

    def ask(self, script: str) -> Any:
        """What an expression is, as plain values.

        Raises:
            RuntimeError: it throws.
        """
        answer = self.call("Runtime.evaluate", expression=script, returnByValue=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(answer["exceptionDetails"]["exception"].get("description", script))
        return answer["result"].get("value")

    def until(self, script: str, seconds: float = 60) -> Any:
        """Wait until an expression holds; gives what it came to be.

        Raises:
            TimeoutError: it does not.
        """
        deadline = time.monotonic() + seconds
        while not (value := self.ask(script)):
            if time.monotonic() > deadline:
                raise TimeoutError(script)
            time.sleep(0.1)
        return value

    def looks(self, width: int, height: int, dark: bool) -> None:
        """From now on in a window of that size, for who prefers the dark or the light."""
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)
        self.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])

    def shot(self) -> bytes:
        """The window as PNG."""
        return base64.b64decode(self.call("Page.captureScreenshot", format="png")["data"])


@contextlib.contextmanager
def browser(folder: Path) -> Iterator[Page]:
    """A tab of a Chromium of its own, which keeps its profile in the folder and ends with the block."""
    assert PROGRAM
    with subprocess.Popen([PROGRAM, *_FLAGS, f"--user-data-dir={folder}", "about:blank"], stderr=subprocess.DEVNULL) as process:
        try:
            with connect(_address(folder), max_size=None) as socket:
                yield Page(_calls(socket))
        finally:
            process.terminate()


def _address(folder: Path) -> str:
    import urllib.request

    file, deadline = folder / "DevToolsActivePort", time.monotonic() + 60
    while not (lines := file.read_text().split() if file.exists() else []):
        assert time.monotonic() < deadline, "Chromium does not begin"
        time.sleep(0.1)
    with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json") as answer:
        return str(next(tab["webSocketDebuggerUrl"] for tab in json.load(answer) if tab["type"] == "page"))


def _calls(socket: Any) -> Callable[..., dict[str, Any]]:
    numbers = itertools.count(1)

    def call(method: str, **params: Any) -> dict[str, Any]:
        number = next(numbers)
        socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while (answer := json.loads(socket.recv(60))).get("id") != number:
            pass
        if "error" in answer:
            raise RuntimeError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    return call
