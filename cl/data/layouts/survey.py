"""Which layout a folder has: what lies in it decides, by names and by the first lines of texts; what fits none is refused or told."""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import chain
from pathlib import Path

from cl.data.archive import TABLES
from cl.data.layouts import annotations, delimited, folders, lists, tars
from cl.data.layouts.exports import refuse_folder
from cl.data.layouts.lists import Kind
from cl.data.layouts.reading import Entries, Part, Reading, by_split, entries, file_split, holds_images, shown, split_of
from cl.data.told import Topic
from cl.errors import DataError
from cl.text import some

_TABLES = {
    ".parquet": ("Parquet", delimited.parquet),
    ".csv": ("a CSV table", delimited.csv),
    ".tsv": ("a TSV table", delimited.csv),
    ".jsonl": ("JSON lines", delimited.json_lines),
    ".ndjson": ("JSON lines", delimited.json_lines),
    ".tar": ("WebDataset tars", tars.tar),
    ".json": ("JSON annotations", annotations.annotations),
}
_TEXTS = {
    Kind.TABLE: ("a table", delimited.csv),
    Kind.CAPTIONS: ("a list of captions", lists.captions),
    Kind.CLASSES: ("a list of classes", lists.classes),
    Kind.PATHS: ("a list of paths", lists.paths),
}
_SHARD = re.compile(r"(part[-_])?\d+")
_STATS = re.compile(r"\d+_stats\.json")
_EXPECTED = f"expected a folder per class, images with texts or tables beside them, or files {', '.join((*TABLES, '.zip'))}"


def survey(path: Path, reading: Reading) -> list[Part]:
    """What to read of a file or folder; `reading.root` moves down with it where a folder only wraps another.

    Raises:
        DataError: nothing that is read, an export of boxes, tables that cannot be told apart, or texts that nobody can read.
    """
    if not path.is_dir():
        return [_file(path, reading, file_split(path.stem))]
    refuse_folder(path, reading)
    inside = entries(path, reading)
    if parts := _img2dataset(path, inside) or _tables(path, inside, reading) or _splits(path, inside, reading):
        return parts
    if parts := _annotated(path, inside, reading):
        return parts
    inside = _less_papers(path, inside, reading)
    if len(inside.folders) == 1 and not inside.images and _goes_down(inside.folders[0], reading):
        _unread(inside.papers, reading)
        # what only wraps is no part of an id; `data` is where Hugging Face keeps tables
        reading.root = inside.folders[0] if path == reading.root and inside.folders[0].name != "data" else reading.root
        return survey(inside.folders[0], reading)
    return _folders(path, inside, reading)


def _less_papers(folder: Path, inside: Entries, reading: Reading) -> Entries:
    """Without folders that hold texts and no image, and without lists of paths, which say what is in which split."""
    full = [each for each in inside.folders if holds_images(each)]
    bare = [each for each in inside.folders if full and each not in full and entries(each, reading).papers]
    papers = [*inside.papers, *chain.from_iterable(entries(each, reading).papers for each in bare)]
    beside = {image.stem for image in inside.images}
    texts = [paper for paper in papers if paper.suffix.lower() == ".txt" and paper.stem not in beside]
    texts = [paper for paper in texts if lists.kind_of(paper) == Kind.PATHS]
    used = _placed(texts, reading)
    _unread([paper for paper in papers if paper not in used and paper not in inside.papers], reading)
    rest = tuple(paper for paper in inside.papers if paper not in used)
    return replace(inside, folders=tuple(each for each in inside.folders if each not in bare), papers=rest)


def _placed(texts: Sequence[Path], reading: Reading) -> list[Path]:
    """The lists of paths, one per split, that decide on splits from now on."""
    placed = by_split(texts)
    if None in placed or "train" not in placed or any(len(files) > 1 for files in placed.values()):
        return []
    reading.lists = {split: files[0] for split, files in placed.items() if split}
    return list(reading.lists.values())


def _file(path: Path, reading: Reading, split: str | None) -> Part:
    kind = path.suffix.lower()
    if kind in (".txt", ".token"):
        words, read = _TEXTS.get(lists.kind_of(path), (None, None))
    else:
        words, read = _TABLES.get(kind, (None, None))
    if words is None or read is None:
        raise DataError(f"{path}: unknown kind of file; expected a folder or one of {', '.join((*TABLES, '.json', '.zip'))}")
    return Part(split, words, (path,), read)


def _img2dataset(folder: Path, inside: Entries) -> list[Part]:
    """Its tars, or its folders of images with texts; the Parquet and JSON beside them say the same again."""
    stats = [paper for paper in inside.papers if _STATS.fullmatch(paper.name)]
    shards = [paper for paper in inside.papers if _SHARD.fullmatch(paper.stem) and paper.suffix.lower() in (".tar", ".parquet")]
    tars_ = tuple(paper for paper in shards if paper.suffix.lower() == ".tar")
    inner = tuple(each for each in inside.folders if _SHARD.fullmatch(each.name))
    if len(tars_) and len(shards) > len(tars_):
        return [Part(split_of(folder.name), "img2dataset's tars", tars_, tars.tar)]
    if stats and inner and not tars_:
        return [Part(None, "img2dataset's folders", inner, folders.unlabelled)]
    return []


def _tables(folder: Path, inside: Entries, reading: Reading) -> list[Part]:
    tables = [paper for paper in inside.papers if paper.suffix.lower() in TABLES]
    named = by_split(tables)
    left = named.pop(None, []) if len(named) > 1 else []  # beside train.csv and test.csv, classes.csv is a note
    for split, files in named.items():
        kinds = {file.suffix.lower() for file in files}
        shards = kinds == {".tar"} or (len(kinds) == 1 and all(_SHARD.fullmatch(file.stem) for file in files))
        if len(kinds) > 1 or (len(files) > 1 and split is None and not shards):
            raise DataError(
                f"{folder}: several tables ({some([f.name for f in files])}); name them by split (train.csv, test.csv) or give one"
            )
    if tables:
        _unread([*left, *(paper for paper in inside.papers if paper not in tables and paper.name != "classnames.txt")], reading)
    made = [(split, files, *_TABLES[files[0].suffix.lower()]) for split, files in named.items()]
    return [Part(split, words, tuple(files), read) for split, files, words, read in made]


def _splits(folder: Path, inside: Entries, reading: Reading) -> list[Part]:
    """Folders called train, val and test, unless one is a class among others."""
    named = {entry: split for entry in inside.folders if (split := split_of(entry.name))}
    if not named or not (len(named) == len(inside.folders) or len(set(named.values())) > 1):
        return []
    texts = [paper for each in inside.folders if each not in named for paper in entries(each, reading).papers]
    if any(_caption_like(paper, reading) for paper in (*inside.papers, *texts)):
        return []  # COCO's train2017 and val2017 beside annotations
    others = [each for each in inside.folders if each not in named and any(each.iterdir())]
    _unread([*inside.papers, *others], reading)
    return [Part(split, part.words, part.files, part.read, part.literal) for each, split in named.items() for part in survey(each, reading)]


def _annotated(folder: Path, inside: Entries, reading: Reading) -> list[Part]:
    """Texts that annotate images: in the folder, or in folders beside the images that hold none."""
    bare = [each for each in inside.folders if not holds_images(each)]
    bare = bare if inside.images or len(bare) < len(inside.folders) else []
    papers = [*inside.papers, *chain.from_iterable(entries(each, reading).papers for each in bare)]
    beside = {image.stem for image in inside.images}
    kinds = {paper: _kind(paper, paper in inside.papers, reading) for paper in papers if paper.stem not in beside}
    chosen = _chosen(kinds)
    if not chosen:
        return []
    splits = by_split(chosen)
    if any(len(files) > 1 for files in splits.values()) or (None in splits and len(splits) > 1):
        named = some([shown(paper, folder) for paper in chosen])
        raise DataError(f"{folder}: several texts say what its images are ({named}); keep one, or give one by its name")
    used = {*chosen, *(paper for paper, kind in kinds.items() if kind == Kind.NAMES and kinds[chosen[0]] == Kind.CLASSES)}
    if None in splits:
        used |= {*_placed([paper for paper, kind in kinds.items() if kind == Kind.PATHS], reading)}
    _unread([paper for paper in papers if paper not in used], reading)
    return [_file(file, reading, split) for split, files in splits.items() for file in files]


def _chosen(kinds: Mapping[Path, Kind]) -> list[Path]:
    """Of the texts those that say most: captions and tables before classes."""
    texts = [paper for paper, kind in kinds.items() if kind in (Kind.TABLE, Kind.CAPTIONS)]
    texts = [paper for paper in texts if "lemma" not in paper.name.lower()] or texts  # Flickr8k's, beside its captions
    return texts or [paper for paper, kind in kinds.items() if kind == Kind.CLASSES]


def _kind(paper: Path, here: bool, reading: Reading) -> Kind:
    suffix = paper.suffix.lower()
    if suffix in (".txt", ".token"):
        return lists.kind_of(paper)
    if suffix == ".json":
        return Kind.TABLE if _captions_json(paper, reading) else Kind.OTHER
    return Kind.TABLE if suffix in TABLES and not here else Kind.OTHER


def _captions_json(paper: Path, reading: Reading) -> bool:
    name = paper.name.lower()
    if re.fullmatch(r"(instances|person_keypoints|stuff|panoptic)_\w+\.json", name) or _STATS.fullmatch(name):
        return False  # gigabytes beside the captions that are read
    return annotations.annotates(paper, reading)


def _caption_like(paper: Path, reading: Reading) -> bool:
    if paper.suffix.lower() == ".json":
        return _captions_json(paper, reading)
    return paper.suffix.lower() in (".txt", ".token") and lists.kind_of(paper) in (Kind.TABLE, Kind.CAPTIONS, Kind.CLASSES)


def _goes_down(folder: Path, reading: Reading) -> bool:
    """Whether a lone folder is gone through: it holds folders or texts of its own; one that holds images alone is a class."""
    inside = entries(folder, reading)
    if inside.images:
        tables = any(paper.suffix.lower() in TABLES for paper in inside.papers)
        return tables or folders.caption_beside(folder)
    return bool(inside.folders or inside.papers)


def _folders(folder: Path, inside: Entries, reading: Reading) -> list[Part]:
    full = [each for each in inside.folders if holds_images(each)]
    loose = [paper for paper in inside.papers if paper.stem not in {image.stem for image in inside.images}]
    if not full and not inside.images and not (inside.folders and not loose):
        names = some([entry.name for entry in (*inside.folders, *inside.papers, *inside.others)]) or "nothing"
        raise DataError(f"{folder}: found {names}; {_EXPECTED}")
    if len(full) < 2 and loose:
        held = f"one folder of images, {full[0].name}" if full else "images"
        told = f"{held}, and beside it {some([paper.name for paper in loose])}, which cannot be read"
        raise DataError(f"{folder}: {told}: write a CSV with the columns image and label or caption, or remove what is no annotation")
    _unread([*loose, *inside.others] if full else inside.others, reading)
    if not inside.folders:
        return [Part(None, "images without a class", (folder,), folders.unlabelled, literal=True)]
    if full and all(_is_split(each, reading) for each in full):
        return [Part(None, "a folder per class with a folder per split", (folder,), folders.split_classes, literal=True)]
    return [Part(None, "a folder per class", (folder,), folders.classes, literal=True)]


def _is_split(folder: Path, reading: Reading) -> bool:
    inside = entries(folder, reading)
    return (
        bool(inside.folders) and not inside.images and len({split_of(each.name) for each in inside.folders} - {None}) == len(inside.folders)
    )


def _unread(paths: Sequence[Path], reading: Reading) -> None:
    if paths:
        reading.tell(Topic.UNREAD, *(shown(path, reading.root) + "/" * path.is_dir() for path in paths))
