"""`python -m tests.soak [PICTURE] [--flow]`: a hundred tiny sessions in a row: memory, disk and time, early and late.

Without --flow the loop of `cl.run` learns them, with it `evergreen run`. Either is a process that is watched from outside.
"""

import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from rich.console import Console

from cl.data.table import ImageTable, write
from cl.disk.files import read_json
from flows.console import table
from tests.make import COLOURS, png

SESSIONS, EVERY, KEPT = 100, 10, 40
ROOT = Path(__file__).parents[1]
CONFIG = f"""
name: soak
model: {{name: tiny}}
threads: 1
stream: {{kind: domains, sources: {{days: days}}, template: "a {{}} square"}}
method: {{name: replay, capacity: {KEPT}}}
train: {{max_steps: 5, batch_size: 16, lr: 1.0e-4, checkpoint: 1}}
gate: {{flips: 1, drop: 1}}
"""
LEARN = """
from pathlib import Path
from cl.run import plan, read_config, run
run(plan(read_config(Path("soak.yaml")), Path("data"), "v"), Path("mlruns/steps"))
"""


class Row(NamedTuple):
    """After so many sessions: resident memory, size of the last state and row, all on disk, seconds of each of the last ten sessions."""

    session: int
    resident_mb: float
    state_mb: float
    row_kb: float
    disk_mb: float
    learning: float
    all: float


def lay_out(project: Path) -> None:
    """A data set with a domain per day, and its config."""
    for split, each in (("train", 4), ("test", 1)):
        rows = [(day, colour, i) for day in range(SESSIONS) for colour in range(4) for i in range(each)]
        write(
            {
                split: ImageTable.of(
                    [f"{split}-{day}-{colour}-{i}" for day, colour, i in rows],
                    [png(colour, 1000 * day + 10 * i + (split == "test")) for day, colour, i in rows],
                    labels=[COLOURS[colour] for _, colour, _ in rows],
                    domains=[f"day {day:03}" for day, _, _ in rows],
                )
            },
            project / "data" / "days",
        )
    (project / "soak.yaml").write_text(CONFIG)


def size(folder: Path) -> int:
    """Bytes below a folder, whatever comes and goes meanwhile."""
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size if path.is_file() else 0
        except FileNotFoundError:
            continue
    return total


def watch(process: "subprocess.Popen[bytes]", project: Path) -> Iterator[Row]:
    """A row after every tenth session, while the process learns."""
    steps, states = (project / "mlruns" / "steps" / name for name in ("steps", "states"))
    done, before = 0, time.monotonic()
    while process.poll() is None or done + EVERY <= SESSIONS:
        finished = sorted(steps.glob("[!.]*/result.json"), key=lambda path: path.stat().st_mtime)
        if len(finished) > done + EVERY:  # and the model at the start
            done, now = done + EVERY, time.monotonic()
            last = [read_json(path) for path in finished[done - EVERY + 1 : done + 1]]
            pages = int(Path(f"/proc/{process.pid}/statm").read_text().split()[1]) if process.poll() is None else 0
            yield Row(
                done,
                pages * os.sysconf("SC_PAGE_SIZE") / 1e6,
                size(states / last[-1]["state"]) / 1e6,
                size(steps / last[-1]["key"]) / 1e3,
                size(project / "mlruns") / 1e6,
                sum(step["cost"]["seconds"] for step in last) / EVERY,
                (now - before) / EVERY,
            )
            before = now
        elif process.poll():
            raise SystemExit(f"learning ended with code {process.returncode}")
        time.sleep(0.05)


def draw(rows: list[Row], picture: Path) -> None:
    """Each column over the sessions."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(12, 6), layout="constrained")
    for axes, name in zip(figure.subplots(2, 3).flat, Row._fields[1:], strict=True):
        values = [getattr(row, name) for row in rows]
        axes.plot([row.session for row in rows], values, marker="o")
        axes.set(title=name.replace("_", " "), xlabel="sessions", ylim=(0, 1.2 * max(values)))
    figure.savefig(picture)


def main() -> None:
    """Learn, watch and tell."""
    pictures = [Path(word) for word in sys.argv[1:] if not word.startswith("--")]
    program = ["-m", "flows", "run", "soak.yaml"] if "--flow" in sys.argv else ["-c", LEARN]
    with tempfile.TemporaryDirectory(prefix="evergreen-soak-") as folder:
        project = Path(folder)
        lay_out(project)
        own = {"EVERGREEN_ROOT": folder, "PREFECT_HOME": f"{folder}/.prefect", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        with subprocess.Popen([sys.executable, *program], cwd=project, env=os.environ | own) as process:
            rows = list(watch(process, project))
    shown = [(str(row.session), *(f"{value:.2f}" for value in row[1:])) for row in rows]
    columns = ["sessions", "resident MB", "state MB", "row kB", "disk MB", "seconds learning", "seconds in all"]
    Console(file=sys.stdout, width=110).print(table(f"{SESSIONS} tiny sessions, replay with {KEPT} images", columns, shown))
    for picture in pictures:
        draw(rows, picture)


if __name__ == "__main__":
    main()
