"""JSON that annotates images: Karpathy's splits, COCO captions, a list of records, a mapping from names to captions or classes."""

import json
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pyarrow as pa

from cl.data.columns import PLACE, SYNONYMS
from cl.data.layouts import encodings
from cl.data.layouts.delimited import json_table
from cl.data.layouts.exports import refuse_json
from cl.data.layouts.reading import IMAGES, Reading
from cl.errors import DataError

_EXPECTED = "expected Karpathy's splits, COCO captions, a list of records with image and label or caption, or a mapping from images to them"
_LARGE = 1 << 29  # bytes
_SAYS = frozenset(name for role in ("label", "captions") for name in SYNONYMS[role])


def annotations(file: Path, reading: Reading) -> pa.Table:
    """The table that a JSON file stands for.

    Raises:
        DataError: not JSON, an export of boxes, or no kind that is read.
    """
    loaded = _loaded(file, reading)
    refuse_json(file, loaded)
    try:
        table = _table(file, loaded)
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise DataError(f"{file}: JSON of no kind that is read ({type(error).__name__}: {error}); {_EXPECTED}") from error
    if table is None:
        raise DataError(f"{file}: JSON of no kind that is read; {_EXPECTED}")
    return table


def annotates(file: Path, reading: Reading) -> bool:
    """Whether a JSON file is of a kind that is read.

    Raises:
        DataError: an export of boxes.
    """
    if file.stat().st_size > _LARGE:
        return False  # it would fill the memory only to be told as not read; named itself, it is read
    try:
        loaded = _loaded(file, reading)
    except DataError:
        return False
    refuse_json(file, loaded)
    try:
        return _table(file, loaded) is not None
    except (AttributeError, IndexError, KeyError, TypeError, ValueError, pa.ArrowException):
        return False


def _loaded(file: Path, reading: Reading) -> Any:
    try:
        return json.loads("\n".join(encodings.lines(file, reading)))
    except (OSError, ValueError, RecursionError) as error:
        raise DataError(f"{file}: cannot be read as .json ({error}); {_EXPECTED}") from error


def _table(file: Path, loaded: Any) -> pa.Table | None:
    if isinstance(loaded, list):
        return _records(file, loaded)
    if isinstance(loaded.get("images"), list):
        return _coco(file, loaded) if "annotations" in loaded else _karpathy(file, loaded["images"])
    lists = [value for value in loaded.values() if isinstance(value, list)]
    if len(lists) == 1 and lists[0] and isinstance(lists[0][0], dict):
        return _records(file, lists[0])
    return _mapping(file, loaded)


def _karpathy(file: Path, images: list[dict[str, Any]]) -> pa.Table:
    """Karpathy and Fei-Fei's splits of COCO, Flickr8k and Flickr30k: one JSON file that names images, sentences and splits."""
    rows = [
        {
            "image": "/".join(part for part in (image.get("filepath", "images"), image["filename"]) if part),
            "captions": [sentence["raw"].strip() for sentence in image["sentences"]],
            "split": "train" if image["split"] == "restval" else image["split"],
        }
        for image in images
    ]
    return pa.Table.from_pylist([{**row, PLACE: f"{file.name} image {number}"} for number, row in enumerate(rows, start=1)])


def _coco(file: Path, loaded: Mapping[str, Any]) -> pa.Table | None:
    """COCO's captions: images by number, and sentences that name the number."""
    if not loaded["annotations"] or "caption" not in loaded["annotations"][0]:
        return None
    captions = defaultdict(list)
    for each in loaded["annotations"]:
        captions[each["image_id"]].append(each["caption"].strip())
    rows = [
        {"image": each["file_name"], "captions": captions[each["id"]], PLACE: f"{file.name} image {each['id']}"}
        for each in loaded["images"]
    ]
    return pa.Table.from_pylist(rows)


def _records(file: Path, records: list[Any]) -> pa.Table | None:
    names = {name.lower() for name in records[0]}
    if not (names & set(SYNONYMS["image"]) and names & _SAYS):
        return None
    where = [f"{file.name} record {number}" for number in range(1, len(records) + 1)]
    return json_table([json.dumps(record).encode() for record in records], where)


def _mapping(file: Path, captions: Mapping[str, Any]) -> pa.Table | None:
    """{"a.jpg": "a dog"}, or a list of captions; a word alone is a class."""
    if not captions or not all(Path(name).suffix.lower() in IMAGES for name in captions):
        return None
    texts = {name: [value] if isinstance(value, str) else list(value) for name, value in captions.items()}
    if not all(isinstance(text, str) for group in texts.values() for text in group):
        return None
    columns: dict[str, Any] = {"image": list(texts), PLACE: [f"{file.name}: {name}" for name in texts]}
    if all(len(group) == 1 and " " not in group[0].strip() for group in texts.values()):
        return pa.table({**columns, "label": [group[0] for group in texts.values()]})
    return pa.table({**columns, "captions": pa.array(texts.values(), pa.list_(pa.string()))})
