"""Combinations of parts against single methods on the glyph stream: settings searched on held-out images, then three seeds on test images.

    python bench/combinations.py FOLDER --smoke                  # every one from end to end, two steps a session
    python bench/combinations.py FOLDER --search [--only NAME]   # six tries each: three learning rates, at two scales of the objective
    python bench/combinations.py FOLDER [--only NAME]            # three seeds, with what the search found best; prints the table

The stream is that of results/glyphs (RESULTS.md, a). What is best: the mean of the last row over all sets, taught and probes alike. What
is learned stays in FOLDER: started again, it goes on, so that it can be measured over many sittings.
"""

import argparse
import json
import sys
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np

RATES = (3e-4, 1e-3, 3e-3)
SCALES = {"clip": ("model", 14.3), "siglip": ("model", 14.3), "infoloob": (14.3, 30.0), "cloob": (14.3, 30.0)}  # each as many
PAIRED = {"infoloob", "cloob", "siglip", "gap"}  # objectives over pairs: of an image and its class's prompt, where rows have labels
HERE = Path(__file__).parent


def methods() -> dict[str, dict[str, Any]]:
    """All methods by label."""
    from cl.plain_yaml import parse

    named = parse((HERE / "combinations.yaml").read_text(encoding="utf-8"), "combinations.yaml")
    return named["singles"] | named["combinations"]


def at_scale(method: dict[str, Any], at: int) -> dict[str, Any]:
    """The same as settings, with every objective at its first or second scale."""
    terms = [{"kind": term} if isinstance(term, str) else dict(term) for term in method["terms"]]
    for term in terms:
        if term["kind"] in SCALES:
            term["scale"] = SCALES[term["kind"]][at]
        if term["kind"] in PAIRED:
            term["labels"] = "pairs"
    return method | {"name": "recipe", "terms": terms}


def matrix_of(folder: Path, label: str, method: dict[str, Any], settings: list[str]) -> Any:
    """The matrix of one run, found or learned."""
    from cl.config import override
    from cl.plain_yaml import parse
    from cl.run import parse_config, plan, run

    tree = parse((HERE.parent / "flows/configs/results/glyphs.yaml").read_text(encoding="utf-8"), "glyphs.yaml")
    tree = override({name: part for name, part in tree.items() if name != "compare"} | {"method": method}, settings)
    return run(plan(parse_config(tree, label), folder / "data", "glyphs"), folder / "store").matrix


def told(path: Path) -> dict[str, Any]:
    """What was found so far, by key."""
    lines = path.read_text(encoding="utf-8").splitlines() if path.exists() else []
    return {entry.pop("key"): entry for entry in map(json.loads, lines)}


def tell(path: Path, key: str, **found: Any) -> None:
    """Keep one finding."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"key": key, **found}) + "\n")
    print(key, found, file=sys.stderr, flush=True)


def search(folder: Path, asked: dict[str, dict[str, Any]]) -> None:
    """The six tries of each method that are not there yet, on a fifth of the training images that then does not teach."""
    done = told(folder / "search.jsonl")
    for label, (rate, scale) in product(asked, product(RATES, (0, 1))):
        key = f"{label} lr {rate:g} scale {scale}"
        if key not in done:
            held = ["stream.test_split=held_out", f"train.lr={rate}", "seed=0"]
            rows = matrix_of(folder, label, at_scale(asked[label], scale), held).rows
            tell(folder / "search.jsonl", key, label=label, rate=rate, scale=scale, mean=float(np.mean(rows[-1])))


def best(folder: Path, label: str) -> tuple[float, int] | None:
    """The learning rate and which scale of the best of six tries; nothing where they are not all there."""
    tries = [found for found in told(folder / "search.jsonl").values() if found["label"] == label]
    if len(tries) < len(RATES) * 2:
        return None
    found = max(tries, key=lambda each: each["mean"])
    return found["rate"], found["scale"]


def measure(folder: Path, asked: dict[str, dict[str, Any]], seeds: list[int]) -> None:
    """Three seeds of each method that was searched, and the table."""
    from cl.evaluation.matrix import summary

    done = told(folder / "measured.jsonl")
    for label, method in asked.items():
        chosen = best(folder, label)
        for seed in seeds if chosen else []:
            if (key := f"{label} seed {seed}") not in done:
                rate, scale = chosen  # type: ignore[misc]
                matrix = matrix_of(folder, label, at_scale(method, scale), [f"train.lr={rate}", f"seed={seed}"])
                tell(folder / "measured.jsonl", key, label=label, rate=rate, scale=scale, **summary(matrix))
    table(list(told(folder / "measured.jsonl").values()))


def table(found: list[dict[str, Any]]) -> None:
    """Rows by label, best last score first."""
    columns = ("last", "average", "learned", "forgetting", "zero_shot_drop")
    rows = {label: [each for each in found if each["label"] == label] for label in dict.fromkeys(each["label"] for each in found)}
    print(
        "| method | learning rate, scale (first 0, second 1) | "
        + " | ".join(columns)
        + " | seeds |\n|---|---|"
        + "---:|" * (len(columns) + 1)
    )
    for label, seeds in sorted(rows.items(), key=lambda row: -np.mean([each["last"] for each in row[1]])):
        scores = [[100 * each[column] for each in seeds if column in each] for column in columns]
        cells = [f"{np.mean(each):.1f} ± {np.std(each, ddof=1) if len(each) > 1 else 0:.1f}" if each else "–" for each in scores]
        print(f"| {label} | {seeds[0]['rate']:g}, {seeds[0]['scale']} | " + " | ".join(cells) + f" | {len(seeds)} |")


def main() -> None:
    """As the page says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smoke", action="store_true")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--only", nargs="+", choices=methods(), default=list(methods()))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()
    asked = {label: methods()[label] for label in given.only}

    from cl.data.glyphs import build
    from cl.data.table import write
    from cl.learning.host import keep_memory, quiet

    keep_memory()
    if not (given.folder / "data" / "glyphs").is_dir():
        write(build(), given.folder / "data" / "glyphs")
    with quiet():
        if given.smoke:
            small = ["train.max_steps=2", "train.batch_size=8", "stream.test_limit=50"]
            for label, method in asked.items():
                rows = matrix_of(given.folder, label, at_scale(method, 0), small).rows
                print(f"{label}: {len(rows) - 1} sessions, last row {np.mean(rows[-1]):.3f}", flush=True)
        elif given.search:
            search(given.folder, asked)
        else:
            measure(given.folder, asked, given.seeds)


if __name__ == "__main__":
    main()
