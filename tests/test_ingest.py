"""New data goes in whole or not at all, once, from any number of processes; the bad is set aside; Prefect hears of each session once."""

import json
import os
import signal
import subprocess
import sys
import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from dvc.lock import LockError
from dvc.repo import Repo

from cl.data.collection import Entry, read, sessions
from cl.errors import DataError
from flows.cli.data import status
from flows.data.versions import version
from flows.intake.dropped import attend
from flows.intake.ingest import EVENT, Outcome, Source, announce, ingest
from flows.settings import Place
from tests.conftest import processes
from tests.make import COLOURS, png
from tests.test_dvc import git, tracked

EVERGREEN = Path(sys.executable).with_name("evergreen")


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file() and path.name != ".lock"}


def photos(folder: Path, *colours: int, each: int = 3, seed: int = 0) -> Path:
    """A folder per class."""
    for colour in colours:
        (folder / COLOURS[colour]).mkdir(parents=True, exist_ok=True)
        for i in range(each):
            (folder / COLOURS[colour] / f"{i}.png").write_bytes(png(colour, 1000 * seed + i))
    return folder


def take(project: Path, path: Path, session: str, **settings: Any) -> Outcome:
    git = settings.pop("git", False)
    return ingest(Source(path, session, **settings), project / "data", Place(project), git=git)


def reasons(outcome: Outcome) -> dict[str, str]:
    return {problem.where: problem.reason for problem in outcome.problems}


@pytest.fixture
def versioned(project: Path) -> Path:
    """A git project with DVC and a commit."""
    tracked(project)
    (project / "data" / "birds" / "train.txt").unlink()
    (project / "data" / "birds").rmdir()
    (project / ".gitignore").write_text("/data/\n/.dvc-remote/\n/mlruns/\n")
    (project / ".dvcignore").write_text("*.part\n.lock\n")
    git(project, "config", "user.name", "a")
    git(project, "config", "user.email", "a@b")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "start")
    return project


def test_what_is_good_goes_in_and_what_is_bad_is_listed_with_its_reason(project: Path) -> None:
    source = photos(project / "may", 0, 1)
    (source / "red" / "bad.jpg").write_bytes(b"\xff\xd8\xff\xe0 no picture")
    (source / "red" / "twin.png").write_bytes(png(0, 0))
    (source / "green" / "out.png").symlink_to("/etc/hostname")
    outcome = take(project, source, "first")
    assert (outcome.entry.folder, outcome.entry.supervision, outcome.new) == ("0001-first", "labels", True)
    assert (outcome.entry.train, outcome.entry.test, outcome.entry.quarantined) == (4, 2, 3) and outcome.classes == ["green", "red"]
    assert reasons(outcome) == {"red/bad.jpg": "cut short", "red/twin.png": "duplicate", "green/out.png": "link"}
    report = project / "mlruns" / "ingest" / "inbox-first"
    told = json.loads((report / "report.json").read_text())
    assert told["session"] == outcome.entry.model_dump() and told["counts"] == {"link": 1, "cut short": 1, "duplicate": 1}
    assert (report / "report.csv").read_text().splitlines()[0] == "file,reason,detail,copy"
    assert contents(report / "files") == {"red_bad.jpg": b"\xff\xd8\xff\xe0 no picture"}  # and nothing of what the link leads to
    train, test = read(project / "data" / "inbox", outcome.entry)
    assert sorted(train.ids + test.ids) == sorted(f"{c}/{i}.png" for c in ("red", "green") for i in range(3))


def test_what_a_table_names_elsewhere_is_set_aside_and_never_copied(project: Path) -> None:
    source = photos(project / "may", 0, 1)
    (project / "secret.png").write_bytes(b"a key")
    images = sorted(path.relative_to(source) for path in source.rglob("*.png"))
    rows = [f"{number},{image},{image.parent},train" for number, image in enumerate(images)]
    elsewhere = ["../secret.png", str(project / "secret.png")]
    # what is wrong with the row besides has the first word
    rows += [row for path in elsewhere for row in (f"a{path},{path},red,train", f",{path},red,train", f"b{path},{path},red,never")]
    (source / "t.csv").write_text("\n".join(["id,image,label,split", *rows]))
    outcome = take(project, source / "t.csv", "first")
    assert sorted(problem.reason for problem in outcome.problems) == sorted(2 * ["outside the folder", "unusable id", "unusable value"])
    kept = contents(project / "mlruns" / "ingest" / "inbox-first")
    assert len(kept) == 2 and not [name for name in kept if name.startswith("files")]


def test_the_same_again_is_found_and_other_data_under_its_name_is_refused(project: Path) -> None:
    first = take(project, photos(project / "may", 0, 1), "may")
    take(project, photos(project / "june", 2), "june")
    before = contents(project / "data")
    again = take(project, project / "may", "may")
    assert (again.entry, again.new) == (first.entry, False)
    with pytest.raises(DataError, match="session 'may' is there and holds other data"):
        take(project, project / "june", "may")
    assert contents(project / "data") == before
    assert json.loads((project / "mlruns/ingest/inbox-may/report.json").read_text())["session"]["train"] == first.entry.train


def test_images_of_earlier_sessions_are_not_taken_twice_and_a_new_label_for_them_is_a_conflict(project: Path) -> None:
    take(project, photos(project / "may", 0, 1), "may")
    june = photos(photos(project / "june", 0, each=1), 2)
    (june / "blue" / "was-red.png").write_bytes(png(0, 1))
    outcome = take(project, june, "june")
    assert reasons(outcome) == {"red/0.png": "duplicate", "blue/was-red.png": "label conflict"} and outcome.classes == ["blue"]
    assert [problem.detail for problem in outcome.problems if problem.reason == "label conflict"] == ["'blue' here, 'red' in session may"]
    assert take(project, june, "june").entry == outcome.entry  # checked against the same sessions as then
    with pytest.raises(DataError, match=r"no training image is left; set aside: 6 duplicate, see .*refused\.csv"):
        take(project, project / "may", "other")
    assert len(sessions(project / "data" / "inbox")) == 2


def test_a_class_that_is_written_another_way_is_pointed_out(project: Path) -> None:
    take(project, photos(project / "may", 0), "may")
    (photos(project / "june", 0, seed=1) / "red").rename(project / "june" / "Red_")
    assert take(project, project / "june", "june").alike == {"Red_": "red"}


@pytest.mark.parametrize(
    ("settings", "supervision"),
    [
        ({}, "both"),
        ({"labels": "breed"}, "labels"),
        ({"captions": "says"}, "captions"),
        ({"labels": "breed", "captions": "says"}, "both"),
        ({"unlabelled": True}, "none"),
    ],
)
def test_what_a_table_teaches_is_as_said_or_as_its_columns_show(project: Path, settings: dict[str, Any], supervision: str) -> None:
    for i in range(4):
        (project / f"{i}.png").write_bytes(png(i % 2, i))
    rows = [f"{i}.png,{COLOURS[i % 2]},a {COLOURS[i % 2]} one,{COLOURS[i % 2]} thing,{COLOURS[i % 2]}" for i in range(4)]
    (project / "t.csv").write_text("\n".join(["image,breed,says,caption,label", *rows]))
    entry = take(project, project / "t.csv", "t", **settings).entry
    assert (entry.supervision, entry.train, entry.test) == (supervision, 2, 2)


def test_a_folder_of_images_without_a_class_is_unlabelled_or_refused(project: Path) -> None:
    (project / "bare").mkdir()
    for i in range(3):
        (project / "bare" / f"{i}.png").write_bytes(png(0, i))
    with pytest.raises(DataError, match="no image has a label or a caption; say which column"):
        take(project, project / "bare", "bare")
    (project / "t.csv").write_text("image,lable\nbare/0.png,red\nbare/1.png,red\n")
    with pytest.raises(DataError, match=r"no image has a label or a caption; .*; its columns lable are not used$"):
        take(project, project / "t.csv", "t")
    assert not (project / "data").exists()
    entry = take(project, project / "bare", "bare", unlabelled=True).entry
    assert (entry.supervision, entry.train, entry.test) == ("none", 3, 0)


def test_a_zip_is_the_folder_it_holds_whether_or_not_it_is_wrapped_in_one(project: Path) -> None:
    source = photos(project / "may", 0, 1)
    for name, prefix in (("flat", ""), ("wrapped", "may/")):
        with zipfile.ZipFile(project / f"{name}.zip", "w") as archive:
            for file in sorted(source.rglob("*.png")):
                archive.write(file, prefix + str(file.relative_to(source)))
    digests = {
        take(project, project / path, "s", into=name).entry.digest for name, path in (("a", "may"), ("b", "flat.zip"), ("c", "wrapped.zip"))
    }
    assert len(digests) == 1


def test_data_is_pinned_pushed_and_only_the_pin_is_committed(versioned: Path) -> None:
    (versioned / "notes.txt").write_text("mine")
    git(versioned, "add", "notes.txt")
    outcome = take(versioned, photos(versioned / "may", 0, 1), "may", git=True)
    seen = version(versioned / "data")
    assert seen.pinned and outcome.notes[0] == "data.dvc is committed" and f"pins {seen.digest}, sent to " in outcome.notes[1]
    changed = subprocess.run(["git", "show", "--name-only", "--format=%s"], cwd=versioned, capture_output=True, text=True).stdout.split(
        "\n"
    )
    assert [line for line in changed if line] == ["data: session 0001-may of inbox", "data.dvc"]
    assert list((versioned / ".dvc-remote").rglob("*.dir"))
    assert take(versioned, versioned / "may", "may", git=True).notes[0] != "data.dvc is committed"


def test_a_commit_that_cannot_be_is_told_before_anything_is_done(project: Path) -> None:
    with pytest.raises(DataError, match="no git repository with DVC"):
        take(project, photos(project / "may", 0), "may", git=True)
    assert not (project / "data").exists()


def test_a_remote_that_cannot_be_reached_does_not_undo_the_session(versioned: Path) -> None:
    (versioned / ".dvc-remote").write_text("in the way")
    outcome = take(versioned, photos(versioned / "may", 0), "may")
    assert outcome.new and version(versioned / "data").pinned
    assert any("cannot be sent to" in note and "`dvc push`" in note for note in outcome.notes)


def test_dvcs_lock_is_waited_for(versioned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    add, tries = Repo.add, iter([LockError("held"), LockError("held")])

    def busy(self: Repo, *words: Any, **named: Any) -> Any:
        if error := next(tries, None):
            raise error
        return add(self, *words, **named)

    monkeypatch.setattr(Repo, "add", busy)
    take(versioned, photos(versioned / "may", 0), "may")
    assert version(versioned / "data").pinned and next(tries, None) is None


def test_what_dvc_leaves_when_it_is_killed_while_it_writes_does_not_stop_the_next(versioned: Path) -> None:
    take(versioned, photos(versioned / "may", 0), "may")
    pinned, lock = versioned / "data.dvc", versioned / ".dvc" / "tmp" / "rwlock"
    for file in (pinned, lock):  # it writes both in place: cut short, they are empty
        assert file.exists()
        file.write_bytes(b"")
    with pytest.raises(DataError, match=r"data.dvc: cannot be read .*`git checkout data.dvc` brings it back, `dvc add data` makes it anew"):
        version(versioned / "data")
    take(versioned, photos(versioned / "june", 1), "june")
    assert version(versioned / "data").pinned
    pinned.write_text("<<<<<<< HEAD\nouts:\n")  # a merge is a person's to settle
    with pytest.raises(DataError, match=r"data.dvc: cannot be read"):
        take(versioned, photos(versioned / "july", 2), "july")
    assert pinned.read_text().startswith("<<<<<<<")


def test_a_try_that_died_after_the_session_was_written_is_finished_by_the_next(versioned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = photos(versioned / "may", 0, 1)
    with monkeypatch.context() as broken, pytest.raises(KeyboardInterrupt):
        broken.setattr("flows.intake.ingest.pin", lambda folder: (_ for _ in ()).throw(KeyboardInterrupt))
        take(versioned, source, "may")
    assert len(sessions(versioned / "data" / "inbox")) == 1 and not (versioned / "data.dvc").exists()
    outcome = take(versioned, source, "may", git=True)
    assert not outcome.new and version(versioned / "data").pinned and outcome.notes[0] == "data.dvc is committed"
    assert outcome.notes[-1] == "no Prefect server runs: `evergreen update` learns it"


def events(address: str, resource: str) -> list[dict[str, Any]]:
    import httpx
    from prefect.settings import PREFECT_API_AUTH_STRING

    query = {"filter": {"event": {"name": [EVENT]}, "resource": {"id": [resource]}}}
    user, _, password = str(PREFECT_API_AUTH_STRING.value()).partition(":")
    return list(httpx.post(f"{address}/events/filter", json=query, auth=(user, password)).json()["events"])


@pytest.mark.usefixtures("prefect_server")
def test_prefect_hears_of_a_session_once_however_often_it_is_told(versioned: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from prefect.settings import PREFECT_API_URL

    source = photos(versioned / "may", 0, 1)
    assert take(versioned, source, "may", into="told-once").notes[-1].startswith("no Prefect server runs")
    address = PREFECT_API_URL.value()
    monkeypatch.setenv("PREFECT_API_URL", address)
    outcome = take(versioned, source, "may", into="told-once")
    assert outcome.notes[-1] == "told Prefect"
    assert take(versioned, source, "may", into="told-once").notes[-1] == "Prefect knows it already"
    pinned = version(versioned / "data").digest
    lost = versioned / "never-written"
    assert announce("told-once", outcome.entry, pinned, lost, Place(versioned)) == "told Prefect"  # as if the note of it had been lost
    deadline = time.monotonic() + 60
    while not (heard := events(address, "evergreen.collection.told-once")) and time.monotonic() < deadline:
        time.sleep(0.2)
    (event,) = heard
    assert event["payload"] == {"collection": "told-once", "session": "may", "number": 1, "digest": outcome.entry.digest, "version": pinned}


def test_a_server_that_is_gone_loses_nothing(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", "http://127.0.0.1:9/api")
    source = photos(project / "may", 0)
    assert "no Prefect server answers there" in take(project, source, "may").notes[-1]
    monkeypatch.setattr("flows.intake.ingest.find_server", lambda place: "http://127.0.0.1:9/api")
    told = take(project, source, "may").notes[-1]
    assert "was not told" in told and "the same command again tells it" in told
    assert not (project / "mlruns/ingest/inbox-may/told").exists()


def test_four_processes_at_once_one_session_twice_each_lands_once(versioned: Path) -> None:
    names = [photos(versioned / f"s{i}", i % 8, seed=i).name for i in range(5)]
    context = processes()
    start = context.Barrier(4)
    batches = [names[:2], names[2:3], names[3:], [names[0]]]
    workers = [context.Process(target=_batch, args=(versioned, batch, start)) for batch in batches]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join(300)
    assert [worker.exitcode for worker in workers] == [0] * 4
    landed = sessions(versioned / "data" / "inbox")
    assert [entry.number for entry in landed] == list(range(1, 6)) and sorted(entry.name for entry in landed) == names
    assert version(versioned / "data").pinned and not list((versioned / "data").rglob("*.part"))


def _batch(project: Path, names: list[str], start: Any) -> None:
    start.wait()
    for name in names:
        take(project, project / name, name)


def test_killed_at_any_moment_and_started_again_it_is_as_if_it_had_never_been_killed(versioned: Path) -> None:
    source, context = photos(versioned / "may", 0, 1, 2), processes()
    started = time.monotonic()
    undisturbed = ingest(Source(source, "may"), versioned / "other" / "data", Place(versioned / "other"))
    lasts = time.monotonic() - started + 0.5  # and what DVC takes
    for kill in range(6):
        start = context.Barrier(2)
        worker = context.Process(target=_batch, args=(versioned, ["may"], start))
        worker.start()
        start.wait(120)
        time.sleep(lasts * kill / 6)
        worker.kill()
        worker.join(60)
        assert worker.exitcode in (0, -signal.SIGKILL)
    take(versioned, source, "may")
    assert contents(versioned / "data") == contents(versioned / "other" / "data") and version(versioned / "data").pinned
    assert sessions(versioned / "data" / "inbox") == [undisturbed.entry]


def dropped(folder: Path, taken: Callable[[Path, str], str]) -> list[str]:
    told: list[str] = []
    refused = attend(folder, taken, told.append, every=0.01, once=True)
    assert refused == sum("refused" in line for line in told)
    return told


def test_what_is_dropped_is_taken_once_it_stands_still_and_then_put_away(tmp_path: Path) -> None:
    photos(tmp_path / "May, first half", 0)
    (tmp_path / "june.zip").write_bytes(b"x")
    for unfinished in (".hidden", "july.zip.part", "august.zip~"):
        (tmp_path / unfinished).write_bytes(b"x")
    (tmp_path / "link").symlink_to(tmp_path / "june.zip")

    def taken(path: Path, session: str) -> str:
        if session == "june":
            raise DataError("june.zip: no zip; repair it")
        return session

    told = dropped(tmp_path, taken)
    assert told[:2] == ["May-first-half", "june.zip is refused: june.zip: no zip; repair it"] and "put the data itself there" in told[2]
    assert sorted(path.name for path in (tmp_path / ".done").iterdir()) == ["May, first half"]
    assert sorted(path.name for path in (tmp_path / ".refused").iterdir()) == ["june.zip", "june.zip.reason.txt", "link", "link.reason.txt"]
    assert (tmp_path / ".refused" / "june.zip.reason.txt").read_text() == "june.zip is refused: june.zip: no zip; repair it\n"
    assert {path.name for path in tmp_path.iterdir()} == {".done", ".refused", ".hidden", "july.zip.part", "august.zip~"}


def test_what_is_still_written_is_left_for_the_next_look(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    photos(tmp_path / "may", 0)
    growing = iter(range(1, 4))

    def write(seconds: float) -> None:
        number = next(growing, None)
        if number:
            (tmp_path / "may" / "red" / "late.png").write_bytes(b"x" * number)

    monkeypatch.setattr("flows.intake.dropped.time.sleep", write)
    taken: list[str] = []
    for _ in range(3):
        dropped(tmp_path, lambda path, session: taken.append(session) or session)  # type: ignore[func-returns-value]
        assert not taken
    dropped(tmp_path, lambda path, session: taken.append(session) or session)  # type: ignore[func-returns-value]
    assert taken == ["may"]


def test_two_drops_of_one_name_are_both_kept(tmp_path: Path) -> None:
    for _ in range(2):
        photos(tmp_path / "may", 0)
        dropped(tmp_path, lambda path, session: session)
    assert sorted(path.name for path in (tmp_path / ".done").iterdir()) == ["may", "may.2"]


def test_watching_ends_with_ctrl_c_and_code_0(project: Path) -> None:
    photos(project / "drop" / "may", 0, 1)
    words = [EVERGREEN, "watch", "drop", "--every", "0.2"]
    with subprocess.Popen(words, cwd=project, stderr=subprocess.PIPE, text=True, env={**os.environ, "PREFECT_API_URL": ""}) as process:
        try:
            assert process.stderr
            assert process.stderr.readline() == "watching drop; Ctrl-C ends it\n"
            assert process.stderr.readline().startswith("inbox/0001-may: train 4, test 2 (labels); not versioned")
            process.send_signal(signal.SIGINT)
            assert process.wait(60) == 0
        finally:
            process.kill()
    assert [entry.name for entry in sessions(project / "data" / "inbox")] == ["may"] and (project / "drop" / ".done" / "may").is_dir()


def test_status_lists_the_sessions_of_a_collection(project: Path, capsys: pytest.CaptureFixture[str]) -> None:
    take(project, photos(project / "may", 0, 1), "may")
    status(None)
    assert [line.split()[:3] for line in capsys.readouterr().out.splitlines() if "0001-may" in line] == [
        ["inbox/0001-may", "test", "2"],
        ["inbox/0001-may", "train", "4"],
    ]


def test_an_entry_says_nothing_of_times_and_machines(project: Path) -> None:
    entry = take(project, photos(project / "may", 0), "may").entry
    written = json.loads((project / "data/inbox/0001-may/session.json").read_text())
    assert Entry(**written) == entry and entry.source == "may" and str(project) not in json.dumps(written)
    os.chdir(project / "may")
    assert take(project, Path("."), "again", into="other").entry.source == "may"
    assert written.keys() == {"name", "number", "supervision", "digest", "train", "test", "source", "quarantined"}
