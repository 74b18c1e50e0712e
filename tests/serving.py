"""`evergreen up` for tests that are about what it serves: on ports of its own, which nobody else has."""

import contextlib
import signal
import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

from flows.servers.servers import HOST, answers


def free() -> int:
    """A port that nobody has."""
    with socket.socket() as probe:
        probe.bind((HOST, 0))
        return int(probe.getsockname()[1])


@contextlib.contextmanager
def serving(program: str | Path, folder: Path) -> Iterator[tuple[int, int]]:
    """The servers of the project in a folder, while inside, by the ports of Prefect and MLflow; what they say is in its `up.log`."""
    ports = free(), free()
    words = [program, "up", "--prefect-port", str(ports[0]), "--mlflow-port", str(ports[1])]
    with (folder / "up.log").open("w") as log:
        process = subprocess.Popen(words, cwd=folder, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 240
        while not (answers(f"http://{HOST}:{ports[0]}/api/health") and answers(f"http://{HOST}:{ports[1]}/health")):
            assert process.poll() is None and time.monotonic() < deadline, (folder / "up.log").read_text()
            time.sleep(0.5)
        yield ports
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)
