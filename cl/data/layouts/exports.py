"""Exports of detection and labelling programs: boxes are no labels, so that they are refused, each with what to export instead."""

import os
import re
from collections.abc import Sequence
from itertools import islice
from pathlib import Path
from typing import Any, Never

from cl.data.layouts.reading import Reading, entries, holds_images
from cl.errors import DataError

_TABLE = "or write a CSV with the columns image and label"
_INSTEAD = {
    "COCO instances": f"captions are read (captions_train2017.json); for classes, crop the objects into a folder per class, {_TABLE}",
    "YOLO": f"export for classification (a folder per class in train, val and test), {_TABLE}",
    "Roboflow": f"download it again as `Folder Structure` (a folder per class), {_TABLE}",
    "CVAT": f"export it as `ImageNet 1.0` (a folder per class), {_TABLE}",
    "Label Studio": f"export it as CSV and name the columns with --image and --label, {_TABLE}",
    "Pascal VOC": f"crop the objects into a folder per class, {_TABLE}",
    "LabelMe": f"crop the objects into a folder per class, {_TABLE}",
    "VIA": f"crop the objects into a folder per class, {_TABLE}",
}
_HEAD = 65_536


def refuse(place: Path, program: str) -> Never:
    """Say that a file or folder is an export of boxes or the like.

    Raises:
        DataError: always.
    """
    raise DataError(f"{place}: an export of {program}, which is not read: its labels are of boxes or of a project; {_INSTEAD[program]}")


def refuse_folder(folder: Path, reading: Reading) -> None:
    """Look at the names, and at the first bytes of a few files.

    Raises:
        DataError: it is an export.
    """
    inside = entries(folder, reading)
    inner = [paper for each in inside.folders for paper in entries(each, reading).papers]
    for paper in (*inside.papers, *inner):
        if program := _by_name(paper):
            refuse(paper, program)
    for paper in inside.papers:
        if paper.suffix.lower() in (".yaml", ".yml") and re.search(r"^\s*(names|nc)\s*:", _head(paper), re.M):
            refuse(paper, "YOLO")
        if paper.suffix.lower() == ".xml":
            refuse_beside(folder, [paper])
    for each in inside.folders:
        if not holds_images(each):
            below = (Path(parent, name) for parent, _, names in os.walk(each) for name in sorted(names))
            refuse_beside(
                each, list(islice((file for file in below if file.suffix.lower() in (".txt", ".xml") and reading.readable(file)), 20))
            )


def refuse_beside(folder: Path, papers: Sequence[Path]) -> None:
    """Look into files that stand for one image each.

    Raises:
        DataError: they hold boxes.
    """
    texts = [paper for paper in papers if paper.suffix.lower() == ".txt"]
    held = [_head(paper) for paper in texts]
    if any(held) and all(is_yolo(text) for text in held if text.strip()):
        refuse(folder, "YOLO")
    for paper in papers:
        head = _head(paper)
        if paper.suffix.lower() == ".xml" and "<annotation" in head:
            refuse(paper, "CVAT" if "<annotations" in head else "Pascal VOC")
        if paper.suffix.lower() == ".json" and '"shapes"' in head and '"imagePath"' in head + _tail(paper):
            refuse(paper, "LabelMe")


def refuse_json(file: Path, loaded: Any) -> None:
    """Look at what a JSON file holds.

    Raises:
        DataError: it is an export.
    """
    first = loaded[0] if isinstance(loaded, list) and loaded else next(iter(loaded.values()), None) if isinstance(loaded, dict) else None
    if isinstance(loaded, dict):
        marks = loaded.get("annotations")
        if isinstance(marks, list) and marks and isinstance(marks[0], dict) and {"bbox", "segmentation", "keypoints"} & marks[0].keys():
            refuse(file, "COCO instances")
        if "_via_img_metadata" in loaded or (isinstance(first, dict) and "regions" in first):
            refuse(file, "VIA")
        if "shapes" in loaded:
            refuse(file, "LabelMe")
    if isinstance(loaded, list) and isinstance(first, dict):
        uploaded = any(isinstance(value, str) and "/data/upload/" in value for value in first.values())
        if uploaded or ("data" in first and {"annotations", "completions", "predictions"} & first.keys()):
            refuse(file, "Label Studio")


def is_yolo(text: str) -> bool:
    """Whether lines are boxes or outlines as YOLO writes them: a class and at least four numbers.

    >>> is_yolo("0 0.5 0.5 0.1 0.2"), is_yolo("2 dogs run")
    (True, False)
    """
    lines = [line for line in text.splitlines() if line.strip()]
    return bool(lines) and all(re.fullmatch(r"\d+(\s+-?[\d.]+(e-?\d+)?){4,}\s*", line) for line in lines)


def _by_name(file: Path) -> str | None:
    name = file.name.lower()
    if name.startswith("_annotations.") or name == "_classes.csv":
        return "Roboflow"
    if re.fullmatch(r"(instances|person_keypoints|stuff|panoptic)_\w+\.json", name):
        captions = any(other.name.lower().startswith("captions") for other in file.parent.iterdir())
        return None if captions else "COCO instances"
    return "VIA" if name.startswith("via_") and name.endswith((".json", ".csv")) else None


def _head(file: Path) -> str:
    with file.open("rb") as handle:
        return handle.read(_HEAD).decode("utf-8", "replace")


def _tail(file: Path) -> str:
    with file.open("rb") as handle:
        handle.seek(max(0, file.stat().st_size - 4096))
        return handle.read().decode("utf-8", "replace")
