"""No archive, small as it is, fills the memory or the disk, never ends, or puts a file anywhere but in a folder of ours."""

import bz2
import gzip
import io
import lzma
import resource
import struct
import tarfile
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from cl.data.archive import members, unzip
from cl.data.faults import Problem, Reason
from cl.errors import DataError
from tests.make import png


def header(name: bytes, size: int, kind: bytes = b"0") -> bytes:
    """512 bytes of a tar's member, whatever size it says it has."""
    block = bytearray(512)
    block[:100] = name.ljust(100, b"\0")[:100]
    block[100:124] = b"0000644\0" + b"0000000\0" * 2
    block[124:136] = b"%011o\0" % size if 0 <= size < 8**11 else b"\xff" * 4 + struct.pack(">q", size)
    block[136:148], block[156:157], block[257:265] = b"0" * 11 + b"\0", kind, b"ustar  \0"
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)


def packed(pack: Callable[[], object], *parts: tuple[bytes, int]) -> bytes:
    """Each part so many times, compressed as it is made."""
    packer, out = pack(), b""
    for part, times in parts:
        for _ in range(times):
            out += packer.compress(part)  # type: ignore[attr-defined]
    return out + packer.flush()  # type: ignore[attr-defined]


MIB = bytes(1 << 20)
TARS: dict[str, tuple[Callable[[], bytes], str]] = {
    "a name of 60 MB": (lambda: packed(bz2.BZ2Compressor, (header(b"././@LongLink", 60 << 20, b"L"), 1), (MIB, 60)), "a header of"),
    "a linked name of 60 MB": (
        lambda: packed(bz2.BZ2Compressor, (header(b"././@LongLink", 60 << 20, b"K"), 1), (MIB, 60)),
        "a header of",
    ),
    "settings of 60 MB": (lambda: packed(lzma.LZMACompressor, (header(b"x", 60 << 20, b"x"), 1), (MIB, 60)), "a header of"),
    "settings for all of 60 MB": (lambda: packed(lzma.LZMACompressor, (header(b"x", 60 << 20, b"g"), 1), (MIB, 60)), "a header of"),
    "a name of 3 GB that is not there": (lambda: gzip.compress(header(b"././@LongLink", 3 << 30, b"L")), "a header of"),
    "a member of 60 MB": (lambda: packed(bz2.BZ2Compressor, (header(b"x.png", 60 << 20), 1), (MIB, 60)), "unpacks to over"),
    "60 members of 1 MB": (lambda: packed(bz2.BZ2Compressor, *[(header(b"x.png", 1 << 20), 1), (MIB, 1)] * 60), "unpacks to over"),
}


def taken() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss  # kB


@pytest.mark.parametrize("what", TARS)
def test_a_small_tar_that_says_it_is_large_is_refused_before_it_is(what: str, tmp_path: Path) -> None:
    make, told = TARS[what]
    (tmp_path / "t.tar").write_bytes(make())
    assert (tmp_path / "t.tar").stat().st_size < 100_000
    before, began = taken(), time.process_time()
    with pytest.raises(DataError, match=rf"t\.tar: a decompression bomb \(.*{told}"):
        for _ in members(tmp_path / "t.tar", []):
            pass
    assert taken() - before < 30_000 and time.process_time() - began < 10


@pytest.mark.parametrize("kind", [b"0", b"L", b"x", b"g"])
def test_a_member_of_less_than_nothing_is_not_gone_through_for_ever(kind: bytes, tmp_path: Path) -> None:
    (tmp_path / "t.tar").write_bytes(header(b"a.png", 0) + header(b"b.png", -1024, kind) + header(b"c.png", 0) + bytes(1024))
    problems: list[Problem] = []
    try:
        names = [name for name, _ in members(tmp_path / "t.tar", problems)]
    except DataError:
        return
    assert names == ["a.png"]
    assert [problem.reason for problem in problems] == [Reason.CUT_SHORT]


def test_a_zip_of_many_members_that_are_each_small_enough_is_refused_for_their_sum(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(20):
            archive.writestr(f"red/{number}.png", bytes(9_000_000))
    with pytest.raises(DataError, match=r"t\.zip: a decompression bomb \(20 members that unpack to 180,000,000 bytes"):
        unzip(tmp_path / "t.zip", tmp_path / "out", [])
    assert not [*(tmp_path / "out").rglob("*.png")]


def test_members_of_a_zip_that_share_their_bytes_are_counted_each(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("red/0.png", bytes(9_000_000))
        first = archive.infolist()[0]
        for number in range(1, 60):  # the same bytes under sixty names
            again = zipfile.ZipInfo(f"red/{number}.png")
            again.file_size, again.compress_size, again.CRC = first.file_size, first.compress_size, first.CRC
            again.compress_type, again.header_offset = first.compress_type, first.header_offset
            archive.filelist.append(again)
            archive.NameToInfo[again.filename] = again
    with pytest.raises(DataError, match=r"a decompression bomb \(60 members"):
        unzip(tmp_path / "t.zip", tmp_path / "out", [])


def test_a_list_of_members_that_is_too_long_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with zipfile.ZipFile(tmp_path / "t.zip", "w") as archive:
        for number in range(100):
            archive.writestr(f"red/{number}{'x' * 150}.png", b"x")
    monkeypatch.setattr("cl.data.archive._HEADERS", 10_000)
    with pytest.raises(DataError, match=r"a decompression bomb \(a header of"):
        unzip(tmp_path / "t.zip", tmp_path / "out", [])
    monkeypatch.undo()
    monkeypatch.setattr("cl.data.archive._MEMBERS", 99)
    with pytest.raises(DataError, match=r"a decompression bomb \(100 members"):
        unzip(tmp_path / "t.zip", tmp_path / "out2", [])


NAMES = {
    "red\\1.png": "red/1.png",
    "red\\folder\\": None,
    "red\\..\\2.png": Reason.OUTSIDE,
    "..\\3.png": Reason.OUTSIDE,
    "\\4.png": Reason.OUTSIDE,
    "c:\\5.png": Reason.OUTSIDE,
    "red/__MACOSX/6.png": None,
    "__MACOSX/red/._7.png": None,
    "red\\__MACOSX\\._8.png": None,
    "red\\9\x07.png": Reason.NAME,
    "red/" + "x" * 5000: Reason.NAME,
}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_backslash_is_a_slash_under_the_same_checks_and_what_macos_adds_is_no_data(kind: str, tmp_path: Path) -> None:
    file, problems = tmp_path / f"t.{kind}", list[Problem]()
    with zipfile.ZipFile(file, "w") if kind == "zip" else tarfile.open(file, "w") as archive:
        for name in NAMES:
            if isinstance(archive, zipfile.ZipFile):
                archive.writestr(name, b"" if name.endswith("\\") else png(0, 1))
            elif not name.endswith("\\"):
                info = tarfile.TarInfo(name)
                info.size = len(png(0, 1))
                archive.addfile(info, io.BytesIO(png(0, 1)))
    if kind == "zip":
        folder = unzip(file, tmp_path / "out", problems)
        unpacked = {path.relative_to(tmp_path / "out").as_posix() for path in folder.rglob("*") if path.is_file()}
    else:
        unpacked = {name for name, _ in members(file, problems)}
    assert unpacked == {"red/1.png"}
    expected = [(name[:4096], reason) for name, reason in NAMES.items() if isinstance(reason, Reason)]
    assert sorted((problem.where, problem.reason) for problem in problems) == sorted(expected)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_100000_members_take_seconds_and_little_memory(kind: str, tmp_path: Path) -> None:
    file, count = tmp_path / f"t.{kind}", 100_000
    with zipfile.ZipFile(file, "w") if kind == "zip" else tarfile.open(file, "w") as archive:
        for number in range(count):
            if isinstance(archive, zipfile.ZipFile):
                archive.writestr(f"../{number}.txt", b"")  # set aside: what is measured is the going through
            else:
                archive.addfile(tarfile.TarInfo(f"{number}.txt"), io.BytesIO(b""))
                archive.members.clear()  # type: ignore[attr-defined]
    before, began, problems = taken(), time.process_time(), list[Problem]()
    if kind == "zip":
        unzip(file, tmp_path / "out", problems)
        assert len(problems) == count
    else:
        assert sum(1 for _ in members(file, problems)) == count and not problems
    assert time.process_time() - began < 60 and taken() - before < 200_000


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress])
def test_a_tar_may_be_compressed_whatever_its_name_says(pack: Callable[[bytes], bytes], tmp_path: Path) -> None:
    plain = io.BytesIO()
    with tarfile.open(fileobj=plain, mode="w") as archive:
        for number in range(20):
            info = tarfile.TarInfo(f"{number:04d}.png")
            info.size = len(png(0, number, 100))
            archive.addfile(info, io.BytesIO(png(0, number, 100)))
    (tmp_path / "t.tar").write_bytes(pack(plain.getvalue()))
    problems: list[Problem] = []
    read = list(members(tmp_path / "t.tar", problems))
    assert read == [(f"{number:04d}.png", png(0, number, 100)) for number in range(20)] and not problems
