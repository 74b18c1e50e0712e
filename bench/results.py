"""Methods and combinations of parts on the streams of RESULTS.md: settings searched on held-out images, then three seeds on test images.

    python bench/results.py FOLDER glyphs --smoke                      # every one from end to end, two steps a session
    python bench/results.py FOLDER glyphs --search [--only LABEL ...]  # two tries for each, then all six for those ahead
    python bench/results.py FOLDER glyphs [--only LABEL ...]           # three seeds of those ahead, at their best try; the table
    python bench/results.py FOLDER glyphs --table                      # what was measured so far
    python bench/results.py FOLDER photos --data SETS --search         # the other streams, those methods alone that STREAMS names
    python bench/results.py FOLDER aerial --data SETS                  # under settings that were searched on another stream

The methods stand in results.yaml, the streams in flows/configs/results. A try is a learning rate and a scale of the objective, the
temperature of its loss: three and two of them, alike for all. Both scales at the middle rate say who gets the other four tries: ten single
methods and ten combinations on glyphs, and fine-tuning; what falls out there is listed with its two tries. What is best: the mean of the
last row over all sets, taught and probes alike; where that is at the end of the rates, one more is tried. Each number is written as it is
found; started again, the script goes on, so that it can take as many sittings as it wants.
"""

import argparse
import json
import sys
from collections.abc import Sequence
from functools import cache
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

HERE = Path(__file__).parent
SCALES = {"clip": ("model", 14.3), "siglip": ("model", 14.3), "infoloob": (14.3, 30.0), "cloob": (14.3, 30.0)}  # each as many
PAIRED = {"infoloob", "cloob", "siglip", "gap"}  # objectives over pairs: of an image and its class's prompt, where rows have labels
COLUMNS = ("last", "average", "learned", "forgetting", "zero_shot_drop")


class Stream(NamedTuple):
    """Where a stream's settings are chosen, among which learning rates, which methods are tried there, and how many get ahead."""

    held_out: str
    rates: tuple[float, ...]
    labels: tuple[str, ...] = ()  # all
    ahead: int = 6
    carried: str = ""  # the stream whose search holds here too


# A run on photographs takes minutes: there what was best on glyphs is tried, and what was best there before. In one session
# nothing is replayed, EWC has no earlier session whose weights it could hold, and a MobileNet has nothing that LoRA enters.
PHOTOS = "finetune, ewc, replay, vr_lwf, replay + l2, replay + ties, vr_lwf + replay"
RETENTION = "finetune, vr_lwf, wise_ft, infoloob, vr_lwf + wise, vr_lwf + infoloob, mod_x + vr_lwf"
SCENES = "finetune, ewc, vr_lwf, replay, vr_lwf + ewc, replay + l2"
AERIAL = "finetune, ewc, vr_lwf, replay, vr_lwf + replay, replay + l2"
STREAMS = {
    "glyphs": Stream("held_out", (3e-4, 1e-3, 3e-3), ahead=10),
    "photos": Stream("val", (3e-5, 1e-4, 3e-4), tuple(PHOTOS.split(", ")), 1),
    "retention": Stream("held_out", (3e-5, 1e-4, 3e-4), tuple(RETENTION.split(", ")), 1),
    "scenes": Stream("held_out", (3e-5, 1e-4, 3e-4), tuple(SCENES.split(", ")), carried="retention"),
    "aerial": Stream("val", (3e-5, 1e-4, 3e-4), tuple(AERIAL.split(", ")), carried="photos"),
}


@cache
def groups() -> dict[str, dict[str, dict[str, Any]]]:
    """Single methods and combinations, each by label."""
    from cl.plain_yaml import parse

    named: dict[str, dict[str, dict[str, Any]]] = parse((HERE / "results.yaml").read_text(encoding="utf-8"), "results.yaml")
    return named


def methods() -> dict[str, dict[str, Any]]:
    """All methods by label."""
    return {label: method for group in groups().values() for label, method in group.items()}


def at_scale(method: dict[str, Any], at: int) -> dict[str, Any]:
    """The same as settings, with every objective at its first or second scale."""
    terms = [{"kind": term} if isinstance(term, str) else dict(term) for term in method["terms"]]
    for term in terms:
        if term["kind"] in SCALES:
            term["scale"] = SCALES[term["kind"]][at]
        if term["kind"] in PAIRED:
            term["labels"] = "pairs"
    return method | {"name": "recipe", "terms": terms}


def cell(values: Sequence[float]) -> str:
    """Mean and standard deviation over seeds in percent; a dash where there is none.

    >>> cell([0.5, 0.25]), cell([0.5]), cell([float("nan")])
    ('37.5 ± 17.7', '50.0 ± 0.0', '–')
    """
    there = [100 * each for each in values if not np.isnan(each)]
    return f"{np.mean(there):.1f} ± {np.std(there, ddof=1) if len(there) > 1 else 0:.1f}" if there else "–"


class Kept:
    """Numbers that are kept as they are found: one line each, in a file for each kind."""

    def __init__(self, folder: Path, name: str) -> None:
        self.folder, self.name = folder, name
        folder.mkdir(parents=True, exist_ok=True)

    def told(self, what: str) -> dict[str, dict[str, Any]]:
        """What was found so far, by key."""
        path = self.folder / f"{self.name}.{what}.jsonl"
        lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
        return {entry["key"]: entry for entry in map(json.loads, lines)}

    def tell(self, what: str, key: str, **value: Any) -> None:
        """Keep one number."""
        with (self.folder / f"{self.name}.{what}.jsonl").open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": key, **value}) + "\n")
        print(key, value, file=sys.stderr, flush=True)


class Bench(Kept):
    """One stream, and what was found on it so far."""

    def __init__(self, folder: Path, stream: str, data: Path) -> None:
        super().__init__(folder, stream)
        self.stream, self.data = STREAMS[stream], data

    def rows(self, label: str, method: dict[str, Any], settings: list[str], *, last: bool) -> Any:
        """The matrix of one run; of its last row alone where that is all that is asked for, with the start's in front."""
        from cl.config import override, read_yaml
        from cl.evaluation.evaluate import evaluate, headline, headline_row
        from cl.evaluation.matrix import Matrix
        from cl.learning.host import threads
        from cl.learning.learner import learn
        from cl.run import parse_config, plan
        from cl.run_config import train_config

        config = HERE.parent / "flows/configs/results" / f"{self.name}.yaml"
        tree = read_yaml(config)
        tree = override({name: part for name, part in tree.items() if name != "compare"} | {"method": method}, settings)
        made = plan(parse_config(tree, label), self.data, self.name)
        sessions, names = made.stream.sessions, headline(made.stream.exam(0))
        learner = made.build()

        def row(after: int) -> list[float]:
            scores = evaluate(learner, made.stream.exam(after), made.config.evaluate)
            return list(headline_row({name: score.metrics for name, score in scores.items()}, names))

        with threads(made.config.threads):
            scored = [] if last else [row(0)]
            for after, session in enumerate(sessions, 1):
                learn(learner, session, train_config(made.config, session), made.config.seed)
                scored += [row(after)] if not last or after == len(sessions) else []
        return scored[-1] if last else Matrix(np.array(scored), tuple(names), made.stream.taught)

    def search(self, asked: dict[str, dict[str, Any]]) -> None:
        """The tries that are not there yet, on images that neither teach nor test: two for all, the others for the best."""
        middle = self.stream.rates[1:2]
        self._try(asked, middle)
        if len(self.tried(1)) == len(self.stream.labels or methods()):
            ahead = self.ahead()
            self._try({label: method for label, method in asked.items() if label in ahead}, self.stream.rates)
            for label, best in self.best().items():  # where the grid ends at its best value it goes on
                ends = {self.stream.rates[0]: self.stream.rates[0] / 3, self.stream.rates[-1]: 10 * self.stream.rates[-1] / 3}
                if label in asked and best["rate"] in ends:
                    self._try({label: asked[label]}, (float(f"{ends[best['rate']]:.1g}"),))

    def _try(self, asked: dict[str, dict[str, Any]], rates: tuple[float, ...]) -> None:
        for label, (rate, scale) in product(asked, product(rates, (0, 1))):
            key = f"{label} lr {rate:g} scale {scale}"
            if key not in self.told("search"):
                held = [f"stream.test_split={self.stream.held_out}", f"train.lr={rate}", "seed=0"]
                row = self.rows(label, at_scale(asked[label], scale), held, last=True)
                self.tell("search", key, label=label, rate=rate, scale=scale, mean=float(np.mean(row)))

    def tried(self, rates: int) -> dict[str, dict[str, Any]]:
        """The best try of every method that was tried at so many learning rates, best first."""
        tries: dict[str, list[dict[str, Any]]] = {}
        for entry in self.told("search").values():
            tries.setdefault(entry["label"], []).append(entry)
        best = {label: max(each, key=lambda entry: entry["mean"]) for label, each in tries.items() if len(each) >= 2 * rates}
        return dict(sorted(best.items(), key=lambda row: -row[1]["mean"]))

    def ahead(self) -> list[str]:
        """Fine-tuning, the best single methods and the best combinations of the first two tries."""
        middle = [entry for entry in self.told("search").values() if entry["rate"] == self.stream.rates[1]]
        ranked = list(dict.fromkeys(entry["label"] for entry in sorted(middle, key=lambda entry: -entry["mean"])))
        singles, combined = ([label for label in ranked if label in group] for group in groups().values())
        return list(dict.fromkeys(["finetune", *singles[: self.stream.ahead], *combined[: self.stream.ahead]]))

    def best(self) -> dict[str, dict[str, Any]]:
        """The best try of each that is ahead, of those that all of them had and of those beyond; without a search, of the one it takes."""
        if self.stream.carried:
            other = Bench(self.folder, self.stream.carried, self.data)
            tries = [each for each in other.told("search").values() if each["rate"] == self.stream.rates[1]]
            first = {each["label"]: each for each in sorted(tries, key=lambda entry: float(entry["mean"]))}
            return {label: first.get(label, first["finetune"]) | {"label": label, "tries": 2} for label in self.stream.labels}
        tries = list(self.told("search").values())
        had = [{(each["rate"], each["scale"]) for each in tries if each["label"] == label} for label in self.ahead()]
        common = set.intersection(*had)
        alike = [each for each in tries if (each["rate"], each["scale"]) in common or each["rate"] not in self.stream.rates]
        own = {label: [each for each in alike if each["label"] == label] for label in self.ahead()}
        return {label: max(each, key=lambda entry: entry["mean"]) | {"tries": len(each)} for label, each in own.items()}

    def measure(self, asked: dict[str, dict[str, Any]], seeds: list[int]) -> None:
        """Every seed of each that is ahead."""
        from cl.evaluation.matrix import summary

        for seed, (label, best) in product(seeds, self.best().items()):
            chosen = {name: best[name] for name in ("label", "rate", "scale", "tries")}
            key = f"{label} lr {best['rate']:g} scale {best['scale']} seed {seed}"
            if label in asked and key not in self.told("measured"):
                settings = [f"train.lr={best['rate']}", f"seed={seed}"]
                matrix = self.rows(label, at_scale(asked[label], best["scale"]), settings, last=False)
                self.tell("measured", key, **chosen, row=matrix.rows[-1].tolist(), **summary(matrix))

    def table(self) -> None:
        """Rows by label, best mean over all sets first, an end of the grid marked; then what only had the first two tries."""
        best = self.best()
        chosen = [
            each
            for each in self.told("measured").values()
            if (each["rate"], each["scale"]) == (best[each["label"]]["rate"], best[each["label"]]["scale"])
        ]
        print(f"| method | rate, scale | {' | '.join(COLUMNS)} | all sets | seeds |\n|---|---|{'---:|' * (len(COLUMNS) + 2)}")
        rows = {label: [each for each in chosen if each["label"] == label] for label in dict.fromkeys(each["label"] for each in chosen)}
        for label, seeds in sorted(rows.items(), key=lambda row: -np.mean([each["row"] for each in row[1]])):
            scores = [[each.get(column, np.nan) for each in seeds] for column in COLUMNS]
            cells = [cell(each) for each in (*scores, [float(np.mean(each["row"])) for each in seeds])]
            rates = [each["rate"] for each in self.told("search").values() if each["label"] == label]
            end = "*" if len(set(rates)) > 1 and seeds[0]["rate"] in (min(rates), max(rates)) else ""
            print(f"| {label} | {seeds[0]['rate']:g}{end}, {seeds[0]['scale']} | {' | '.join(cells)} | {len(seeds)} |")
        if self.stream.carried:
            return
        print("\nOn held-out images, at the best of the two tries that say who is ahead: ", end="")
        print(", ".join(f"{label} {100 * best['mean']:.1f}" for label, best in self.tried(1).items()))


def main() -> None:
    """As the page says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stream", choices=STREAMS)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--data", type=Path, help="folder of the data sets of photos and retention")
    parser.add_argument("--only", nargs="+", choices=methods())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    asked = {label: methods()[label] for label in given.only or STREAMS[given.stream].labels or methods()}

    from cl.data.glyphs import build
    from cl.data.table import write
    from cl.learning.host import keep_memory, quiet

    keep_memory()
    data = given.data or given.folder / "data"
    if given.stream == "glyphs" and not (data / "glyphs").is_dir():
        write(build(), data / "glyphs")
    bench = Bench(given.folder, given.stream, data)
    with quiet():
        if given.smoke:
            small = ["train.max_steps=2", "train.batch_size=8", "stream.test_limit=50"]
            for label, method in asked.items():
                print(f"{label}: last row {np.mean(bench.rows(label, at_scale(method, 0), small, last=True)):.3f}", flush=True)
        elif given.search:
            bench.search(asked)
        elif not given.table:
            bench.measure(asked, given.seeds)
        if not given.smoke and not given.search:
            bench.table()


if __name__ == "__main__":
    main()
