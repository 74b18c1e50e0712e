"""Archives are believed nothing: what they hold is unpacked into a folder of our own, under limits, or left out with its reason."""

import bz2
import contextlib
import gzip
import io
import lzma
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO

from cl.data.faults import Fault, Problem, Reason
from cl.data.images import LARGEST
from cl.errors import DataError

_MEMBER = 1 << 32  # bytes of one unpacked file; a table may be large
_RATIO = 200  # images and text shrink less
_SMALL = 10_000_000  # bytes that may shrink as much as they like
_MEMBERS = 1_000_000
_HEADERS = 1 << 26  # bytes of a zip's list of members, which is read at once
_HEADER = 1 << 20  # bytes of one header of a tar, and what is read of a member at a time
_NAME = 4096  # characters; no path is longer
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".tar")
_LINK = 0o120000
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)
_BROKEN_TAR = (tarfile.TarError, lzma.LZMAError, zlib.error, EOFError, OSError, ValueError)
_PACKED: dict[bytes, Any] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}


def unzip(file: Path, folder: Path, problems: list[Problem]) -> Path:
    """Unpack what is harmless into `folder`, which must not exist; gives the folder.

    A backslash in a name is a slash, as the programs of Windows mean it that write one.

    Raises:
        DataError: not a zip file, a decompression bomb, over a million members, or more than fits on the disk.
    """
    folder.mkdir(parents=True)
    try:
        with file.open("rb") as raw, zipfile.ZipFile(_Bounded(raw, file, _HEADERS, file.stat().st_size)) as archive:
            members = archive.infolist()
            _allow(len(members) <= _MEMBERS, file, f"{len(members):,} members")
            sound = [info for info in members if not _refused(info, problems) and not info.is_dir() and not _hidden(info.filename)]
            total, free = sum(info.file_size for info in sound), shutil.disk_usage(folder).free
            _allow(total <= _most(file), file, f"{len(sound):,} members that unpack to {total:,} bytes")
            if total > 0.9 * free:
                raise DataError(f"{file}: unpacks to {total:,} bytes, and {free:,} are free; free space, or give a smaller archive")
            for info in sound:
                _extract(archive, info, folder, problems)
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise DataError(f"{file}: cannot be read as .zip ({error}); repair or replace it") from error
    return folder


def members(file: Path, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of what is harmless in a tar file, in its order; of one that is cut short, of what is whole.

    It may be compressed, whatever its name says. No header is kept once its member is done with.

    Raises:
        DataError: not a tar file, a decompression bomb, or over a million members.
    """
    try:
        with _unpacked(file) as stream, tarfile.open(fileobj=stream, mode="r:") as source:
            try:
                count = 0
                while (member := source.next()) is not None:
                    count += 1
                    _allow(count <= _MEMBERS, file, f"over {_MEMBERS:,} members")
                    if member.size < 0:  # the next one would lie before it, for ever
                        raise tarfile.ReadError(f"a member of {member.size:,} bytes")
                    data = _sound(source, member, problems)
                    source.members.clear()  # type: ignore[attr-defined]
                    if data is not None:
                        yield _plain(member.name), data
            except _BROKEN_TAR as error:
                problems.append(Problem(file.name, Reason.CUT_SHORT, str(error)))
    except _BROKEN_TAR as error:
        raise DataError(f"{file}: cannot be read as .tar ({error}); repair or replace it") from error


class _Bounded:
    """A file for a reader of archives: of a few bytes, a lie about a length makes no more than `most` at once, and `end` is all there is.

    Raises:
        DataError: more is asked for.
    """

    def __init__(self, stream: BinaryIO, file: Path, most: int, end: int) -> None:
        self.stream, self.file, self.most, self.end = stream, file, most, end
        self.tell, self.seekable, self.close = stream.tell, stream.seekable, stream.close

    def read(self, size: int | None = None) -> bytes:
        """At most `size` bytes, or what is left."""
        size = self.most if size is None else size
        _allow(0 <= size <= self.most, self.file, f"a header of {size:,} bytes")
        data = self.stream.read(size)
        _allow(self.stream.tell() <= self.end, self.file, f"it unpacks to over {self.end:,} bytes")
        return data

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Go there; what lies between is unpacked, so not beyond the end."""
        _allow(whence != io.SEEK_SET or offset <= self.end, self.file, f"it unpacks to over {self.end:,} bytes")
        return self.stream.seek(offset, whence)


@contextlib.contextmanager
def _unpacked(file: Path) -> Any:
    with file.open("rb") as raw:
        packer = next((packer for magic, packer in _PACKED.items() if raw.read(len(magic)) == magic or raw.seek(0)), None)
        raw.seek(0)
        if packer is None:
            yield _Bounded(raw, file, _HEADER, max(_most(file), file.stat().st_size))
            return
        with packer(raw) as stream:
            yield _Bounded(stream, file, _HEADER, _most(file))


def _most(file: Path) -> int:
    return _RATIO * file.stat().st_size + _SMALL


def _allow(fine: bool, file: Path, sizes: str) -> None:
    if not fine:
        raise DataError(f"{file}: a decompression bomb ({sizes}, of {file.stat().st_size:,}); give smaller archives, or replace it")


def _sound(source: tarfile.TarFile, member: tarfile.TarInfo, problems: list[Problem]) -> bytes | None:
    fault = _name_fault(member.name)
    if not fault and (member.isdir() or _hidden(member.name)):
        return None
    if not fault and not member.isreg():
        fault = (Reason.LINK, f"to {member.linkname!r:.100}") if member.issym() or member.islnk() else (Reason.NOT_REGULAR, "")
    if not fault and (member.issparse() or member.size > LARGEST):
        fault = Reason.BOMB, f"unpacks to {member.size:,} bytes"
    if fault:
        problems.append(Problem(member.name[:_NAME], *fault))
        return None
    stream = source.extractfile(member)
    data = b"".join(iter(lambda: stream.read(_HEADER), b"")) if stream else b""
    if len(data) < member.size:
        problems.append(Problem(member.name, Reason.CUT_SHORT, "the archive ends before it"))
        return None
    return data


def _refused(info: zipfile.ZipInfo, problems: list[Problem]) -> bool:
    fault = _name_fault(info.filename)
    if not fault and (info.external_attr >> 16) & 0o170000 == _LINK:
        fault = Reason.LINK, "in an archive"
    if not fault and info.flag_bits & 1:
        fault = Reason.UNREADABLE, "encrypted"
    large = info.file_size > _SMALL and info.file_size > _RATIO * max(info.compress_size, 1)
    if not fault and (large or info.file_size > _MEMBER):
        fault = Reason.BOMB, f"{info.compress_size:,} bytes unpack to {info.file_size:,}"
    if fault:
        problems.append(Problem(info.filename[:_NAME], *fault))
    return fault is not None


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, problems: list[Problem]) -> None:
    target = folder / _plain(info.filename)
    if _plain(info.filename).endswith("/"):
        return  # a folder, named as Windows names it
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("xb") as sink:
            start = source.read(6)
            if target.suffix.lower() == ".tar" and start.startswith(tuple(_PACKED)):
                raise ValueError("a compressed archive within an archive: unpack the outer one")  # what it unpacks to would be squared
            sink.write(start)
            shutil.copyfileobj(source, sink, 1 << 20)
    except FileExistsError:
        problems.append(Problem(info.filename, Reason.DUPLICATE, "another member has its name, or that of its folder"))
    except _BROKEN as error:
        problems.append(Problem(info.filename, Reason.UNREADABLE, f"{error}"))
        with contextlib.suppress(OSError):
            target.unlink()


def _plain(name: str) -> str:
    return name.replace("\\", "/")


def _name_fault(name: str) -> Fault | None:
    if not name.isprintable() or len(name) > _NAME:
        return Reason.NAME, repr(name[:200])
    if _plain(name).startswith("/") or ".." in PurePosixPath(_plain(name)).parts or re.match("[A-Za-z]:", name):
        return Reason.OUTSIDE, name
    return None


def _hidden(name: str) -> bool:
    parts = PurePosixPath(_plain(name)).parts
    return any(part.startswith(".") or part == "__MACOSX" for part in parts)
