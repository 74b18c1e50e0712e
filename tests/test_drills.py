"""Drills on a real model: shuffled labels against a stated gate, and an update that is killed for good at random moments."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from cl.data.collection import append
from cl.data.glyphs import build
from cl.data.table import ImageTable, concat
from flows.history.conclude import conclude
from flows.history.entries import history_of
from flows.history.standing import Standing
from flows.registry.champion import CHAMPION, holder
from flows.settings import EMBEDDED, Place
from flows.tracking.runs import connect
from flows.update import update
from tests.test_update import arrive, run_states

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("prefect_server")]
GLYPHS = """
name: growing
model: {name: glyph_base}
stream: {kind: collection, sources: {inbox: inbox}, template: "{}", candidates: seen}
method: {name: replay, capacity: 500}
train: {epochs: 6, batch_size: 32, lr: 1.0e-4, device: cpu}
gate: {drop: 0.25, flips: null}
evaluate: {geometry: 0}
"""
NAMES = ["first", "second", "third", "fourth", "fifth"]


def stands(project: Path) -> Standing:
    return conclude(history_of(Place(project), "growing").read())


@pytest.fixture(scope="module")
def letters() -> dict[str, ImageTable]:
    """The embedded data set."""
    return build()


@pytest.fixture
def glyphs(stored: Path) -> str:
    (stored / "growing.yaml").write_text(GLYPHS)
    return str(stored / "growing.yaml")


def session(letters: dict[str, ImageTable], number: int, shuffled: bool) -> dict[str, ImageTable]:
    """Twenty-six letters; the labels of its training images in an order of chance, if shuffled."""
    classes = sorted({label for label in letters["train"].where([d == "greek" for d in letters["train"].domains]).labels if label})
    own = set(classes[26 * number : 26 * number + 26])
    parts = {
        split: table.where([label in own and domain == "greek" for label, domain in zip(table.labels, table.domains, strict=True)])
        for split, table in letters.items()
        if split in ("train", "test")
    }
    if shuffled:
        many = concat([parts["train"].under(f"copy {number}") for number in range(5)])
        labels, table = many.labels, many.table
        random.Random(0).shuffle(labels)
        place = table.schema.get_field_index("label")
        parts["train"] = ImageTable(table.set_column(place, table.schema.field("label"), [labels]))
    return parts


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "all at once"])
def test_shuffled_labels_are_refused_by_the_gate_and_the_rest_is_learned_as_without_them(
    glyphs: str, stored: Path, letters: dict[str, ImageTable], together: bool
) -> None:
    for number, name in enumerate(NAMES):
        poison = name == "third"  # which teaches letters of the first once more, under each other's names
        append(stored / "data" / "inbox", name, session(letters, 0 if poison else number, poison), "labels")
        if not together:
            update(glyphs)
    update(glyphs)
    standing = stands(stored)
    assert {name: str(each.word) for name, each in standing.sessions.items()} == {
        name: "set aside" if name == "third" else "learned" for name in NAMES
    }
    assert [each.state for each in standing.line] == list(run_states(stored, [name for name in NAMES if name != "third"])[1:])


KILLED = """
import sys
from flows.update import update
update(sys.argv[1], sys.argv[2:])
"""


def test_an_update_that_is_killed_at_random_moments_ends_as_if_it_never_was(stored: Path, tmp_path: Path) -> None:
    config = stored / "growing.yaml"
    config.write_text(
        "name: growing\nmodel: {name: tiny}\nmethod: finetune\n"
        'stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}\n'
        "train: {max_steps: 40, batch_size: 8, lr: 1.0e-3, device: cpu, checkpoint: 0.05}\ngate: {drop: null, flips: null}\n"
        "evaluate: {geometry: 0}\n"
    )
    for number in range(6):
        arrive(stored, f"s{number}", (number, number + 1), seed=number)
    drawn, kills = random.Random(7), 0
    # EMBEDDED: without Prefect's limit for other machines, which a dead holder keeps for a minute
    environment = {**os.environ, "EVERGREEN_ROOT": str(stored), "OMP_NUM_THREADS": "1", EMBEDDED: "1"}
    while True:
        rate = drawn.choice(["0.001", "0.002", "0.0005"])
        child = subprocess.Popen(
            [sys.executable, "-c", KILLED, str(config), f"train.lr={rate}"], env=environment, cwd=Path(__file__).parents[1],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        begun = time.monotonic()
        journal = history_of(Place(stored), "growing").path
        size = journal.stat().st_size if journal.exists() else 0
        until = drawn.uniform(0.0, 2.5)
        while child.poll() is None and time.monotonic() - begun < 600:  # a loaded machine takes minutes to begin
            moved = journal.exists() and journal.stat().st_size != size
            if kills < 30 and moved and time.monotonic() - begun > until:
                time.sleep(drawn.uniform(0.0, 0.7))
                os.killpg(child.pid, signal.SIGKILL)
                kills += 1
            time.sleep(0.02)
        if child.wait() == 0:
            break
        stands(stored)  # readable after every kill
        if kills < 30 and len(stands(stored).line) >= 6:
            arrive(stored, f"more-{kills}", (kills % 8, (kills + 3) % 8), seed=100 + kills)
    standing = stands(stored)
    names = [each.session for each in standing.line]
    assert kills >= 6 and len(names) == len(set(names)) and standing.open is None and standing.unjudged is None
    entries = [json.loads(line) for line in history_of(Place(stored), "growing").path.read_text().splitlines()]
    learned = [entry["fields"]["state"] for entry in entries if entry["kind"] == "learned"]
    assert len(learned) == len(set(learned))  # nothing learned twice
    held = holder(connect(Place(stored)), "growing", CHAMPION)
    assert held and standing.champion and str(held.version) == standing.champion.version
    print(f"{kills} kills, {len(names)} sessions")
