"""Packs a store of states, two sessions each, as a checkout leaves them: PYTHONPATH=CHECKOUT python make.py OUT.

Written for the code of 3e6a67d, the last before methods were made of parts.
"""

import json
import sys
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import torch
from cases import ASKED, CASES, HALF, TOWERS, TRAIN, method
from cl.clip import ModelConfig, build, load
from cl.learner import Learned, learn
from cl.states import Origin, keep_state

from cl.config import TrainConfig
from cl.data import concat
from cl.methods import CONFIGS
from tests import make


def answers(learner):
    pixels = make.table(ASKED, 1, seed=7)
    images = torch.stack([learner.clip.transform()(pixels.image(row)) for row in range(len(ASKED))])
    with torch.no_grad():
        return learner.eval().classify(images, learner.class_features(make.names(ASKED))).tolist()


def hidden(session):
    rows = session.data
    even, odd = range(0, len(rows), 2), range(1, len(rows), 2)
    return replace(session, data=concat([rows.take(even), rows.take(odd).without("label")]))


def main(out):
    store = Path(tempfile.mkdtemp())
    clip = build(TOWERS, {"mean": [0.5] * 3, "std": [0.5] * 3, "interpolation": "bicubic", "resize_mode": "squash"}, seed=0)
    with torch.no_grad():
        used = clip.tokenize([each.prompts[0] for each in make.names(range(8))]).unique()
        values = clip.model.token_embedding.weight[used].clone()
        clip.model.token_embedding.weight.zero_()[used] = values  # all others: random numbers hardly shrink
    clip.save(store / "base")
    told = {}
    for case, settings in CASES.items():
        name = method(case)
        learner = CONFIGS[name](**settings).build(load(ModelConfig(name=f"local-dir:{store / 'base'}")), 0)
        for index, session in enumerate(make.stream((0, 1), (2, 3), each=6).sessions, 1):
            learn(learner, hidden(session) if name in HALF else session, TrainConfig(**TRAIN), 0)
            parent = f"{case}-1" if index > 1 else None
            keep_state(store, f"{case}-{index}", learner, Learned(2, 12, 0.0, 0), [], Origin(name, parent, session.name, index))
            told[f"{case}-{index}"] = answers(learner)
    (store / "answers.json").write_text(json.dumps(told))
    with tarfile.open(out, "w:xz", preset=9) as packed:
        for part in ("base", "states", "answers.json"):
            packed.add(store / part, part)


main(sys.argv[1])
