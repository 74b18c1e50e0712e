"""What to try first: every row that advice rests on stands in RESULTS.md and in the config that measured it, and no more is claimed."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from cl.data.table import ImageTable, write
from cl.plain_yaml import parse
from cl.reports.advice import Facts, Measured, choices, measured, nearest, unlike
from cl.streams.stream import Stream
from flows.cli.advise import _rows
from flows.cli.main import app
from flows.learn.job import job_of, learnable
from flows.look.advise import facts, refused, teaches
from tests import make
from tests.conftest import lay_out
from tests.scripts import presets

HERE = Path(__file__).parents[1]
COLUMNS = {
    "glyphs": ("last", "zero-shot drop"),
    "photos": ("last", ""),
    "retention": ("aerial scenes", "zero-shot drop"),
    "scenes": ("last", "zero-shot drop"),
    "aerial": ("R@10 at the end", "lost of them"),
    "fewshot": ("last", ""),
    "semi_supervised": ("semi-supervised", ""),
    "transductive": ("transductive", ""),
    "unsupervised": ("unsupervised", ""),
}


def tables(letter: str) -> list[dict[str, dict[str, str]]]:
    """The tables of a section of RESULTS.md: cells by column, by what the first cell says."""
    text = (HERE / "RESULTS.md").read_text(encoding="utf-8")
    section = text[text.index(f"\n## {letter}. ") :].split("\n## ")[1]
    read = []
    for block in re.findall(r"(?:^\|.*\n)+", section, re.MULTILINE):
        head, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in block.splitlines())
        read.append({row[0]: dict(zip(head, row, strict=True)) for row in rows})
    return read


def tried(config: str) -> Iterator[dict[str, Any]]:
    """What bench/presets.py ran on a stream, a number of steps that it set for all of them with it."""
    for stream in presets.STREAMS.values():
        if f"results/{stream.config}" == config:
            steps = {"max_steps": 100} if presets.STEPS in stream.settings else {}
            own = [presets.presets()[label] for label in stream.labels]
            methods = [presets.at(preset, value) for preset in own for value in preset.get("among", [None])]
            yield from (each | {"train": each["train"] | steps} if "train" in each else each for each in methods)


@pytest.mark.parametrize("name", measured())
def test_a_row_is_what_the_table_says_and_what_the_config_ran(name: str) -> None:
    stream = measured()[name]
    letter = stream.where[-1]
    last, drop = COLUMNS[name]
    config = parse((HERE / "flows" / "configs" / f"{stream.config}.yaml").read_text(encoding="utf-8"), name)
    ran = [
        {"name": entry} if isinstance(entry, str) else {k: v for k, v in entry.items() if k != "label"}
        for entry in config["compare"]["methods"]
    ]
    of_stream = [table for table in tables(letter) if table.get("`zero_shot`", {}).get(last, "").split(" ")[0] == f"{stream.zero_shot:.1f}"]
    for row in stream.rows:
        (told,) = [table[row.name] for table in of_stream if row.name in table]
        assert float(told[last].split()[0]) == row.last
        assert row.drop is None or float(told[drop].split()[0]) == row.drop
        assert row.recipe in [*ran, *tried(stream.config)]


def test_the_choice_follows_from_the_rows() -> None:
    glyphs = measured()["glyphs"]
    assert [each.row.recipe["name"] for each in choices(glyphs)] == ["ridge", "linear_probe"]
    kept = choices(measured()["photos"], images=False)
    assert all(not each.row.images for each in kept) and kept[0].row.recipe == {"name": "vr_lwf", "alpha": 1.0}
    assert choices(measured()["photos"])[0].row.recipe["name"] == "replay"


def test_of_a_stream_without_labels_only_what_was_measured_without_any_is_told() -> None:
    semi, some, none = (measured()[name] for name in ("semi_supervised", "transductive", "unsupervised"))
    streams = list(measured().values())
    told = {
        Facts("nothing", 0.5, None, 4): none,
        Facts("some labels", 0.3, 2.0, 1): semi,
        Facts("labels of some classes", 0.3, 60.0, 1): some,
    }
    assert [nearest(facts, streams)[0] for facts in told] == [*told.values()]
    assert [(each.row.recipe["name"], each.row.last) for each in choices(none)] == [("gda", 40.0), ("pseudolabel", 38.4)]


def test_what_is_refused_leaves_its_place_to_the_next_best() -> None:
    semi = measured()["semi_supervised"]
    assert [each.row.recipe["name"] for each in choices(semi)] == ["gda", "linear_probe"]
    left = choices(semi, refused=lambda row: row.recipe["name"] in ("gda", "linear_probe"))
    assert [each.row.last for each in left] == [47.0, 44.9]
    assert not choices(semi, refused=lambda row: True)


@pytest.mark.parametrize(
    ("labels", "captions", "told"),
    [
        ("rrgg", "", "labels"),
        ("r..g....", "", "some labels"),
        ("rrr.....", "", "labels of some classes"),
        ("....", "", "nothing"),
        ("....", "yy..y", "captions"),
        ("r.......", "..yyyy", "captions"),
    ],
)
def test_what_most_rows_have_is_what_a_stream_teaches_with(labels: str, captions: str, told: str) -> None:
    rows = [(label, "y" in captions[place : place + 1]) for place, label in enumerate(labels.ljust(len(captions), "."))]
    names = {"r": "red", "g": "green", ".": None}
    data = ImageTable.of(
        [str(place) for place in range(len(rows))],
        [make.png(0, place) for place in range(len(rows))],
        labels=[names[label] for label, _ in rows],
        captions=[["a square"] if texts else [] for _, texts in rows],
    )
    assert teaches(Stream("x", (replace(make.session(1, (0, 1), (0, 1)), data=data),), ())) == told


@pytest.mark.parametrize("supervision", ["labels", "captions", "none"])
def test_no_recipe_is_named_that_the_check_of_a_stream_refuses(project: Path, supervision: str) -> None:
    config = lay_out(project)
    splits = {"train": make.table(range(4), 8, captions=True), "test": make.table(range(4), 4, seed=5, captions=True)}
    write(splits, project / "data" / "colours")
    job = job_of(str(config), ["method=linear_probe", f"stream.supervision={supervision}", "stream.limit=12"])
    asked = facts(job)
    assert asked.teaches == {"none": "nothing"}.get(supervision, supervision)
    stream, _ = nearest(asked, list(measured().values()))
    chosen = choices(stream, refused=lambda row: refused(job, row.recipe))
    assert chosen
    for each in chosen:
        learnable(job.settings | {"method": each.row.recipe})
    assert refused(job, {"name": "linear_probe"}) == (supervision != "labels")


def test_a_stream_far_from_all_that_was_measured_is_called_that() -> None:
    far = Facts("labels", 0.99, 5000, 2)
    nearby, _ = nearest(far, list(measured().values()))
    assert unlike(far, nearby)[0].startswith("no stream like this one was measured")
    near = Facts("captions", 0.26, None, 3)
    nearby, apart = nearest(near, list(measured().values()))
    assert isinstance(nearby, Measured) and nearby.where.endswith("b") and apart < 0.1
    assert not unlike(near, nearby)[0].startswith("no stream")


@pytest.mark.parametrize("name", measured())
def test_a_recipe_stands_once_in_the_table_and_zero_shot_beside_it(name: str) -> None:
    stream = measured()[name]
    told = _rows(stream, choices(stream))
    names = [row[0] for row in told]
    assert len({*names}) == len(names) and "zero-shot" in names
    assert ("finetune" in names) == any(row.recipe == {"name": "finetune"} for row in stream.rows)
    assert all(re.fullmatch(r"\d+\.\d", row[1]) for row in told)


def test_the_command_asks_the_base_model_and_learns_nothing(stored: Path) -> None:
    config = str(lay_out(stored))
    answer = CliRunner().invoke(app, ["advise", config])
    assert answer.exit_code == 0, answer.output
    assert "Nearest of what was measured (RESULTS.md" in answer.output and "method: {" in answer.output
    assert not (stored / "mlruns" / "steps" / "states").exists()
