"""What the papers claim, in small: learning new glyphs, Mod-X and VR-LwF lose less of the old ones than fine-tuning does.

Directions, not the papers' numbers. Learning rates and Mod-X's alpha were chosen among a few for effects that are plain within
thirty steps; then every seed agreed of those tried, 0 to 7 with VR-LwF and 0 to 3 with Mod-X.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.data.glyphs import build
from cl.data.table import write
from cl.evaluation.evaluate import evaluate
from cl.evaluation.matrix import Matrix
from cl.learning.learner import learn
from cl.run import parse_config, plan, run
from cl.run_config import train_config

pytestmark = pytest.mark.slow

SEEDS = (0, 1, 2)
STREAM = {"kind": "domains", "sources": {"glyphs": "glyphs"}, "limit": 600, "test_limit": 200}
TRAIN = {"max_steps": 30, "batch_size": 32, "weight_decay": 0.01, "device": "cpu"}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    write(build(), root / "glyphs")
    return root


def matrices(data: Path, store: Path, stream: dict[str, Any], lr: float, method: Any, steps: int = 30, joint: bool = False) -> list[Matrix]:
    """One matrix per seed, of the shipped model that reads Latin."""
    tree = {"name": "behaviour", "model": {"name": "glyph_base"}, "threads": 1, "stream": STREAM | stream, "method": method, "joint": joint}
    tree["train"] = TRAIN | {"lr": lr, "max_steps": steps}
    return [run(plan(parse_config(tree | {"seed": seed}, "test"), data, "v1"), store).matrix for seed in SEEDS]


def scores(runs: list[Matrix], row: int, *sets: str) -> np.ndarray:
    """By seed the mean over the sets, after that many sessions."""
    return np.array([np.mean([matrix.rows[row, matrix.sets.index(name)] for name in sets]) for matrix in runs])


def assert_less(ours: np.ndarray, theirs: np.ndarray, what: str) -> None:
    """Less for every seed, and on average by more than twice the spread of what the seeds say."""
    less = theirs - ours
    told = f"{what}: {ours.round(3).tolist()} against {theirs.round(3).tolist()}, {less.mean():.3f} ± {less.std(ddof=1):.3f} less"
    assert (less > 0).all() and less.mean() > 2 * less.std(ddof=1), told


def test_mod_x_forgets_less_of_the_first_domain_than_fine_tuning_learns_as_much_and_stays_below_joint(data: Path, tmp_path: Path) -> None:
    stream = {"supervision": "captions", "test": "classify", "sessions": [{"domains": "latin"}, {"domains": "greek"}]}
    # with the authors' 20 it forgets a fifth as much and learns two thirds as much; with 5 nobody can say that it only learned less
    mod_x, plain = (matrices(data, tmp_path, stream, 6e-4, method) for method in ({"name": "mod_x", "alpha": 5.0}, "finetune"))
    joint = matrices(data, tmp_path, stream, 6e-4, "finetune", steps=60, joint=True)
    lost_by_mod_x, lost_by_plain = (scores(each, 1, "latin") - scores(each, 2, "latin") for each in (mod_x, plain))
    assert_less(lost_by_mod_x, lost_by_plain, "forgetting of Latin")
    assert lost_by_mod_x.mean() < 0.75 * lost_by_plain.mean()
    new, new_to_plain, before = (scores(each, row, "greek") for each, row in ((mod_x, -1), (plain, -1), (plain, 0)))
    assert (new_to_plain > 2 * before).all() and new.mean() > new_to_plain.mean() - 0.03, (new, new_to_plain)
    both = [scores(each, -1, "latin", "greek") for each in (plain, mod_x, joint)]
    assert_less(both[0], both[1], "fine-tuning at the end, against Mod-X")
    assert both[2].mean() > both[1].mean(), both


def test_vr_lwf_loses_less_of_what_was_never_taught_than_fine_tuning_and_learns_as_much(data: Path, tmp_path: Path) -> None:
    probes = ("latin", "armenian")
    stream = {"sessions": [{"domains": "greek"}], "probes": [{"name": name, "domains": name, "limit": 200} for name in probes]}
    vr_lwf, plain = (matrices(data, tmp_path, stream, 1e-3, method) for method in ("vr_lwf", "finetune"))
    lost_by_vr_lwf, lost_by_plain = (scores(each, 0, *probes) - scores(each, 1, *probes) for each in (vr_lwf, plain))
    assert_less(lost_by_vr_lwf, lost_by_plain, "zero-shot drop")
    assert lost_by_vr_lwf.mean() < 0.75 * lost_by_plain.mean()
    new, new_to_plain, before = (scores(each, row, "greek") for each, row in ((vr_lwf, -1), (plain, -1), (plain, 0)))
    assert (new_to_plain > 2 * before).all() and new.mean() > new_to_plain.mean() - 0.03, (new, new_to_plain)


def test_lora_under_infoloob_learns_new_letters_and_a_random_vocabulary_keeps_those_never_taught(data: Path, tmp_path: Path) -> None:
    probes = ("latin", "armenian")
    stream = {"sessions": [{"domains": "greek"}], "probes": [{"name": name, "domains": name, "limit": 200} for name in probes]}
    lora = {"name": "recipe", "tune": {"kind": "lora", "rank": 8}}
    held, plain = (
        matrices(data, tmp_path, stream, 1e-2, lora | {"terms": terms})
        for terms in ([{"kind": "infoloob", "labels": "pairs"}, "vocabulary"], ["clip"])
    )
    new, new_to_plain, before = (scores(each, row, "greek") for each, row in ((held, -1), (plain, -1), (plain, 0)))
    assert (new > 3 * before).all() and (new_to_plain > 3 * before).all(), (new, new_to_plain, before)
    lost, lost_by_plain = (scores(each, 0, *probes) - scores(each, 1, *probes) for each in (held, plain))
    assert_less(lost, lost_by_plain, "zero-shot drop")


def test_combinations_nobody_offers_lose_less_of_what_was_never_taught_and_one_vote_a_session_loses_the_newest(
    data: Path, tmp_path: Path
) -> None:
    probes = ("latin", "armenian")
    stream = {
        "sessions": [{"domains": name} for name in ("greek", "arrows")],
        "probes": [{"name": name, "domains": name, "limit": 200} for name in probes],
    }
    zscl = {"name": "zscl", "texts": 200, "merge": "ties"}
    infoloob = {"name": "recipe", "terms": [{"kind": "infoloob", "labels": "pairs"}, "hold"], "merge": "interpolate"}
    votes, pulled, plain = (matrices(data, tmp_path, stream, 1e-3, method) for method in (zscl, infoloob, "finetune"))
    lost = [scores(each, 0, *probes) - scores(each, -1, *probes) for each in (votes, pulled, plain)]
    newest = [scores(each, -1, "arrows") for each in (votes, pulled, plain)]
    before = scores(plain, 0, "arrows")
    for ours, what in zip(lost, ("ZSCL's terms merged by TIES", "InfoLOOB held by EWC and interpolated"), strict=False):
        assert_less(ours, lost[-1], f"zero-shot drop of {what}")
    assert_less(newest[0], newest[2], "the newest session under TIES")
    assert newest[1].mean() > before.mean(), (newest, before)


def test_where_letters_that_were_taught_and_others_compete_a_gate_finds_the_taught_ones_that_zero_shot_takes_for_others(data: Path) -> None:
    probe = [{"name": "latin", "domains": "latin", "limit": 300}]
    stream = STREAM | {"limit": 1200, "template": "{}", "sessions": [{"domains": name} for name in ("greek", "cyrillic")], "probes": probe}
    tree = {"name": "behaviour", "model": {"name": "glyph_base"}, "threads": 1, "stream": stream, "method": "ridge"}
    made = plan(parse_config(tree, "test"), data, "v1")
    method = made.build()
    for session in made.stream.sessions:
        learn(method, session, train_config(made.config, session), 0)
    every = (*made.stream.sessions[-1].vocabulary, *made.stream.probes[0].classes)
    exam = [replace(each, classes=every) for session in made.stream.sessions for each in session.tests]
    exam.append(replace(made.stream.probes[0], classes=every))
    right = {}
    for mixed in ("gate", "zero_shot"):
        method.mixed = mixed  # type: ignore[assignment]  # the same sums
        right[mixed] = [score.metrics["top1"] for score in evaluate(method, exam, made.config.evaluate).values()]
    taught, before = (np.mean(right[mixed][:-1]) for mixed in ("gate", "zero_shot"))
    assert taught > 0.8 and before < 0.5 and right["gate"][-1] > 0.6, right
