"""What is damaged among the data is never pinned in the place of what was whole, and comes back by the command that is told."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cl.data.collection import read, sessions
from cl.data.table import write
from cl.errors import DataError
from flows.cli.main import app
from flows.data.pinned import check_whole, damaged, mend
from flows.data.versions import pin, version
from tests.make import table
from tests.test_ingest import photos, take, versioned  # noqa: F401 - a fixture


def halved(file: Path) -> None:
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])


def flipped(file: Path) -> None:
    data = bytearray(file.read_bytes())
    data[len(data) // 2] ^= 1
    file.write_bytes(data)
    os.utime(file, ns=(0, 0))


DVC = str(Path(sys.executable).with_name("dvc"))


@pytest.mark.parametrize("spoil", [halved, flipped])
@pytest.mark.parametrize("name", ["train.parquet", "index.parquet"])
def test_a_session_that_is_damaged_is_not_pinned_and_comes_back(versioned: Path, spoil: Callable[[Path], None], name: str) -> None:  # noqa: F811
    take(versioned, photos(versioned / "may", 0, 1), "may")
    pinned = (versioned / "data.dvc").read_text()
    file = versioned / "data" / "inbox" / "0001-may" / name
    whole = file.read_bytes()
    spoil(file)
    photos(versioned / "june", 2, 3)
    with pytest.raises(DataError, match=rf"data/inbox/0001-may/{name}, which data.dvc pins, is not what was pinned and damaged") as caught:
        take(versioned, versioned / "june", "june")
    assert (versioned / "data.dvc").read_text() == pinned and not list((versioned / "data" / "inbox").glob("0002*"))
    shown = CliRunner().invoke(app, ["data", "status"])
    told = f"{shown.output} {shown.exception}"
    assert "dvc checkout" in told and "dvc add" not in told
    command = str(caught.value).split("`")[1].split()
    assert command[0] == "dvc"
    subprocess.run([DVC, *command[1:]], check=True, capture_output=True, cwd=versioned)
    assert file.read_bytes() == whole and mend(versioned / "data") is None
    take(versioned, versioned / "june", "june")
    assert [entry.name for entry in sessions(versioned / "data" / "inbox")] == ["may", "june"] and version(versioned / "data").pinned


def test_a_session_that_is_not_pinned_yet_is_compared_with_its_own_digest(versioned: Path) -> None:  # noqa: F811
    entry = take(versioned, photos(versioned / "may", 0, 1), "may").entry
    shutil.rmtree(versioned / ".dvc" / "cache")
    (versioned / "data.dvc").unlink()  # as after `dvc init` in a folder that had sessions
    assert damaged(versioned / "data") == []
    other = table([2, 3], 2)
    write({"train": other}, versioned / "data" / "inbox" / entry.folder)
    with pytest.raises(DataError, match="the rows are not those that were taken in"):
        take(versioned, photos(versioned / "june", 2, 3), "june")
    with pytest.raises(DataError, match="the rows are not those that were taken in"):
        read(versioned / "data" / "inbox", entry)


def test_a_data_set_may_change_by_hand_and_may_not_be_half_a_file(versioned: Path) -> None:  # noqa: F811
    data, birds = versioned / "data", versioned / "data" / "birds"
    write({"train": table([0, 1], 4)}, birds)
    pin(data)
    write({"train": table([0, 1, 2], 4)}, birds)  # somebody's own script wrote it again
    check_whole(data)
    take(versioned, photos(versioned / "may", 0, 1), "may")
    assert version(data).pinned
    halved(birds / "train.parquet")
    with pytest.raises(DataError, match=r"data/birds/train\.parquet, which data.dvc pins, is not what was pinned and damaged"):
        take(versioned, photos(versioned / "june", 2, 3), "june")
    check_whole(data, birds)  # `data add --replace birds` puts another in its place
    added = CliRunner().invoke(app, ["data", "add", "birds", str(versioned / "may"), "--replace"])
    assert added.exit_code == 0, added.output
    assert version(data).pinned and damaged(data) == []
