"""Withdraw: what must go is in no model that can be computed without it, and in no file, whatever killed the command half-way."""

import contextlib
import io
import os
import random
import shutil
import subprocess
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from cl.data.collection import read, sessions
from cl.data.leave_out import bury
from cl.data.table import fingerprint
from cl.disk.tensors import read_tensors
from cl.errors import DataError, StoreError
from cl.store.holds import holds, images_in
from cl.store.store import WEIGHTS, checked
from flows.data.versions import pin, push
from flows.history.conclude import conclude
from flows.history.entries import Learned, Withdrawn, history_of
from flows.history.standing import Standing, Word
from flows.removal import withdraw
from flows.removal.copies import Sought, found, purge
from flows.removal.draw_up import _told_of, draw_up
from flows.removal.orders import pending, write
from flows.removal.without import Remedy
from flows.settings import Place
from tests.grown import CONFIG, arrive, grow, plainly
from tests.make import table
from tests.telling import good, learned, stand
from tests.test_cli import EVERGREEN
from tests.test_dvc import CONFIG as DVC
from tests.test_dvc import git


@pytest.fixture
def making(project: Path, empty_store: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project under git and DVC with a remote."""
    plainly(monkeypatch)
    (project / "mlruns").mkdir()
    shutil.copy(empty_store, project / "mlruns" / "mlflow.db")
    git(project, "init", "-q", ".")
    (project / ".dvc").mkdir()
    (project / ".dvc" / "config").write_text(DVC.read_text())
    (project / ".gitignore").write_text("/data/\n/.dvc-remote/\n/mlruns/\n/.dvc/cache\n/.dvc/tmp\n")
    yield project


def pinned(project: Path) -> None:
    pin(project / "data")
    push(project / "data")
    git(project, "add", "-A")
    git(project, "commit", "-qm", "data")


def standing(project: Path) -> Standing:
    return conclude(history_of(Place(project), "growing").read())


def carried_out(project: Path, session: str, images: list[str] | None = None) -> list[str]:
    """What `evergreen withdraw --yes` does; returns what it told."""
    place, told = Place(project), list[str]()
    order, said = draw_up(place, project / "data", session, images, "a customer's wish", "me@here")
    write(place, order)
    withdraw.carry_out(place, order, sorted(order.models), told.append)
    return [*said, *told]


def holders(project: Path, image: bytes) -> list[str]:
    """Every file below a project in which the image's bytes are, as they are or inside a table, a state or an archive."""
    every = [path for path in project.rglob("*") if path.is_file() and not path.is_symlink()]
    print_ = fingerprint(image)
    return [
        path.relative_to(project).as_posix() for path in every if image in path.read_bytes() or holds(path, lambda each: each == print_)
    ]


@pytest.mark.slow
def test_one_image_of_a_customer_is_nowhere_any_more(making: Path) -> None:
    place = Place(making)
    (making / "growing.yaml").write_text(CONFIG.format(method="{name: replay, capacity: 100}"))
    for number, name in enumerate(("one", "two", "three")):
        arrive(making, name, (number, number + 1), seed=number)
        pinned(making)
        assert grow(making)["learned"] == [name]
    image = table((0,), 1).table["image"][0].as_py()
    kept = making / "mlruns" / "data" / ("a" * 32)
    shutil.copytree(making / "data", kept)
    (making / "mlruns" / "ingest" / "inbox-one" / "files").mkdir(parents=True)
    (making / "mlruns" / "ingest" / "inbox-one" / "files" / "x.png").write_bytes(image)
    (making / "drop" / ".done" / "one").mkdir(parents=True)
    (making / "drop" / ".done" / "one" / "red.png").write_bytes(image)
    (making / "drop" / ".done" / "one" / "other.png").write_bytes(b"another")
    with zipfile.ZipFile(making / "drop" / ".done" / "again.zip", "w") as archive:
        archive.writestr("deep/red.png", image)
    states = sorted((place.steps / "states").iterdir())
    half = place.steps / "interim" / ("b" * 24)
    half.mkdir(parents=True)
    shutil.copy(states[0] / WEIGHTS, half / "interim.safetensors")
    outside = making.parent / f"{making.name}-outside"
    outside.mkdir()
    (outside / "mine.png").write_bytes(image)
    (making / "drop" / ".done" / "link").symlink_to(outside)
    before = holders(making, image)
    assert len(before) >= 9 and sum("states/" in each for each in before) == 3 and sum(".dvc/cache" in each for each in before) >= 1
    assert any(".dvc-remote" in each for each in before)
    exemplars = {state: len(images_in(state / WEIGHTS)) for state in states}

    with pytest.raises(DataError, match="1 of 1 image is not in it"):
        draw_up(place, making / "data", "one", ["nobody"], "", "")
    told = carried_out(making, "inbox/one", ["red-0-0"])
    assert holders(making, image) == []
    assert (outside / "mine.png").exists() and (making / "drop" / ".done" / "one" / "other.png").exists() and not half.exists()
    assert {state: len(images_in(state / WEIGHTS)) for state in states} == {state: count - 1 for state, count in exemplars.items()}
    assert all(checked(state).withdrawn == 1 for state in states)
    entry = sessions(making / "data" / "inbox")[0]
    assert entry.train == 11 and "red-0-0" not in read(making / "data" / "inbox", entry)[0].ids
    now = standing(making)
    assert now.barred == {"1", "2", "3"} and now.sessions["one"].word == Word.LEARNED and not now.unfinished and not pending(place)
    assert any("its weights were trained on it; what leaves it out: evergreen update CONFIG --rebuild" in line for line in told)
    assert any("git names it in 3 revisions of data.dvc" in line for line in told)
    journal = (making / "mlruns" / "history" / "growing.jsonl").read_text()
    assert "red-0-0" not in journal and fingerprint(image).hex() not in journal
    with pytest.raises(StoreError, match="it holds 1 image of session 'one', withdrawn"):
        from flows.registry.predict import served
        from flows.tracking.runs import connect

        served(place, connect(place), "growing/3")
    # what is left can be pinned and read; the head holds the image, so that nothing grows from it
    pinned(making)
    arrive(making, "four", (3, 4), seed=9)
    with pytest.raises(StoreError, match="learn it anew without them"):
        grow(making)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["{name: ridge, projection: 40}", "gda", "tip"])
def test_a_sum_without_a_session_is_that_of_a_stream_without_it(making: Path, method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    place = Place(making)
    (making / "growing.yaml").write_text(CONFIG.format(method=method))
    for number, name in enumerate(("one", "two", "three", "four")):
        arrive(making, name, (number, number + 1), seed=number)
    pinned(making)
    grow(making)
    was = standing(making)
    inbox = making / "data" / "inbox"
    images = [image.as_py() for rows in read(inbox, sessions(inbox)[1]) for image in rows.table["image"]]

    # killed before each step, each time a little later
    class Killed(BaseException): ...

    order, told = draw_up(place, making / "data", "two", None, "a bad week", "me@here")
    assert draw_up(place, making / "data", "two", None, "a bad week", "me@here")[1] == told, "who only asks is told what would be done"
    write(place, order)
    steps = [(withdraw, name) for name in ("note", "make", "measure", "change", "bury", "pin", "purge", "through")]
    steps += [(withdraw.publish, "fn"), (withdraw.objects, "remove")]
    for moment in range(25):
        count = iter(range(100))
        with monkeypatch.context() as patch:
            for where, name in steps:
                patch.setattr(where, name, _dying(getattr(where, name), count, moment, Killed))
            with contextlib.suppress(Killed):
                for each in pending(place):
                    withdraw.carry_out(place, each, ["growing"], lambda text: None)
                break
    assert moment > 8 and not pending(place)  # it was killed at every one of them, and is through
    now = standing(making)
    assert [learned.session for learned in now.line] == ["one", "three", "four"] and now.sessions["two"].word == Word.WITHDRAWN
    assert now.champion and now.champion.version == "2" and now.champion.state == now.head and now.confirmed and now.barred == {"1"}
    assert len([entry for entry in history_of(place, "growing").read() if entry.kind == "withdrawn"]) == 2
    assert all(holders(making, image) == [] for image in images[:2])
    assert [entry.number for entry in sessions(making / "data" / "inbox")] == [1, 3, 4]
    with pytest.raises(DataError, match="'two' was withdrawn; choose another name"):
        arrive(making, "two", (1, 2), seed=7)

    fresh = making / "fresh"
    (fresh / "mlruns").mkdir(parents=True)
    shutil.copytree(making / "data", fresh / "data")
    shutil.copy(making / "growing.yaml", fresh / "growing.yaml")
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{fresh / 'mlruns' / 'mlflow.db'}"
    grow(fresh)
    scratch = standing(fresh)
    mine, theirs = (
        read_tensors(root / "mlruns" / "steps" / "states" / str(one.head) / WEIGHTS) for root, one in ((making, now), (fresh, scratch))
    )
    assert mine.keys() == theirs.keys() and all(
        torch.equal(mine[name], theirs[name])
        if not mine[name].is_floating_point()
        else torch.allclose(mine[name], theirs[name], rtol=1e-9, atol=2e-14, equal_nan=True)
        for name in mine
    )
    assert now.vocabulary == scratch.vocabulary and was.head not in {learned.state for learned in now.line}

    # and the line goes on
    os.environ.pop("MLFLOW_TRACKING_URI")
    arrive(making, "five", (4, 5), seed=9)
    assert grow(making)["learned"] == ["five"] and [learned.session for learned in standing(making).line] == [
        "one",
        "three",
        "four",
        "five",
    ]


def _dying(real: Any, count: Iterator[int], moment: int, error: type[BaseException]) -> Any:
    def called(*words: Any, **named: Any) -> Any:
        if next(count) == moment:
            raise error
        return real(*words, **named)

    return called


def test_what_grows_from_what_holds_it_holds_it_too() -> None:
    three = [good("1", "a", None, "1"), good("2", "b", "a", "2"), good("3", "c", "b", "3")]
    gone = Withdrawn(phase="done", session="2", versions=("2", "3"))
    now = stand([*three, gone, good("4", "d", "c", "4")])
    assert now.barred == {"2", "3", "4"} and now.tainted == {"b", "c", "d"} and now.head == "d"
    assert (now.unfit("4") or "").startswith("it holds session '2', withdrawn") and now.unfit("1") is None
    anew = Learned(**{**vars(now.tree["c"]), "parent": "a", "state": "x"})
    without = Withdrawn(phase="done", session="2", versions=("2", "3"), into="x", line=(now.tree["a"], anew))
    now = stand([*three, without, good("4", "e", "x", "4")])
    assert now.barred == {"2", "3"} and now.head == "e" and now.tainted == {"b", "c"}
    some = Withdrawn(phase="done", session="2", images=("salted",), versions=("2", "3"))
    now = stand([*three, some, good("4", "d", "c", "4")])
    assert now.barred == {"2", "3", "4"} and (now.unfit("4") or "").startswith("it holds 1 image of session '2'")


def test_a_state_that_is_not_there_yet_has_no_name_to_tell() -> None:
    step = learned("2", "b", "a")
    assert "f" * 8 not in (told := _told_of("m", ["2"], Remedy("f" * 24, (step,), "a sum"), "2"))
    assert "a sum: a new state takes the head's place" in told
    assert "as before: state ffffffff takes the head's place" in _told_of("m", ["2"], Remedy("f" * 24, (), "as before"), "2")


def test_a_tombstone_keeps_the_number_and_the_name(tmp_path: Path) -> None:
    for name in ("one", "two", "three"):
        arrive(tmp_path, name, (0, 1), seed=len(name) + ord(name[0]))
    folder = tmp_path / "data" / "inbox"
    bury(folder, "two", 2)
    assert [entry.folder for entry in sessions(folder)] == ["0001-one", "0003-three"] and not (folder / "0002-two").exists()
    arrive(tmp_path, "four", (2, 3))
    assert sessions(folder)[-1].folder == "0004-four"
    (folder / "0003-three").rename(folder / "away")
    with pytest.raises(DataError, match="without a gap"):
        sessions(folder)
    (folder / "withdrawn-0009.json").write_text("{}")
    with pytest.raises(DataError, match=r"withdrawn-0009\.json"):
        sessions(folder)


def test_images_that_are_withdrawn_already_are_told_and_what_cannot_be_read_is_too(making: Path) -> None:
    place, folder = Place(making), making / "data" / "inbox"
    arrive(making, "one", (0, 1))
    before = (folder / "0001-one" / "session.json").read_text()
    pinned(making)
    state, step = place.steps / "states" / "damaged", place.steps / "steps" / "odd"
    state.mkdir(parents=True)
    step.mkdir(parents=True)
    (state / "state.json").write_text("{")
    (step / "result.json").write_text("{")
    told = " ".join(carried_out(making, "one", ["red-0-0", "red-0-1"]))
    assert "inbox/0001-one: written again without 2 images" in told and "off the shelf" not in told
    assert told.count("damaged/state.json") == 2 and "whether it holds some of it: to be sure, delete" in told, "before, and after"
    assert f"{step / 'result.json'}: cannot be read" in told
    assert "withdrawn" not in before and sessions(folder)[0].withdrawn == 2 and len(read(folder, sessions(folder)[0])[0]) == 10
    for images in (["red-0-0"], ["red-0-1", "green-0-1"]):
        with pytest.raises(DataError, match=r"not in it \('red-0-\d'\); 2 images of it are withdrawn already, and nothing is kept"):
            draw_up(place, making / "data", "one", images, "", "")
    shutil.rmtree(state)
    told = " ".join(carried_out(making, "one", ["green-0-1"]))
    assert sessions(folder)[0].withdrawn == 3 and "without 1 image;" in told and "damaged" not in told
    assert "inbox/0001-one: off the shelf" in " ".join(carried_out(making, "one"))
    with pytest.raises(DataError, match="it is withdrawn already, from inbox"):
        draw_up(place, making / "data", "one", None, "", "")


@pytest.mark.parametrize("name", ["../one", "inbox/../one", "nobody", "/etc/one", ""])
def test_what_is_no_session_is_told(tmp_path: Path, name: str) -> None:
    arrive(tmp_path, "one", (0, 1))
    (tmp_path / "data" / "link").symlink_to(tmp_path / "data" / "inbox")
    with pytest.raises(DataError, match="no collection in"):
        draw_up(Place(tmp_path), tmp_path / "data", name, None, "", "")


def test_an_image_is_found_in_whatever_holds_it(tmp_path: Path) -> None:
    import tarfile

    rows = table((0, 1), 2)
    image = rows.table["image"][0].as_py()

    def wanted(each: bytes) -> bool:
        return each == fingerprint(image)

    from cl.data.table import write as write_rows

    write_rows({"train": rows, "test": rows.take([2, 3])}, tmp_path / "rows")
    (tmp_path / "plain").write_bytes(image)
    with tarfile.open(tmp_path / "some.tar", "w") as tar:
        member = tarfile.TarInfo("../x.png")
        member.size = len(image)
        tar.addfile(member, io.BytesIO(image))
    (tmp_path / "link").symlink_to(tmp_path / "plain")
    (tmp_path / "half.zip").write_bytes(b"PK\x03\x04")
    (tmp_path / "notes.yaml").write_text(yaml.safe_dump({"a": 1}))
    files = {path.name for path in tmp_path.rglob("*") if path.is_file() and holds(path, wanted)}
    assert files == {"train.parquet", "plain", "some.tar"}


def test_what_planning_keeps_of_rows_goes_too(tmp_path: Path) -> None:
    kept = Place(tmp_path).runs / "outlines" / "stream.parquet"  # ids, labels and captions
    kept.parent.mkdir(parents=True)
    kept.write_bytes(b"rows")
    sought = Sought("inbox", "may", "0001-may", False, ("a",), lambda image: False)
    assert list(found(Place(tmp_path), sought, [])) == [kept]
    assert purge(Place(tmp_path), sought, []).gone == 1 and not kept.exists()


@pytest.mark.slow
def test_the_last_session_goes_whatever_the_method_and_one_in_the_middle_bars(making: Path) -> None:
    (making / "growing.yaml").write_text(CONFIG.format(method="finetune"))
    for number, name in enumerate(("one", "two", "three")):
        arrive(making, name, (number, number + 1), seed=number)
        grow(making)
    was = standing(making)
    told = carried_out(making, "three")
    now = standing(making)
    assert now.head == was.line[1].state and now.champion == ("2", now.head) and now.barred == {"3"}
    assert any("the model is what it was before" in line for line in told) and len(sessions(making / "data" / "inbox")) == 2
    told = carried_out(making, "one")
    now = standing(making)
    assert now.barred == {"1", "2", "3"} and now.champion == ("2", now.head) and any("--rebuild" in line for line in told)
    arrive(making, "four", (3, 4), seed=9)
    with pytest.raises(StoreError, match="learn it anew without them"):
        grow(making)
    now = standing(making)
    assert now.sessions["one"].word == Word.WITHDRAWN and now.head in now.tainted and now.barred == {"1", "2", "3"}


@pytest.mark.slow
def test_killed_for_good_at_any_moment_the_same_command_ends_it(making: Path) -> None:
    place = Place(making)
    (making / "growing.yaml").write_text(CONFIG.format(method="{name: ridge, projection: 40}"))
    for number, name in enumerate(("one", "two", "three")):
        arrive(making, name, (number, number + 1), seed=number)
    pinned(making)
    grow(making)
    inbox = making / "data" / "inbox"
    image = read(inbox, sessions(inbox)[1])[0].table["image"][0].as_py()
    words = [EVERGREEN, "withdraw", "two", "--why", "a wish", "--yes"]
    environment = {**os.environ, "EVERGREEN_ROOT": str(making)}
    killed, draw = 0, random.Random(0)
    for _ in range(4):
        with subprocess.Popen(words, cwd=making, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
            deadline = time.monotonic() + 120
            while not pending(place) and process.poll() is None and time.monotonic() < deadline:
                time.sleep(0.01)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(killed * 2.5 + draw.random())  # what starts is not what is killed alone
            killed += process.poll() is None
            process.kill()
            if process.wait() == 0:
                break
    assert killed and (not pending(place) or subprocess.run(words, cwd=making, env=environment).returncode == 0)
    now = standing(making)
    assert [learned.session for learned in now.line] == ["one", "three"] and now.confirmed and holders(making, image) == []
    assert len([entry for entry in history_of(place, "growing").read() if entry.kind == "withdrawn"]) == 2


def test_nothing_is_touched_that_was_only_asked_about(making: Path) -> None:
    from typer.testing import CliRunner

    from flows.cli.main import app

    arrive(making, "one", (0, 1))
    pin(making / "data")

    def files() -> dict[str, bytes]:
        away = (".dvc/tmp", "mlruns/locks", "mlruns/mlflow.db")
        every = ((path.relative_to(making).as_posix(), path) for path in making.rglob("*") if path.is_file())
        return {name: path.read_bytes() for name, path in every if not name.startswith(away)}

    before = files()
    (making / "list.txt").write_text("red-0-0\n\nred-0-1\n")
    for words in (["--dry-run"], ["--images", "red-0-0,green-0-1", "--dry-run"], ["--images", "list.txt", "--dry-run"], []):
        answer = CliRunner().invoke(app, ["withdraw", "one", "--why", "x", *words])
        assert (answer.exit_code == 0) == bool(words)  # without a terminal nobody can be asked
        if words:
            assert f"inbox/0001-one: {18 if len(words) == 1 else 2} images" in answer.output
    assert {name: data for name, data in files().items() if name != "list.txt"} == before
