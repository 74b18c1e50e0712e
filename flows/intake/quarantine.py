"""What was set aside when data was taken in: one line per file, with its reason, and the bad images themselves."""

import csv
import io
import json
import os
import re
import stat
import uuid
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cl.data.faults import Problem, Reason
from cl.names import in_cell

_COPIED = 10_000_000  # bytes; larger files are only named
# of no other reason: a row may name any file of this machine, and whoever wrote the table could have it copied
_PIXELS = frozenset({Reason.UNREADABLE, Reason.CUT_SHORT, Reason.TOO_SMALL, Reason.TOO_LARGE, Reason.NOT_AN_IMAGE})


def told(problems: Sequence[Problem]) -> str:
    """How many for each reason, the most frequent first.

    >>> told([Problem("a.png", Reason.DUPLICATE), Problem("b.png", Reason.DUPLICATE), Problem("c.png", Reason.LINK)])
    '2 duplicate, 1 link'
    """
    return ", ".join(f"{count:,} {reason}" for reason, count in Counter(problem.reason for problem in problems).most_common())


def write_report(folder: Path, name: str, problems: Sequence[Problem], rest: dict[str, Any]) -> Path:
    """Write `name`.json and `name`.csv, and copy what cannot be read as an image to `files/`; returns the CSV's path."""
    folder.mkdir(parents=True, exist_ok=True)
    rows = [
        {"file": _shown(each.where), "reason": each.reason, "detail": _shown(each.detail), "copy": _copied(each, folder / "files")}
        for each in problems
    ]
    text = io.StringIO()
    writer = csv.DictWriter(text, ["file", "reason", "detail", "copy"])
    writer.writeheader()
    writer.writerows({name: in_cell(value) for name, value in row.items()} for row in rows)
    counts = Counter(problem.reason for problem in problems)
    _write(folder / f"{name}.json", json.dumps({**rest, "counts": counts, "problems": rows}).encode())
    _write(folder / f"{name}.csv", text.getvalue().encode())
    return folder / f"{name}.csv"


def _copied(problem: Problem, folder: Path) -> str:
    if problem.reason not in _PIXELS:
        return ""
    data = problem.image
    if data is None and problem.path is not None:
        data = _bytes(problem.path)
    if data is None or len(data) > _COPIED:
        return ""
    folder.mkdir(exist_ok=True)
    name = re.sub(r"[^\w.-]", "_", _shown(problem.where), flags=re.ASCII)[-150:].lstrip(".")
    _write(folder / name, data)
    return f"files/{name}"


def _bytes(path: Path) -> bytes | None:
    """Of a regular file that is no link and small enough."""
    try:
        status = path.lstat()
        return path.read_bytes() if stat.S_ISREG(status.st_mode) and status.st_size <= _COPIED else None
    except (OSError, ValueError):  # ValueError: a name that no file can have
        return None


def _shown(text: str) -> str:
    return text.encode("utf-8", "backslashreplace").decode()


def _write(file: Path, data: bytes) -> None:
    part = file.with_name(f".{uuid.uuid4().hex}.part")
    part.write_bytes(data)
    os.replace(part, file)
