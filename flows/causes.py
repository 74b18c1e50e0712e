"""What a disk, a database or a server did not give, in one sentence: told by the kind of error that lies at the bottom of others."""

import errno
import sqlite3
from collections.abc import Iterator
from typing import Any

_FULL = (errno.ENOSPC, errno.EDQUOT)
_AGAIN = "what is kept is whole, and the same command goes on from there"
_SQLITE = {
    sqlite3.SQLITE_FULL: f"the disk that holds the database is full; free space; {_AGAIN}",
    sqlite3.SQLITE_IOERR: f"the disk that holds the database does not take it: it is full, or fails; free space; {_AGAIN}",
    sqlite3.SQLITE_READONLY: f"the database cannot be written; change its permissions; {_AGAIN}",
    sqlite3.SQLITE_BUSY: f"another process writes to the database and holds it; wait until that has ended, or stop it; {_AGAIN}",
    sqlite3.SQLITE_LOCKED: f"another process writes to the database and holds it; wait until that has ended, or stop it; {_AGAIN}",
}


def cause(error: BaseException) -> str | None:
    """Why something outside refused, and what to do; None where that is not what went wrong.

    >>> cause(OSError(errno.ENOSPC, "No space left on device", "/data/a")), cause(ValueError("a mistake of ours"))
    ('/data/a: no space left on the disk; free some; what is kept is whole, and the same command goes on from there', None)
    """
    for each in _below(error):
        if isinstance(each, OSError) and each.errno in _FULL:
            return f"{f'{each.filename}: ' if each.filename else ''}no space left on the disk; free some; {_AGAIN}"
        if isinstance(each, sqlite3.Error) and (told := _SQLITE.get(getattr(each, "sqlite_errorcode", 0) & 0xFF)):
            return told
        if getattr(getattr(each, "response", None), "status_code", 0) >= 500 and hasattr(each, "request"):
            where: Any = each
            address, code = where.request.url.copy_with(path="/", query=None), where.response.status_code
            return f"the server at {address} answers with an error ({code}); see its log, and whether its disk is full; {_AGAIN}"
    return None


def _below(error: BaseException) -> Iterator[BaseException]:
    """An error and what it came of, SQLAlchemy's own way of saying so included."""
    seen: list[BaseException] = []
    waiting: list[BaseException | None] = [error]
    while waiting:
        each = waiting.pop()
        if isinstance(each, BaseException) and each not in seen:
            seen.append(each)
            yield each
            waiting += [each.__context__, each.__cause__, getattr(each, "orig", None)]
