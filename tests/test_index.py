"""What a session of aerial photographs does to an index of everyday ones, on the real model and data, and what `regress` keeps of it.

Needs the photo model and Flickr8k and RSICD in a sibling folder `shared`, or where EVERGREEN_SHARED says; a few minutes.
"""

import os
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
import torch

from cl.data.table import ImageTable
from cl.evaluation.evaluate import image_features, retrieval
from cl.learning.learner import learn
from cl.methods import Method
from cl.run import parse_config, plan
from cl.run_config import train_config

SHARED = Path(os.environ.get("EVERGREEN_SHARED", Path(__file__).parents[2] / "shared"))
MODEL, DATA = SHARED / "models" / "photo_mnv2", SHARED / "data"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.shared,
    pytest.mark.skipif(
        not (MODEL.is_dir() and (DATA / "rsicd").is_dir()), reason="needs the photo model and its data sets beside the project"
    ),
]


class Vectors(NamedTuple):
    """Of a set: its images, its texts, and whose each text is."""

    images: np.ndarray
    texts: np.ndarray
    owner: np.ndarray


@torch.no_grad()
def vectors(method: Method, data: ImageTable, config: Any) -> Vectors:
    texts = [text for captions in data.captions for text in captions]
    made = [method.clip.encode_text(method.clip.tokenize(texts[start : start + 256])) for start in range(0, len(texts), 256)]
    owner = np.repeat(np.arange(len(data)), [len(captions) for captions in data.captions])
    return Vectors(image_features(method, data, config), torch.cat(made).numpy(), owner)


def found(images: Vectors, texts: Vectors, way: str) -> float:
    """R@10 in per cent, of one model's images by another's texts."""
    return 100 * retrieval(images.images @ texts.texts.T, texts.owner).metrics[f"{way}@10"]


def test_fine_tuning_breaks_an_index_of_texts_and_re_embedding_hurts_and_regression_keeps_it() -> None:
    tree = {
        "name": "index",
        "model": {"name": f"local-dir:{MODEL}"},
        "threads": 1,
        "stream": {
            "kind": "listed",
            "name": "photos",
            "sources": {"flickr8k": "flickr8k", "rsicd": "rsicd"},
            "supervision": "captions",
            "test_limit": 500,
            "sessions": [{"name": "photographs", "source": "flickr8k"}, {"name": "aerial", "source": "rsicd"}],
        },
        "train": {"max_steps": 30, "batch_size": 64, "lr": 1e-4, "weight_decay": 0.01, "warmup": 0.1, "drop_last": True, "device": "cpu"},
    }
    regress = {"name": "recipe", "terms": ["clip", {"kind": "regress", "weight": 40.0}]}
    made = {}
    for label, method in (("before", "zero_shot"), ("finetune", "finetune"), ("regress", regress)):
        planned = plan(parse_config(tree | {"method": method}, "test"), DATA, "v1")
        learner, session = planned.build(), planned.stream.sessions[1]
        if label != "before":
            learn(learner, session, train_config(planned.config, session), 0)
        sets = [examined.data for each in planned.stream.sessions for examined in each.tests]
        assert [len(each) for each in sets] == [500, 500]
        made[label] = [vectors(learner.eval(), each, planned.config.evaluate) for each in sets]
    photographs, aerial = ({label: sets[place] for label, sets in made.items()} for place in (0, 1))
    old = photographs["before"]
    broken, kept = (found(old, old, "i2t") - found(photographs[label], old, "i2t") for label in ("finetune", "regress"))
    assert broken > 10 and kept < 5, (broken, kept)  # an image of now among texts of then
    regret = [
        found(each["finetune"], each["finetune"], "t2i") - found(each["before"], each["finetune"], "t2i") for each in (photographs, aerial)
    ]
    assert regret[0] < -5 and regret[1] > 0, regret  # what re-embedding would gain: the index remembers what the model forgot
