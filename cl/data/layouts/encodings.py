"""Text files in the encodings that people's programs write, each named: UTF-8, UTF-16, and the letters of Windows and Latin-1."""

import codecs
import io
from pathlib import Path

from cl.data.layouts.reading import Reading, shown
from cl.data.told import Topic
from cl.errors import DataError

_MARKS = ((codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
_HEAD = 4096
_LOOK = 1 << 16  # bytes


def source(file: Path, reading: Reading) -> Path | io.BytesIO:
    """The file itself where its bytes are UTF-8, or else its text as UTF-8 bytes; the encoding is told.

    Raises:
        DataError: it says that it is UTF-16, and is not.
    """
    with file.open("rb") as handle:
        head = handle.read(_HEAD)
    encoding = next((name for mark, name in _MARKS if head.startswith(mark)), None) or _unmarked(head)
    if encoding is None:
        return file
    try:
        text = file.read_bytes().decode(encoding)
    except UnicodeError as error:
        raise DataError(f"{file}: starts as UTF-16 does and is not ({error}); save it as UTF-8") from error
    reading.tell(Topic.ENCODING, f"{shown(file, reading.root)} (UTF-16)")
    return io.BytesIO(text.encode("utf-8", "replace"))


def lines(file: Path, reading: Reading) -> list[str]:
    """The lines of a short text, without a mark of its encoding.

    Raises:
        DataError: neither UTF-8 nor UTF-16; names what it probably is.
    """
    opened = source(file, reading)
    data = opened.read_bytes() if isinstance(opened, Path) else opened.getvalue()
    try:
        return data.decode("utf-8-sig").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: not UTF-8 but {guess(data)} by the look of it; save it as UTF-8") from error


def head(file: Path) -> list[str]:
    """The first lines of a text, to see what it is; letters that cannot be read are replaced."""
    with file.open("rb") as handle:
        data = handle.read(_LOOK)
    encoding = next((name for mark, name in _MARKS if data.startswith(mark)), None) or _unmarked(data[:_HEAD]) or "utf-8-sig"
    rows = data.decode(encoding, "replace").splitlines()
    return rows if len(data) < _LOOK else rows[:-1]  # the last one is cut


def guess(data: bytes) -> str:
    r"""The encoding of one byte per letter that bytes are probably in.

    >>> [guess(text) for text in (b"caf\xe9", b"\x93quoted\x94")]
    ['Latin-1', 'cp1252']
    """
    return "cp1252" if any(0x80 <= byte < 0xA0 for byte in data) else "Latin-1"


def mended(data: bytes) -> tuple[str, str | None]:
    """Text for people to recognise, and which encoding it took where it was not UTF-8."""
    try:
        return data.decode(), None
    except UnicodeDecodeError:
        encoding = guess(data)
        return data.decode(encoding, "replace"), encoding


def _unmarked(head: bytes) -> str | None:
    """UTF-16 of a program that writes no mark: every second byte of plain letters is zero."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    if len(head) < 8 or max(even, odd) < 0.4 * len(head) / 2:
        return None
    return "utf-16-le" if odd > even else "utf-16-be"
