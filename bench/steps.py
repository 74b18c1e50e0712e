"""A step of two checkouts in turns: whether a change of the code has made learning slower.

    python bench/steps.py OLD NEW [--steps 60] [--methods vr_lwf mod_x ...]

OLD and NEW are checkouts with an environment of their own in .venv. For each preset four processes learn the first session of the glyph
stream: the old code twice and the new code once. They take turns step by step, so that whatever else the machine does hits all alike.
A step is all between two of the optimizer: its batch, both towers, the loss, the gradient, the update. What is compared is the least time
of new over old, each over all steps of both its processes; two processes of the same code against each other say how far to trust that.
"""

import argparse
import json
import subprocess
import tempfile
from pathlib import Path
from statistics import median

PRESETS = ("finetune", "vr_lwf", "mod_x", "replay", "lwf", "zscl", "ewc", "wise_ft", "cpe_clip", "linear_probe")
WARM = 3  # steps that are not counted

WORKER = """
import json, sys, time
from pathlib import Path
from cl.run import parse_config, plan
from cl.plain_yaml import parse
try:
    from cl.learning.learner import learn
    from cl.learning.module import Learner
    from cl.learning.host import quiet, threads
    from cl.data.glyphs import build
    from cl.data.table import write
    from cl.run_config import train_config
except ModuleNotFoundError:  # before cl/ had rooms
    from cl.learner import Learner, learn
    from cl.host import quiet, threads
    from cl.glyphs import build
    from cl.data import write
    from cl.run_config import train_config

folder, config, method, steps = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3], int(sys.argv[4])
if not (folder / "glyphs").is_dir():
    write(build(), folder / "glyphs")
tree = parse(config.read_text(encoding="utf-8"), "glyphs.yaml")
tree = {name: part for name, part in tree.items() if name != "compare"} | {"method": {"name": method}}
tree["train"] = tree["train"] | {"max_steps": steps}
made = plan(parse_config(tree, method), folder, "glyphs")
session, start, out = made.stream.sessions[0], None, sys.stdout
sys.stdout = sys.stderr
step = Learner.optimizer_step

def timed(self, *given, **named):
    global start
    step(self, *given, **named)
    if start is not None:
        print(json.dumps(time.perf_counter() - start), file=out, flush=True)
    else:
        print("ready", file=out, flush=True)
    sys.stdin.readline()  # our turn
    start = time.perf_counter()

Learner.optimizer_step = timed
with quiet(), threads(1):
    learn(made.build(), session, train_config(made.config, session), 0)
"""


def start(checkout: Path, folder: Path, config: Path, method: str, steps: int) -> subprocess.Popen[str]:
    """A process that stands after its first step and waits for its turn."""
    asked = [str(checkout / ".venv/bin/python"), "-c", WORKER, str(folder), str(config), method, str(steps)]
    process = subprocess.Popen(asked, cwd=checkout, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert process.stdout
    if process.stdout.readline() != "ready\n":
        raise SystemExit(f"{checkout.name}, {method}: {process.communicate()[1][-2000:]}")
    return process


def step(process: subprocess.Popen[str]) -> float:
    """Seconds of one step."""
    assert process.stdin and process.stdout
    process.stdin.write("go\n")
    process.stdin.flush()
    return float(json.loads(process.stdout.readline()))


def measure(old: Path, new: Path, folder: Path, config: Path, method: str, steps: int) -> list[list[float]]:
    """Seconds of every step of old, new, new again and old again."""
    processes = [start(checkout, folder, config, method, steps + WARM + 2) for checkout in (old, new, new, old)]
    try:
        times = [[step(process) for process in processes] for _ in range(steps + WARM)]
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return [list(column) for column in zip(*times[WARM:], strict=True)]


def main() -> None:
    """As the page says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("old", type=Path)
    parser.add_argument("new", type=Path)
    parser.add_argument("--steps", type=int, default=60)
    parser.add_argument("--methods", nargs="+", default=list(PRESETS))
    given = parser.parse_args()
    config = Path(__file__).parent.parent / "flows/configs/results/glyphs.yaml"
    print("| preset | old, ms | old/old | new/new | new/old | median new/old |\n|---|---:|---:|---:|---:|---:|")
    with tempfile.TemporaryDirectory() as folder:
        for method in given.methods:
            checkouts = (given.old.resolve(), given.new.resolve())
            first, new, again, second = measure(*checkouts, Path(folder), config, method, given.steps)
            old, now = first + second, new + again
            row = (1000 * min(old), min(second) / min(first), min(again) / min(new), min(now) / min(old), median(now) / median(old))
            print(f"| {method} | {row[0]:.1f} | {row[1]:.3f} | {row[2]:.3f} | {row[3]:.3f} | {row[4]:.3f} |", flush=True)


if __name__ == "__main__":
    main()
