"""Archives are believed nothing: what they hold is unpacked into a folder of our own, under limits, or left out with its reason."""

import contextlib
import re
import shutil
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from cl.errors import DataError
from cl.faults import Fault, Problem, Reason
from cl.images import LARGEST

_MEMBER = 1 << 32  # bytes of one unpacked file; a table may be large
_RATIO = 200  # images and text shrink less
_SMALL = 10_000_000  # bytes that may shrink as much as they like
TABLES = (".parquet", ".csv", ".tsv", ".jsonl", ".ndjson", ".tar")
_LINK = 0o120000
_DAMAGED = (tarfile.TarError, EOFError, OSError, zlib.error)
_BROKEN = (zipfile.BadZipFile, zlib.error, EOFError, OSError, RuntimeError, NotImplementedError, ValueError)


def unzip(file: Path, folder: Path, problems: list[Problem]) -> Path:
    """Unpack what is harmless into `folder`; gives the folder to read: where all of it lies in one folder of folders, that one.

    Raises:
        DataError: not a zip file, or more than fits on the disk.
    """
    folder.mkdir(parents=True)
    try:
        with zipfile.ZipFile(file) as archive:
            sound = [
                info for info in archive.infolist() if not _refused(info, problems) and not info.is_dir() and not _hidden(info.filename)
            ]
            total, free = sum(info.file_size for info in sound), shutil.disk_usage(folder).free
            if total > 0.9 * free:
                raise DataError(f"{file}: unpacks to {total:,} bytes, and {free:,} are free; free space, or give a smaller archive")
            for info in sound:
                _extract(archive, info, folder, problems)
    except (zipfile.BadZipFile, OSError, ValueError) as error:
        raise DataError(f"{file}: cannot be read as .zip ({error}); repair or replace it") from error
    return _inner(folder)


def members(file: Path, problems: list[Problem]) -> Iterator[tuple[str, bytes]]:
    """The names and bytes of what is harmless in a tar file, in its order; of one that is cut short, of what is whole.

    Raises:
        DataError: not a tar file, or a decompression bomb.
    """
    budget = _RATIO * file.stat().st_size + _SMALL  # the tar may be compressed, whatever its name says
    try:
        with tarfile.open(file) as source:
            try:
                for member in source:
                    budget -= member.size
                    if budget < 0:
                        raise DataError(f"{file}: a decompression bomb ({member.name!r} unpacks to {member.size:,} bytes); replace it")
                    data = _unpacked(source, member, problems)
                    if data is not None:
                        yield member.name, data
            except _DAMAGED as error:
                problems.append(Problem(file.name, Reason.CUT_SHORT, str(error)))
    except _DAMAGED as error:
        raise DataError(f"{file}: cannot be read as .tar ({error}); repair or replace it") from error


def _unpacked(source: tarfile.TarFile, member: tarfile.TarInfo, problems: list[Problem]) -> bytes | None:
    fault = _name_fault(member.name)
    if member.isdir() and not fault:
        return None
    if not fault and not member.isreg():
        fault = (Reason.LINK, f"to {member.linkname!r}") if member.issym() or member.islnk() else (Reason.NOT_REGULAR, "")
    if not fault and (member.issparse() or member.size > LARGEST):
        fault = Reason.BOMB, f"unpacks to {member.size:,} bytes"
    if fault:
        problems.append(Problem(member.name, *fault))
        return None
    stream = source.extractfile(member)
    if stream is None or len(data := stream.read()) < member.size:
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
        problems.append(Problem(info.filename, *fault))
    return fault is not None


def _extract(archive: zipfile.ZipFile, info: zipfile.ZipInfo, folder: Path, problems: list[Problem]) -> None:
    target = folder / info.filename
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with archive.open(info) as source, target.open("xb") as sink:
            shutil.copyfileobj(source, sink, 1 << 20)
    except FileExistsError:
        problems.append(Problem(info.filename, Reason.DUPLICATE, "another member has its name, or that of its folder"))
    except _BROKEN as error:
        problems.append(Problem(info.filename, Reason.UNREADABLE, f"{error}"))
        with contextlib.suppress(OSError):
            target.unlink()


def _name_fault(name: str) -> Fault | None:
    parts = PurePosixPath(name.replace("\\", "/")).parts
    if not name.isprintable() or "\\" in name:
        return Reason.NAME, repr(name)
    if name.startswith("/") or ".." in parts or re.match("[A-Za-z]:", name):
        return Reason.OUTSIDE, name
    return None


def _hidden(name: str) -> bool:
    parts = PurePosixPath(name).parts
    return any(part.startswith(".") for part in parts) or parts[:1] == ("__MACOSX",)


def _inner(folder: Path) -> Path:
    # pets.zip holds pets/cat/1.png as often as cat/1.png
    entries = list(folder.iterdir())
    while (
        len(entries) == 1
        and entries[0].is_dir()
        and any(entry.is_dir() or entry.suffix.lower() in TABLES for entry in entries[0].iterdir())
    ):
        folder = entries[0]
        entries = list(folder.iterdir())
    return folder
