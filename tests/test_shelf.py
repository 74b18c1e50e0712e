"""A data set takes its place whole: whoever dies on the way leaves the old or the new one, and sessions are never replaced."""

import fcntl
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from cl.data import collection
from cl.data.table import ImageTable, write
from cl.errors import DataError
from flows.data.shelf import put
from tests.make import table
from tests.test_cli import evergreen, refused  # noqa: F401 - fixtures


def of(colour: int) -> Callable[[Path], None]:
    return lambda part: write({"train": table([colour], 2)}, part)


def held(target: Path) -> list[str | None]:
    import pyarrow.parquet as pq

    return ImageTable(pq.read_table(target / "train.parquet")).labels


def test_killed_between_the_two_names_the_old_one_is_put_back_by_the_next_try(tmp_path: Path) -> None:
    target = tmp_path / "colours"
    put(of(0), target)
    os.replace(target, tmp_path / ".colours.1.old.part")
    of(1)(tmp_path / ".colours.1.part")
    with pytest.raises(DataError, match="there is a data set of that name"):
        put(of(2), target, replace=False)
    assert held(target) == ["red"] * 2
    put(of(2), target)
    assert held(target) == ["blue"] * 2 and [path.name for path in tmp_path.iterdir()] == ["colours"]


def test_a_full_disk_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target, rename = tmp_path / "colours", os.replace
    put(of(0), target)

    def full(source: Path, name: Path) -> None:
        if name == target and ".old." not in str(source):
            raise OSError(28, "No space left on device")
        rename(source, name)

    with monkeypatch.context() as broken:
        broken.setattr(os, "replace", full)
        with pytest.raises(DataError, match=r"cannot be written \(No space left on device\)"):
            put(of(1), target)
    assert held(target) == ["red"] * 2 and [path.name for path in tmp_path.iterdir()] == ["colours"]


def test_a_collection_is_never_replaced_and_a_data_set_never_becomes_one(
    refused: Callable[..., str],  # noqa: F811
    project: Path,
) -> None:
    collection.append(project / "data" / "inbox", "may", {"train": table([0], 2), "test": table([0], 1, seed=9)}, "labels")
    write({"train": table([1], 2)}, project / "colours")
    (project / "data" / "plain").mkdir()
    write({"train": table([1], 2)}, project / "data" / "plain")
    for words in ([], ["--replace"]):
        told = refused("data", "add", "inbox", "colours", *words)
        assert "a collection with sessions, which never change; choose another name, or add to it: `evergreen ingest" in told
    collection.append(project / "data" / "glyphs", "may", {"train": table([0], 2), "test": table([0], 1, seed=9)}, "labels")
    with pytest.raises(DataError, match="a collection with sessions"):
        put(of(0), project / "data" / "glyphs")
    told = refused("ingest", "colours", "--session", "may", "--into", "plain", "--labels", "label", "--test-share", "0.5")
    assert "plain: a data set (train.parquet) and no collection of sessions; choose another name" in told


def test_who_adds_data_waits_for_who_adds_a_session(
    evergreen: Callable[..., object],  # noqa: F811
    project: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    write({"train": table([1], 4)}, project / "colours")
    seen: list[str] = []

    def looked(part: Path) -> None:
        with (project / "mlruns" / "locks" / "data" / ".lock").open("ab") as file, pytest.raises(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        seen.append(part.name)

    real = put
    monkeypatch.setattr(
        "flows.data.shelf.put", lambda fill, target, replace: real(lambda part: (looked(part), fill(part))[1], target, replace)
    )
    evergreen("data", "add", "birds", "colours")
    assert len(seen) == 1 and (project / "data" / "birds" / "train.parquet").exists()
