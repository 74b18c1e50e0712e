"""Update: what waits is learned once, session by session, each judged before the next, whoever asks and whatever has changed since."""

import fcntl
import json
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import mlflow
import pytest
import torch
from prefect.client.orchestration import get_client
from prefect.client.schemas.actions import GlobalConcurrencyLimitUpdate

import cl.onward
from cl.data.collection import append
from cl.data.table import ImageTable
from cl.errors import DataError, StoreError
from cl.evaluation.evaluate import evaluate
from cl.methods.terms.fit import Fit
from cl.run import plan
from cl.run_config import parse_config, read_config
from flows.forward import catch_up
from flows.history.conclude import conclude
from flows.history.entries import Accept, Retry, Withdrawn, history_of, note
from flows.history.standing import Standing
from flows.learn.configs import collections, settings
from flows.learn.failures import failures
from flows.learn.job import job_of, planned, prepared
from flows.line.effect import changed
from flows.line.grow import method_of
from flows.line.view import report_of_line
from flows.line.work import look, work
from flows.registry.champion import CHAMPION, change, holder
from flows.serve import deployments
from flows.settings import Place
from flows.tracking.locks import model_locked
from flows.tracking.runs import connect, locked
from flows.update import update
from tests.grown import learned_by, sparing, without_prefect
from tests.make import table

pytestmark = pytest.mark.usefixtures("prefect_server")
CONFIG = """
name: growing
model: {name: tiny}
stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}
method: finetune
train: {epochs: 1, batch_size: 8, lr: 1.0e-3, device: cpu}
gate: {drop: null, flips: null}
evaluate: {geometry: 0}
"""
HARD = ["gate.worst_class=1.0"]  # a bound that nothing here holds


@pytest.fixture
def config(stored: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """A project with one session in its collection, without the figures and pages that take seconds."""
    sparing(monkeypatch)
    (stored / "growing.yaml").write_text(CONFIG)
    arrive(stored, "first", (0, 1))
    return str(stored / "growing.yaml")


def arrive(project: Path, name: str, colours: tuple[int, ...], each: int = 8, seed: int = 0, wrong: bool = False) -> None:
    train = table(colours, each, seed=seed)
    if wrong:  # the labels of its training images are shuffled
        labels = train.table["label"].to_pylist()
        train = ImageTable(
            train.table.set_column(train.table.schema.get_field_index("label"), train.table.schema.field("label"), [labels[::-1]])
        )
    append(project / "data" / "inbox", name, {"train": train, "test": table(colours, 4, seed=seed + 50)}, "labels")


@pytest.fixture
def learned(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sessions that are really learned."""
    return learned_by(monkeypatch)


@pytest.fixture
def bare(monkeypatch: pytest.MonkeyPatch) -> None:
    """`update` without Prefect around it, which takes most of its time and is seen to by other tests here."""
    without_prefect(monkeypatch)
    monkeypatch.setattr(sys.modules[__name__], "update", lambda config, overrides=(): catch_up(prepared(config, list(overrides))))


def stands(project: Path) -> Standing:
    return conclude(history_of(Place(project), "growing").read())


def words(project: Path) -> dict[str, str]:
    return {name: str(status.word) for name, status in stands(project).sessions.items()}


def champion(project: Path) -> str | None:
    held = holder(connect(Place(project)), "growing", CHAMPION)
    return str(held.version) if held else None


def run_states(project: Path, names: list[str], *changes: str) -> tuple[str, ...]:
    """What `run` would call the states of a stream of these sessions alone."""
    config = read_config(project / "growing.yaml", changes)
    kept, entries = project / "data" / "inbox", sorted((project / "data" / "inbox").iterdir())
    other = project / "only" / "inbox"
    for path in entries:
        if path.name.partition("-")[2] in names and not path.name.startswith("."):
            note_ = json.loads((path / "session.json").read_text())
            number = 1 + len(list(other.glob("[0-9]*")))
            target = other / f"{number:04d}-{note_['name']}"
            target.mkdir(parents=True)
            for file in path.iterdir():
                (target / file.name).write_bytes(file.read_bytes())
            (target / "session.json").write_text(json.dumps(note_ | {"number": number}))
    assert kept.exists()
    return plan(parse_config(config.model_dump(mode="json", exclude={"compare"}), "test"), project / "only", "v").states


def test_what_waits_is_learned_once_and_in_the_order_it_came(config: str, stored: Path, learned: list[str]) -> None:
    assert update(config)["learned"] == ["first"] == learned and champion(stored) == "1"
    assert (told := update(config))["learned"] == [] and (told["waiting"], told["why"]) == (0, "up to date")
    arrive(stored, "third", (4, 5), seed=1)
    arrive(stored, "second", (2, 3), seed=2)
    assert update(config)["sessions"] == {"third": "learned", "second": "learned"} and learned == ["first", "third", "second"]
    assert champion(stored) == "2"  # the last accepted one is a version, and none of those between
    assert [each.session for each in stands(stored).line] == ["first", "third", "second"]
    assert [each.state for each in stands(stored).line] == list(run_states(stored, ["first", "third", "second"])[1:])
    assert update(config)["learned"] == [] and len(learned) == 3


def test_a_state_is_asked_what_is_new_and_the_model_has_one_run(config: str, stored: Path, learned: list[str]) -> None:
    update(config)
    arrive(stored, "second", (2, 3), seed=2)
    update(config)
    client = connect(Place(stored))
    runs = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=100)
    whole = "growing model, finetune seed 0"
    assert sorted(run.info.run_name for run in runs) == [f"first ({whole})", whole, f"second ({whole})"]
    (model,) = (run for run in runs if run.info.run_name == whole)
    assert [point.step for point in client.get_metric_history(model.info.run_id, "top1/first")] == [1, 2]
    assert {run.info.status for run in runs} == {"FINISHED"} and model.data.tags["evergreen.gate"] == "promoted"


def test_what_comes_in_once_an_update_has_begun_is_of_another_version_of_the_data(config: str, stored: Path) -> None:
    job = prepared(config, look=look)
    arrive(stored, "late", (0, 1))
    assert list(work(job).arrivals.there()) == ["first"], "its version names the data that it has, and no other"
    again = prepared(config, look=look)
    assert again.data != job.data and list(work(again).arrivals.there()) == ["first", "late"]


@pytest.mark.usefixtures("bare")
def test_the_policy_counts_what_waits_and_never_holds_the_first_session_back(config: str, stored: Path, learned: list[str]) -> None:
    policy = ["update.policy=samples", "update.samples=20"]
    update(config, policy)
    assert learned == ["first"]
    arrive(stored, "second", (2, 3), each=5)
    held = update(config, policy)
    assert (held["waiting"], held["why"]) == (1, "10 new images, and the policy wants 20") and learned == ["first"]
    arrive(stored, "third", (4,), each=10, seed=1)
    assert update(config, policy)["learned"] == ["second", "third"] == learned[1:]


@pytest.mark.usefixtures("bare")
def test_the_policy_waits_for_images_that_look_new(config: str, stored: Path, learned: list[str]) -> None:
    policy = ["update.policy=drift", "update.false_alarms=0.02"]
    arrive(stored, "base", (0, 1), each=40, seed=3)
    update(config, policy)
    arrive(stored, "more", (0, 1), each=20, seed=9)
    held = update(config, policy)
    assert held["waiting"] == 1 and held["why"].startswith("new images are like known ones") and learned == ["first", "base"]
    assert "false alarms measured, 2.0% asked for" in held["why"]
    arrive(stored, "other", (6, 7), each=40)
    outcome = update(config, policy)
    assert learned == ["first", "base", "more", "other"]
    why = mlflow.artifacts.load_dict(f"runs:/{outcome['run']}/update.json")
    assert why["drift"]["drift"] == "yes" and why["drift"]["distance"] > why["drift"]["threshold"]


@pytest.mark.usefixtures("bare")
def test_after_an_upgrade_other_settings_or_another_method_one_new_session_is_one_session_learned(
    config: str, stored: Path, learned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for number, name in enumerate(["second", "third", "fourth"], start=1):
        arrive(stored, name, (2 * number % 8, (2 * number + 1) % 8), seed=number)
    update(config)
    assert learned == ["first", "second", "third", "fourth"]
    told: list[str] = []
    monkeypatch.setattr("flows.line.grow.watch", lambda: _listener(told))
    monkeypatch.setattr("cl.release.code_version", lambda: "another comment")
    changes: list[tuple[Callable[[], None], list[str]]] = [
        (lambda: None, []),
        (lambda: monkeypatch.setattr(Fit, "version", 2), []),
        (lambda: None, ["train.lr=0.002"]),
        (lambda: None, ["train.lr=0.002", "method={name: vr_lwf, texts: 8}"]),
        (lambda: None, ["method={name: replay, capacity: 6}"]),
        (lambda: None, ["method={name: ridge, projection: 40}"]),
        (lambda: None, []),
    ]
    for number, (upgrade, overrides) in enumerate(changes):
        before, name = stands(stored), f"later-{number}"
        reference = _by_hand(stored, before, name, overrides) if not upgrade() else None
        arrive(stored, name, (number % 8, (number + 3) % 8), seed=10 + number)
        learned.clear()
        assert update(config, overrides)["learned"] == [name] == learned, (name, overrides)
        after = stands(stored)
        assert [each.state for each in after.line[:-1]] == [each.state for each in before.line] and after.line[-1].parent == before.head
        assert reference
        _same(reference(), _method(stored, after, overrides))
    assert stands(stored).line[-1].dropped and "the memory of ridge" in stands(stored).line[-1].dropped[0]
    assert any("left behind: the memory of replay" in line for line in told)
    assert "growing: since fourth: what the method computes changed: a unit's version was raised" not in told  # nothing was, by then
    assert "growing: since later-0: what the method computes changed: a unit's version was raised" in told
    assert "growing: since later-1: settings changed: train.lr 0.001 -> 0.002" in told
    assert any(line.startswith("growing: since later-2: settings changed: method.") and "finetune -> vr_lwf" in line for line in told)


@pytest.mark.slow
@pytest.mark.usefixtures("bare", "learned")
def test_a_line_goes_on_with_the_defaults_it_began_with(config: str, stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("flows.line.grow.watch", lambda: _listener(told))
    update(config, ["method={name: ridge, penalty: 0.1, projection: null}"])  # as a release had it where nobody set anything
    arrive(stored, "second", (2, 3))
    assert update(config, ["method=ridge"])["learned"] == ["second"] and stands(stored).line[-1].dropped == ()
    kept = _method(stored, stands(stored), ["method={name: ridge, penalty: 0.1, projection: null}"])
    assert len(kept["sums.rows"]) == 4  # the first session's two classes among them
    assert any(line.startswith("growing: ridge: goes on with penalty 0.1, projection null, as this line began") for line in told)
    arrive(stored, "third", (4, 5))
    update(config, ["method={name: ridge, projection: 40}"])  # set by somebody
    assert stands(stored).line[-1].config["method"]["projection"] == 40


def _listener(told: list[str]) -> Any:
    nothing = lambda *_, **__: None  # noqa: E731
    return SimpleNamespace(tell=told.append, begin=nothing, progress=nothing, end=nothing, heard=nothing)


def _method(project: Path, standing: Standing, overrides: list[str]) -> dict[str, torch.Tensor]:
    from flows.line.grow import method_of
    from flows.line.work import Work

    return method_of(Work(job_of(str(project / "growing.yaml"), overrides, whole=False)), standing.line[-1]).state_dict()


def _by_hand(project: Path, before: Standing, name: str, overrides: list[str]) -> Callable[[], dict[str, torch.Tensor]]:
    """The same session learned by hand on the weights of the head."""

    def reference() -> dict[str, torch.Tensor]:
        from cl.learning.learner import learn
        from cl.run_config import train_config
        from cl.store.states import load_state
        from flows.line.work import Work, classes

        at = Work(job_of(str(project / "growing.yaml"), overrides, whole=False))
        known = {each.name: each for learned in before.line for each in classes(learned.classes)}
        session, _ = at.arrivals.session(name, len(before.line) + 1, known)
        assert before.head
        step = cl.onward.onward(at.config, at.root, session, {}, before.head, None)
        method, _ = load_state(step.build, at.config.method.called(), before.head, at.place.steps)
        learn(method, session, train_config(at.config, session), at.config.seed)
        return method.state_dict()

    return reference


def _same(one: dict[str, torch.Tensor], two: dict[str, torch.Tensor]) -> None:
    assert one.keys() == two.keys()
    assert all(torch.equal(one[name], two[name]) for name in one)


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("together", [False, True], ids=["one by one", "all at once"])
def test_a_poisoned_session_is_set_aside_and_the_model_is_as_if_it_had_never_come(
    config: str, stored: Path, learned: list[str], monkeypatch: pytest.MonkeyPatch, together: bool
) -> None:
    monkeypatch.setattr("flows.line.verdict.rule", _no_third)
    names = ["first", "second", "third", "fourth", "fifth"]
    for number, name in enumerate(names[1:], start=1):
        arrive(stored, name, (number, number + 1), seed=number, wrong=name == "third")
        if not together:
            update(config)
    update(config)
    assert words(stored) == {name: "set aside" if name == "third" else "learned" for name in names} and sorted(learned) == sorted(names)
    kept = [name for name in names if name != "third"]
    assert [each.state for each in stands(stored).line] == list(run_states(stored, kept)[1:])
    assert update(config)["learned"] == []


def _no_third(at: Any, client: Any, standing: Standing, learned: Any, bounds: Any) -> Any:
    from cl.evaluation.gate import Decision
    from flows.line.ruling import Ruled

    bad = any(each.session == "third" for each in (learned, *standing.line))
    return Ruled(Decision(not bad, (), "worse" if bad else "every bound holds"), {})


@pytest.mark.usefixtures("bare")
def test_what_follows_an_accepted_session_is_held_against_that_and_the_next_against_the_champion(
    config: str, stored: Path, learned: list[str]
) -> None:
    update(config)
    for number, name in enumerate(["second", "third"], start=1):
        arrive(stored, name, (2 * number, 2 * number + 1), seed=number)
    update(config, ["gate.drop=1.0"])
    arrive(stored, "fourth", (6, 7), seed=3)
    update(config, ["gate.drop=1.0", *HARD])
    client = connect(Place(stored))
    told = [mlflow.artifacts.load_dict(f"runs:/{client.get_model_version('growing', version).run_id}/gate.json") for version in "123"]
    assert [(each["champion"], each["accepted"]) for each in told] == [(None, None), (None, "second"), ("2", None)]
    at, standing = work(job_of(config)), stands(stored)
    started = datetime.fromisoformat(report_of_line(at, standing, standing.line).provenance.started)
    assert abs((started - datetime.fromisoformat(standing.sessions["first"].when)).total_seconds()) < 60
    bounds = [{check["bound"] for check in each["checks"]} for each in told]
    assert "first against the model after second" in bounds[1] and "first against the champion" in bounds[2]
    assert all(before is not None for _, before in told[1]["scores"].values())
    assert told[1]["reason"] == "every bound holds, with the model after second asked the same" and "needs no champion" in told[0]["reason"]
    for number in (2, 3):  # of what is forgotten, so much is lost by asking the state before it among as many classes as now
        path = standing.line[:number]
        exams = [each for each in at.sets(standing, path).judged if 0 < (each.taught or 0) < number]
        line, was = at.line(path, exams), method_of(at, path[-2])
        before, now = (
            evaluate(was, [each.examined() for each in line.questions(after)], at.config.evaluate) for after in (number - 1, number)
        )
        falls = [before[each.name].metrics["top1"] - now[each.name].metrics["top1"] for each in exams]
        (forgotten,) = (each for each in changed(at, standing, path) if each.what == "forgotten")
        assert forgotten.more and forgotten.wider == pytest.approx(sum(falls) / len(falls)) and exams


@pytest.mark.usefixtures("bare")
def test_a_refused_session_is_tried_again_when_somebody_wants_it_and_accepted_whatever_the_gate_says(
    config: str, stored: Path, learned: list[str]
) -> None:
    update(config)
    for number, name in enumerate(["second", "third"], start=1):
        arrive(stored, name, (2 * number, 2 * number + 1), seed=number)
        update(config, HARD)
    assert words(stored) == {"first": "learned", "second": "set aside", "third": "set aside"} and champion(stored) == "1"
    journal = history_of(Place(stored), "growing")
    note(journal, Retry(session="second", by="Ann"))
    assert update(config, HARD)["sessions"] == {"second": "set aside"} and learned == ["first", "second", "third"]  # found by its name
    note(journal, Retry(session="second", by="Ann"))
    assert update(config)["sessions"] == {"second": "learned"} and learned == ["first", "second", "third"]
    note(journal, Accept(session="third", why="seen", by="Ann"))  # it grew from what is the head no longer
    assert update(config, HARD)["sessions"] == {"third": "learned"} and learned == ["first", "second", "third", "third"]
    assert [each.session for each in stands(stored).line] == ["first", "second", "third"]


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize(("policy", "line"), [("keep", ["first", "second", "third"]), ("retry_with_next", ["first", "second", "third"])])
def test_what_becomes_of_a_refused_session_is_as_the_config_says(
    config: str, stored: Path, learned: list[str], monkeypatch: pytest.MonkeyPatch, policy: str, line: list[str]
) -> None:
    update(config)
    arrive(stored, "second", (2, 3), seed=1)
    update(config, [*HARD, f"update.refused={policy}"])
    assert champion(stored) == "1"
    arrive(stored, "third", (4, 5), seed=2)
    update(config, [f"update.refused={policy}"])
    assert [each.session for each in stands(stored).line] == line and champion(stored) == "3"
    assert len(stands(stored).line) == 3 and stands(stored).line[-1].number == 3


def test_a_night_that_fails_before_anything_is_learned_is_kept_for_status_until_it_succeeds(
    config: str, stored: Path, learned: list[str]
) -> None:
    (stored / "data").rename(stored / "away")
    with pytest.raises(DataError):
        update(config)
    (failed,) = failures(Place(stored))
    assert (failed.stream, failed.command) == ("growing", f"evergreen update {config}") and "no data there" in failed.error
    (stored / "away").rename(stored / "data")
    assert update(config)["gate"] == "promoted" and failures(Place(stored)) == []


class Killed(BaseException):
    """As if the process had died here."""


@pytest.fixture
def dying(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[[int, bool], None]]:
    """Die at the n-th write of the history from now on, before or after it is on the disk."""
    from cl.disk.journal import Journal

    real, left = Journal.append, {"count": -1, "after": False}

    def append_(self: Journal, kind: str, /, **options: Any) -> Any:
        left["count"] -= 1
        if left["count"] == 0 and not left["after"]:
            raise Killed
        written = real(self, kind, **options)
        if left["count"] == 0:
            raise Killed
        return written

    monkeypatch.setattr(Journal, "append", append_)

    def at(count: int, after: bool) -> None:
        left.update(count=count, after=after)

    yield at


@pytest.mark.usefixtures("bare")
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
def test_who_dies_at_any_entry_goes_on_under_other_settings_with_nothing_learned_twice(
    config: str, stored: Path, learned: list[str], dying: Callable[[int, bool], None], after: bool
) -> None:
    update(config)
    for number in range(1, 9):  # began, learned, accepted, promoted, champion, and past the end
        name = f"later-{number}"
        arrive(stored, name, (number % 8, (number + 2) % 8), seed=number)
        learned.clear()
        dying(number, after)
        with_lr = [f"train.lr=0.00{number}"]
        try:
            update(config, with_lr)
        except BaseException as error:
            assert isinstance(error, Killed) or "Killed" in repr(error)
        begun = stands(stored).open
        dying(-1, False)
        update(config, ["train.lr=0.0005"])
        standing = stands(stored)
        assert learned == [name] and standing.line[-1].session == name and str(standing.champion.version) == champion(stored)  # type: ignore[union-attr]
        if begun:  # what was begun is learned under the settings it was begun with
            assert standing.line[-1].config["train"]["lr"] == float(with_lr[0].partition("=")[2])
        assert update(config)["learned"] == []


def test_an_alias_that_somebody_moved_stops_the_next_update_until_it_is_confirmed(config: str, stored: Path, learned: list[str]) -> None:
    update(config)
    arrive(stored, "second", (2, 3), seed=1)
    update(config)
    client = connect(Place(stored))
    client.set_registered_model_alias("growing", CHAMPION, "1")
    with pytest.raises(StoreError, match="its history has version 2 as champion, and MLflow has version 1: somebody moved the alias"):
        update(config)
    change(Place(stored), client, "growing", CHAMPION, "2", "it was a mistake")
    assert update(config)["learned"] == []


def test_a_champion_that_was_deleted_in_mlflow_is_registered_again(config: str, stored: Path, learned: list[str]) -> None:
    update(config)
    client = connect(Place(stored))
    client.delete_registered_model("growing")
    assert update(config)["learned"] == [] and champion(stored) == "1" and stands(stored).champion and learned == ["first"]


def test_another_stream_another_base_model_or_joint_learning_is_refused(config: str, stored: Path, learned: list[str]) -> None:
    update(config)
    for overrides, told in (
        (["stream.sources={inbox: other}"], "its history is of a stream of kind collection over inbox"),
        (["model.seed=7"], "its history began with another base model"),
        (["joint=true"], "joint: found true"),
        (["stream.candidates=all"], "candidates: found all"),
    ):
        append(stored / "data" / "other", "x", {"train": table((0,), 4), "test": table((0,), 4, seed=9)}, "labels")
        arrive(stored, f"new-{len(told)}", (2, 3), seed=len(told))
        with pytest.raises(Exception, match=told):
            update(config, overrides)


def test_sessions_whose_data_are_gone_are_told_and_stop_nothing(
    config: str, stored: Path, learned: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = {"kind": "listed", "sources": {"a": "a", "b": "b"}, "template": "a {} square", "candidates": "seen"}
    for name, colours in (("a", (0, 1)), ("b", (2, 3))):
        from cl.data.table import write

        write({"train": table(colours, 8), "test": table(colours, 4, seed=50)}, stored / "data" / name)
    listed = {**read_config(Path(config)).model_dump(mode="json", exclude={"compare"}), "name": "listed", "stream": stream}
    one = {**listed, "stream": {**stream, "sessions": [{"name": "one", "source": "a"}]}}
    two = {**listed, "stream": {**stream, "sources": {"a": "b", "b": "b"}, "sessions": [{"name": "two", "source": "b"}]}}
    update(one)
    told: list[str] = []
    monkeypatch.setattr("flows.forward.watch", lambda: _listener(told))
    with pytest.raises(StoreError, match="its history is of a stream"):
        update(two)
    both = {**listed, "stream": {**stream, "sessions": [{"name": "two", "source": "b"}]}}
    assert update(both)["sessions"] == {"two": "learned"}
    assert "listed: learned, and absent now: one; what they taught stays" in told


def test_a_session_that_comes_in_while_another_learns_is_found_by_the_next_in_line(config: str, stored: Path, learned: list[str]) -> None:
    held = threading.Event()

    def another() -> None:
        with locked(Place(stored), "learner-growing.lock"):
            held.set()
            time.sleep(1)
            arrive(stored, "second", (2, 3))
            assert learned == []

    learning = threading.Thread(target=another)
    learning.start()
    held.wait()
    assert update(config)["learned"] == ["first", "second"] == learned
    learning.join()


def test_the_lock_of_a_dead_learner_is_free_and_prefect_knows_of_the_limit(stored: Path) -> None:
    place = Place(stored)
    (place.runs / "locks").mkdir(parents=True)
    hold = "import fcntl, sys, time; f = open(sys.argv[1], 'w'); fcntl.flock(f, fcntl.LOCK_EX); print('held', flush=True); time.sleep(600)"
    file = place.runs / "locks" / "learner-growing.lock"
    with subprocess.Popen([sys.executable, "-c", hold, str(file)], stdout=subprocess.PIPE, text=True) as holder_:
        assert holder_.stdout and holder_.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError):
            fcntl.flock(file.open("w"), fcntl.LOCK_EX | fcntl.LOCK_NB)
        holder_.kill()
    with model_locked(place, "growing"), get_client(sync_client=True) as client:
        limit = client.read_global_concurrency_limit_by_name("evergreen-growing")
        assert (limit.limit, limit.active_slots) == (1, 1)
    with get_client(sync_client=True) as client:
        assert client.read_global_concurrency_limit_by_name("evergreen-growing").active_slots == 0


def test_who_waits_for_another_machine_says_so_and_how_to_free_what_nobody_holds(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[str] = []
    monkeypatch.setattr("flows.tracking.locks._WAIT", 0.5)
    monkeypatch.setattr("flows.tracking.locks.watch", lambda: SimpleNamespace(tell=told.append))
    with get_client(sync_client=True) as client:
        client.upsert_global_concurrency_limit_by_name("evergreen-growing", 1)

        def slots(count: int) -> None:
            client.update_global_concurrency_limit("evergreen-growing", GlobalConcurrencyLimitUpdate(active_slots=count))

        slots(1)  # held on another machine
        timer = threading.Timer(3.0, slots, [0])
        timer.start()
        with model_locked(Place(stored), "growing"):
            timer.join()
    (line,) = told
    assert "another machine learns it; waiting" in line and "`prefect gcl update evergreen-growing --active-slots 0` frees it" in line


def test_a_collection_starts_its_update_by_event_and_other_streams_by_schedule_alone(config: str, stored: Path) -> None:
    run = settings(config, [], Place(stored))
    updating, learning, comparing, _ = deployments(config, "0 3 * * *", collections(run))
    (trigger,) = updating.triggers
    assert trigger.expect == {"evergreen.session.ingested"} and trigger.match.root == {"prefect.resource.id": "evergreen.collection.inbox"}
    assert (
        [schedule.schedule.cron for schedule in updating.schedules] == ["0 3 * * *"] and not learning.schedules and not comparing.schedules
    )
    assert collections(settings("glyphs", [], Place(stored))) == [] and planned(job_of(config)).stream.sessions[0].name == "first"


def test_a_rebuild_learns_the_line_and_what_waits_anew_and_the_gate_judges(config: str, stored: Path, learned: list[str]) -> None:
    update(config)
    for number, name in enumerate(["second", "third"], start=1):
        arrive(stored, name, (2 * number, 2 * number + 1), seed=number)
        update(config, HARD if name == "second" else [])
    arrive(stored, "fourth", (1, 6), seed=4)
    before = stands(stored)
    learned.clear()
    refused = update(config, [*HARD, "train.lr=0.002"], None, True)
    assert refused["learned"] == ["first", "third", "fourth", "fourth"] == learned  # and then what waits, on the champion
    assert [each.state for each in stands(stored).line] == [each.state for each in before.line]
    assert champion(stored) == "3" and words(stored)["fourth"] == "set aside"
    update(config, ["train.lr=0.002"], None, True)
    after = stands(stored)
    assert len(learned) == 4 and [each.session for each in after.line] == ["first", "third"]
    assert after.champion and champion(stored) == after.champion.version != "3"
    assert [each.state for each in after.line] == list(run_states(stored, ["first", "third"], "train.lr=0.002")[1:])
    assert words(stored)["second"] == "set aside" and update(config)["learned"] == []


def test_nothing_grows_from_a_head_that_holds_what_was_withdrawn_and_a_rebuild_leaves_it_out(
    config: str, stored: Path, learned: list[str]
) -> None:
    arrive(stored, "second", (2, 3), seed=1)
    arrive(stored, "third", (0, 4), seed=2)
    update(config)
    journal = history_of(Place(stored), "growing")
    for phase in ("intent", "done"):
        note(journal, Withdrawn(phase=phase, session="second", versions=("1",), why="not ours", by="Ann"))  # type: ignore[arg-type]
    arrive(stored, "fourth", (1, 5), seed=3)
    learned.clear()
    with pytest.raises(StoreError, match=r"holds data that were withdrawn.*evergreen update CONFIG --rebuild"):
        update(config)
    assert learned == []
    assert update(config, ["gate.drop=1"], None, True)["learned"] == ["first", "third", "fourth"]
    assert [each.session for each in stands(stored).line] == ["first", "third", "fourth"] and champion(stored) == "2"
    assert update(config)["learned"] == []
