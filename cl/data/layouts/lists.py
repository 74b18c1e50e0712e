"""Plain texts about images: Flickr's captions, one a line; paths with a class; the names of classes; which image is in which split."""

import re
from collections.abc import Sequence
from enum import Enum
from pathlib import Path

import pyarrow as pa

from cl.data.columns import PLACE, SYNONYMS
from cl.data.faults import Problem, Reason
from cl.data.layouts import encodings
from cl.data.layouts.reading import IMAGES, Reading
from cl.data.told import Topic
from cl.errors import DataError

_KINDS = "|".join(kind[1:] for kind in sorted(IMAGES))
_CAPTION = re.compile(rf"(.+?\.(?:{_KINDS}))(?:(?:#\d+)?\s*[\t,;|]|#\d+ )\s*(.*\S.*)", re.I)  # 2000.jpg#0<tab>A red square .
_WITH_CLASS = re.compile(rf"(.+?(?:\.(?:{_KINDS})))[\s,;|]+(\S+)\s*", re.I)  # images/0.jpg 0
_PATH = re.compile(rf"\s*(\S.*\.(?:{_KINDS})|[^\s,;|]+/[^\s,;|]+)\s*", re.I)  # Food-101 leaves the kind out
_NAMES = re.compile(r"(classes|class_?names|classnames|labels|names|categories|class_list|label_map)", re.I)
_NUMBERED = re.compile(r"(\d+)[\s,;:]+(\S.*)")
_LOOK = 50  # lines


class Kind(Enum):
    """What a text says of images."""

    TABLE = "a table"
    CAPTIONS = "a caption per line"
    CLASSES = "a path and a class per line"
    PATHS = "a path per line"
    NAMES = "names of classes"
    OTHER = "something else"


def kind_of(file: Path) -> Kind:
    """What a text is, by its first lines."""
    rows = [line for line in encodings.head(file)[:_LOOK] if line.strip()]
    if not rows:
        return Kind.OTHER
    head = [cell.strip().strip('"').lower() for cell in re.split(r"[,;|\t]", rows[0])]
    if len(head) > 1 and set(head) & set(SYNONYMS["image"]):
        return Kind.TABLE
    for kind, pattern in ((Kind.PATHS, _PATH), (Kind.CLASSES, _WITH_CLASS), (Kind.CAPTIONS, _CAPTION)):
        if sum(bool(pattern.fullmatch(line)) for line in rows) >= 0.9 * len(rows):
            return kind
    return Kind.NAMES if _NAMES.fullmatch(file.stem) else Kind.OTHER


def captions(file: Path, reading: Reading) -> pa.Table:
    """`2000.jpg#0<tab>A red square .`: Flickr8k's and Flickr30k's .token files, and their kin."""
    return _rows(file, reading, _CAPTION, ("image", "caption"), "an image, a tab and a caption")


def classes(file: Path, reading: Reading) -> pa.Table:
    """`images/0.jpg 0`: a class by its number in classes.txt, where one lies beside, or by its name."""
    table = _rows(file, reading, _WITH_CLASS, ("image", "label"), "a path and a class")
    words = table["label"].to_pylist()
    names = class_names(file, reading)
    if not names:
        return table
    numbers = [int(word) if word.isdecimal() else None for word in words]
    named = [names.get(number, word) if number is not None else word for number, word in zip(numbers, words, strict=True)]
    if lost := sorted({number for number in numbers if number is not None and number not in names}):
        raise DataError(f"{file}: holds class {lost[0]}, but the list of classes beside it names {min(names)} to {max(names)}; mend one")
    return table.set_column(table.column_names.index("label"), "label", pa.array(named, pa.string()))


def paths(file: Path, reading: Reading) -> pa.Table:
    """A path per line: what is in a split."""
    return _rows(file, reading, _PATH, ("image",), "a path")


def class_names(file: Path, reading: Reading) -> dict[int, str]:
    """The names of classes that a text beside the file lists, by number: the line's own where it has one, else counted from 0.

    Raises:
        DataError: a text that cannot be read.
    """
    beside = sorted(
        text
        for text in file.parent.glob("*.txt")
        if _NAMES.fullmatch(text.stem) and reading.readable(text) and kind_of(text) in (Kind.NAMES, Kind.OTHER)
    )
    if not beside:
        return {}
    rows = [line.strip() for line in encodings.lines(beside[0], reading) if line.strip()]
    own = [_NUMBERED.fullmatch(row) for row in rows]
    named = {int(each[1]): each[2] for each in own if each} if all(own) else dict(enumerate(rows))
    if twice := sorted({name for name in named.values() if list(named.values()).count(name) > 1}):
        reading.tell(Topic.TWICE, *twice)
    return named


def _rows(file: Path, reading: Reading, pattern: re.Pattern[str], columns: Sequence[str], expected: str) -> pa.Table:
    rows, where = [], []
    for number, line in enumerate(encodings.lines(file, reading), start=1):
        match = pattern.fullmatch(line)
        if match:
            rows.append([cell.strip() for cell in match.groups()])
            where.append(f"{file.name} row {number}")
        elif line.strip():
            reading.problems.append(Problem(f"{file.name} row {number}", Reason.VALUE, f"{line!r:.60}; expected {expected}"))
    cells = {name: pa.array([row[place] for row in rows], pa.string()) for place, name in enumerate(columns)}
    return pa.table({**cells, PLACE: pa.array(where, pa.string())})
