"""Whoever may write to the folder of drops gets nothing read that lies elsewhere, nothing written there, and does not end the watch."""

import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cl.data import collection
from cl.disk import beneath
from cl.errors import DataError, StoreError
from flows.intake.dropped import DONE, REFUSED, apart, attend
from flows.intake.ingest import Source, ingest
from flows.settings import Place
from flows.tracking.runs import locked, owner
from tests.make import png


def refuse(path: Path, session: str) -> str:
    raise DataError(f"{path}: refused, as asked for")


@pytest.mark.parametrize("place", [DONE, REFUSED])
@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_where_entries_are_put_away_is_refused_before_anything_is_taken(place: str, kind: str, tmp_path: Path) -> None:
    drop, elsewhere = tmp_path / "drop", tmp_path / "elsewhere"
    (drop / "may").mkdir(parents=True)
    elsewhere.mkdir()
    (drop / place).symlink_to(elsewhere) if kind == "link" else (drop / place).write_bytes(b"")
    with pytest.raises(DataError, match=rf"{place}: cannot be used \(Not a directory|Too many levels"):
        attend(drop, refuse, lambda text: None, 0.01, once=True)
    assert (drop / "may").is_dir() and not list(elsewhere.iterdir())


def test_a_link_that_is_planted_while_an_entry_is_taken_is_not_followed_and_the_next_entry_is_taken(tmp_path: Path) -> None:
    drop, elsewhere, told = tmp_path / "drop", tmp_path / "elsewhere", list[str]()
    for name in ("a", "b"):
        (drop / name).mkdir(parents=True)
    elsewhere.mkdir()

    def take(path: Path, session: str) -> str:
        if session == "b":
            (drop / REFUSED).unlink()
            return "b is in"
        (drop / REFUSED).rmdir()
        (drop / REFUSED).symlink_to(elsewhere)
        raise DataError("no data")

    assert attend(drop, take, told.append, 0.01, once=True) == 1
    assert not list(elsewhere.iterdir()) and told[0].startswith("a stays where it is") and told[1] == "b is in"
    assert (drop / "a").is_dir() and (drop / DONE / "b").is_dir()


def test_what_is_said_of_a_refused_entry_is_not_written_through_a_link(tmp_path: Path) -> None:
    (tmp_path / "may").mkdir()
    (tmp_path / REFUSED).mkdir()
    victim = tmp_path / "victim"
    victim.write_text("as it was")
    os.chmod(tmp_path, 0o755)
    (tmp_path / REFUSED / "may.reason.txt").symlink_to(victim)
    (tmp_path / "victim").rename(tmp_path / ".victim")
    (tmp_path / REFUSED / "may.reason.txt").unlink()
    (tmp_path / REFUSED / "may.reason.txt").symlink_to(tmp_path / ".victim")
    attend(tmp_path, refuse, lambda text: None, 0.01, once=True)
    assert (tmp_path / ".victim").read_text() == "as it was"
    assert (tmp_path / REFUSED / "may.2.reason.txt").read_text().startswith("may is refused: ")


def red(folder: Path) -> Path:
    for number in range(3):
        (folder / "red").mkdir(parents=True, exist_ok=True)
        (folder / "red" / f"{number}.png").write_bytes(png(0, number))
    return folder


def test_a_file_that_becomes_a_link_after_it_was_looked_at_is_not_read(tmp_path: Path) -> None:
    secret = tmp_path / "secret.png"
    secret.write_bytes(png(6, 66))
    entry = red(tmp_path / "drop" / "may")
    with apart(entry, tmp_path / "own") as own:
        assert stat.S_IMODE((tmp_path / "own").stat().st_mode) == 0o700
        for number in range(3):  # in the dropper's folder; too late
            (entry / "red" / f"{number}.png").unlink()
            (entry / "red" / f"{number}.png").symlink_to(secret)
        outcome = ingest(Source(own, "may"), tmp_path / "data", Place(tmp_path))
    train, test = collection.read(tmp_path / "data" / "inbox", outcome.entry)
    assert len(train) + len(test) == 3 and png(6, 66) not in [*train.table["image"].to_pylist(), *test.table["image"].to_pylist()]
    assert not list((tmp_path / "own").iterdir())


def test_files_that_change_into_links_and_back_all_the_time_never_give_away_what_they_lead_to(tmp_path: Path) -> None:
    secret, entry = tmp_path / "secret.png", red(tmp_path / "may")
    secret.write_bytes(png(6, 66))
    spun, ends = entry / "red" / "0.png", threading.Event()

    def spin() -> None:
        while not ends.is_set():
            for make in (lambda path: path.symlink_to(secret), lambda path: path.write_bytes(png(0, 0))):
                make(entry / "next")
                os.replace(entry / "next", spun)

    spinner = threading.Thread(target=spin)
    spinner.start()
    try:
        for number in range(100):
            target = tmp_path / f"copy{number}"
            try:
                beneath.copy(entry, target)
            except DataError:  # it changed in between
                continue
            copied = target / "red" / "0.png"
            assert copied.is_symlink() or not copied.exists() or copied.read_bytes() == png(0, 0)
    finally:
        ends.set()
        spinner.join()


def test_a_copy_keeps_links_pipes_and_what_may_not_be_read_as_faults(tmp_path: Path) -> None:
    entry = red(tmp_path / "may")
    (entry / "red" / "link.png").symlink_to("/etc/hostname")
    (entry / "folder").symlink_to("/etc")
    os.mkfifo(entry / "red" / "pipe.png")
    with apart(entry, tmp_path / "own") as own:
        assert (own / "red" / "link.png").is_symlink() and (own / "folder").is_symlink()
        assert stat.S_ISFIFO((own / "red" / "pipe.png").stat().st_mode)
        outcome = ingest(Source(own, "may"), tmp_path / "data", Place(tmp_path))
    assert {"link", "not a regular file"} <= {problem.reason for problem in outcome.problems}
    (tmp_path / "june").symlink_to(entry)
    with pytest.raises(DataError, match="june: a link; put the data itself there"), apart(tmp_path / "june", tmp_path / "own"):
        pass


def test_a_copy_has_bounds(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    deep = tmp_path / "deep"
    deep.mkdir()
    at = os.open(deep, os.O_RDONLY)
    for _ in range(60):
        os.mkdir("x", dir_fd=at)
        at, before = os.open("x", os.O_RDONLY, dir_fd=at), at
        os.close(before)
    os.close(at)
    with pytest.raises(DataError, match="over 50 folders within each other"), apart(deep, tmp_path / "own"):
        pass
    with (tmp_path / "sparse.zip").open("wb") as file:
        file.truncate(1 << 40)  # a terabyte of nothing
    monkeypatch.setattr("cl.disk.beneath.shutil.disk_usage", lambda path: type("Usage", (), {"free": 10_000_000})())
    with pytest.raises(DataError, match="no room for a copy"), apart(tmp_path / "sparse.zip", tmp_path / "own"):
        pass
    assert not list((tmp_path / "own").iterdir())


def _undecodable(drop: Path) -> None:
    os.mkdir(os.fsencode(drop) + b"/a\xff\xfe")


def _long(drop: Path) -> None:
    (drop / ("a" * 255)).write_bytes(b"x")


def _device(drop: Path) -> None:
    os.mkfifo(drop / "a.zip")


def _dashes(drop: Path) -> None:
    (drop / "---").mkdir()


def _brackets(drop: Path) -> None:
    (drop / "a[bold]\x1b[31m.csv").write_bytes(b"image,label\n")


def _circle(drop: Path) -> None:
    (drop / "a").symlink_to("a")


@pytest.mark.parametrize("plant", [_undecodable, _long, _device, _dashes, _brackets, _circle])
def test_no_entry_ends_the_watch(plant: Callable[[Path], None], tmp_path: Path) -> None:
    drop, told = tmp_path / "drop", list[str]()
    red(drop / "z")
    plant(drop)

    def take(path: Path, session: str) -> str:
        with apart(path, tmp_path / "own") as own:
            return ingest(Source(own, session), tmp_path / "data", Place(tmp_path)).entry.folder

    assert attend(drop, take, told.append, 0.01, once=True) == 1
    assert "is refused" in told[0] and told[1:] == ["0001-z"] and (drop / DONE / "z").is_dir()
    assert len(list((drop / REFUSED).iterdir())) == 2  # it and why


@pytest.mark.parametrize("error", [RuntimeError("what nobody thought of"), MemoryError(), RecursionError("deep"), UnicodeError("odd")])
def test_a_mistake_of_ours_is_told_with_where_it_is_and_the_next_entry_is_taken(error: Exception, tmp_path: Path) -> None:
    told: list[str] = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()

    def take(path: Path, session: str) -> str:
        if session == "a":
            raise error
        return "b is in"

    assert attend(tmp_path, take, told.append, 0.01, once=True) == 1
    assert told[0].startswith(f"a is refused: {type(error).__name__}, a mistake of ours") and told[1] == "b is in"
    assert "Traceback" in (tmp_path / REFUSED / "a.reason.txt").read_text()


@pytest.mark.parametrize("kind", ["link to a file", "link to nothing", "pipe", "folder"])
def test_a_lock_that_is_no_file_of_ours_is_refused_and_nothing_is_made_or_emptied(kind: str, tmp_path: Path) -> None:
    place, victim = Place(tmp_path), tmp_path / "victim"
    for path in (place.runs / "locks" / "mlflow.lock", tmp_path / "inbox" / ".lock"):
        path.parent.mkdir(parents=True, exist_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        else:
            path.symlink_to(victim)
    if kind == "link to a file":
        victim.write_text("as it was")
    with pytest.raises(StoreError, match=r"mlflow\.lock: a link or no plain file"), locked(place, "mlflow.lock"):
        pass
    with pytest.raises(StoreError, match=r"\.lock: a link or no plain file"), collection.locked(tmp_path / "inbox"):
        pass
    assert victim.read_text() == "as it was" if kind == "link to a file" else not victim.exists()


def test_the_name_of_the_locks_is_neither_read_nor_written_through_a_link(tmp_path: Path) -> None:
    place, secret = Place(tmp_path), tmp_path / "secret"
    secret.write_text("hidden")
    (place.runs / "locks").mkdir(parents=True)
    (place.runs / "locks" / "owner").symlink_to(secret)
    with pytest.raises(StoreError, match="owner: a link"):
        owner(place)
    (place.runs / "locks" / "owner").unlink()
    (place.runs / "locks" / "owner.part").symlink_to(secret)
    assert len(owner(place)) == 32 == len(owner(place)) and secret.read_text() == "hidden"
