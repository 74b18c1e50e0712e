"""The scripts that measured RESULTS.md: what is tried next, what is best, what is not measured twice, features computed once."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from cl.config import EvalConfig, TrainConfig
from cl.evaluation.evaluate import evaluate
from cl.evaluation.matrix import Matrix
from cl.learning.learner import learn
from cl.methods import CONFIGS, NCMConfig
from cl.methods.compose import RecipeConfig
from cl.run_config import parse_method
from tests.make import stream, tiny
from tests.scripts import BENCH, presets, results


class Bench(results.Bench):
    """One that looks its scores up: by learning rate and scale, the same for all methods; no seed changes them."""

    means: dict[tuple[float, Any], float]

    def rows(self, label: str, method: dict[str, Any], settings: list[str], *, last: bool) -> Any:
        """What `means` has, and how often it was asked."""
        self.asked.append(label)
        rate = float(next(each for each in settings if "lr=" in each).split("=")[1])
        scale = next((term["scale"] for term in method["terms"] if "scale" in term), None)
        row = [self.means.get((rate, scale), 0.0), 0.5]
        return row if last else Matrix(np.array([[0.25, 0.75], row]), ("taught", "probe"), (1, 0))


def bench(folder: Path, name: str, means: dict[tuple[float, Any], float]) -> Bench:
    made = Bench(folder, name, folder)
    made.means, made.asked = means, []
    return made


def test_every_entry_is_a_method_at_every_scale_and_value_and_every_stream_has_its_config() -> None:
    for label, method in results.methods().items():
        first, second = (parse_method(results.at_scale(method, at), label) for at in (0, 1))
        assert isinstance(first, RecipeConfig) and first != second, label
    for label, preset in presets.presets().items():
        made = [parse_method(presets.at(preset, value), label) for value in preset.get("among", [None])]
        assert len({each.model_dump_json() for each in made}) == len(made), label
    configs = BENCH.parent / "flows" / "configs" / "results"
    names = [*results.STREAMS, *(each.config for each in presets.STREAMS.values())]
    assert [name for name in names if not (configs / f"{name}.yaml").is_file()] == []
    assert {label for each in presets.STREAMS.values() for label in each.labels} == set(presets.presets())
    assert {preset["method"]["name"] for preset in presets.presets().values()} <= set(CONFIGS)


def test_at_scale_leaves_what_has_no_scale_and_pairs_what_wants_pairs() -> None:
    made = results.at_scale({"terms": ["vocabulary", "infoloob", {"kind": "hold", "weight": 3}]}, 1)
    assert made["terms"] == [{"kind": "vocabulary"}, {"kind": "infoloob", "scale": 30.0, "labels": "pairs"}, {"kind": "hold", "weight": 3}]


def test_a_grid_goes_on_where_it_ends_at_its_best_and_nothing_is_tried_twice(tmp_path: Path) -> None:
    asked = {label: results.methods()[label] for label in results.STREAMS["retention"].labels}
    made = bench(tmp_path, "retention", {(1e-4, 14.3): 0.4, (3e-4, 14.3): 0.6, (1e-3, 14.3): 0.7, (1e-4, "model"): 0.2})
    made.search(asked)
    tried = {(each["rate"], each["scale"]) for each in made.told("search").values() if each["label"] == "finetune"}
    assert tried == {*((rate, scale) for rate in (3e-5, 1e-4, 3e-4, 1e-3) for scale in (0, 1))}
    best = made.best()["finetune"]
    assert (best["rate"], best["scale"], best["mean"]) == (1e-3, 1, pytest.approx(0.6))
    once = len(made.asked)
    assert once == len(made.told("search"))
    lines = (tmp_path / "retention.search.jsonl").read_text(encoding="utf-8").splitlines()
    (tmp_path / "retention.search.jsonl").write_text("\n".join(lines[:-1]) + "\n", encoding="utf-8")
    made.search(asked)
    assert len(made.asked) == once + 1 and made.asked[-1] == json.loads(lines[-1])["label"]


def test_seeds_are_measured_once_and_the_table_has_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    made = bench(tmp_path, "photos", {(1e-4, 14.3): 0.4, (1e-4, "model"): 0.2})
    made.search({label: results.methods()[label] for label in results.STREAMS["photos"].labels})
    other = bench(tmp_path, "aerial", made.means)
    asked = {label: results.methods()[label] for label in ("finetune", "replay + l2")}
    other.measure(asked, [0, 1])
    other.measure(asked, [0, 1, 2])
    assert sorted(other.asked) == ["finetune"] * 3 + ["replay + l2"] * 3
    assert all(each["scale"] == 1 and each["tries"] == 2 for each in other.told("measured").values())
    other.table()
    (row,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| finetune ")]
    assert row == "| finetune | 0.0001, 1 | 40.0 ± 0.0 | 40.0 ± 0.0 | 40.0 ± 0.0 | – | 25.0 ± 0.0 | 45.0 ± 0.0 | 3 |"


def test_a_preset_is_tried_in_order_goes_on_beyond_an_end_and_is_measured_at_its_best(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked: list[tuple[str, Any]] = []

    def matrix(self: Any, preset: dict[str, Any], value: Any, settings: list[str], *, last: bool = False) -> dict[str, Any]:
        asked.append((presets.at(preset, value)["name"], value))
        score = {1e-6: 0.9, 1e-5: 0.8}.get(value, 0.1) if isinstance(value, float) else 0.5
        return {"rows": [[score]] if last else [[0.25], [score]], "sets": ["one"], "taught": [1], "sizes": [4], "seconds": 0.0}

    monkeypatch.setattr(presets.Presets, "matrix", matrix)
    made = presets.Presets(tmp_path, "semi", tmp_path)
    made.search(["slda", "ncm"])
    assert [value for _, value in asked] == [1e-4, 1e-3, 0.01, 0.1, 0.3, 1e-5, 1e-6, 1e-7, None]
    made.search(["slda", "ncm"])
    assert len(asked) == 9 and made.best("slda") == 1e-6 and made.best("ncm") is None
    carried = presets.Presets(tmp_path, "transductive", tmp_path)
    carried.measure(["slda"], [0, 1])  # no seed says anything
    assert asked[9:] == [("slda", 1e-6)]
    carried.table()
    assert "| slda 1e-06  | 90.0 ± 0.0 | 90.0 ± 0.0 " in capsys.readouterr().out


def test_features_computed_once_are_those_of_pixels_and_are_read_again_from_the_folder(tmp_path: Path) -> None:
    def answers() -> list[float]:
        made, learner = stream((0, 1)), NCMConfig().build(tiny(), 0)
        for session in made.sessions:
            learn(learner, session, TrainConfig(), 0)
        return [score.metrics["top1"] for score in evaluate(learner, made.exam(1), EvalConfig()).values()]

    plain = answers()
    with presets.Once(tmp_path):
        assert answers() == plain
    kept = sorted(tmp_path.iterdir())
    assert len(kept) == 3 and not [path for path in kept if path.suffix != ".safetensors"]
    before = [path.stat().st_mtime_ns for path in kept]
    with presets.Once(tmp_path):
        assert answers() == plain
    assert [path.stat().st_mtime_ns for path in kept] == before and answers() == plain
