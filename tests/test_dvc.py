"""Data versions: what a run sees has one name, older versions come back beside the working copy, a pin is repeatable."""

import importlib.util
import os
import shutil
import subprocess
import sys
from configparser import ConfigParser
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from cl.disk.seal import sha256
from cl.errors import DataError
from flows.cli.main import app
from flows.data.digest import digest
from flows.data.pinned import check_whole, mend, missing
from flows.data.versions import materialise, pin, remote, version

CONFIG = Path(__file__).parent.parent / ".dvc" / "config"


def git(folder: Path, *words: str) -> None:
    subprocess.run(["git", "-c", "user.name=a", "-c", "user.email=a@b", *words], cwd=folder, check=True, capture_output=True)


def tracked(folder: Path) -> Path:
    """A git project with DVC, set up as this repository is; returns its data folder."""
    git(folder, "init", "-q", ".")
    (folder / ".dvc").mkdir()
    (folder / ".dvc" / "config").write_text(CONFIG.read_text())
    (folder / ".dvc" / ".gitignore").write_text("/config.local\n/tmp\n/cache\n")
    (folder / ".gitignore").write_text("/data/\n/.dvc-remote/\n")
    return write(folder, "one")


def write(folder: Path, content: str) -> Path:
    (folder / "data" / "birds").mkdir(parents=True, exist_ok=True)
    (folder / "data" / "birds" / "train.txt").write_text(content)
    return folder / "data"


def commit(folder: Path) -> str:
    pin(folder / "data")
    git(folder, "add", "-A")
    git(folder, "commit", "-qm", "data")
    return str(yaml.safe_load((folder / "data.dvc").read_text())["outs"][0]["md5"])


def test_the_version_of_clean_data_is_the_md5_that_data_dvc_holds(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    md5 = commit(tmp_path)
    seen = version(data)
    assert (seen.digest, seen.source, seen.pinned) == (md5, "dvc", True)
    assert len(seen.digest) <= 36  # MLflow refuses longer ones


def test_changed_data_has_another_version_and_is_not_called_pinned(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    md5 = commit(tmp_path)
    write(tmp_path, "two")
    changed = version(data)
    assert changed.digest != md5 and not changed.pinned
    assert commit(tmp_path) == changed.digest  # it was already called what DVC will call it


def test_an_older_version_comes_back_beside_an_untouched_working_copy(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    first = commit(tmp_path)
    write(tmp_path, "two")
    commit(tmp_path)
    write(tmp_path, "three, in no commit")
    old = materialise(data, "HEAD~1", tmp_path / "versions")
    assert (old.digest, old.pinned, old.rev) == (first, True, "HEAD~1")
    assert (Path(old.folder) / "birds" / "train.txt").read_text() == "one"
    assert (data / "birds" / "train.txt").read_text() == "three, in no commit"
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [first.removesuffix(".dir")]


def test_a_version_that_was_fetched_once_is_not_fetched_again(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    commit(tmp_path)
    folder = Path(materialise(data, "HEAD", tmp_path / "versions").folder)
    (folder / "mark").touch()
    assert materialise(data, "HEAD", tmp_path / "versions").folder == str(folder)
    assert (folder / "mark").exists()


def test_an_unknown_revision_is_one_clear_sentence(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    commit(tmp_path)
    with pytest.raises(DataError, match="--data-rev v99: no such git revision"):
        materialise(data, "v99", tmp_path / "versions")


def test_where_nothing_was_ever_committed_there_is_no_revision(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    with pytest.raises(DataError, match="--data-rev v1: no such git revision"):
        materialise(data, "v1", tmp_path / "versions")


def test_without_git_there_are_no_older_versions(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="in no git repository with DVC"):
        materialise(write(tmp_path, "one"), "HEAD", tmp_path / "versions")


def test_lost_files_of_an_old_version_leave_nothing_half_fetched(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    commit(tmp_path)
    for lost in (tmp_path / ".dvc" / "cache" / "files" / "md5").rglob("*"):
        if lost.is_file() and lost.suffix != ".dir":
            lost.unlink()
    with pytest.raises(DataError, match="cannot be fetched at this revision"):
        materialise(data, "HEAD", tmp_path / "versions")
    assert not list((tmp_path / "versions").glob("*"))


def test_a_remote_whose_driver_is_not_installed_is_told_with_what_to_install(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    if importlib.util.find_spec("dvc_s3"):
        pytest.skip("the driver is installed")
    (tmp_path / ".dvc" / "config").write_text("[core]\nanalytics = false\nremote = team\n['remote \"team\"']\nurl = s3://bucket/data\n")
    commit(tmp_path)
    with pytest.raises(DataError, match=r"--data-rev HEAD: s3 is supported, but requires 'dvc-s3' .* pip install 'dvc\[s3\]'"):
        materialise(data, "HEAD", tmp_path / "versions")


def test_pinning_the_same_data_twice_changes_nothing(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    before, first = pin(data)
    assert before is None and first
    assert pin(data) == (first, first)
    write(tmp_path, "two")
    again = pin(data)
    assert again[0] == first and again[1] != first


def test_pinning_gives_no_hints_of_dvcs_own(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = tracked(tmp_path)
    (tmp_path / ".dvc" / "config").write_text("[core]\nanalytics = false\n")  # where DVC stages nothing, it says how it could
    caplog.set_level("INFO", "dvc")  # as DVC sets it when it is imported
    pin(data)
    assert not caplog.records


def test_without_dvc_the_version_is_a_hash_of_names_and_bytes(tmp_path: Path) -> None:
    data = write(tmp_path, "one")
    seen = version(data)
    assert (seen.source, seen.pinned) == ("files", False)
    assert pin(data) == (None, None) and remote(data) is None
    (data / "birds" / "train.txt").rename(data / "birds" / "test.txt")
    assert version(data).digest != seen.digest


def test_unfinished_and_hidden_files_are_no_part_of_the_data(tmp_path: Path) -> None:
    data = write(tmp_path, "one")
    before = digest(data)
    (data / ".birds.part").mkdir()
    (data / ".birds.part" / "train.txt").write_text("half")
    (data / "birds" / "x.part").write_text("half")
    assert digest(data) == before


def test_dvc_without_git_still_gives_the_version(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    md5 = commit(tmp_path)
    (tmp_path / ".git").rename(tmp_path / "elsewhere")
    assert version(data).digest == md5


def test_missing_data_says_how_to_get_some(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="evergreen data glyphs"):
        version(tmp_path / "data")


def test_the_repository_sends_nothing_home_and_has_a_local_remote(tmp_path: Path) -> None:
    config = ConfigParser()
    config.read_string("\n".join(line.strip() for line in CONFIG.read_text().splitlines()))
    assert config["core"]["analytics"] == "false" and config["core"]["remote"] == "local"
    assert remote(tracked(tmp_path)) == str(tmp_path / ".dvc-remote")


def test_what_is_pinned_and_missing_is_named_and_comes_back_by_the_command_that_is_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = tracked(tmp_path)
    for name in ("birds/test.txt", "cats/train.txt", "cats/test.txt"):
        (data / name).parent.mkdir(exist_ok=True)
        (data / name).write_text(name)
    md5 = commit(tmp_path)
    assert missing(data) == [] and mend(data) is None
    shutil.rmtree(data / "cats")
    (data / "birds" / "test.txt").unlink()
    (data / "birds" / "train.txt").write_text("changed, and pinned nowhere")
    (data / "new").mkdir()
    (data / "new" / "train.txt").write_text("new, and pinned nowhere")
    assert missing(data) == ["data/birds/test.txt", "data/cats"]
    told = "data/birds/test.txt, data/cats, which data.dvc pins, are not there: `dvc checkout data/birds/test.txt data/cats`"
    assert mend(data) == told
    with pytest.raises(DataError, match=r"are not there: `dvc checkout .* to drop it from the pin for good, `dvc add data`"):
        check_whole(data)
    monkeypatch.setenv("EVERGREEN_ROOT", str(tmp_path))
    shown = CliRunner().invoke(app, ["data", "status"])
    assert told in shown.output and "dvc add" not in shown.output
    refused = CliRunner().invoke(app, ["data", "add", "more", str(data)])
    assert isinstance(refused.exception, DataError) and told in str(refused.exception)
    monkeypatch.chdir(tmp_path)
    subprocess.run([Path(sys.executable).with_name("dvc"), *told.split("`")[1].split()[1:]], check=True, capture_output=True)
    assert mend(data) is None and (data / "cats" / "train.txt").read_text() == "cats/train.txt"
    assert (data / "birds" / "train.txt").read_text() == "changed, and pinned nowhere" and (data / "new" / "train.txt").exists()
    assert "run `dvc add data`" in CliRunner().invoke(app, ["data", "status"]).output
    assert pin(data) == (md5, version(data).digest)


def test_a_pin_whose_files_nobody_can_name_stays_until_they_were_fetched(tmp_path: Path) -> None:
    data = tracked(tmp_path)
    md5 = commit(tmp_path)
    same = tmp_path / "same"
    shutil.copytree(data, same)
    shutil.rmtree(tmp_path / ".dvc" / "cache")
    shutil.rmtree(data)
    with pytest.raises(DataError, match=r"no data there; `dvc pull data.dvc` brings what data.dvc pins, or run `evergreen data glyphs`"):
        version(data)
    (data / "new").mkdir(parents=True)
    (data / "new" / "train.txt").write_text("new")
    assert missing(data) is None and "`dvc fetch data.dvc`, then look again" in str(mend(data))
    check_whole(data)  # it can be taken in,
    assert pin(data) == (md5, None) and md5 in (tmp_path / "data.dvc").read_text()  # and is not pinned instead
    shutil.rmtree(data)
    shutil.copytree(same, data)
    assert pin(data) == (md5, md5)  # made again as it was, nothing is lost


def test_a_file_that_has_not_changed_is_not_read_again_and_one_that_has_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, kept = tmp_path / "data", tmp_path / "kept.json"
    folder.mkdir()
    for name in "ab":
        (folder / name).write_text(name)
        os.utime(folder / name, (1, 1))
    read: list[str] = []
    real = sha256
    monkeypatch.setattr("flows.data.digest.sha256", lambda path: read.append(path.name) or real(path))
    monkeypatch.setattr("cl.disk.unchanged._YOUNG", -1)
    first = digest(folder, kept)
    assert first == digest(folder) and read == ["a", "b", "a", "b"]
    assert digest(folder, kept) == first and len(read) == 4
    (folder / "a").write_text("c")  # as long as before, and its time set back
    os.utime(folder / "a", (1, 1))
    assert digest(folder, kept) != first and read[4:] == ["a"]
    kept.write_text("{}")
    assert digest(folder, kept) == digest(folder)
