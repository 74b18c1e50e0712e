"""Does the work per new session grow with the sessions before it? Planning, asking, learning and telling, at 10, 100, 1,000 sessions.

    python bench/growth.py FOLDER [--candidates seen|own] [--new-classes] [--upto 100] [--jump 1000]

Learns a collection of tiny sessions (four images, a model of 2 million weights) one `update` at a time and measures the one after 10,
after 100 and after 1,000 sessions, in parts: the start with nothing to do, the update without its report, the report; evaluations and
MLflow runs are counted. What is learned stays in FOLDER: started again, it goes on.

Learning a thousand sessions takes hours on two cores, most of it asking 1,000 states about 1,000 sets. `--jump` lengthens the line instead:
the sessions are really there, and its further states are copies of the last one that was learned. The update after the jump is told
and not measured, since it asks the base model about all the new sets; the one after that is.

Measured with `--upto 101`, then `--jump 1000` (1008 for `own`), one thread on two cores, ahead of other work there; seconds on the wall:

    candidates   sessions   evaluations   update   report   nothing to do
    seen               10            13      2.4      0.7             1.1
    seen              100           103      5.5      1.8             1.2
    seen            1,001         1,004     17.0      7.6             1.2
    own                10            13      2.1      1.4             1.1
    own               100           103      4.9      2.4             1.1
    own             1,009         1,012     23.8      7.3             1.1

Evaluations are the new state's of every set, and the new set's of the base model, the state before and the champion: they are what
grows, at 0.02 s each. MLflow runs grow by one a session: 12 after 10, 102 after 100.
"""

import argparse
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

CONFIG = """
name: growing
model: {{name: tiny}}
stream: {{kind: collection, sources: {{inbox: inbox}}, template: "a {{}} square", candidates: {candidates}}}
method: finetune
train: {{max_steps: 1, batch_size: 4, lr: 1.0e-4, device: cpu, checkpoint: 600}}
evaluate: {{geometry: 0}}
gate: {{drop: null, flips: null}}
"""
AT = (10, 100, 1000)


def arrive(folder: Path, number: int, fresh: bool) -> None:
    """One session more: two classes, of the same eight colours or two of its own."""
    import pyarrow as pa

    from cl.data.collection import append
    from cl.data.table import ImageTable
    from tests.make import table

    def rows(seed: int) -> ImageTable:
        made = table((number % 8, (number + 1) % 8), 2, seed=seed)
        if not fresh:
            return made
        names = pa.array([f"{label} {number}" for label in made.labels], pa.string())
        return ImageTable(made.table.set_column(made.table.schema.get_field_index("label"), made.table.schema.field("label"), names))

    append(folder / "data" / "inbox", f"s{number:04d}", {"train": rows(number), "test": rows(10_000 + number)}, "labels")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--candidates", default="seen", choices=["seen", "own"])
    parser.add_argument("--new-classes", action="store_true")
    parser.add_argument("--upto", type=int, default=100)
    parser.add_argument("--jump", type=int)
    asked = parser.parse_args()
    folder = asked.folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    os.environ |= {"EVERGREEN_ROOT": str(folder), "OMP_NUM_THREADS": "1"}
    (folder / "pyproject.toml").touch()
    (folder / "growing.yaml").write_text(CONFIG.format(candidates=asked.candidates))
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from flows.settings import begin

    place = begin()
    from flows.servers.secret import CLIENT
    from flows.servers.servers import embedded
    from flows.settings import EMBEDDED

    own = embedded(place)
    os.environ |= {EMBEDDED: "1", "PREFECT_API_URL": own.address, CLIENT: own.secret}
    own.ready()
    measure(folder, asked.upto, asked.new_classes)
    if asked.jump:
        jump(folder, asked.jump, asked.new_classes)
        measure(folder, asked.jump + 1, asked.new_classes, at=(asked.jump + 1,))


def jump(folder: Path, upto: int, fresh: bool) -> None:
    """Lengthen the line by copies of its last state, as if so many sessions had been learned."""
    import shutil
    from dataclasses import replace

    from flows.history.conclude import conclude
    from flows.history.entries import Champion, Verdict, history_of, note
    from flows.learn.job import job_of
    from flows.line.work import Work, asked_sets, told
    from flows.settings import Place

    journal, place = history_of(Place(folder), "growing"), Place(folder)
    standing = conclude(journal.read())
    have, last, champion = len(standing.line), standing.line[-1], standing.champion
    if have >= upto or champion is None:
        return
    for number in range(have + 1, upto + 1):
        if not list((folder / "data" / "inbox").glob(f"{number:04d}-*")):
            arrive(folder, number, fresh)
    at = Work(job_of(str(folder / "growing.yaml"), whole=False))
    known = {each.name: each for learned in standing.line for each in _classes(learned.classes)}
    for number in range(have + 1, upto + 1):
        session, _ = at.arrivals.session(f"s{number:04d}", number, known)
        state = f"{number:024x}"
        copied = place.steps / "states" / state
        if not copied.exists():
            shutil.copytree(place.steps / "states" / last.state, copied)
        fresh_classes = session.vocabulary[len(known) :]
        known |= {each.name: each for each in fresh_classes}
        arrival = at.arrivals.there()[session.name]
        last = replace(
            last, session=session.name, parent=last.state, state=state, number=number, content=arrival.content,
            classes=told(fresh_classes), exam=asked_sets(session),
        )  # fmt: skip
        note(journal, last)
        note(journal, Verdict(state=state, session=session.name, word="accepted", champion=last.parent, bounds={}, reason="a copy"))
    note(journal, Champion(version=champion.version, state=last.state, how="gate"))


def _classes(kept: Any) -> Any:
    from flows.line.work import classes

    return classes(kept)


class Clock:
    """Seconds, on the wall and of this process, inside functions; of one inside another once."""

    def __init__(self) -> None:
        self.wall, self.cpu, self.inside = 0.0, 0.0, False

    def timed(self, function: Any) -> Any:
        """The function, with its time counted."""

        def inner(*arguments: Any, **options: Any) -> Any:
            if self.inside:
                return function(*arguments, **options)
            self.inside, wall, cpu = True, time.perf_counter(), time.process_time()
            try:
                return function(*arguments, **options)
            finally:
                self.inside, self.wall, self.cpu = False, self.wall + time.perf_counter() - wall, self.cpu + time.process_time() - cpu

        return inner


def measure(folder: Path, upto: int, fresh: bool, at: tuple[int, ...] = AT) -> None:
    """Learn up to so many sessions, and tell what the last one took wherever that is asked."""
    import cl.evaluation.ask
    import cl.reports.report
    import flows.line.entered
    import flows.line.verdict
    from flows.history.conclude import conclude
    from flows.history.entries import history_of
    from flows.settings import Place
    from flows.tracking.runs import connect
    from flows.update import update

    counts, report = {"evaluations": 0}, Clock()
    real = cl.evaluation.ask.each_score

    def counted(method: Any, sets: Any, config: Any) -> Any:
        for score in real(method, sets, config):
            counts["evaluations"] += 1
            yield score

    cl.evaluation.ask.each_score = counted

    timed = report.timed
    flows.line.entered.report_of_line = timed(flows.line.entered.report_of_line)  # the report: its numbers, its curves, and its pages
    flows.line.entered._charts = timed(flows.line.entered._charts)
    cl.reports.items.whole = timed(lambda report, whole=cl.reports.items.whole: list(whole(report)))
    flows.line.verdict.page = timed(flows.line.verdict.page)
    config, place = str(folder / "growing.yaml"), Place(folder)
    results = folder / "growth.jsonl"
    while (done := len(conclude(history_of(place, "growing").read()).line)) < upto + 1:
        target = next((place for place in at if place > done), upto + 1)
        step = 1 if done in at or target - done == 1 else min(target - done, 50)
        have = len(list((folder / "data" / "inbox").glob("[0-9]*"))) if (folder / "data").exists() else 0
        for number in range(have + 1, done + step + 1):
            arrive(folder, number, fresh)
        counts["evaluations"], report.wall, report.cpu = 0, 0.0, 0.0
        whole, idle = Clock(), Clock()
        whole.timed(update)(config)
        if done in at:
            asked = counts["evaluations"]
            idle.timed(update)(config)
            client = connect(place)
            runs = len(client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=50_000))
            line = {"sessions": done, "update_s": whole.wall - report.wall, "update_cpu_s": whole.cpu - report.cpu}
            line |= {"report_s": report.wall, "report_cpu_s": report.cpu, "idle_s": idle.wall, "idle_cpu_s": idle.cpu}
            line |= {"evaluations": asked, "runs": runs}
            with results.open("a") as file:
                file.write(json.dumps(line) + "\n")
            print(line, flush=True)
        else:
            print(f"{done + step} learned, {whole.wall / step:.2f} s each", flush=True)


if __name__ == "__main__":
    main()
