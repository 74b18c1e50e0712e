"""Presets on the streams of RESULTS.md, heads first: settings searched on held-out images, then three seeds on test images.

    python bench/presets.py FOLDER retention --data SETS --search [--only LABEL ...]  # five tries each, more where the best is at an end
    python bench/presets.py FOLDER retention --data SETS [--only LABEL ...]           # each at its best, with its seeds; the table
    python bench/presets.py FOLDER retention --data SETS --table                      # what was measured so far

They stand in presets.yaml, the streams in flows/configs/results. No head moves the model, so the features of an image are computed once for
all heads and all tries, and kept in FOLDER. What is best is the mean of the last row over all sets, as in results.py; each number is
written as it is found, and started again, the script goes on.
"""

import argparse
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, nullcontext
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple
from unittest.mock import patch
from weakref import WeakKeyDictionary

import numpy as np
from results import HERE, Kept, at_scale, cell, methods

TRIES = 5
COLUMNS = ("last", "average", "learned", "forgetting", "zero_shot_drop")


class Stream(NamedTuple):
    """The config of a stream, what is set of it otherwise, where settings are chosen, and whose search holds here too."""

    config: str
    labels: tuple[str, ...]
    settings: tuple[str, ...] = ()
    held_out: str = "held_out"
    carried: str = ""


HEADS = ("zero_shot", "ncm", "slda", "gda auto", "gda", "ridge auto", "ridge", "tip_adapter", "tip", "tip_adapter_f")
PROBES = ("linear_probe", "real_linear")
STEPS = "train.max_steps=100"  # as prompts take a round
UNSET = ("zero_shot", "ncm", "gda auto", "ridge auto", "tip_adapter", "gda em")  # nothing to search
CLASSES = ("stream.labelled={classes: 0.62}",)
BARE = ("stream.labelled=null", "stream.supervision=none")
HELD = ("mod_x", "lwf", "lwf_vr_zscl", "wise_ft")
MADE = ("finetune", "ewc", "vr_lwf", "replay", "vr_lwf + ewc", "replay + l2")  # of parts, as in results.yaml
STREAMS = {
    "glyphs": Stream("glyphs", ("finetune", *HELD, "zscl")),
    "photos": Stream("photos", ("lwf_vr_zscl", "long_clip"), held_out="val"),
    "retention": Stream(
        "retention", (*HEADS, *PROBES, "caps_adapter", "ridge on 10,000 features", "rail", "retrieve_then_align", *HELD, "zscl every 6")
    ),
    "scenes": Stream("scenes", (*HEADS, *PROBES)),
    "aerial": Stream("aerial", ("zero_shot",), held_out="val"),
    "fewshot": Stream("fewshot_mini_imagenet", (*HEADS, *PROBES, *MADE)),
    "semi": Stream("pseudolabels_photos", (*HEADS, *PROBES, "gda em"), (STEPS,)),
    "transductive": Stream("pseudolabels_photos", (*HEADS, *PROBES, "gda em"), (*CLASSES, STEPS), carried="semi"),
    "unsupervised": Stream("pseudolabels_photos", ("zero_shot", "gda em"), BARE, carried="semi"),
    "semi_glyphs": Stream("pseudolabels_glyphs", UNSET),
    "transductive_glyphs": Stream("pseudolabels_glyphs", UNSET, CLASSES),
    "unsupervised_glyphs": Stream("pseudolabels_glyphs", ("zero_shot", "gda em"), BARE),
}


@cache
def presets() -> dict[str, dict[str, Any]]:
    """All of them by label; one without a method of its own is what results.yaml has under its label."""
    from cl.plain_yaml import parse

    named: dict[str, dict[str, Any]] = parse((HERE / "presets.yaml").read_text(encoding="utf-8"), "presets.yaml")
    return {
        label: {"method": methods()[label] | {"name": "recipe"}, **preset} if "method" not in preset else preset
        for label, preset in named.items()
    }


def at(preset: dict[str, Any], value: Any) -> dict[str, Any]:
    """The method with what is searched at a value."""
    vary, method = preset.get("vary"), dict(preset["method"])
    if vary is None or value is None:
        return method
    if vary == "lr":
        return method | {"train": {"lr": value}}
    if vary == "scale":
        return at_scale(method, value)
    return method | (dict(zip(vary, value, strict=True)) if isinstance(vary, list) else {vary: value})


def onward(preset: dict[str, Any], scores: dict[int, float]) -> list[int]:
    """Places of `among` that are to be tried next: the first tries, then beyond the end at which the best stands, until it stands inside.

    >>> preset = {"among": "abcdefgh", "first": 1}
    >>> onward(preset, {}), onward(preset, {1: 0.2, 2: 0.1, 3: 0, 4: 0, 5: 0}), onward(preset, {0: 0.1, 1: 0.2, 2: 0, 3: 0, 4: 0, 5: 0})
    ([1, 2, 3, 4, 5], [0], [])
    """
    places, first = range(len(preset.get("among", [None]))), preset.get("first", 0)
    if missing := [place for place in places[first : first + TRIES] if place not in scores]:
        return missing
    best = max(scores, key=lambda place: scores[place])
    beyond = {max(scores): best + 1, min(scores): best - 1}.get(best)
    return [beyond] if beyond in places and len(scores) > 1 else []


class Once:
    """Image features in place of pixels: computed by the first head that asks, kept by table."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.known: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
        folder.mkdir(parents=True, exist_ok=True)

    def of(self, clip: Any, data: Any) -> Any:
        """Row i: the features of row i of a table."""
        from safetensors.torch import load_file, save_file

        from cl.methods.features import encoded

        if data not in self.known:
            path = self.folder / f"{clip.digest()[:12]}-{data.digest()[:24]}.safetensors"
            if not path.exists():
                with patch("cl.methods.features.pixels", self.plain):
                    features = encoded(clip.encode_image, clip, data)
                save_file({"features": features.contiguous()}, path.with_suffix(".part"))
                path.with_suffix(".part").replace(path)
            self.known[data] = load_file(path)["features"]
        return self.known[data]

    def __enter__(self) -> "Once":
        from cl.methods import features
        from cl.models.clip import Clip

        self.plain, self.patches, encode = features.pixels, ExitStack(), Clip.encode_image

        def encode_image(clip: Any, images: Any, prompts: Any = None) -> Any:
            return images if images.ndim == 2 and prompts is None else encode(clip, images, prompts)

        def pixels(clip: Any, data: Any, size: int = 256) -> Iterator[Any]:
            yield from self.of(clip, data).split(size)

        def images_of(method: Any, data: Any, config: Any) -> Iterator[Any]:
            yield from self.of(method.clip, data).split(config.batch_size)

        for name, stand_in in (
            ("cl.models.clip.Clip.encode_image", encode_image),
            ("cl.methods.features.pixels", pixels),
            ("cl.evaluation.evaluate.images_of", images_of),
        ):
            self.patches.enter_context(patch(name, stand_in))
        return self

    def __exit__(self, *error: object) -> None:
        self.patches.close()


class Presets(Kept):
    """One stream, and what was found of presets on it so far."""

    def __init__(self, folder: Path, stream: str, data: Path) -> None:
        super().__init__(folder, f"{stream}.presets")
        self.stream, self.data, self.once = STREAMS[stream], data, Once(folder / "features")
        self.presets = {label: preset for label, preset in presets().items() if label in self.stream.labels}
        self.searched = Presets(folder, self.stream.carried, data) if self.stream.carried else self

    def matrix(self, preset: dict[str, Any], value: Any, settings: Sequence[str], *, last: bool = False) -> dict[str, Any]:
        """All rows of one run, or the last alone; how many images each set has, and what the method chose for itself."""
        from cl.config import override, read_yaml
        from cl.evaluation.evaluate import evaluate, headline, headline_row
        from cl.learning.host import threads
        from cl.learning.learner import learn
        from cl.run import parse_config, plan
        from cl.run_config import train_config

        tree = read_yaml(HERE.parent / "flows/configs/results" / f"{self.stream.config}.yaml")
        tree = {name: part for name, part in tree.items() if name != "compare"} | {"method": at(preset, value)}
        for each in (*self.stream.settings, *preset.get("stream", ()), *settings):
            tree = override(tree, [each])
        made = plan(parse_config(tree, self.name), self.data, self.name)
        sets, learner, started, rows = made.stream.exam(0), made.build(), time.process_time(), []
        with threads(made.config.threads), nullcontext() if preset.get("moves") else self.once:
            for after in range(len(made.stream.sessions) + 1):
                if after:
                    session = made.stream.sessions[after - 1]
                    learn(learner, session, train_config(made.config, session), made.config.seed)
                if not last or after == len(made.stream.sessions):
                    scores = evaluate(learner if after else made.frozen(), made.stream.exam(after), made.config.evaluate)
                    rows.append(list(headline_row({name: score.metrics for name, score in scores.items()}, headline(sets))))
        own = {"penalty": learner.penalty()} if hasattr(learner, "penalty") else {}
        told = {"sets": [each.name for each in sets], "taught": list(made.stream.taught), "sizes": [len(each.data) for each in sets]}
        return {"rows": rows, **told, **own, "seconds": round(time.process_time() - started, 1)}

    def search(self, asked: Sequence[str]) -> None:
        """The tries that are not there yet, on images that neither teach nor test."""
        for label in asked:
            preset = self.presets[label]
            among = preset.get("among", [None])
            while not {"carried", "dear"} & set(preset) and (places := onward(preset, self.scores(label))):
                for place in places:
                    held = [f"stream.test_split={self.stream.held_out}", "seed=0"]
                    found = self.matrix(preset, among[place], held, last=True)
                    mean = float(np.mean(found["rows"][-1]))
                    self.tell("search", f"{label} {among[place]}", label=label, place=place, mean=mean, seconds=found["seconds"])

    def scores(self, label: str) -> dict[int, float]:
        """What was found of a preset on held-out images, by the place of what was tried."""
        return {entry["place"]: entry["mean"] for entry in self.told("search").values() if entry["label"] == label}

    def best(self, label: str) -> Any:
        """The value that did best on held-out images; nothing where nothing is searched."""
        own = presets()[label].get("carried", label)
        scores, among = self.searched.scores(own), presets()[own].get("among", [None])
        return among[max(scores, key=lambda place: scores[place])] if scores else None

    def measure(self, asked: Sequence[str], seeds: Sequence[int]) -> None:
        """Every seed of each, of those that have none the first."""
        for label in asked:
            preset, value = self.presets[label], self.best(label)
            varied = {"vary": presets()[preset.get("carried", label)].get("vary"), **preset}
            for seed in seeds if preset.get("seeded") or preset.get("moves") else seeds[:1]:
                key = f"{label} {value} seed {seed}"
                if key not in self.told("measured"):
                    self.tell("measured", key, label=label, value=value, seed=seed, **self.matrix(varied, value, [f"seed={seed}"]))

    def table(self) -> None:
        """Rows in the order of presets.yaml, and what the search found."""
        from cl.evaluation.matrix import Matrix, seen_accuracy, summary

        print("| preset | last row | first, last, Avg, PD | " + ", ".join(COLUMNS) + " | all |")
        for label in self.presets:
            value = self.best(label)
            entries = [each for each in self.told("measured").values() if (each["label"], each["value"]) == (label, value)]
            if not entries:
                continue
            made = [Matrix(np.array(each["rows"]), tuple(each["sets"]), tuple(each["taught"])) for each in entries]
            seen = [np.array(seen_accuracy(each, entry["sizes"])) for each, entry in zip(made, entries, strict=True)]
            fewshot = [cell(each) for each in zip(*((s[0], s[-1], s.mean(), s[0] - s[-1]) for s in seen), strict=True)]
            sums = [cell([summary(each)[column] for each in made]) for column in COLUMNS]
            sets = " ".join(cell(each) for each in zip(*(each.rows[-1] for each in made), strict=True)) if len(made[0].sets) < 6 else "–"
            own = " ".join(f"{each['penalty']:g}" for each in entries if "penalty" in each)
            print(f"| {label} {value or ''} {own} | {sets} | {' | '.join(fewshot)} | {' | '.join(sums)} | ", end="")
            every, seconds = cell([float(each.rows[-1].mean()) for each in made]), np.mean([each["seconds"] for each in entries])
            print(f"{every} | {len(made)} | {seconds:.0f} s |")
        for label in self.presets:
            scores, among = self.scores(label), self.presets[label].get("among", [None])
            if scores:
                print(f"{label}: " + ", ".join(f"{among[place]} {100 * scores[place]:.1f}" for place in sorted(scores)))


def main() -> None:
    """As the page says."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("stream", choices=STREAMS)
    parser.add_argument("--data", type=Path, required=True, help="folder of the data sets")
    parser.add_argument("--search", action="store_true")
    parser.add_argument("--table", action="store_true")
    parser.add_argument("--only", nargs="+", choices=presets())
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    given = parser.parse_args()

    from cl.learning.host import keep_memory, quiet

    keep_memory()
    bench = Presets(given.folder, given.stream, given.data)
    asked = [label for label in bench.presets if not given.only or label in given.only]
    with quiet():
        if given.search:
            bench.search(asked)
        elif not given.table:
            bench.measure(asked, given.seeds)
    bench.table()


if __name__ == "__main__":
    main()
