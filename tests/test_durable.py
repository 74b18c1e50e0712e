"""A name stands for bytes that are on the disk."""

import os
from pathlib import Path

import pytest
import torch

from cl.disk.durable import land
from cl.disk.tensors import write_tensors


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_bytes_reach_the_disk_before_the_name(kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, target, told = tmp_path / ".x.part", tmp_path / "x", []
    inside = part / "inner" / "deep.bin" if kind == "folder" else part
    inside.parent.mkdir(parents=True, exist_ok=True)
    inside.write_bytes(b"x")
    flush, rename = os.fsync, os.replace

    def flushed(handle: int) -> None:
        told.append(Path(os.readlink(f"/proc/self/fd/{handle}")))
        flush(handle)

    def renamed(source: Path, name: Path) -> None:
        told.append("renamed")
        rename(source, name)

    monkeypatch.setattr(os, "fsync", flushed)
    monkeypatch.setattr(os, "replace", renamed)
    land(part, target)
    assert set(told[: told.index("renamed")]) >= {inside, part} and told[told.index("renamed") + 1 :] == [tmp_path]
    assert target.exists() and not part.exists()


def test_what_cannot_be_replaced_stays(tmp_path: Path) -> None:
    for name in ("new", "old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text(name)
    with pytest.raises(OSError, match="not empty"):
        land(tmp_path / "new", tmp_path / "old")
    assert (tmp_path / "old" / "file").read_text() == "old" and (tmp_path / "new" / "file").read_text() == "new"


@pytest.mark.parametrize(("folder", "file"), [(0o755, 0o644), (0o700, 0o600), (0o775, 0o664)])
def test_weights_are_read_by_whoever_may_read_their_folder(folder: int, file: int, tmp_path: Path) -> None:
    tmp_path.chmod(folder)
    write_tensors({"weight": torch.zeros(2)}, tmp_path / "a.safetensors")
    assert (tmp_path / "a.safetensors").stat().st_mode & 0o777 == file
