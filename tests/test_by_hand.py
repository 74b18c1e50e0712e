"""What people see of a model's history and do with it: sessions listed, retried, skipped, accepted; versions promoted and rolled back."""

import json
import re
from dataclasses import replace
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from cl.data.collection import append
from cl.errors import StoreError
from cl.learning.interim import START, Interim
from cl.run_config import parse_config
from cl.streams.arrivals import Arrival
from flows.by_hand import promote, rollback
from flows.cli.main import app
from flows.forward import open_history
from flows.history.conclude import standing_of
from flows.history.entries import (
    Abandoned,
    Accept,
    Adopted,
    Champion,
    Fact,
    Learned,
    Pruned,
    Rebuilt,
    Retry,
    Skipped,
    Verdict,
    Withdrawn,
    fact,
    history_of,
    note,
)
from flows.history.since import since
from flows.history.standing import Word
from flows.history.story import story
from flows.history.wishes import accept, retry, skip
from flows.learn.job import job_of
from flows.learn.progress import of_model
from flows.line import entered
from flows.line.work import work
from flows.look.listed import only
from flows.look.status import Stream, streams
from flows.registry.champion import CHAMPION, change, history, holder
from flows.registry.predict import served
from flows.registry.question import ANSWER, GATE, QUESTION, WAITING, Question
from flows.registry.question import note as ask
from flows.settings import Place
from flows.tracking.runs import COMMAND, KEY, MODEL, STATE, Tracker, connect, locked
from tests.make import table
from tests.telling import OPENED, Step, bad, began, crown, entries, flat, good, learn, learned, says, stand

STREAM = {"kind": "collection", "sources": {"inbox": "inbox"}, "template": "a {} square", "candidates": "seen"}
TWO = [good("one", "a", None, "1"), good("two", "b", "a", "2")]


@pytest.fixture
def place(stored: Path) -> Place:
    return Place(stored)


def noted(place: Place, *steps: Step, model: str = "colours") -> None:
    for said in flat([OPENED, *steps]):
        note(history_of(place, model), said)


def registered(place: Place, *states: str, champion: str | None = None) -> MlflowClient:
    """A version for each state, as `update` leaves them, the alias on one of them."""
    tracker = Tracker(place, "colours")
    tracker.client.create_registered_model("colours")
    for number, state in enumerate(states, 1):
        run = tracker.client.create_run(tracker.experiment, tags={MODEL: f"models:/colours/{number}"})
        tracker.client.create_model_version("colours", "file:///nowhere", run.info.run_id, tags={STATE: state})
    if champion:
        change(place, tracker.client, "colours", CHAMPION, champion, "the gate")
    return tracker.client


def run_of(client: MlflowClient, version: str) -> str:
    return str(client.get_model_version("colours", version).run_id)


def says_now(place: Place) -> dict[str, str]:
    return {name: str(each.word) for name, each in standing_of(place, "colours").sessions.items()}


def facts(place: Place) -> list[Fact]:
    return [fact(entry) for entry in history_of(place, "colours").read()]


def alias(client: MlflowClient) -> str:
    held = holder(client, "colours", CHAMPION)
    return str(held.version) if held else ""


def evergreen(*words: str, code: int = 0) -> str:
    answer = CliRunner().invoke(app, list(words))
    if code:
        assert isinstance(answer.exception, StoreError), answer.exception
        return str(answer.exception)
    assert answer.exit_code == 0, (answer.output, answer.exception)
    return " ".join(answer.output.split())


# what may be wished for

ASKED = [*TWO, learn("three", "c", "b"), says("three", "c", "waiting", "3")]


@pytest.mark.parametrize(
    ("wish", "steps", "session", "told"),
    [
        (retry, TWO, "four", "no session 'four' in the history of colours; there are one, two"),
        (retry, TWO, "two", "is in the model (learned), so there is nothing to retry; evergreen rollback colours"),
        (retry, [*TWO, began("three", "c", "b")], "three", "waits already, as begun"),
        (retry, [*TWO, learn("three", "c", "b")], "three", "waits already, as not judged"),
        (retry, [*TWO, bad("three", "c", "b", "3"), Retry(session="three")], "three", "waits already, as to retry"),
        (retry, ASKED, "three", "waits for a person: evergreen promote colours 3 agrees, evergreen skip colours three leaves it out"),
        (
            retry,
            [*TWO, Withdrawn(phase="done", session="one", why="asked to")],
            "one",
            "is withdrawn (asked to): it is never learned again",
        ),
        (skip, TWO, "one", "evergreen rollback colours takes the model back to before it"),
        (skip, [*TWO, Skipped(session="three", why="blurred")], "three", "is skipped already (blurred)"),
        (skip, TWO, "four", "there are one, two, there"),
        (accept, TWO, "two", "is learned already, so there is nothing to accept"),
        (accept, TWO, "four", "no session 'four'"),
        (
            accept,
            [*TWO, bad("three", "c", "b", "3"), Withdrawn(phase="done", session="three", images=("x",), versions=("3",))],
            "three",
            "its candidate, version 3, holds what was withdrawn; evergreen retry colours three learns it without",
        ),
        (retry, [good("one", "a", None, "1"), bad("two", "b", "a", "2", policy="keep")], "two", "evergreen accept colours two --why ..."),
    ],
)
def test_a_wish_that_cannot_be_is_told_with_what_to_do_instead(wish: Any, steps: list[Step], session: str, told: str) -> None:
    arguments = {retry: (), skip: ("why",), accept: ("why",)}[wish]
    more = {"there": ["there"]} if wish is skip else {}
    with pytest.raises(StoreError) as refused:
        wish(stand(*steps), session, *arguments, "ann", **more)
    assert told in str(refused.value)


@pytest.mark.parametrize(
    ("said", "word"),
    [
        (lambda now: retry(now, "three", "ann"), Word.AGAIN),
        (lambda now: skip(now, "three", "blurred", "ann"), Word.SKIPPED),
        (lambda now: accept(now, "three", "seen", "ann"), Word.LEARNED),
        (lambda now: skip(now, "new", "blurred", "ann", ["new"]), Word.SKIPPED),
    ],
)
def test_a_wish_for_a_refused_session_is_done(said: Any, word: Word) -> None:
    before = [*TWO, bad("three", "c", "b", "3")]
    fact = said(stand(*before))
    assert stand(*before, fact).sessions[fact.session].word == word


def test_a_candidate_whose_weights_were_pruned_does_not_become_the_head_by_being_accepted() -> None:
    standing = stand(*TWO, bad("three", "c", "b", "3"), Pruned(phase="done", states=("c",)), Accept(session="three"))
    assert standing.head == "b" and standing.sessions["three"].word == Word.AGAIN and "three" in standing.overruled


# the commands


def test_sessions_are_listed_with_what_became_of_them_and_what_waits(place: Place) -> None:
    (place.root / "colours.yaml").write_text(
        "name: colours\nmodel: {name: tiny}\nmethod: finetune\n"
        'stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}\n'
    )
    rows = {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}
    for name in ("one", "three", "four"):
        append(place.data / "inbox", name, rows, "labels")
    noted(place, *TWO, bad("three", "c", "b", "3"), Skipped(session="six", why="blurred"))
    alone = evergreen("sessions")
    assert "champion of colours: version 2, after 2 sessions" in alone
    for line in ("one learned because of one 20", "three set aside because of three", "six skipped blurred"):
        assert line in alone, alone
    assert "four" not in alone and "evergreen retry colours SESSION" in alone
    assert "four waiting" in evergreen("sessions", "colours", "--config", "colours.yaml")
    told = evergreen("sessions", "birds", code=2)
    assert told == "model birds: it has no history here; there are histories of colours"
    noted(place, model="birds")
    with pytest.raises(StoreError, match=r"which model\? there are birds, colours"):
        only(place)
    assert "it is for the model colours, and not for birds" in evergreen("sessions", "birds", "--config", "colours.yaml", code=2)


def test_a_session_that_nobody_has_spoken_of_is_skipped_where_the_data_have_it(place: Place) -> None:
    append(place.data / "inbox", "poisoned", {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}, "labels")
    config = {"stream": {"kind": "collection", "sources": {"inbox": {"path": "inbox"}}}}
    noted(place, learned("one", "a", None, config=config), says("one", "a", "promoted", "1"))
    assert "there are one, poisoned" in evergreen("skip", "colours", "poisned", code=2)
    assert "poisoned is skipped" in evergreen("skip", "colours", "poisoned", "--why", "labels mixed up")
    status = standing_of(place, "colours").sessions["poisoned"]
    assert (status.word, status.why) == (Word.SKIPPED, "labels mixed up")


def test_nothing_is_written_while_a_process_learns_the_model(place: Place) -> None:
    noted(place, *TWO, bad("three", "c", "b", "3"))
    client, before = registered(place, "a", "b", "c", champion="2"), len(facts(place))
    with locked(place, "learner-colours.lock"):
        for words in (("retry", "colours", "three"), ("skip", "colours", "three"), ("accept", "colours", "three"), ("rollback", "colours")):
            assert "a process is learning it now" in evergreen(*words, code=2)
    assert len(facts(place)) == before and alias(client) == "2"
    assert "three is learned again by the next" in evergreen("retry", "colours", "three")


def test_what_is_accepted_on_the_head_is_champion_at_once_by_entry_alias_and_entry(place: Place) -> None:
    noted(place, *TWO, bad("three", "c", "b", "3"))
    client = registered(place, "a", "b", "c", champion="2")
    assert "three is accepted: version 3 is champion" in evergreen("accept", "colours", "three", "--why", "seen by Ann")
    wish, verdict, done = facts(place)[-3:]
    assert isinstance(wish, Accept) and isinstance(verdict, Verdict) and isinstance(done, Champion)
    assert (verdict.word, verdict.version, done.version, done.phase) == ("promoted", "3", "3", "done")
    assert "seen by Ann" in verdict.reason and alias(client) == "3"
    now = standing_of(place, "colours")
    assert now.head == "c" and now.champion == ("3", "c") and now.confirmed and now.unpublished is None
    assert history(place, client, "colours")[-1].after == "3", "the registry's tags mirror it"


def test_what_is_accepted_after_the_head_moved_is_learned_again_and_nothing_is_dropped(place: Place) -> None:
    noted(place, *TWO, bad("three", "c", "b", "3"), good("four", "d", "b", "4"))
    client = registered(place, "a", "b", "c", "d", champion="4")
    assert "learns it from the champion of now and takes it whatever the gate says" in evergreen("accept", "colours", "three")
    now = standing_of(place, "colours")
    assert now.head == "d" and alias(client) == "4" and "three" in now.overruled and says_now(place)["three"] == "to retry"


def test_a_question_about_a_session_is_answered_by_leaving_it_out(place: Place) -> None:
    noted(place, *ASKED)
    client = registered(place, "a", "b", "c", champion="2")
    client.set_tag(run_of(client, "3"), GATE, WAITING)
    ask(client, run_of(client, "3"), Question("1" * 32, "http://localhost/x", "2000-01-01T00:00:00+00:00"))
    assert "three waits for a person, and nothing is learned meanwhile: evergreen promote colours 3" in evergreen("sessions")
    evergreen("skip", "colours", "three", "--why", "blurred")
    tags = client.get_run(run_of(client, "3")).data.tags
    assert tags[GATE] == "refused" and json.loads(tags[ANSWER])["approve"] is False and QUESTION in tags
    assert standing_of(place, "colours").waiting is None and says_now(place)["three"] == "skipped"


# promote and rollback


def test_a_rollback_is_written_first_and_what_leaves_the_line_stays_out(place: Place) -> None:
    noted(place, *TWO)
    client = registered(place, "a", "b", champion="2")
    told = evergreen("rollback", "colours", "--why", "owls are worse")
    assert "version 1 is champion, as 2 was before" in told and "rolled back: two; evergreen retry colours SESSION" in told
    intent, done = facts(place)[-2:]
    assert isinstance(intent, Champion) and isinstance(done, Champion) and (intent.phase, done.phase) == ("intent", "done")
    now = standing_of(place, "colours")
    assert (now.head, now.champion, now.confirmed) == ("a", ("1", "a"), True) and alias(client) == "1"
    assert now.sessions["two"][:2] == (Word.BACK, "owls are worse")
    with pytest.raises(StoreError, match="no version was champion before 1"):
        rollback(place, client, "colours", None, "again")


@pytest.mark.parametrize("killed", ["note", "change", "done"])
def test_a_rollback_that_was_killed_is_gone_on_with(place: Place, killed: str, monkeypatch: pytest.MonkeyPatch) -> None:
    noted(place, *TWO)
    client = registered(place, "a", "b", champion="2")
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("flows.by_hand.change" if killed == "change" else "flows.by_hand.note", _dying(killed))
        rollback(place, client, "colours", "1", "why")
    now = standing_of(place, "colours")
    assert (now.head, now.confirmed, alias(client)) == {"note": ("b", True, "2"), "change": ("a", False, "2"), "done": ("a", False, "1")}[
        killed
    ]
    promote(place, client, "colours", "1", "why")
    assert standing_of(place, "colours").confirmed and standing_of(place, "colours").head == "a" and alias(client) == "1"


def _dying(at: str) -> Any:
    def act(*arguments: Any, **named: Any) -> Any:
        if at == "done" and getattr(arguments[1], "phase", "") != "done":
            return note(*arguments, **named)
        raise KeyboardInterrupt

    return act


def test_promoting_what_waits_agrees_with_it_and_another_has_it_learned_again(place: Place) -> None:
    noted(place, *ASKED)
    client = registered(place, "a", "b", "c", champion="2")
    client.set_tag(run_of(client, "3"), GATE, WAITING)
    told = evergreen("promote", "colours", "3", "--why", "fine")
    assert "version 3 waited for a person's word, and is agreed with" in told and "learned now: three" in told
    assert [said.word for said in facts(place) if isinstance(said, Verdict)][-1] == "promoted" and says_now(place)["three"] == "learned"

    for said in flat([learn("four", "d", "c"), says("four", "d", "waiting", "4")]):
        note(history_of(place, "colours"), said)
    told = evergreen("promote", "colours", "2")
    assert "rolled back: three" in told and "learned again by the next update, from version 2: four" in told
    assert says_now(place) == {"one": "learned", "two": "learned", "three": "rolled back", "four": "to retry"}


def test_confirming_the_champion_declines_what_waits(place: Place) -> None:
    noted(place, *ASKED)
    client = registered(place, "a", "b", "c", champion="2")
    client.set_tag(run_of(client, "3"), GATE, WAITING)
    told = evergreen("promote", "colours", "2", "--why", "I like it")
    assert "version 2 is champion already" in told and "version 3 waited for a person's word, and is declined" in told
    assert says_now(place)["three"] == "set aside" and "I like it" in standing_of(place, "colours").sessions["three"].why


def test_an_alias_that_was_moved_in_mlflow_is_confirmed(place: Place) -> None:
    noted(place, *TWO)
    client = registered(place, "a", "b", champion="2")
    client.set_registered_model_alias("colours", CHAMPION, "1")
    assert promote(place, client, "colours", "1", "meant so").left == ("two",)
    last = facts(place)[-1]
    assert isinstance(last, Champion) and last.how == "outside_confirmed"
    now = standing_of(place, "colours")
    assert now.champion == ("1", "a") and now.confirmed


@pytest.mark.parametrize(
    ("gone", "told"),
    [
        (
            Withdrawn(phase="done", session="one", images=("x", "y"), versions=("1",), why="rights"),
            r"it holds 2 images of session 'one', withdrawn \(rights\)",
        ),
        (Withdrawn(phase="intent", session="one", versions=("1",)), "it holds session 'one', withdrawn"),
        (Pruned(phase="done", states=("a",), versions=("1",)), "its weights were pruned"),
        (Pruned(phase="done", states=("a",)), "the state it holds was pruned, so nothing could grow from it"),
    ],
)
def test_a_version_that_must_not_be_champion_is_refused_with_the_reason(place: Place, gone: Fact, told: str) -> None:
    noted(place, *TWO, gone)
    client, before = registered(place, "a", "b", champion="2"), len(facts(place))
    for act in (lambda: promote(place, client, "colours", "1", "why"), lambda: rollback(place, client, "colours", None, "why")):
        with pytest.raises(StoreError, match=f"version 1: {told}"):
            act()
    assert len(facts(place)) == before and alias(client) == "2"
    if "the state" not in told:
        with pytest.raises(StoreError, match=f"colours version 1: {told}"):
            served(place, client, "colours/1")


def test_a_model_without_a_history_is_promoted_as_ever(place: Place) -> None:
    client = registered(place, "a", "b", champion="1")
    assert promote(place, client, "colours", "2", "why").change.before == "1" and alias(client) == "2"
    assert not history_of(place, "colours").path.exists()


def test_the_history_of_a_model_is_told_oldest_first(place: Place) -> None:
    noted(place, *TWO, bad("three", "c", "b", "3"), Skipped(session="three", why="blurred", by="ann"))
    client = registered(place, "a", "b", "c", champion="2")
    rollback(place, client, "colours", None, "owls")
    lines = list(story(history_of(place, "colours").read()))
    told = [(line.what, line.session, line.version) for line in lines]
    assert told == [
        ("history begins", "", ""),
        ("learned", "one", ""),
        ("promoted", "one", "1"),
        ("learned", "two", ""),
        ("promoted", "two", "2"),
        ("learned", "three", ""),
        ("refused", "three", "3"),
        ("skipped", "three", ""),
        ("champion again", "", "1"),
    ]
    assert lines[-1].why == "owls" and lines[-2][-2:] == ("ann", "blurred")
    shown = evergreen("history", "colours")
    assert shown.index("refused three 3") < shown.index("champion again 1")


# how it stands


def model_run(place: Place, status: str = "FINISHED") -> Tracker:
    """The run in MLflow of the model whose history was noted, over a collection."""
    tracker = Tracker(place, "colours")
    key = f"history-{history_of(place, 'colours').read()[0].id}"
    tags = {"evergreen.stream": "colours", "evergreen.method": "replay", "evergreen.seed": "0", COMMAND: "evergreen update colours.yaml"}
    run, _ = tracker.open(key, "stream", "colours", tags, {"stream": {"kind": "collection", "sources": {"inbox": {"path": "inbox"}}}})
    tracker.use_data(run, str(place.data), "d" * 8, {})
    if status != "RUNNING":
        tracker.client.set_terminated(run, status)
    return tracker


def row(place: Place, tracker: Tracker) -> Stream:
    (told,) = streams(place, tracker.client)
    return told


def test_a_model_is_one_row_with_its_sessions_and_what_waits(place: Place) -> None:
    rows = {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}
    for name in ("one", "two", "three", "four"):
        append(place.data / "inbox", name, rows, "labels")
    old = [replace(said, versions={"evergreen-clip": "0.1.9"}) if isinstance(said, Learned) else said for said in flat(TWO)]
    noted(place, *old, bad("three", "c", "b", "3"))
    tracker = model_run(place)
    told = row(place, tracker)
    assert (told.state, told.sessions, told.version) == ("waiting", "learned 2, waiting 1, set aside 1", "2, champion")
    assert told.note == f"four to learn; learned by Evergreen 0.1.9, this is {metadata.version('evergreen-clip')}"
    assert told.command == "evergreen update colours.yaml"
    run = tracker.client.search_runs([tracker.experiment])[0].info.run_id
    tracker.client.set_tag(run, COMMAND, "evergreen update colours.yaml --set gate.drop=1 --data-root data --set seed=2")
    assert row(place, tracker).command == "evergreen update colours.yaml --data-root data", "what was set for one time is not set again"
    tracker.client.set_tag(run, COMMAND, "evergreen update colours.yaml")

    for said in (Skipped(session="four"), *flat([good("five", "d", "b", "4")])):
        note(history_of(place, "colours"), said)
    told = row(place, tracker)
    assert (told.state, told.sessions, told.command) == ("learned", "learned 3, set aside 1, skipped 1", "")
    assert "0.1.0, this is" in told.note, "the first release noted none"

    note(history_of(place, "colours"), began("six", "e", "d"))
    Interim(place.steps / "interim" / "e", 60).write(START._replace(done=3, steps=8), {})
    tracker.client.set_terminated(run_id := tracker.client.search_runs([tracker.experiment])[0].info.run_id, "KILLED")
    told = row(place, tracker)
    assert (told.state, told.command) == ("interrupted", "evergreen update colours.yaml") and told.note.startswith("six: 3 of 8 steps")
    with locked(place, f"{tracker.client.get_run(run_id).data.tags[KEY]}.lock"):
        assert row(place, tracker).state == "running"


def test_a_model_whose_history_is_elsewhere_is_told(place: Place) -> None:
    noted(place, *TWO)
    tracker = model_run(place)
    path = history_of(place, "colours").path
    path.write_bytes(path.read_bytes()[:-100] + b"\n")
    assert "is damaged: " in row(place, tracker).note, "the others are told all the same"
    path.unlink()
    assert "its history is not here; share the folder" in row(place, tracker).note


def test_the_run_of_a_model_is_alive_while_somebody_is_at_it(place: Place) -> None:
    append(place.data / "inbox", "one", {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}, "labels")
    job = job_of({"name": "colours", "model": {"name": "tiny"}, "method": "finetune", "stream": STREAM}, whole=False)
    with entered.model_run(job, "x") as run:
        assert streams(place, connect(place))[0].state == "running", "whoever looks does not take it for a dead process's"
    assert connect(place).get_run(run).info.status == "FINISHED"


def test_a_config_is_told_by_the_history_of_its_model() -> None:
    standing = stand(*TWO, bad("three", "c", "b", "3"), good("four", "d", "b", "4"))
    rows = of_model(standing, Path("nowhere"), ["five"])
    assert [(each.number, each.session, each.state) for each in rows] == [
        (1, "one", "learned"),
        (2, "two", "learned"),
        (3, "four", "learned"),
        ("–", "three", "set aside"),
        ("–", "five", "waiting"),
    ]
    assert rows[3].note.startswith("because of three (2026-01-01")


def test_a_history_that_is_gone_is_told_as_that_and_what_waits_is_listed_before_there_is_one(place: Place, tmp_path: Path) -> None:
    append(place.data / "inbox", "one", {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}, "labels")
    stream = 'stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}'
    (tmp_path / "colours.yaml").write_text(f"name: colours\nmodel: {{name: tiny}}\nmethod: finetune\n{stream}\n")
    for words in (["colours", "--config", "colours.yaml"], ["--config", "colours.yaml"]):
        assert "one waiting" in evergreen("sessions", *words)
    assert "`evergreen update CONFIG` begins one" in evergreen("sessions", "colours", code=2)
    client = registered(place, "a", champion="1")
    assert "`evergreen update CONFIG` begins one" in evergreen("sessions", "colours", code=2), "`run` made it, which has no history"
    client.set_tag(run_of(client, "1"), "evergreen.kind", "session")
    assert "colours.jsonl is not here, nor is what it learned; share the folder" in evergreen("sessions", "colours", code=2)
    (place.steps / "states" / "a").mkdir(parents=True)
    told = "colours.jsonl is not here, though what it learned is: put a copy of that file back"
    assert told in evergreen("sessions", "colours", code=2)
    with pytest.raises(StoreError, match=re.escape(told)):
        open_history(work(job_of("colours.yaml", whole=False)))


def test_a_setting_that_nobody_set_has_not_changed() -> None:
    stated = {"name": "colours", "model": {"name": "tiny"}, "method": "finetune", "stream": STREAM}
    now = parse_config(stated, "test").model_dump(mode="json")
    before = {**now, "method": {"name": "finetune"}, "train": {name: value for name, value in now["train"].items() if name != "epochs"}}
    assert len(now["method"]) > 1, "what finetune has at its default"
    quiet, told = (
        [line for line in since(learned("1", "a", config=before), replace(began("2", "b"), config=config)) if "settings changed" in line]
        for config in (now, {**now, "train": {**now["train"], "epochs": 7}})
    )
    assert quiet == [] and told == ["since 1: settings changed: train.epochs unset -> 7"]


def test_what_a_person_accepted_is_not_said_to_be_tried_again(place: Place) -> None:
    from flows.line.policy import _rule

    append(place.data / "inbox", "three", {"train": table((0, 1), 2), "test": table((0, 1), 1, seed=5)}, "labels")
    noted(place, TWO, bad("three", "c", "b", "3"), good("four", "d", "b", "4"), Accept(session="three", by="ann"))
    job = job_of({"name": "colours", "model": {"name": "tiny"}, "method": "finetune", "stream": STREAM}, whole=False)
    waiting = [Arrival("three", "inbox", 2, "c")]
    assert _rule(job, work(job).standing(), waiting).why == "three was accepted by a person, and is learned from the head of now"


def test_every_kind_of_entry_is_told_or_left_out_on_purpose() -> None:
    line = (learned("1", "a"),)
    said: list[Fact] = [
        began("1", "a"),
        learned("1", "a", dropped=("the buffer",)),
        Adopted(version="2", line=line),
        Adopted(version="", line=line),
        Rebuilt(version="3", state="a", line=line, why="learned anew"),
        crown("3", "a", "rebuild"),
        Retry(session="2", by="ann"),
        Accept(session="2", why="seen", by="ann"),
        Abandoned(state="b", session="2", why="the head moved"),
        Withdrawn(phase="done", session="2", images=("x",), versions=("2",)),
        Pruned(phase="intent", states=("a",)),
        Pruned(phase="done", states=("a",), versions=("1",)),
    ]
    told = [(line.what, line.session, line.version, line.why) for line in story(entries(said))][1:]
    assert told == [
        ("learned", "1", "", "left behind: the buffer"),
        ("adopted", "1", "2", "learned by `run`"),
        ("learned anew", "1", "", "beside the champion; the gate has not spoken yet"),
        ("promoted", "1", "3", "learned anew"),
        ("to retry", "2", "", ""),
        ("accepted by a person", "2", "", "seen"),
        ("abandoned", "2", "", "the head moved"),
        ("withdrawn", "1 image of 2", "2", ""),
        ("pruned", "", "1", "the weights of 1 state"),
    ]
