"""Images in folders: a folder per class, or images alone; a text beside an image is its captions, as img2dataset and trainers keep them."""

import json
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from cl.data.columns import PLACE, SYNONYMS
from cl.data.faults import Problem, Reason
from cl.data.layouts import encodings
from cl.data.layouts.exports import refuse_beside
from cl.data.layouts.reading import IMAGES, PAPERS, Reading, is_note, shown, split_of
from cl.data.told import Topic
from cl.errors import DataError

_BESIDE = (".txt", ".caption", ".json")


def classes(folder: Path, reading: Reading) -> pa.Table:
    """One row per image below a folder per class; the class is the folder's name."""
    rows: list[dict[str, Any]] = []
    inside = [entry for entry in sorted(folder.iterdir()) if not entry.name.startswith(".") and entry.name != "__MACOSX"]
    for each in (entry for entry in inside if entry.is_dir()):
        images = _images(each, reading)
        rows += [{"label": each.name, **row} for row in images]
        if not images:
            reading.problems.append(Problem(f"{shown(each, reading.root)}/", Reason.EMPTY_CLASS))
    for file in (entry for entry in inside if not entry.is_dir() and entry.suffix.lower() in IMAGES):
        if reading.sound(file):
            reading.problems.append(Problem(shown(file, reading.root), Reason.NO_CLASS))
    return _table(rows, folder)


def split_classes(folder: Path, reading: Reading) -> pa.Table:
    """A folder per class that holds a folder per split."""
    rows = []
    for each in sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
        for part in sorted(entry for entry in each.iterdir() if entry.is_dir() and not entry.name.startswith(".")):
            rows += [{"label": each.name, "split": split_of(part.name), **row} for row in _images(part, reading)]
    return _table(rows, folder)


def unlabelled(folder: Path, reading: Reading) -> pa.Table:
    """The images below a folder, in whatever folders, with what lies beside them and no class."""
    return _table(_images(folder, reading), folder)


def _table(rows: Sequence[dict[str, Any]], folder: Path) -> pa.Table:
    names = dict.fromkeys(("image", "label", *(name for row in rows for name in row)))
    kinds = {"captions": pa.list_(pa.string())}
    columns = {name: pa.array([_relative(row, name, folder) for row in rows], kinds.get(name, pa.string())) for name in names}
    return pa.table({**columns, PLACE: columns["image"]})


def _relative(row: dict[str, Any], name: str, folder: Path) -> Any:
    return row[name].relative_to(folder).as_posix() if name == "image" else row.get(name)


def _images(folder: Path, reading: Reading) -> list[dict[str, Any]]:
    """A row per image below a folder, in order; folders that are links are not entered, but for the given one where links are trusted."""
    if folder.is_symlink() and not reading.links:
        reading.problems.append(Problem(shown(folder, reading.root), Reason.LINK, "a folder"))
        return []
    every: list[Path] = []
    for parent, folders, files in os.walk(folder, followlinks=False):
        linked = [Path(parent, name) for name in folders if Path(parent, name).is_symlink()]
        reading.problems += [Problem(shown(each, reading.root), Reason.LINK, "a folder") for each in linked]
        folders[:] = [name for name in folders if not name.startswith(".") or name == "."]
        every += [Path(parent, name) for name in files if not name.startswith(".")]
    papers = {file for file in every if file.suffix.lower() in PAPERS | {".caption"} and file.suffix.lower() not in IMAGES}
    rest = [file for file in every if file not in papers and not is_note(file)]
    images = [file for file in sorted(rest) if reading.sound(file)]
    beside = defaultdict(list)
    stems = {image.with_suffix("") for image in images}
    for paper in (paper for paper in papers if paper.with_suffix("") in stems and reading.readable(paper)):
        beside[paper.with_suffix("")].append(paper)
    refuse_beside(folder, [paper for image in images[:50] for paper in beside.get(image.with_suffix(""), ())])
    rows = [_row(image, beside.get(image.with_suffix(""), ()), reading) for image in images]
    used = {paper for image in images for paper in beside.get(image.with_suffix(""), ()) if paper.suffix.lower() in _BESIDE}
    if strangers := sorted(file for file in papers - used if not is_note(file)):
        reading.tell(Topic.UNREAD, *(shown(file, reading.root) for file in strangers))
    return rows


def _row(image: Path, papers: Sequence[Path], reading: Reading) -> dict[str, Any]:
    row: dict[str, Any] = {"image": image}
    for paper in sorted(papers):
        if paper.suffix.lower() in (".txt", ".caption"):
            try:
                row["captions"] = [line.strip() for line in encodings.lines(paper, reading) if line.strip()]
            except DataError:
                told = f"reads as {encodings.guess(paper.read_bytes())}"
                reading.problems.append(Problem(shown(paper, reading.root), Reason.NOT_UTF8, told))
    for paper in (paper for paper in papers if paper.suffix.lower() == ".json"):
        row = {**_notes(paper, reading), **row}
    return row


def _notes(paper: Path, reading: Reading) -> dict[str, Any]:
    """What img2dataset and gallery programs write beside an image: its caption, under one of the names of captions."""
    try:
        note = json.loads("\n".join(encodings.lines(paper, reading)))
        texts = next((note[name] for name in SYNONYMS["captions"] if note.get(name)), None)
    except (AttributeError, DataError, TypeError, ValueError, RecursionError) as error:
        reading.problems.append(Problem(shown(paper, reading.root), Reason.VALUE, f"no mapping in JSON ({error})"))
        return {}
    texts = [texts] if isinstance(texts, str) else texts
    return {"captions": texts} if isinstance(texts, list) and all(isinstance(text, str) for text in texts) else {}


def caption_beside(folder: Path) -> bool:
    """Whether an image that lies in a folder has its captions beside it."""
    names = {entry.name for entry in folder.iterdir()}
    stems = {Path(name).stem for name in names if Path(name).suffix.lower() in IMAGES}
    return any(f"{stem}{kind}" in names for stem in stems for kind in (".txt", ".caption"))
