"""Looks at every sample of a session that arrives: what cannot be learned from is left out with its reason, the rest is kept."""

import unicodedata
import warnings
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa

from cl.data.collection import Seen
from cl.data.faults import Fault, ImageError, Problem, Reason
from cl.data.images import decode, opened
from cl.data.schema import SCHEMA, TEXTS
from cl.data.table import ImageTable, Supervision, concat, hold_out
from cl.errors import DataError
from cl.text import plain

Splits = Mapping[str, ImageTable]
_SMALLEST = 2  # pixels on a side
_CAPTION = 1000  # characters; what is longer is no caption, though a model cuts it to its context anyway
_LABEL = 200
_CHUNK = 256  # images in memory at a time


def screen(splits: Splits, problems: list[Problem], tell: Callable[[int, int], None] = lambda done, total: None) -> dict[str, ImageTable]:
    """The rows by split whose image can be decoded in full and stands there once, captions and labels that are text.

    Of rows with the same image (byte for byte) the first stays, training before test; where their labels differ, none does.
    A caption that cannot be used goes alone, a label takes its image with it.
    """
    return _distinct(sound(splits, problems, tell), problems)


def sound(splits: Splits, problems: list[Problem], tell: Callable[[int, int], None] = lambda done, total: None) -> dict[str, ImageTable]:
    """As `screen`, whatever images are the same."""
    kept = {}
    done, total = 0, sum(len(data) for data in splits.values())
    for split, data in splits.items():
        faults: list[Fault | None] = []
        with warnings.catch_warnings(), ThreadPoolExecutor() as pool:
            warnings.simplefilter("ignore")  # what Pillow has to say of a damaged file comes as a reason
            for start in range(0, len(data), _CHUNK):
                part = ImageTable(data.table.slice(start, _CHUNK))
                faults += pool.map(_image_fault, part.table["image"].to_pylist(), part.ids)
                done += len(part)
                tell(done, total)
        for row, (name, fault) in enumerate(zip(data.ids, faults, strict=True)):
            if fault:
                problems.append(Problem(name, *fault, image=data.table["image"][row].as_py()))
        kept[split] = _worded(data.where([fault is None for fault in faults]), problems)
    return kept


def teaches(splits: Splits, told: str) -> None:
    """Raise where there is nothing to learn from.

    Raises:
        DataError: no image is left, or none has a label or a caption; with `told`, what may be said to have it all the same.
    """
    if not any(map(len, splits.values())):
        raise DataError("every image is set aside")
    if not any(rows.classes() or any(rows.captions) for rows in splits.values()):
        raise DataError(f"no image has a label or a caption; say which column (in a tar: a .cls or .txt beside each image), or {told}")


def teachable(splits: Splits, supervision: Supervision | None, problems: list[Problem]) -> tuple[dict[str, ImageTable], Supervision]:
    """The rows that have what the session teaches with and is examined on, and what that is where nobody said.

    Raises:
        DataError: no image is left, or nothing is said, and there is neither a label nor a caption.
    """
    data = concat(list(splits.values()))
    labels, captions = bool(data.classes()), any(data.captions)
    if supervision is None or not len(data):
        teaches(splits, "that the session is unlabelled: --unlabelled")
    supervision = supervision or ("both" if labels and captions else "labels" if labels else "captions")
    kept = {split: _having(rows, supervision, labels, split, problems) for split, rows in splits.items()}
    taught = set(kept["train"].classes()) if "train" in kept else set()
    for split in kept.keys() - {"train"}:
        rows = kept[split]
        if supervision in ("labels", "both") and taught:
            kept[split] = _without(rows, [label not in taught for label in rows.labels], Reason.UNTAUGHT, problems)
    return kept, supervision


def fresh(splits: Splits, seen: Mapping[bytes, Seen], problems: list[Problem]) -> dict[str, ImageTable]:
    """The rows whose image no earlier session of the collection has."""
    kept = {}
    for split, data in splits.items():
        keep = []
        for name, label, print_ in zip(data.ids, data.labels, data.prints, strict=True):
            known = seen.get(print_)
            keep.append(known is None)
            if known and label and known.label and known.label != label:
                problems.append(Problem(name, Reason.CONFLICT, f"{label!r} here, {known.label!r} in session {known.session}"))
            elif known:
                problems.append(Problem(name, Reason.DUPLICATE, f"of an image in session {known.session}"))
        kept[split] = data.where(keep)
    return kept


def parted(splits: Splits, supervision: Supervision, share: float) -> dict[str, ImageTable]:
    """`train` and `test`: the source's own test and validation images, else a share of each class.

    Of an unlabelled session only images with a label can be held out; they are examined with, the others are learned from.

    Raises:
        DataError: nothing is left to learn from, or nothing to be examined with.
    """
    train, test = splits.get("train", concat([])), concat([rows for split, rows in splits.items() if split != "train"])
    if not len(test) and share and len(train):
        labelled = [label is not None or supervision != "none" for label in train.labels]
        learned, test = hold_out(train.where(labelled), share)
        train = concat([learned, train.where([not known for known in labelled])])
    if not len(train):
        raise DataError("no training image is left")
    if not len(test) and supervision != "none":
        raise DataError("no image is left to examine with; give test images, or two images of some class and a share to hold out")
    clash = set(train.ids) & set(test.ids)
    if clash:  # other images under the same id: tables often number the rows of each split
        ids = [f"test/{name}" if name in clash else name for name in test.ids]
        test = ImageTable(test.table.set_column(0, SCHEMA.field("id"), pa.array(ids, pa.string())))
    return {"train": train, "test": test}


def resembling(new: Sequence[str], known: Sequence[str]) -> dict[str, str]:
    """New classes that differ from a known one only in case, separators or the way letters are encoded.

    >>> resembling(["Polar bear", "cat"], ["polar_bear"])
    {'Polar bear': 'polar_bear'}
    """
    first = {plain(name): name for name in known}
    return {name: first[plain(name)] for name in new if plain(name) in first}


def _image_fault(image: bytes, name: str) -> Fault | None:
    try:
        size = opened(image, name).size
        if min(size) < _SMALLEST:
            return Reason.TOO_SMALL, f"{size[0]} x {size[1]} pixels"
        decode(image, name)
    except ImageError as error:
        return error.reason, error.detail
    return None


def _worded(data: ImageTable, problems: list[Problem]) -> ImageTable:
    """The rows with sound labels, less the captions that are none."""
    keep = []
    for name, label in zip(data.ids, data.labels, strict=True):
        fault = label is not None and _label_fault(label)
        if fault:
            problems.append(Problem(name, Reason.LABEL, f"{fault}: {label!r:.60}"))
        keep.append(not fault)
    table = data.table
    for place, field in enumerate(table.schema):
        if field.name in TEXTS:
            cells = [_sound(name, texts, problems) for name, texts in zip(data.ids, table[field.name].to_pylist(), strict=True)]
            table = table.set_column(place, field, pa.array(cells, field.type))
    return ImageTable(table).where(keep)


def _sound(name: str, texts: Sequence[str], problems: list[Problem]) -> list[str]:
    faults = [_caption_fault(text) for text in texts]
    pairs = [(text, fault) for text, fault in zip(texts, faults, strict=True) if fault]
    problems += [Problem(name, reason, f"{told}: {text!r:.60}") for text, (reason, told) in pairs]
    return [text for text, told in zip(texts, faults, strict=True) if not told]


def _label_fault(label: str) -> str | None:
    if label.casefold() == "nan":
        return "no name"
    if len(label) > _LABEL:
        return f"{len(label)} characters"
    return _text_fault(label)


def _caption_fault(text: str) -> Fault | None:
    if not text.strip():
        return Reason.CAPTION, "empty"
    if len(text) > _CAPTION:
        return Reason.LONG, f"{len(text)} characters"
    told = _text_fault(text)
    return (Reason.CAPTION, told) if told else None


def _text_fault(text: str) -> str | None:
    if any(unicodedata.category(letter) in ("Cc", "Cs", "Co") and letter not in "\t\n\r" for letter in text):
        return "control characters"
    if "\ufffd" in text or _twice_encoded(text):
        return "mixed encodings"
    return None


def _twice_encoded(text: str) -> bool:
    """UTF-8 that was read as Latin-1 or as Windows does: a text that means something else, which hardly any real one does."""
    for encoding in ("latin-1", "cp1252"):
        try:
            return not text.isascii() and text.encode(encoding).decode() != text
        except UnicodeError:
            continue
    return False


def _distinct(splits: Splits, problems: list[Problem]) -> dict[str, ImageTable]:
    """Each image once: of equal ones the first stays, unless they have different labels."""
    keys = {split: data.prints for split, data in splits.items()}
    labels: dict[bytes, set[str]] = {}
    for split, data in splits.items():
        for key, label in zip(keys[split], data.labels, strict=True):
            labels.setdefault(key, set()).update([label] if label else [])
    first: dict[bytes, str] = {}
    kept = {}
    for split, data in splits.items():
        keep = []
        for key, name in zip(keys[split], data.ids, strict=True):
            clash = len(labels[key]) > 1
            keep.append(not clash and key not in first)
            if clash:
                problems.append(Problem(name, Reason.CONFLICT, f"the same image is called {' and '.join(sorted(labels[key]))}"))
            elif key in first:
                problems.append(Problem(name, Reason.DUPLICATE, f"of {first[key]}"))
            first.setdefault(key, name)
        kept[split] = data.where(keep)
    return kept


def _having(rows: ImageTable, supervision: Supervision, labels: bool, split: str, problems: list[Problem]) -> ImageTable:
    bare = [label is None for label in rows.labels]
    silent = [not texts for texts in rows.captions]
    asked = split != "train"
    if supervision == "captions" or (supervision == "both" and asked and not labels):
        return _without(rows, silent, Reason.NO_CAPTION, problems)
    if supervision == "labels" or asked:
        return _without(rows, bare, Reason.NO_LABEL, problems)
    if supervision == "both":
        return _without(rows, [a and b for a, b in zip(bare, silent, strict=True)], Reason.NEITHER, problems)
    return rows


def _without(rows: ImageTable, bad: Sequence[bool], reason: Reason, problems: list[Problem]) -> ImageTable:
    told = {problem.where for problem in problems if problem.reason in (Reason.CAPTION, Reason.LONG)}
    problems += [Problem(name, reason) for name, out in zip(rows.ids, bad, strict=True) if out and name not in told]
    return rows.where([not out for out in bad])
