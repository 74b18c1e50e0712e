"""What each objective learns, and what it costs of what was known: the shipped model, which reads Latin, after 40 steps of Greek.

    python bench/objectives.py FOLDER [--seeds 0 1 2] [--only LABEL ...] [--lr 3e-4]

Top-1 on 134 Greek glyphs in a font that is not taught (new), and on 400 Latin glyphs in that font, among their own names (kept).
Batches of 64 of 683 images, AdamW at a constant rate after four steps of warm-up, each image paired with its name (`labels: pairs`)
unless the label says `prompts`: then it is cross-entropy over all 134 names. Nothing is searched. What is learned stays in FOLDER:
started again, it goes on.
"""

import argparse
import sys
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

TAUGHT = ("DejaVuSans", "DejaVuSans-Bold", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral", "STIXGeneralItalic")
UNSEEN = "DejaVuSans-Oblique"
CONFIG = """
name: objectives
model: {name: glyph_base}
threads: 1
stream:
  kind: domains
  sources: {glyphs: glyphs}
  supervision: labels
  template: "{}"
  candidates: own
  sessions: [{name: greek, domains: greek}]
  probes: [{name: latin, domains: latin}]
train: {max_steps: 40, batch_size: 64, schedule: constant, warmup: 0.1, weight_decay: 0.01, clip_grad: null, device: cpu}
evaluate: {geometry: 0}
"""
TERMS = {
    "clip": [{"kind": "clip"}],
    "clip 14.3": [{"kind": "clip", "scale": 14.3}],
    "infoloob": [{"kind": "infoloob"}],
    "infoloob 38": [{"kind": "infoloob", "scale": 38.0}],
    "cloob": [{"kind": "cloob"}],
    "siglip": [{"kind": "siglip"}],
    "siglip -10": [{"kind": "siglip", "scale": "model", "bias": -10.0}],
    "clip + gap": [{"kind": "clip"}, {"kind": "gap"}],
    "clip 14.3 + gap": [{"kind": "clip", "scale": 14.3}, {"kind": "gap"}],
    "clip + gap, crossed": [{"kind": "clip"}, {"kind": "gap", "cross": 1.0}],
    "clip + m2mix": [{"kind": "clip"}, {"kind": "m2mix"}],
    "clip 14.3 + m2mix": [{"kind": "clip", "scale": 14.3}, {"kind": "m2mix"}],
    "clip, prompts": [{"kind": "clip", "labels": "classify"}],
    "clip 14.3, prompts": [{"kind": "clip", "labels": "classify", "scale": 14.3}],
}


def glyphs() -> dict[str, Any]:
    """Greek in six fonts to teach, Greek and 400 Latin glyphs, evenly spread, in another to test."""
    from cl.data.glyphs import build

    tables = build((*TAUGHT, UNSEEN))
    test = tables["test"]
    latin = [row for row, domain in enumerate(test.domains) if domain == "latin"]
    chosen = {latin[place * len(latin) // 400] for place in range(400)}
    return {
        "train": tables["train"].where([domain == "greek" for domain in tables["train"].domains]),
        "test": test.where([domain == "greek" or row in chosen for row, domain in enumerate(test.domains)]),
    }


def main() -> None:
    """Learn what is not there yet, and print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--only", nargs="+", choices=TERMS, default=list(TERMS))
    parser.add_argument("--lr", type=float, default=3e-4)
    asked = parser.parse_args()

    from cl.config import override
    from cl.data.table import write
    from cl.plain_yaml import parse
    from cl.run import parse_config, plan, run

    data, store = asked.folder / "data", asked.folder / "store"
    if not (data / "glyphs").is_dir():
        write(glyphs(), data / "glyphs")
    scores: dict[str, list[tuple[float, float]]] = defaultdict(list)
    for seed in asked.seeds:
        for label in asked.only:
            terms = [{"labels": "pairs", **term} for term in TERMS[label]]
            tree = parse(CONFIG, "objectives") | {"method": {"name": "recipe", "terms": terms}, "seed": seed}
            matrix = run(plan(parse_config(override(tree, [f"train.lr={asked.lr}"]), label), data, "seven fonts"), store).matrix
            rows = {name: (float(matrix.rows[0, at]), float(matrix.rows[-1, at])) for at, name in enumerate(matrix.sets)}
            if not scores:
                print(f"before: new {rows['greek'][0]:.3f}, kept {rows['latin'][0]:.3f}", flush=True)
            scores[label].append((rows["greek"][1], rows["latin"][1]))
            print(f"{label}, seed {seed}: new {rows['greek'][1]:.3f}, kept {rows['latin'][1]:.3f}", file=sys.stderr, flush=True)
    print("| objective | new | kept |\n|---|---|---|")
    for label, pairs in scores.items():
        mean, spread = np.mean(pairs, 0), np.std(pairs, 0, ddof=1) if len(pairs) > 1 else (0.0, 0.0)
        print(f"| {label} | " + " | ".join(f"{each:.3f} ± {sd:.3f}" for each, sd in zip(mean, spread, strict=True)) + " |")


if __name__ == "__main__":
    main()
