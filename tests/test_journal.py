"""The file of entries: torn, flipped, killed, full or written at once, every acknowledged entry is there once, or damage is told."""

import errno
import json
import os
import random
import shutil
import subprocess
import sys
import threading
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from cl.disk import journal
from cl.disk.journal import Entry, Journal
from cl.errors import StoreError
from flows.causes import cause

WRITER = """
import sys
from pathlib import Path
from cl.disk.journal import Journal
log = Journal(Path(sys.argv[1]))
for number in range(int(sys.argv[3])):
    log.append("learned", writer=sys.argv[2], number=number)
    print(number, flush=True)
"""


@pytest.fixture
def log(tmp_path: Path) -> Journal:
    return Journal(tmp_path / "history" / "colours.jsonl")


def filled(log: Journal) -> list[Entry]:
    """Three entries, with what names and texts may hold."""
    return [
        log.append("opened", model="colours"),
        log.append("learned", session="ελληνικά \udcff \u2028\n", scores={"a": 0.1, "b": [1, None, True]}),
        log.append("verdict", word="refused", reason='forgetting is 0.5, the bound "0.2"'),
    ]


def starts(path: Path) -> list[int]:
    """Where each line begins, and where the last ends."""
    return [0, *(place + 1 for place, byte in enumerate(path.read_bytes()) if byte == 10)]


def test_what_was_written_is_read(log: Journal) -> None:
    assert log.read() == [] and not log.path.exists()
    written = filled(log)
    assert Journal(log.path).read() == log.read() == written
    assert [(entry.seq, entry.kind) for entry in written] == [(1, "opened"), (2, "learned"), (3, "verdict")]
    assert written[1].fields == {"session": "ελληνικά \udcff \u2028\n", "scores": {"a": 0.1, "b": [1, None, True]}}
    assert len({entry.id for entry in written}) == 3
    lines = log.path.read_text("ascii").splitlines()
    assert [json.loads(line)["seq"] for line in lines] == [1, 2, 3] and json.loads(lines[0])["format"] == 1


def test_a_clock_that_is_put_back_does_not_turn_the_order(log: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    class Clock(datetime):
        hours = iter([12, 11, 13])

        @classmethod
        def now(cls, tz: Any = None) -> "datetime":
            return datetime(2026, 1, 1, next(cls.hours), tzinfo=UTC)

    monkeypatch.setattr(journal, "datetime", Clock)
    assert [entry.when[:13] for entry in filled(log)] == ["2026-01-01T12", "2026-01-01T12", "2026-01-01T13"]


def test_an_entry_that_has_its_name_is_written_once(log: Journal) -> None:
    filled(log)
    first = log.append("champion", id="mine", version="1")
    log.append("skipped", session="s")
    assert log.append("champion", id="mine", version="1") == Journal(log.path).append("champion", id="mine", version="1") == first
    assert [entry.kind for entry in log.read()].count("champion") == 1


def test_whoever_believed_another_entry_to_be_the_last_writes_nothing(log: Journal) -> None:
    log.append("opened", expect=0)
    Journal(log.path).append("learned", expect=1)
    with pytest.raises(StoreError, match=r"colours\.jsonl: another process wrote to it meanwhile \(entry 2 is the last, and expected 1\)"):
        log.append("verdict", expect=1)
    assert [entry.kind for entry in log.read()] == ["opened", "learned"]
    log.append("verdict", expect=2)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), {1, 2}, Path("x")])
def test_what_json_cannot_hold_is_not_written(value: object, log: Journal) -> None:
    filled(log)
    with pytest.raises((ValueError, TypeError)):
        log.append("learned", value=value)
    assert len(log.read()) == 3 and log.append("learned").seq == 4


def test_a_file_torn_at_any_length_is_read_and_goes_on_with_only_the_torn_line_lost(log: Journal, tmp_path: Path) -> None:
    written, begins = filled(log), starts(log.path)
    content, torn = log.path.read_bytes(), tmp_path / "torn.jsonl"
    assert len(begins) == 4
    for length in range(len(content) + 1):
        torn.write_bytes(content[:length])
        whole = sum(length >= end for end in begins[1:])
        assert Journal(torn).read() == written[:whole], length
        assert torn.stat().st_size == length, "reading changes nothing"
        after = Journal(torn).append("champion", version="7")
        assert Journal(torn).read() == [*written[:whole], after] and after.seq == whole + 1, length
        assert torn.read_bytes()[: begins[whole]] == content[: begins[whole]]


@pytest.mark.parametrize("tail", [b"\0" * 300, b'{"seq":4,"id":"\0\0\0\0'])
def test_a_block_that_did_not_reach_the_disk_is_cut_too(tail: bytes, log: Journal) -> None:
    written = filled(log)
    with log.path.open("ab") as file:
        file.write(tail)
    assert log.read() == written and log.append("champion").seq == 4 and len(log.read()) == 4


def test_every_flipped_bit_is_noticed_and_the_file_left_as_it_is(log: Journal, tmp_path: Path) -> None:
    filled(log)
    content, flipped = log.path.read_bytes(), tmp_path / "flipped.jsonl"
    unnoticed = []
    for place, bit in ((place, bit) for place in range(len(content)) for bit in range(8)):
        wrong = bytearray(content)
        wrong[place] ^= 1 << bit
        flipped.write_bytes(wrong)
        try:
            Journal(flipped).append("champion") if bit == place % 8 else Journal(flipped).read()
            unnoticed.append((place, bit))
        except StoreError as error:
            assert str(flipped) in str(error)
        if bit == place % 8:
            assert flipped.read_bytes() == wrong
    assert unnoticed == [] and len(content) > 700


def test_damage_says_which_line_and_what_to_do(log: Journal) -> None:
    filled(log)
    lines = log.path.read_bytes().splitlines(keepends=True)
    for content, number in (
        ([lines[0], lines[2]], 2),  # a line is gone
        ([lines[1], lines[2]], 1),
        ([lines[0], lines[2], lines[1]], 2),  # two have changed places
        ([*lines, lines[2]], 4),  # one is there twice
        ([*lines, b"\n"], 4),
        ([*lines, b"<<<<<<< HEAD"], 4),  # of a merge
        ([*lines[:2], lines[2][:-1] + b"\r\n"], 3),
        ([b"notes that somebody keeps"], 1),
    ):
        log.path.write_bytes(b"".join(content))
        with pytest.raises(StoreError, match=rf"colours\.jsonl: line {number} is damaged: .*put a copy of the file from before"):
            log.read()
        with pytest.raises(StoreError, match="is damaged"):
            log.append("champion")
        assert log.path.read_bytes() == b"".join(content)
    with pytest.raises(StoreError, match=r"line 3 is damaged.*the 2 lines before it are whole"):
        log.path.write_bytes(b"".join([*lines[:2], b"\n"]))
        log.read()


def test_checksums_that_are_right_make_no_entry_of_nonsense(log: Journal, tmp_path: Path) -> None:
    for said in (
        b'{"seq":1',
        b'{"format":1,"seq":1,"id":"x"',
        b'{"format":1,"seq":1,"x":' + b"[" * 100_000,
        b'{"seq":2,"id":"","when":"","kind":"","fields":{}',
    ):
        log.path.parent.mkdir(exist_ok=True)
        log.path.write_bytes(said + b',"sum":"' + journal._sum(b"", said) + b'"}\n')
        with pytest.raises(StoreError, match=r"line 1 is damaged: it is no entry"):
            log.read()


def test_a_later_format_is_told_for_what_it_is(log: Journal) -> None:
    log.path.parent.mkdir()
    log.path.write_text('{"format":2,"seq":1,"what":"nobody knows yet"}\n')
    with pytest.raises(StoreError, match=r"colours\.jsonl: format 2, and this release of Evergreen reads format 1; use the release"):
        log.read()
    with pytest.raises(StoreError, match="format 2"):
        log.append("champion")


@pytest.mark.parametrize("kind", ["link", "folder", "pipe", "dangling link"])
def test_what_is_no_plain_file_is_refused(kind: str, log: Journal, tmp_path: Path) -> None:
    other = Journal(tmp_path / "other.jsonl")
    filled(other)
    log.path.parent.mkdir()
    {
        "link": lambda: log.path.symlink_to(other.path),
        "folder": lambda: log.path.mkdir(),
        "pipe": lambda: os.mkfifo(log.path),
        "dangling link": lambda: log.path.symlink_to(tmp_path / "nowhere"),
    }[kind]()
    for act in (log.read, lambda: log.append("champion")):
        with pytest.raises(
            StoreError, match=r"colours\.jsonl: .*link or no plain file, and expected the journal itself; put the file there"
        ):
            act()
    assert len(other.read()) == 3 and not (tmp_path / "nowhere").exists()


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read and write everything")
def test_who_may_not_write_is_told_and_may_read(log: Journal) -> None:
    written = filled(log)
    log.path.chmod(0o444)
    with pytest.raises(StoreError, match=r"colours\.jsonl: cannot be written \(Permission denied\)"):
        log.append("champion")
    assert log.read() == written


@pytest.mark.parametrize("act", ["pwrite", "fsync", "short"])
def test_a_full_disk_leaves_the_file_as_it_was_and_afterwards_the_same_goes_on(
    act: str, log: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    written, before = filled(log), log.path.read_bytes()
    whole = os.pwrite

    def refuse(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as once:
        if act == "short":
            once.setattr(os, "pwrite", lambda handle, data, place: whole(handle, data[: len(data) // 2], place))
        else:
            once.setattr(os, act, refuse)
        with pytest.raises(StoreError, match=r"colours\.jsonl: cannot be written \(No space left on device\); free space") as caught:
            log.append("champion", id="mine")
    assert cause(caught.value), "the command line knows it for a full disk"
    assert log.path.read_bytes() == before and log.read() == written
    assert log.append("champion", id="mine").seq == 4 and len(Journal(log.path).read()) == 4


def test_a_really_full_disk_leaves_no_half_line(log: Journal) -> None:
    """A limit on the size of files is the full disk that a test can have."""
    filled(log)
    size = log.path.stat().st_size
    limit = f"resource.setrlimit(resource.RLIMIT_FSIZE, ({size + 50},) * 2)"
    full = f"import resource, signal\nsignal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n{limit}\n"
    done = subprocess.run([sys.executable, "-c", full + WRITER, log.path, "a", "1"], capture_output=True, text=True)
    assert done.returncode == 1 and "StoreError" in done.stderr and "cannot be written" in done.stderr
    assert log.path.stat().st_size == size and len(log.read()) == 3


def test_the_name_is_on_the_disk_before_the_line_and_the_line_before_its_writer_goes_on(
    log: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[str] = []
    flush, write = os.fsync, os.pwrite

    def flushed(handle: int) -> None:
        told.append(Path(os.readlink(f"/proc/self/fd/{handle}")).name)
        flush(handle)

    def wrote(*args: Any) -> int:
        told.append("written")
        return write(*args)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "pwrite", wrote)
    log.append("opened", id="first")
    assert told == ["history", log.path.parent.parent.name, "written", "colours.jsonl"]
    told.clear()
    log.append("opened", id="first")
    assert told == ["colours.jsonl"], "whoever wrote it may have been killed before it was on the disk"


def test_a_file_that_takes_the_place_of_the_one_known_is_read_from_its_start(log: Journal, tmp_path: Path) -> None:
    written = filled(log)
    shutil.copy(log.path, tmp_path / "backup")
    log.append("champion", version="1")
    os.replace(tmp_path / "backup", log.path)  # of before
    assert log.append("champion", version="2").seq == 4
    assert log.read()[:3] == written and log.read()[3].fields == {"version": "2"}


def test_whoever_waited_while_another_file_took_the_place_writes_to_that_one(log: Journal, monkeypatch: pytest.MonkeyPatch) -> None:
    filled(log)
    real, turns = journal.fcntl.flock, []

    def slow(file: Any, how: int) -> None:
        real(file, how)
        if not turns:  # meanwhile the file is put back from a copy
            turns.append(log.path)
            shutil.copy(log.path, log.path.with_suffix(".new"))
            os.replace(log.path.with_suffix(".new"), log.path)

    monkeypatch.setattr(journal.fcntl, "flock", slow)
    assert log.append("champion").seq == 4 and len(log.read()) == 4


def test_threads_that_share_a_journal_lose_and_double_nothing(log: Journal) -> None:
    def write(name: str) -> None:
        for number in range(25):
            log.append("learned", id=f"{name}{number}")
            assert log.read()

    threads = [threading.Thread(target=write, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    kept = log.read()
    assert sorted(entry.id for entry in kept) == sorted(f"{name}{number}" for name in "abcd" for number in range(25))
    assert [entry.seq for entry in kept] == list(range(1, 101))


def writer(log: Journal, name: str, count: int) -> "subprocess.Popen[str]":
    return subprocess.Popen([sys.executable, "-c", WRITER, log.path, name, str(count)], stdout=subprocess.PIPE, text=True)


def killed_at_random(log: Journal, writers: int, seed: int) -> int:
    """Processes that append, three at a time, each killed at a moment of its own: how many lines they were told are there."""
    chance, acknowledged = random.Random(seed), 0
    for turn in range(0, writers, 3):
        pool = {f"w{number}": writer(log, f"w{number}", 10_000) for number in range(turn, min(turn + 3, writers))}
        heads = {name: process.stdout.readline() for name, process in pool.items() if process.stdout}  # all of them are at it
        told = {}
        for name, process in pool.items():
            time.sleep(chance.uniform(0, 0.03))
            process.kill()
            lines = (heads[name] + process.communicate()[0]).split("\n")[:-1]  # the last may be half a line
            told[name] = [int(line) for line in lines]
        kept = log.read()
        for name, numbers in told.items():
            there = [entry.fields["number"] for entry in kept if entry.fields["writer"] == name]
            assert there == list(range(len(there))), "in order, and none twice"
            assert len(numbers) <= len(there) <= len(numbers) + 1, "what was acknowledged is there"
            acknowledged += len(numbers)
    assert [entry.seq for entry in log.read()] == list(range(1, len(log.read()) + 1))
    return acknowledged


def test_writers_killed_at_any_moment_lose_and_double_nothing(log: Journal) -> None:
    assert killed_at_random(log, 6, seed=0) > 6


@pytest.mark.slow
def test_sixty_writers_killed_at_any_moment_lose_and_double_nothing(log: Journal) -> None:
    assert killed_at_random(log, 60, seed=1) > 300


def test_two_processes_that_write_at_once_both_write_all(log: Journal) -> None:
    pool = [writer(log, name, 100) for name in "ab"]
    assert [process.communicate()[0].split() for process in pool] == [[str(number) for number in range(100)]] * 2
    kept = log.read()
    assert len(kept) == 200 and sorted(entry.when for entry in kept) == [entry.when for entry in kept]
    assert [entry.fields["number"] for entry in kept if entry.fields["writer"] == "a"] == list(range(100))


def test_a_thousand_entries_are_read_in_a_fifth_of_a_second_and_the_next_is_written_without_reading_them_again(
    log: Journal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)  # how long a disk takes is not the question
    config = {f"setting {number}": number / 7 for number in range(40)}
    for number in range(1000):
        log.append("learned", session=f"s{number}", config=config)
    took = []
    for _ in range(3):
        begun = time.perf_counter()
        assert len(Journal(log.path).read()) == 1000
        took.append(time.perf_counter() - begun)
    assert min(took) < 0.2 and log.path.stat().st_size > 1_000_000
    read = []
    monkeypatch.setattr(Journal, "_take", lambda own, line, real=Journal._take: (read.append(line), real(own, line)))
    log.append("learned", session="next")
    assert len(read) == 1
