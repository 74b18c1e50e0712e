"""Children end with their parent, also where it is killed and can end nothing itself."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from flows.compare import runner
from flows.servers.children import begin_worker
from tests.conftest import lay_out
from tests.test_cli import EVERGREEN, left

SOON = 10.0  # seconds
POOL = """
import multiprocessing, os, time
from concurrent.futures import ProcessPoolExecutor
from flows.servers.children import begin_worker

if __name__ == "__main__":
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(2, context, begin_worker, (os.getpid(),)) as pool:
        for one in [pool.submit(os.getpid) for _ in range(8)]:
            one.result()
        print("working", flush=True)
        pool.submit(time.sleep, 600), pool.submit(time.sleep, 600)
"""
GRANDCHILD = """
import os, subprocess, sys, time
from flows.servers.children import end_with

if sys.argv[1:] == []:  # the parent; its child starts one that watches the parent, as MLflow's server does
    subprocess.run([sys.executable, __file__, str(os.getpid())])
elif len(sys.argv) == 2:
    subprocess.run([sys.executable, __file__, sys.argv[1], "watch"])
else:
    end_with(int(sys.argv[1]))
    print("working", flush=True)
    time.sleep(600)
"""


def until(holds: Callable[[], bool], seconds: float) -> bool:
    deadline = time.monotonic() + seconds
    while not holds() and time.monotonic() < deadline:
        time.sleep(0.1)
    return holds()


@pytest.mark.parametrize(("program", "ending"), [(POOL, 2), (GRANDCHILD, 1)], ids=["workers", "grandchild"])
def test_what_a_killed_process_started_ends_too(tmp_path: Path, program: str, ending: int) -> None:
    (tmp_path / "program.py").write_text(program)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    with subprocess.Popen([sys.executable, str(tmp_path / "program.py")], stdout=subprocess.PIPE, env=environment) as parent:
        assert parent.stdout and parent.stdout.readline() == b"working\n"
        below = psutil.Process(parent.pid).children(recursive=True)
        parent.kill()  # and nobody has waited for it yet: its number is still taken
        try:
            assert len(below) > ending - 1
            gone, stay = psutil.wait_procs(below, SOON)
            assert len(gone) >= ending and not [one for one in stay if "watch" in one.cmdline()], stay
        finally:
            for one in below:
                if one.is_running():
                    one.kill()


def test_the_workers_of_a_comparison_watch_the_process_that_compares() -> None:
    pool = runner("processes", 2, None).duplicate()  # as Prefect does before it uses one
    assert (pool._initializer, pool._initargs) == (begin_worker, (os.getpid(),))  # type: ignore[attr-defined]


def test_a_worker_ends_at_once_when_all_that_it_has_to_do_is_done() -> None:
    program = """
import atexit, os
from flows.servers.children import begin_worker

class Last:
    def __del__(self):
        os.write(1, b"taken apart")

begin_worker(os.getppid())
last = Last()
last.own = last
atexit.register(print, "said at the end", flush=False)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, cwd=Path(__file__).parents[2], timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"said at the end\n", b"")


@pytest.mark.slow
def test_a_comparison_that_is_killed_leaves_nobody_behind_and_the_next_one_goes_on(project: Path) -> None:
    config = lay_out(project)
    many = "compare: {methods: [finetune, {name: replay, capacity: 8}], parallel: 2}"
    config.write_text(config.read_text().replace("epochs: 1", "max_steps: 4000").replace("compare: {methods: [zero_shot, finetune]}", many))
    command = [str(EVERGREEN), "compare", "colours.yaml"]
    with (project / "first.txt").open("wb") as said:
        first = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
    interim = project / "mlruns" / "steps" / "states"
    assert until(lambda: len([*interim.glob("*")]) >= 1 and len(left(project)) >= 4, 240), (project / "first.txt").read_text()
    time.sleep(5)  # both are in the midst of it
    os.kill(first.pid, signal.SIGKILL)
    first.wait()
    assert until(lambda: left(project) == [], 60), left(project)  # it is given 30 s to save
    again = [*command, "--set", "train.max_steps=4"]
    subprocess.run(again, check=True, capture_output=True, timeout=400)
    assert left(project) == []
