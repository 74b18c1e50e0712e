"""WebDataset tars, as img2dataset and others write them: a sample is an image, and any of .cls, .txt and .json of its name."""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cl.data.archive import members
from cl.data.columns import PLACE, SYNONYMS
from cl.data.faults import Problem, Reason
from cl.data.layouts import encodings
from cl.data.layouts.reading import IMAGES, Reading
from cl.data.told import Topic
from cl.errors import DataError
from cl.text import plural, some

_KINDS = tuple(kind[1:] for kind in sorted(IMAGES))
_META = re.compile(r"__[^/]*__($|/)")  # what WebDataset keeps for itself
_ROLES = {name for words in SYNONYMS.values() for name in words}


def tar(file: Path, reading: Reading) -> pa.Table:
    """One row per sample.

    Raises:
        DataError: not a tar, a decompression bomb, no sample, or images in several folders that nothing labels.
    """
    from webdataset.tariterators import group_by_keys  # brings torch: seconds

    prefix = file.relative_to(reading.root).with_suffix("").as_posix()  # the same wherever the folder lies
    names = _class_names(file, reading)
    rows: list[dict[str, Any]] = []
    unread: dict[str, None] = {}
    entries = (
        {"fname": name, "data": data, "__url__": str(file)} for name, data in members(file, reading.problems) if not _META.match(name)
    )

    def twice(error: Exception) -> bool:
        reading.problems.append(Problem(file.name, Reason.DUPLICATE, str(error.args[0])))
        return True

    for sample in group_by_keys(entries, handler=twice):
        place = f"{prefix}/{sample['__key__']}"
        try:
            row = _sample(sample, names, unread)
        except (AttributeError, IndexError, TypeError, ValueError, RecursionError) as error:  # UnicodeError is a ValueError
            reading.problems.append(Problem(place, Reason.VALUE, _told(sample, names, error)))
        else:
            rows.append(row | {"id": place})
    if not rows:
        told = f" ({reading.problems[-1].where}: {reading.problems[-1].detail})" if reading.problems else ""
        raise DataError(f"{file}: no sample that can be used{told}; expected files such as 0001.jpg and 0001.txt in it")
    if unread:
        reading.tell(Topic.UNREAD, *(f"{file.name}: .{kind}" for kind in unread))
    columns = list(dict.fromkeys(name for row in rows for name in row))
    folders = {row["id"].rpartition("/")[0] for row in rows}
    if len(folders) > 1 and set(columns) == {"image", "id"}:
        told = (
            f"its images lie in {plural(len(folders), 'folder')} and have no .cls, .txt or .json beside them, so nothing in it is a label"
        )
        raise DataError(f"{file}: {told}. If the folders are classes, unpack it and give the folder, or a .zip of it")
    return pa.table({name: [row.get(name) for row in rows] for name in columns} | {PLACE: [row["id"] for row in rows]})


def _class_names(file: Path, reading: Reading) -> list[str]:
    notes = [folder / "classnames.txt" for folder in dict.fromkeys((file.parent, file.parent.parent, reading.root))]
    names = next((encodings.lines(note, reading) for note in notes if note.is_file() and reading.readable(note)), [])
    if twice := sorted({name for name in names if names.count(name) > 1 and name.strip()}):
        reading.tell(Topic.TWICE, *twice)
    return names


def _sample(sample: Mapping[str, Any], names: Sequence[str], unread: dict[str, None]) -> dict[str, Any]:
    image = next((sample[kind] for kind in _KINDS if kind in sample), None)
    if image is None:
        raise ValueError("no image")
    further = json.loads(sample.get("json", b"{}"))
    row = {name: further[name] for name in further if name.lower() in _ROLES}
    row["image"] = image
    if "txt" in sample:
        row["captions"] = [line for line in sample["txt"].decode("utf-8").splitlines() if line.strip()]
    if "cls" in sample:
        word = sample["cls"].decode("utf-8").strip()
        row["label"] = names[int(word)] if names and word.isdecimal() else word
    unread.update({kind: None for kind in sample if kind not in (*_KINDS, "json", "txt", "cls") and not kind.startswith("__")})
    return row


def _told(sample: Mapping[str, Any], names: Sequence[str], error: Exception) -> str:
    if not any(kind in sample for kind in _KINDS):
        return f"no image, only {some([kind for kind in sample if not kind.startswith('__')])}; expected jpg, png or webp"
    if isinstance(error, IndexError):
        return f"has class {sample['cls'].decode().strip()}, but classnames.txt names {len(names)}"
    return f"cannot be read ({error}); expected UTF-8 text and JSON"
