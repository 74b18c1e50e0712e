"""An append-only file of entries, one line of JSON each, in which no line can change, vanish or be half there without being noticed.

Each line ends in a checksum over its own bytes and the checksum of the line before, and the end of a line is what makes it an entry:
what a crash left without one is cut when the next entry is written. That and nothing else is mended; all other damage is told.
The checksums tell of a failing disk, a merge or an editor, not of somebody who computes them anew.
"""

import errno
import fcntl
import hashlib
import json
import os
import re
import threading
import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, BinaryIO

from cl.disk import beneath
from cl.disk.durable import flush
from cl.errors import StoreError

FORMAT = 1
_SUM = re.compile(rb',"sum":"([0-9a-f]{64})"\}')
_LENGTH = len(',"sum":""}') + 64  # of a line's end
_EXPECTED = "the journal itself; put the file there"


@dataclass(frozen=True)
class Entry:
    """One line: its place (1, 2, ...), its name for ever, when it was written (ISO, UTC, never before the one before it), what it says."""

    seq: int
    id: str
    when: str
    kind: str
    fields: dict[str, Any]


@dataclass
class _Known:
    """What of a file has been read and found whole: which file, up to which byte, with which checksum at the end."""

    inode: int = 0
    end: int = 0  # bytes
    sum: bytes = b""
    entries: list[Entry] = field(default_factory=list)


class Journal:
    """The entries of one file; made with its folder when the first is written. Processes and threads may share the file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._known = _Known()
        self._turn = threading.Lock()

    def read(self) -> list[Entry]:
        """All entries, oldest first, every checksum checked; none where there is no file.

        Raises:
            StoreError: it is damaged, of a later format, a link, or cannot be read.
        """
        with self._told("read"):
            self._known = _Known()
            try:
                file = beneath.plain(self.path, os.O_RDONLY, _EXPECTED)
            except FileNotFoundError:
                return []
            with closing(file):
                fcntl.flock(file, fcntl.LOCK_SH)  # half of what another writes is no damage
                self._catch_up(file)
            return list(self._known.entries)

    def stamp(self) -> tuple[int, ...] | None:
        """What changes whenever an entry is written, for who remembers what was read; None where there is no file."""
        try:
            now = os.stat(self.path, follow_symlinks=False)
        except OSError:
            return None
        return now.st_ino, now.st_size, now.st_mtime_ns

    def append(self, kind: str, /, *, id: str | None = None, expect: int | None = None, **fields: Any) -> Entry:
        """Write an entry, which is on the disk when this returns.

        Args:
            kind: what happened, in a word.
            id: a name of the caller's own, by default a new one; an entry of that name is not written again, and the one there returned.
            expect: the `seq` that the caller took for the last (0: none).
            fields: what JSON can hold, numbers that are none excepted.

        Raises:
            StoreError: another entry was written meanwhile, or the file is damaged, of a later format, a link, or cannot be written;
                then the entry is not there.
            ValueError, TypeError: JSON cannot hold a field.
        """
        with self._told("written"), self._held() as file:
            self._catch_up(file)
            known = self._known
            if there := next((entry for entry in known.entries if id is not None and entry.id == id), None):
                os.fsync(file.fileno())  # whoever wrote it may have been killed before
                return there
            if expect is not None and expect != len(known.entries):
                raise StoreError(
                    f"{self.path}: another process wrote to it meanwhile (entry {len(known.entries)} is the last, and expected {expect}); "
                    "start the command again"
                )
            line = _line(known, id or uuid.uuid4().hex, kind, fields)
            self._write(file, line)
            self._take(line[:-1])
            known.end += len(line)
            return known.entries[-1]

    @contextmanager
    def _held(self) -> Iterator[BinaryIO]:
        """The file, which nobody else reads or writes meanwhile."""
        self.path.parent.mkdir(parents=True, exist_ok=True)
        while True:
            with closing(beneath.plain(self.path, os.O_RDWR | os.O_CREAT, _EXPECTED)) as file:
                fcntl.flock(file, fcntl.LOCK_EX)
                if _same(file, self.path):  # and nobody put another file there while we waited
                    yield file
                    return

    def _write(self, file: BinaryIO, line: bytes) -> None:
        handle, end = file.fileno(), self._known.end
        if not end:  # a file has its name before it has a line
            for folder in (self.path.parent, self.path.parent.parent):
                flush(folder, deep=False)
        os.ftruncate(handle, end)
        try:
            # not O_APPEND: on a network's file system the end may be another than the one that was read
            if os.pwrite(handle, line, end) < len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            os.fsync(handle)
        except BaseException:
            with suppress(OSError):  # what the caller is told is not there must not be there later
                os.ftruncate(handle, end)
            raise

    def _catch_up(self, file: BinaryIO) -> None:
        """Take what stands after the part that is known, from the start where that is not this file's."""
        now = os.fstat(file.fileno())
        if self._known.end and (now.st_ino != self._known.inode or now.st_size < self._known.end):
            self._known = _Known()
        self._known.inode = now.st_ino
        file.seek(self._known.end)
        *lines, tail = file.read().split(b"\n")
        for line in lines:
            self._take(line)
            self._known.end += len(line) + 1
        self._check(tail)

    def _take(self, line: bytes) -> None:
        known = self._known
        if not known.entries:
            self._readable(line)
        body, written = line[:-_LENGTH], _SUM.fullmatch(line[-_LENGTH:])
        if not written or written[1] != _sum(known.sum, body):
            raise self._damaged("its checksum is not that of what it says after the line before")
        try:
            said = json.loads(body + b"}")
            entry = Entry(said["seq"], said["id"], said["when"], said["kind"], said["fields"])
            whole = entry.seq == len(known.entries) + 1 and isinstance(entry.fields, dict)
        except (ValueError, TypeError, KeyError, RecursionError):
            whole = False
        if not whole:
            raise self._damaged("it is no entry")
        known.entries.append(entry)
        known.sum = written[1]

    def _check(self, tail: bytes) -> None:
        """What stands after the last line's end is the start of a line, or nothing that reached the disk.

        Raises:
            StoreError: it is something else, such as a whole line and more: its end has become another byte.
        """
        start = _start(len(self._known.entries) + 1)
        begun = tail[: len(start)] == start[: len(tail)] or not tail.strip(b"\0")
        whole = (match for match in _SUM.finditer(tail) if match.end() < len(tail))
        if not begun or any(match[1] == _sum(self._known.sum, tail[: match.start()]) for match in whole):
            raise self._damaged("it has no end, and is more than a crash leaves of a line")

    def _readable(self, line: bytes) -> None:
        with suppress(ValueError, RecursionError):
            said = json.loads(line)
            number = said.get("format") if isinstance(said, dict) else None
            if isinstance(number, int) and number != FORMAT:
                raise StoreError(
                    f"{self.path}: format {number}, and this release of Evergreen reads format {FORMAT}; "
                    "use the release that wrote it, or a later one"
                )

    def _damaged(self, what: str) -> StoreError:
        number = len(self._known.entries) + 1
        before = f"the {number - 1} lines before it are whole" if number > 2 else "the line before it is whole" if number == 2 else ""
        return StoreError(
            f"{self.path}: line {number} is damaged: {what}{f' ({before})' if before else ''}; "
            "nothing is written to it or concluded from it: put a copy of the file from before the damage there"
        )

    @contextmanager
    def _told(self, what: str) -> Iterator[None]:
        try:
            with self._turn, self._forgetting():
                yield
        except OSError as error:
            how = "free space" if error.errno in (errno.ENOSPC, errno.EDQUOT) else "change its permissions, or see whether the disk fails"
            raise StoreError(f"{self.path}: cannot be {what} ({error.strerror}); {how}") from error

    @contextmanager
    def _forgetting(self) -> Iterator[None]:
        """Whatever goes wrong inside, the file is read from its start the next time."""
        try:
            yield
        except BaseException:
            self._known = _Known()
            raise


def _same(file: BinaryIO, path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path, follow_symlinks=False))
    except FileNotFoundError:
        return False


def _start(number: int) -> bytes:
    """How a line begins."""
    return f'{{"format":{FORMAT},"seq":1,'.encode() if number == 1 else f'{{"seq":{number},'.encode()


def _line(known: _Known, name: str, kind: str, fields: dict[str, Any]) -> bytes:
    number, now = len(known.entries) + 1, datetime.now(UTC).isoformat(timespec="microseconds")
    when = max(now, known.entries[-1].when) if known.entries else now  # clocks are put back
    said = json.dumps({"id": name, "when": when, "kind": kind, "fields": fields}, separators=(",", ":"), allow_nan=False)
    body = _start(number) + said[1:-1].encode()
    return body + b',"sum":"' + _sum(known.sum, body) + b'"}\n'


def _sum(before: bytes, body: bytes) -> bytes:
    return hashlib.sha256(before + body).hexdigest().encode()
