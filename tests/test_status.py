"""How learning stands: what is learned, running, interrupted or failed is said of each stream, and how to go on."""

import json
import re
import shutil
import time
from contextlib import nullcontext, suppress
from pathlib import Path
from uuid import uuid4

import pytest
from typer.testing import CliRunner

from cl.data.collection import append
from cl.errors import ConfigError, DataError, LearningError, MethodError, StoreError
from cl.learning.interim import START, Interim
from cl.run import advance
from flows.cli.main import app
from flows.learn.failures import noted
from flows.learn.job import job_of, planned
from flows.learn.progress import sessions
from flows.learn.pulse import Seen
from flows.look.status import champion, streams
from flows.pace import Beat
from flows.registry.champion import CHALLENGER, CHAMPION, change
from flows.registry.publish import command
from flows.registry.question import GATE, REASON, WAITING, Answer, Question, note
from flows.settings import Place
from flows.tracking.runs import COMMAND, MODEL, SESSIONS, Tracker, locked
from tests.conftest import lay_out
from tests.make import table


def begun(tracker: Tracker, key: str, seed: int) -> str:
    tags = {"evergreen.stream": "colours", "evergreen.method": "replay", "evergreen.seed": str(seed), SESSIONS: "2"}
    run, _ = tracker.open(key, "stream", "colours", tags | {COMMAND: f"evergreen run colours.yaml --set seed={seed}"}, {})
    for session in ("start", "classes 1-2"):
        tracker.client.set_terminated(tracker.attempt(run, f"{key} {session}", session, "a state"), "FINISHED")
    return run


def half(place: Place, state: str) -> None:
    Interim(place.steps / "interim" / state, 60).write(START._replace(done=3, steps=8), {})


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
        by_seed = {row.seed: row for row in streams(place, tracker.client)}
    assert [by_seed[seed].state for seed in "0123"] == ["interrupted", "running", "failed", "learned"]
    assert [by_seed[seed].note for seed in "0123"] == [
        "classes 3-4: 3 of 8 steps",
        "",
        "the loss is not finite",
        "refused by the gate: forgetting is 0.500, the bound 0.200",
    ]
    assert {row.sessions for row in by_seed.values()} == {"1 of 2"} and {row.method for row in by_seed.values()} == {"replay"}
    assert [by_seed[seed].command for seed in "0123"] == [
        "evergreen run colours.yaml --set seed=0",
        "",
        "evergreen run colours.yaml --set seed=2",
        "",
    ]
    shown = CliRunner().invoke(app, ["status"])
    assert shown.exit_code == 0 and "classes 3-4: 3 of 8 steps" in shown.output
    assert "go on with: evergreen run colours.yaml --set seed=0" in shown.output


def test_what_runs_is_told_with_its_rate_and_time_left_and_what_was_killed_is_not(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    beat = Beat("colours", 2, 2, "classes 3-4", "learning", 6, 10, rate=64.0, left=2.0, heard=time.time())
    for key, seed in (("alive", 1), ("killed", 0)):
        begun(tracker, key, seed)
        (stored / "mlruns" / "locks" / f"{key}.pulse").write_text(json.dumps(Seen(beat, ())._asdict()))
    with locked(place, "alive.lock"):
        notes = {row.seed: row.note for row in streams(place, tracker.client)}
    assert notes == {"1": "classes 3-4: 6 of 10 steps, 64 images/s, 2 s left", "0": ""}


@pytest.mark.parametrize(
    ("error", "helps"),
    [
        (ConfigError("x"), False),
        (DataError("x"), False),
        (MethodError("x"), False),
        (LearningError("x"), False),
        (StoreError("the disk is full"), True),
        (OSError("x"), True),
    ],
)
def test_the_same_command_is_told_again_only_where_it_can_help(error: Exception, helps: bool, stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    run = begun(tracker, "failed", 0)
    with pytest.raises(type(error)), tracker.ending(run):
        raise error
    with pytest.raises(type(error)), noted(place, "evergreen run gone.yaml", "gone.yaml", []):
        raise error
    assert {(row.state, bool(row.command)) for row in streams(place, tracker.client)} == {("failed", helps)}
    assert ("go on with" in CliRunner().invoke(app, ["status"]).output) == helps
    tracker.open("failed", "stream", "colours", {}, {})
    tracker.client.set_terminated(run, "KILLED")
    (row,) = (row for row in streams(place, tracker.client) if row.name == "colours")
    assert row.command, "whatever came before, what was interrupted goes on"


def learned(
    tracker: Tracker, key: str, seed: int = 0, version: str = "", names: tuple[str, ...] = ("start", "classes 1-2", "classes 3-4")
) -> str:
    """A stream that was learned to its end, and registered if a version is given."""
    tags = {"evergreen.stream": "colours", "evergreen.method": "replay", "evergreen.seed": str(seed), SESSIONS: str(len(names) - 1)}
    run, _ = tracker.open(key, "stream", "colours", tags | {COMMAND: f"evergreen run colours.yaml --set seed={seed}"}, {})
    for index, session in enumerate(names):
        tracker.client.set_terminated(tracker.attempt(run, f"{key} {index}", session, "a state"), "FINISHED")
    if version:
        tracker.client.create_model_version("colours", "file:///nowhere", run)
        tracker.client.set_tag(run, MODEL, f"models:/colours/{version}")
    tracker.client.set_terminated(run, "FINISHED")
    return run


def test_a_session_that_is_called_start_is_counted_like_any_other(stored: Path) -> None:
    tracker = Tracker(Place(stored), "colours")
    learned(tracker, "key", names=("start", "start", "june"))
    (row,) = streams(Place(stored), tracker.client)
    assert (row.state, row.sessions) == ("learned", "2 of 2")


def test_what_was_learned_is_told_though_other_code_was_interrupted_since_and_not_where_it_was_found_again_after_that(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    tracker.client.create_registered_model("colours")
    learned(tracker, "this code", version="1")
    run = begun(tracker, "other code", 0)
    tracker.client.set_terminated(run, "KILLED")
    (row,) = streams(place, tracker.client)
    assert row.state == "interrupted" and re.fullmatch(r"learned before, on [-0-9]+ [0-9:]+, as version 1", row.note), row
    again, _ = tracker.open("this code", "stream", "colours", {}, {})
    tracker.client.set_terminated(again, "FINISHED")
    (row,) = streams(place, tracker.client)
    assert (row.state, row.note, row.version, row.command) == ("learned", "", "1", "")


def test_a_night_that_failed_before_mlflow_heard_of_it_reads_failed_until_it_succeeds(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    learned(tracker, "key")
    lay_out(stored)
    for words, stream in (("evergreen update colours.yaml --set seed=0", "colours"), ("evergreen update gone.yaml", "gone")):
        for error in (OSError("the disk is away\nand more"), None, StoreError("data/inbox: damaged")):
            with suppress(OSError, StoreError), noted(place, words, words.split()[2], []):
                if error:
                    raise error
            told = [(row.state, row.note, row.command) for row in streams(place, tracker.client) if row.name == stream]
            succeeded = [("learned", "", "")] if stream == "colours" else []  # the other one never came to a run
            assert told == ([("failed", str(error).partition("\n")[0], words)] if error else succeeded)
    assert len(streams(place, tracker.client)) == 2
    with pytest.raises(KeyboardInterrupt), noted(place, "evergreen update colours.yaml --set seed=0", "colours.yaml", []):
        raise KeyboardInterrupt  # is not a failure, and takes none back
    assert [row.state for row in streams(place, tracker.client)] == ["failed", "failed"]


def test_the_champion_and_what_the_gate_or_a_person_said_are_told_whole(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        "flows.registry.question._prefect", lambda place: nullcontext(None)
    )  # no server, whichever one other tests have started
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    client = tracker.client
    client.create_registered_model("colours")
    runs = [learned(tracker, f"key {seed}", seed, str(seed + 1)) for seed in range(4)]
    change(place, client, "colours", CHAMPION, "1", "the gate: every bound holds, and Ann agreed", "Ann")
    change(place, client, "colours", CHALLENGER, "4", "the gate: it waits")
    reason = "; ".join(f"classes {number} against the champion: -0.100" for number in range(40))
    for run, tags in zip(runs, ({GATE: "promoted"}, {GATE: "refused", REASON: reason}, {GATE: "refused"}, {GATE: WAITING}), strict=True):
        for name, value in tags.items():
            client.set_tag(run, name, value)
    note(client, runs[2], Answer(False, "Bob", "too many owls"))
    note(client, runs[3], Question(str(uuid4()), "http://127.0.0.1:1/runs/flow-run/x", "2999-01-01T00:00:00+00:00"))
    rows = {row.seed: row for row in streams(place, client)}
    assert [rows[seed].version for seed in "0123"] == ["1, champion", "2", "3", "4, challenger"]
    assert rows["1"].note.endswith("-0.100; ... (all of it: evergreen lineage)") and len(rows["1"].note) < 250
    assert rows["2"].note == "Bob said no: too many owls"
    assert rows["3"].note == (
        "version 4 waits for a person until 2999-01-01 00:00 UTC; its page opens with `evergreen up`, or: evergreen promote colours 4"
    )
    assert re.fullmatch(
        r"champion of colours: version 1 since [-0-9]+ [0-9:]+, by Ann: the gate: .* Ann agreed", champion(place, client, "colours")
    )
    assert champion(place, client, "colours") in CliRunner().invoke(app, ["status"]).output
    note(client, runs[3], Question(str(uuid4()), "", "2020-01-01T00:00:00+00:00"))
    (row,) = [row for row in streams(place, client) if row.seed == "3"]
    assert row.note.startswith("nobody answered until 2020-01-01 00:00 UTC whether version 4 may become champion: evergreen promote")


def test_who_makes_a_champion_by_hand_settles_what_waits(stored: Path) -> None:
    place, tracker = Place(stored), Tracker(Place(stored), "colours")
    client = tracker.client
    for name in ("colours", "colours-2"):
        client.create_registered_model(name)
    runs = [learned(tracker, f"key {seed}", seed, str(seed + 1)) for seed in range(3)]
    other = learned(tracker, "other", 3)
    client.set_tag(other, MODEL, "models:/colours-2/1")
    for run in (*runs[1:], other):
        client.set_tag(run, GATE, WAITING)
    note(client, runs[1], Question(str(uuid4()), "", "2999-01-01T00:00:00+00:00"))  # asked on a server that is gone
    shown = CliRunner().invoke(app, ["promote", "colours", "2", "--why", "seen"])
    assert sorted(shown.output.splitlines()[1:]) == [
        "colours: version 2 waited for a person's word, and is agreed with",
        "colours: version 3 waited for a person's word, and is declined",
    ]
    tags = [client.get_run(run).data.tags for run in (*runs, other)]
    assert [each.get(GATE) for each in tags] == [None, "promoted", "refused", WAITING]
    who = change(place, client, "colours", CHAMPION, "2", "").who
    assert tags[1][REASON] == f"{who} agreed: seen" and tags[2][REASON] == f"{who} said no: version 2 was made champion (seen)"
    client.set_tag(runs[0], GATE, WAITING)
    change(place, client, "colours", CHAMPION, "3", "")
    assert "colours: version 1 waited for a person's word, and is declined" in CliRunner().invoke(app, ["rollback", "colours"]).output


def test_a_wrong_folder_is_told_and_stays_as_it_was(project: Path) -> None:
    for words in (["status"], ["status", "glyphs"], ["history", "birds"], ["predict", "a.jpg"], ["rollback", "birds"]):
        wrong = CliRunner().invoke(app, words)
        assert isinstance(wrong.exception, StoreError) and "no project here" in str(wrong.exception) and not [*project.iterdir()], words
    (project / "pyproject.toml").touch()
    assert f"no model is registered yet in {project}" in str(CliRunner().invoke(app, ["history", "birds"]).exception)
    assert f"Nothing is learned yet in {project}." in CliRunner().invoke(app, ["status"]).output
    assert [path.name for path in project.iterdir()] == ["pyproject.toml"]


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
    assert f"Nothing is learned yet in {stored}." in CliRunner().invoke(app, ["status"]).output
    append(stored / "data" / "inbox", "may", {"train": table([0], 4), "test": table([0], 2, seed=9)}, "labels")
    told = CliRunner().invoke(app, ["status"]).output
    assert "Sessions wait: inbox has 1. A config with stream: {kind: collection, ...} learns them" in told


def test_the_command_that_goes_on_is_the_one_that_began() -> None:
    parameters = {"config": "my file.yaml", "overrides": ["method=replay"], "data_root": None, "data_rev": "v1", "promote": True}
    assert command("learn-stream", parameters) == "evergreen run 'my file.yaml' --set method=replay --data-rev v1"
    assert command("update", {"config": "glyphs"}) == "evergreen update glyphs"
    assert command("learn-stream", {"config": json.loads("{}")}) == ""
