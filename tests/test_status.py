"""How learning stands: what is learned, running, interrupted or failed is said of each stream, and how to go on."""

import json
import shutil
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl.checkpoint import write_json
from cl.collection import append
from cl.interim import START
from cl.run import advance
from flows.cli import app
from flows.job import job_of, planned
from flows.publish import command
from flows.settings import Place
from flows.status import sessions, streams
from flows.tracking import COMMAND, SESSIONS, Tracker, locked
from tests.conftest import lay_out
from tests.make import table


def begun(tracker: Tracker, key: str, seed: int) -> str:
    tags = {"evergreen.stream": "colours", "evergreen.method": "replay", "evergreen.seed": str(seed), SESSIONS: "2"}
    run, _ = tracker.open(key, "stream", "colours", tags | {COMMAND: f"evergreen run colours.yaml --set seed={seed}"}, {})
    for session in ("start", "classes 1-2"):
        tracker.client.set_terminated(tracker.attempt(run, f"{key} {session}", session, "a state"), "FINISHED")
    return run


def half(place: Place, state: str) -> None:
    folder = place.steps / "interim" / state
    folder.mkdir(parents=True)
    write_json({**START._replace(done=3, steps=8)._asdict(), "sha256": ""}, folder / "cursor.json")


def test_every_stream_is_told_with_its_state_and_how_to_go_on(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    for key, seed in (("killed", 0), ("alive", 1), ("failed", 2), ("learned", 3)):
        run = begun(tracker, key, seed)
        if key == "killed":
            tracker.attempt(run, "s2", "classes 3-4", "half")
            half(place, "half")
        elif key == "failed":
            with pytest.raises(ValueError), tracker.ending(run):
                raise ValueError("the loss is not finite\nand more")
        elif key == "learned":
            tracker.client.set_tag(run, "evergreen.gate", "refused")
            tracker.client.set_tag(run, "evergreen.gate_reason", "forgetting is 0.500, the bound 0.200")
            tracker.client.set_terminated(run, "FINISHED")
    with locked(place, "alive.lock"):
        found = {row.seed: row for row in streams(place, tracker.client)}
    assert [found[seed].state for seed in "0123"] == ["interrupted", "running", "failed", "learned"]
    assert [found[seed].note for seed in "0123"] == [
        "classes 3-4: 3 of 8 steps",
        "",
        "the loss is not finite",
        "refused by the gate: forgetting is 0.500, the bound 0.200",
    ]
    assert {row.sessions for row in found.values()} == {"1 of 2"} and {row.method for row in found.values()} == {"replay"}
    assert [found[seed].command for seed in "0123"] == [
        "evergreen run colours.yaml --set seed=0",
        "",
        "evergreen run colours.yaml --set seed=2",
        "",
    ]
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0 and "classes 3-4: 3 of 8 steps" in shown.output
    assert "go on with: evergreen run colours.yaml --set seed=0" in shown.output


def test_a_config_is_told_session_by_session_from_what_is_on_disk(stored: Path) -> None:
    config = lay_out(stored)
    config.write_text(config.read_text().replace("increment: 2", "increment: 1"))
    job = job_of(str(config))
    plan, store = planned(job), job.place.steps
    for index in range(3):
        advance(plan, index, store)
    (store / "steps" / plan.keys[2] / "result.json").unlink()
    half(job.place, plan.states[3])
    assert [row.state for row in sessions(job)] == ["learned", "learned", "learned", "half-learned", "waiting"]
    assert [row.note for row in sessions(job)[2:]] == ["not measured on every set yet", "3 of 8 steps", ""]
    shown = CliRunner().invoke(app, ["status", "colours.yaml", "--seed", "0"])
    assert shown.exit_code == 0 and "half-learned" in shown.output
    assert "go on with: evergreen run colours.yaml --set seed=0" in shown.output


def test_a_stream_that_grows_is_told_once_with_what_waits_and_the_command_that_learns_it(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "growing")
    for number, name in enumerate(("may", "june", "july")):
        append(stored / "data" / "inbox", name, {"train": table([number], 4), "test": table([number], 2, seed=9)}, "labels")
    grown = {"stream": {"kind": "collection", "sources": {"inbox": {"path": "inbox"}}, "until": None}}
    tags = {"evergreen.stream": "growing", "evergreen.method": "replay", "evergreen.seed": "0"}
    for key, count, word in (("first", 1, "run"), ("second", 2, "update")):
        own = {SESSIONS: str(count), COMMAND: f"evergreen {word} growing.yaml"}
        run, _ = tracker.open(key, "stream", "growing", tags | own, grown)
        tracker.use_data(run, str(stored / "data"), key, {})
        for session in ("start", "may", "june")[: count + 1]:
            tracker.client.set_terminated(tracker.attempt(run, f"{key} {session}", session, "a state"), "FINISHED")
        tracker.client.set_terminated(run, "FINISHED")
    (row,) = streams(place, tracker.client)
    assert (row.state, row.sessions, row.note, row.command) == ("waiting", "2 of 3", "july to learn", "evergreen update growing.yaml")
    shutil.rmtree(stored / "data")
    (row,) = streams(place, tracker.client)
    assert (row.state, row.sessions, row.note, row.command) == ("learned", "2 of 2", "", "")


def test_nothing_is_learned_yet(stored: Path) -> None:
    assert "Nothing is learned yet." in CliRunner().invoke(app, ["status"]).output
    append(stored / "data" / "inbox", "may", {"train": table([0], 4), "test": table([0], 2, seed=9)}, "labels")
    told = CliRunner().invoke(app, ["status"]).output
    assert "Sessions wait: inbox has 1. A config with stream: {kind: collection, ...} learns them" in told


def test_the_command_that_goes_on_is_the_one_that_began() -> None:
    parameters = {"config": "my file.yaml", "overrides": ["method=replay"], "data_root": None, "data_rev": "v1", "promote": True}
    assert command("learn-stream", parameters) == "evergreen run 'my file.yaml' --set method=replay --data-rev v1"
    assert command("update", {"config": "glyphs"}) == "evergreen update glyphs"
    assert command("learn-stream", {"config": json.loads("{}")}) == ""
