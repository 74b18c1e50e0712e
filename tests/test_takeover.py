"""What release 0.1.0 and this one's `run` learned is taken over by the first update: nothing is learned again, and nothing is lost."""

import hashlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cl.evaluation.ask
import cl.onward
from cl.data.collection import append
from cl.errors import StoreError
from cl.evaluation.ask import names
from cl.evaluation.cells import Cells
from cl.methods.presets.replay import ReplayConfig
from cl.models.clip import ModelConfig, load
from cl.store.states import load_state
from flows.forward import catch_up, open_history
from flows.history.entries import Champion, Withdrawn, fact, note
from flows.history.standing import Standing, Word
from flows.history.story import story
from flows.learn.job import job_of, planned, prepared
from flows.learn.session import tracker_of
from flows.line.entered import model_run
from flows.line.work import Work, work
from flows.look.status import streams
from flows.registry.champion import before, change, history
from flows.stream import learn_stream
from flows.takeover.past import steps_to
from flows.takeover.takeover import take_over
from flows.tracking.runs import KEY
from tests.grown import learned_by, sparing
from tests.make import table
from tests.old_projects import unpack

S1, S2, S3 = "2cbdd7d672932daf0e0f5185", "b6e965209f45b8307b942b73", "8cf54cd33a39589130d858a7"
R1, R2 = "0ffb2ae765c3e7ac566102bb", "1f50116209567085c94839c7"  # replay's
TINY = """
name: colours
model: {name: tiny}
stream: {kind: collection, sources: {inbox: inbox}, template: "a {} square", candidates: seen}
method: finetune
train: {epochs: 1, batch_size: 4, device: cpu}
gate: {drop: null, flips: null}
evaluate: {geometry: 0}
"""
CASES = {  # line, champions, status of what is not simply learned, what waits, how it is taken over
    "three": ((S1, S2, S3), ("1", "2", "3"), {}, [], "verified"),
    "last_refused": ((S1, S2), ("1", "2"), {"s3": (Word.ASIDE, "worst class is 0.000, the bound 1.000")}, [], "verified"),
    "refused_inside": ((S1, S2, S3), ("1", "3"), {"s2": (Word.KEPT, "worst class is 0.000, the bound 1.000")}, [], "verified"),
    "half": ((S1, S2), ("1", "2"), {}, ["s3"], "verified"),
    "replay": ((R1, R2), ("1", "2"), {}, [], "verified"),
    "gone": ((S1, S2, S3), ("1", "2", "3"), {}, [], "by name only"),
}

FAST = "refused_inside"  # updated in the default tier
FEW = [pytest.param(name, marks=pytest.mark.slow) if name in ("last_refused", "half", "replay") else name for name in CASES]


def old(name: str, project: Path) -> str:
    """A project of release 0.1.0, which is also the current folder; returns its config."""
    unpack("three" if name == "gone" else name, project)
    if name == "gone":
        shutil.rmtree(project / "data" / "inbox" / "0001-s1")
    return str(project / "colours.yaml")


def at_hand(config: str, *overrides: str) -> Work:
    work.cache_clear()
    return work(prepared(config, overrides))


def standing_of(at: Work) -> Standing:
    open_history(at)
    return at.standing()


@pytest.mark.parametrize("name", FEW)
def test_a_project_of_0_1_0_is_what_it_was(name: str, project: Path) -> None:
    line, champions, otherwise, waiting, how = CASES[name]
    at = at_hand(old(name, project))
    now = standing_of(at)
    assert tuple(each.state for each in now.line) == line and now.champions == champions
    assert now.champion and (now.champion.version, now.champion.state) == (champions[-1], line[-1]) and now.confirmed
    other = {session: (each.word, each.why) for session, each in now.sessions.items() if each.word != Word.LEARNED}
    assert other == otherwise and [each.name for each in at.waiting(now)] == waiting
    assert now.unjudged is now.partway is now.waiting is now.unpublished is now.open is None
    assert now.opened and now.opened.taken_over and now.opened.taken_over["how"] == how
    assert ("s1" in str(now.opened.taken_over["why"])) == (name == "gone")
    assert all(each.identity == "" and each.code == "5e5e405209c0239f" for each in now.line)
    colours = ["green", "red", "blue", "yellow", "orange", "purple"]
    assert [each for each, _ in now.vocabulary] == colours[: 2 * len(line)]
    exams = [each.exam for each in now.line]
    assert [bool(each) for each in exams] == [name != "gone"] + [True] * (len(line) - 1)
    assert at.remarks(now) == (["learned, and absent now: s1; what they taught stays"] if name == "gone" else [])


def test_what_was_learned_before_keeps_its_own_time_and_is_one_row_of_status(project: Path) -> None:
    at = at_hand(old("last_refused", project))
    client = tracker_of(at.job).client
    assert [row.sessions for row in streams(at.place, client)] == ["3 of 3", "2 of 3"]  # two commands
    now, entries = standing_of(at), at.journal.read()
    keys = [client.get_run(str(client.get_model_version("colours", version).run_id)).data.tags[KEY] for version in "123"]
    finished = {last.session: last.finished for key in keys for last in steps_to(at.place, key)[-1:]}
    assert [each.happened for each in now.line] == [finished["s1"], finished["s2"]] and max(finished.values()) < entries[0].when
    assert {status.when[:10] for status in now.sessions.values()} == {finished["s1"][:10]} != {entries[0].when[:10]}
    crowned = [said.happened for entry in entries if isinstance(said := fact(entry), Champion)]
    assert crowned == [made.when for made in history(at.place, client, "colours") if made.alias == "champion"]
    lines = list(story(entries))
    assert lines[0].why == "taken over from Evergreen 0.1.0 with 2 states, verified"
    assert {line.when[:10] for line in lines[1:]} == {finished["s1"][:10]} and "champion (taken_over)" not in str(lines)
    with model_run(at.job, entries[0].id):
        pass
    (row,) = streams(at.place, client)
    assert (row.sessions, row.version) == ("learned 2, set aside 1", "2, champion"), "its runs are told by their history alone"
    for phase in ("intent", "done"):
        note(at.journal, Withdrawn(phase=phase, session="s1", versions=("1", "2"), why="not ours", by="Ann"))  # type: ignore[arg-type]
    (row,) = streams(at.place, client)
    assert row.sessions == "learned 1, set aside 1, withdrawn 1", "what is withdrawn counts once"


def test_rows_of_0_1_0_are_cells_of_today(project: Path) -> None:
    at = at_hand(old("three", project))
    now = standing_of(at)
    line = at.line(now.line, at.sets(now, now.line).every)
    for number, rows in ((1, [1.0, 0.0, 0.0]), (2, [0.0, 1.0, 0.0]), (3, [0.0, 0.5, 0.0])):
        cells = Cells(at.place.steps, now.line[number - 1].state).read()
        assert [cells[each].metrics["top1"] for each in names(line.questions(number), at.config.evaluate)] == rows
    start = at.start.cells.read()
    asked = names(line.questions(0), at.config.evaluate, first=True)
    assert [start[each].metrics["top1"] for each in asked] == [0.5, 0.0, 0.25]
    assert all(at.start.pairs(each, start[each]) is not None for each in asked)


def test_sessions_that_a_person_was_asked_about_or_that_a_rollback_left_behind_stay_out(project: Path) -> None:
    at = at_hand(old("three", project))
    client = tracker_of(at.job).client
    change(at.place, client, "colours", "champion", "2", "s3 is dark")
    now = standing_of(at)
    assert [each.state for each in now.line] == [S1, S2] and now.champions == ("1", "2", "3", "2")
    assert (now.sessions["s3"].word, now.sessions["s3"].why) == (Word.BACK, "s3 is dark") and at.waiting(now) == []
    at.journal.path.unlink()
    for name, value in (("evergreen.gate", "waiting"), ("evergreen.gate_reason", "every bound holds")):
        client.set_tag(client.get_model_version("colours", "3").run_id, name, value)
    for name, value in client.get_registered_model("colours").tags.items():
        if '"after": "3"' in value:
            client.delete_registered_model_tag("colours", name)
    now = standing_of(at)
    assert now.champions == ("1", "2") and now.waiting is None and at.waiting(now) == []
    assert (now.sessions["s3"].word, now.sessions["s3"].why.partition(":")[0]) == (
        Word.ASIDE,
        "nobody had answered yet when its history was taken over",
    )


def test_what_a_person_promoted_is_learned_whatever_the_gate_had_said(project: Path) -> None:
    at = at_hand(old("last_refused", project))
    change(at.place, tracker_of(at.job).client, "colours", "champion", "3", "we need purple", "ann")
    now = standing_of(at)
    assert [each.state for each in now.line] == [S1, S2, S3] and now.champions == ("1", "2", "3")
    assert now.sessions["s3"].word == Word.LEARNED and "we need purple" in now.sessions["s3"].why
    assert now.verdicts[S3][-1].by == "ann" and now.unpublished is None


def test_without_a_champion_what_was_refused_is_set_aside_and_the_line_is_empty(project: Path) -> None:
    at = at_hand(old("three", project))
    client = tracker_of(at.job).client
    for name in client.get_registered_model("colours").tags:
        if name.startswith("evergreen.history"):
            client.delete_registered_model_tag("colours", name)
    client.delete_registered_model_alias("colours", "champion")
    assert take_over(at, client) == []  # nothing was refused, and what nobody judged waits
    client.set_tag(client.get_model_version("colours", "1").run_id, "evergreen.gate", "refused")
    now = standing_of(at)
    assert now.line == () and now.champion is None and now.sessions["s1"].word == Word.ASIDE
    assert [each.name for each in at.waiting(now)] == ["s2", "s3"]


def test_several_sessions_that_one_version_brought_are_told_apart(project: Path) -> None:
    at = at_hand(old("three", project))
    client = tracker_of(at.job).client
    for version in ("1", "2"):
        client.delete_model_version("colours", version)
    now = standing_of(at)
    assert [each for each, _ in now.vocabulary] == ["green", "red", "blue", "yellow", "orange", "purple"]
    assert [len(each.classes) for each in now.line] == [2, 2, 2] and [each.state for each in now.line] == [S1, S2, S3]
    assert now.sessions["s1"].why == "together with s3: every bound holds" and now.unpublished is None
    assert now.opened and now.opened.taken_over and now.opened.taken_over["how"] == "verified"


def test_what_is_missing_of_the_champion_is_named_and_nothing_is_written(project: Path) -> None:
    at = at_hand(old("three", project))
    steps, whole = at.place.steps, project / "whole"
    shutil.copytree(steps, whole)
    shutil.rmtree(steps / "states" / S2)
    with pytest.raises(StoreError, match=f"those of s2, .*{S2}.*bring them back"):
        open_history(at)
    shutil.copytree(whole / "states" / S2, steps / "states" / S2)
    of_s1 = [file.parent for file in (steps / "steps").glob("*/result.json") if '"session": "s1"' in file.read_text()]
    for folder in of_s1:
        shutil.rmtree(folder)
    with pytest.raises(StoreError, match=r"version 3, its champion, cannot be followed to its start .*bring"):
        open_history(at)
    assert len(of_s1) == 3 and not at.journal.path.exists() and not list(at.journal.path.parent.glob("*"))

    for folder in of_s1[:2]:  # one row of its matrix is not there: another version says what that state is
        shutil.copytree(whole / "steps" / folder.name, folder)
    assert [each.state for each in standing_of(at).line] == [S1, S2, S3]


def test_a_state_that_only_a_refused_version_holds_may_be_missing(project: Path) -> None:
    at = at_hand(old("last_refused", project))
    shutil.rmtree(at.place.steps / "states" / S3)
    now = standing_of(at)
    assert now.sessions["s3"].word == Word.ASIDE and now.pruned == {S3} and len(now.line) == 2


def test_a_champion_that_learned_all_at_once_cannot_be_gone_on_with(project: Path) -> None:
    at = at_hand(old("three", project))
    run = tracker_of(at.job).client.get_model_version("colours", "3").run_id
    file = project / "mlruns" / "artifacts" / str(run) / "artifacts" / "config.yaml"
    file.write_text(file.read_text().replace("joint: false", "joint: true"))
    with pytest.raises(StoreError, match=r"version 3, its champion, learned every session at once"):
        open_history(at)


def test_a_champion_of_which_nothing_is_on_disk_is_refused(project: Path) -> None:
    at = at_hand(old("three", project))
    shutil.rmtree(at.place.steps)
    with pytest.raises(StoreError, match=r"has a champion, and .*share the folder"):
        open_history(at)


def test_other_data_under_the_names_of_then_are_taken_over_by_name_only(project: Path) -> None:
    at = at_hand(old("three", project))
    for name in ("0003-s3", "0002-s2"):
        shutil.rmtree(project / "data" / "inbox" / name)
    for name, colours in (("s2", (2, 3)), ("s3", (6, 7))):
        append(project / "data" / "inbox", name, {"train": table(colours, 6), "test": table(colours, 2, seed=9)}, "labels")
    at = at_hand(str(project / "colours.yaml"))
    now = standing_of(at)
    assert now.opened and now.opened.taken_over and now.opened.taken_over["how"] == "by name only"
    assert [each for each, _ in now.vocabulary] == ["green", "red", "blue", "yellow", "orange", "purple"]
    assert [len(Cells(at.place.steps, each.state).read()) for each in now.line] == [0, 0, 0]


def test_killed_while_it_opens_the_next_one_finds_no_history(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    at, said = at_hand(old("three", project)), 0

    def dies(journal: Any, fact: Any, **options: Any) -> Any:
        nonlocal said
        said += 1
        if said == 4:
            raise KeyboardInterrupt
        return note(journal, fact, **options)

    with monkeypatch.context() as patch:
        patch.setattr("flows.history.entries.note", dies)
        with pytest.raises(KeyboardInterrupt):
            open_history(at)
    assert at.journal.read() == []
    assert len(standing_of(at).line) == 3


def test_a_state_that_notes_no_method_is_known_by_the_settings_of_then(project: Path) -> None:
    old("replay", project)
    model, store = ModelConfig(name=f"local-dir:{project / 'base'}"), project / "mlruns" / "steps"
    for made, kept in (("replay", True), ("gda", False)):
        _, dropped = load_state(lambda: ReplayConfig(capacity=6).build(load(model), 0), "replay", R2, store, made)
        assert (dropped == ()) == kept


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without figures, pages and packages, which take seconds."""
    sparing(monkeypatch)


@pytest.fixture
def taught(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sessions that are really learned."""
    return learned_by(monkeypatch)


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the sets that some model is really asked."""
    names: list[str] = []
    real = cl.evaluation.ask.each_score

    def each_score(method: Any, sets: Any, config: Any) -> Iterator[Any]:
        for examined, score in real(method, sets, config):
            names.append(examined.name)
            yield examined, score

    monkeypatch.setattr(cl.evaluation.ask, "each_score", each_score)
    return names


def arrive(project: Path, name: str, colours: tuple[int, ...]) -> None:
    append(project / "data" / "inbox", name, {"train": table(colours, 6, seed=9), "test": table(colours, 2, seed=59)}, "labels")


def digests(project: Path) -> dict[Path, str]:
    states = project / "mlruns" / "steps" / "states"
    return {file: hashlib.sha256(file.read_bytes()).hexdigest() for file in states.rglob("*.*") if file.is_file()}


@pytest.mark.parametrize("name", [FAST, *(pytest.param(name, marks=pytest.mark.slow) for name in CASES if name != "refused_inside")])
@pytest.mark.usefixtures("prefect_server", "quick")
def test_the_first_update_learns_what_is_new_and_nothing_else(name: str, project: Path, taught: list[str], asked: list[str]) -> None:
    config, (line, champions, *_) = old("three" if name == "gone" else name, project), CASES[name]
    if name == "gone":  # the session came in before the other went
        arrive(project, "s4", (6, 7))
        shutil.rmtree(project / "data" / "inbox" / "0001-s1")
    elif name == "half":
        (project / "colours.yaml").write_text((project / "colours.yaml").read_text().replace("20000", "4"))
    else:
        arrive(project, "s4", (6, 7))
    before_it, new = digests(project), "s3" if name == "half" else "s4"
    at = at_hand(config)
    assert catch_up(at.job)["learned"] == [new] == taught
    assert all(digests(project)[file] == digest for file, digest in before_it.items())
    now, others = at.standing(), {"last_refused": ["s3"]}.get(name, [])
    assert [each.state for each in now.line[:-1]] == list(line) and now.line[-1].parent == line[-1]
    assert now.champions == (*champions, str(int(champions[-1]) + (2 if others else 1)))
    if name != "gone":
        known = [each.session for each in now.line[:-1]]
        candidate, parent, champion, base = [*known, *others, new], [new], known, [*others, new]  # the gate's questions have more classes
        assert sorted(asked) == sorted([*candidate, *parent, *champion, *base])
    assert all(status.word in (Word.LEARNED, Word.KEPT, Word.ASIDE) for status in now.sessions.values())

    at = at_hand(config)
    assert catch_up(at.job)["learned"] == [] and len(taught) == 1

    older = before(now.champions, now.champions[-1])
    assert older == champions[-1]
    change(at.place, tracker_of(at.job).client, "colours", "champion", str(older), "worse")
    note(at.journal, Champion(version=str(older), state=line[-1], how="rollback", why="worse"))
    at = at_hand(config)
    assert catch_up(at.job)["learned"] == [] and at.standing().head == line[-1] and at.standing().sessions[new].word == Word.BACK
    assert len(taught) == 1


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "quick")
def test_replay_goes_on_with_its_buffer_and_another_method_without(project: Path, taught: list[str]) -> None:
    config = old("replay", project)
    arrive(project, "s4", (6, 7))
    at = at_hand(config)
    catch_up(at.job)
    assert at.standing().line[-1].dropped == ()
    arrive(project, "s5", (0, 7))
    at = at_hand(config, "method=vr_lwf")
    catch_up(at.job)
    last = at.standing().line[-1]
    assert taught == ["s4", "s5"] and last.session == "s5" and last.dropped[0].startswith("the memory of replay")


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "quick")
def test_settings_of_then_that_are_none_of_today_stop_nothing(project: Path, taught: list[str]) -> None:
    config = old("three", project)
    for file in (project / "mlruns" / "artifacts").glob("*/artifacts/config.yaml"):
        file.write_text(file.read_text() + "retired: {colour: blue}\n")
    arrive(project, "s4", (6, 7))
    at = at_hand(config)
    assert catch_up(at.job)["learned"] == ["s4"] == taught
    now = at.standing()
    assert now.opened and now.opened.taken_over and now.opened.taken_over["how"] == "verified" and now.line[0].config["retired"]


@pytest.mark.slow
@pytest.mark.usefixtures("prefect_server", "quick")
def test_what_run_learned_is_taken_over_and_goes_on_under_the_same_names(project: Path, empty_store: Path, taught: list[str]) -> None:
    (project / "mlruns").mkdir()
    shutil.copy(empty_store, project / "mlruns" / "mlflow.db")
    (project / "colours.yaml").write_text(TINY)
    for name, colours in (("one", (0, 1)), ("two", (2, 3))):
        arrive(project, name, colours)
    config = str(project / "colours.yaml")
    ran = learn_stream(config)
    assert ran["gate"] == "promoted"
    arrive(project, "three", (4, 5))
    at = at_hand(config)
    assert catch_up(at.job)["learned"] == ["three"] == taught
    now = at.standing()
    assert now.opened and now.opened.taken_over and now.opened.taken_over["how"] == "verified" and now.champions == ("1", "2")
    assert [each.session for each in now.line] == ["one", "two", "three"]
    runs = tracker_of(at.job).client.search_runs([tracker_of(at.job).experiment])
    assert {run.info.status for run in runs} == {"FINISHED"}, "the report of the line begins no run of what `run` learned"
    planned.cache_clear()
    assert planned(job_of(config)).states[1:] == tuple(each.state for each in now.line)  # what `run` would learn is there
