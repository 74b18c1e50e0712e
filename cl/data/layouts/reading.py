"""What every layout shares: the folder that is read, what is found on the way, and which files are images, notes or rubbish."""

import os
import re
import stat
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import pyarrow as pa

from cl.data.faults import Fault, Problem, Reason
from cl.data.images import LARGEST
from cl.data.told import Told, Topic

IMAGES = frozenset(
    {".png", ".jpg", ".jpeg", ".jfif", ".jpe", ".webp", ".gif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pbm", ".avif"}
)  # fmt: skip
PAPERS = frozenset({".txt", ".token", ".json", ".jsonl", ".ndjson", ".csv", ".tsv", ".xml", ".yaml", ".yml", ".parquet"})
_WORDS = ("readme", "license", "licence", "copying", "changelog", "citation", "notice", "authors", "thumbs.db", "desktop.ini")
_NOTES = frozenset({".md", ".rst", ".py", ".ipynb", ".sh", ".pdf", ".dvc", ".ini", ".db", ".log"})  # papers and programs of who made it
_RUBBISH = "__MACOSX"
_SPLITS = {"train": ("train", "training"), "val": ("val", "valid", "validation", "dev"), "test": ("test", "testing")}
_SAYS_NOTHING = {"set", "data", "dataset", "images", "image", "imgs", "img", "folder", "split", "seg"}
SPLITS = {word: split for split, words in _SPLITS.items() for word in words}


@dataclass
class Reading:
    """A source while it is read: problems with single samples, and what is to be told of the whole."""

    root: Path
    columns: Mapping[str, str | None] = field(default_factory=dict)
    links: bool = True  # whether images may be links that lead out of the folder
    problems: list[Problem] = field(default_factory=list)
    told: list[Told] = field(default_factory=list)
    named: set[str] = field(default_factory=set)  # files that rows name, as paths from the root
    lists: dict[str, Path] = field(default_factory=dict)  # by split, the text that says what is in it
    noted: set[Path] = field(default_factory=set)  # texts whose problem is noted

    def tell(self, topic: Topic, *names: str, count: int = 0) -> None:
        """Note a remark."""
        self.told.append(Told(topic, names, count))

    def readable(self, file: Path) -> bool:
        """Whether a text or table is a regular file, and no link out of the folder unless links are trusted; if not, why is noted once."""
        fault = None
        try:
            if not stat.S_ISREG(os.stat(file).st_mode):
                fault = Reason.NOT_REGULAR, "not opened"
            elif not self.links and not Path(os.path.realpath(file)).is_relative_to(os.path.realpath(self.root)):
                fault = Reason.LINK, "leads out of the folder"
        except OSError as error:
            fault = Reason.LINK if file.is_symlink() else Reason.UNREADABLE, f"{error.strerror}"
        if fault and file not in self.noted:
            self.noted.add(file)
            self.problems.append(Problem(shown(file, self.root), *fault))
        return fault is None

    def sound(self, file: Path) -> bool:
        """Whether a file can be opened as an image; if not, why is noted."""
        fault = (Reason.NAME, "") if not str(file).isprintable() else self.fault(file)
        if not fault and file.suffix.lower() not in IMAGES:
            fault = Reason.NOT_AN_IMAGE, file.suffix or "no ending"
        if fault:
            self.problems.append(Problem(shown(file, self.root), *fault, path=file))
        return fault is None

    def fault(self, file: Path) -> Fault | None:
        """Why a file that should be an image inside the root is not read; None if it can be.

        Unless links are trusted, none is followed out of the folder; what is no regular file (a pipe, a device) is never opened.
        """
        try:
            status = os.stat(file)
            real = os.path.realpath(file, strict=True)
        except OSError as error:
            return (Reason.LINK if os.path.islink(file) else Reason.MISSING), f"{error.strerror}"
        outside = not Path(real).is_relative_to(os.path.realpath(self.root))
        if outside and not self.links:
            return Reason.LINK, "leads out of the folder"
        if not stat.S_ISREG(status.st_mode):
            return Reason.NOT_REGULAR, stat.filemode(status.st_mode)
        if status.st_size > LARGEST:
            return Reason.TOO_LARGE, f"{status.st_size:,} bytes; at most {LARGEST:,} are read"
        if outside:
            self.tell(Topic.LINKED, shown(file, self.root))
        return None if os.access(file, os.R_OK) else (Reason.UNREADABLE, "no permission to read it")


@dataclass(frozen=True)
class Part:
    """Files that are read together: to which split they belong (None: as their rows say), what they are in words, and how."""

    split: str | None
    words: str
    files: tuple[Path, ...]
    read: Callable[[Path, Reading], pa.Table]
    literal: bool = False  # labels are names of folders: one called None is a class


@dataclass(frozen=True)
class Entries:
    """What lies in a folder, less what is hidden, rubbish or a known note."""

    folders: tuple[Path, ...]
    images: tuple[Path, ...]
    papers: tuple[Path, ...]
    others: tuple[Path, ...]


def entries(folder: Path, reading: Reading) -> Entries:
    """What a folder holds, sorted by name; texts and tables only where they can be read."""
    inside = sorted(entry for entry in folder.iterdir() if not entry.name.startswith("."))
    folders = tuple(entry for entry in inside if entry.is_dir() and entry.name != _RUBBISH)
    files = [entry for entry in inside if not entry.is_dir() and not is_note(entry)]
    images, papers = ([file for file in files if file.suffix.lower() in kinds] for kinds in (IMAGES, PAPERS | {".tar"}))
    others = tuple(file for file in files if file.suffix.lower() not in IMAGES | PAPERS | {".tar"})
    return Entries(folders, tuple(images), tuple(file for file in papers if reading.readable(file)), others)


def is_note(file: Path) -> bool:
    """Whether a file tells people about the data and is none of it."""
    return file.name.lower().startswith(_WORDS) or file.suffix.lower() in _NOTES


def split_of(name: str) -> str | None:
    """The split that a folder is named after: the word alone, or with words that only say that it is one.

    >>> [split_of(name) for name in ("train2017", "training_set", "seg_test", "Valid", "train station", "trainer")]
    ['train', 'train', 'test', 'val', None, None]
    """
    words = [word for word in _words(name) if word not in _SAYS_NOTHING]
    return SPLITS.get(words[0]) if len(words) == 1 else None


def file_split(stem: str) -> str | None:
    """The split that the name of a file starts with.

    >>> [file_split(stem) for stem in ("train-00000-of-00004", "test_labels", "trainer", "captions_val2017")]
    ['train', 'test', None, None]
    """
    words = _words(stem)
    return SPLITS.get(words[0]) if words else None


def by_split(files: Sequence[Path]) -> dict[str | None, list[Path]]:
    """Files by the split that their names start with; where that tells several not apart, that they end with."""
    first = {file: file_split(file.stem) for file in files}
    last = {file: SPLITS.get(([word for word in _words(file.stem) if word not in _SAYS_NOTHING] or [""])[-1]) for file in files}
    named = last if len(files) > 1 and not any(first.values()) and all(last.values()) else first
    return {split: [file for file in files if named[file] == split] for split in dict.fromkeys(named.values())}


def _words(name: str) -> list[str]:
    """Of trainImages too: where small letters end and a capital follows, a word ends."""
    parted = re.sub(r"([a-z])([A-Z])", r"\1 \2", name)
    return "".join(letter if letter.isalpha() else " " for letter in parted.lower()).split()


def holds_images(folder: Path) -> bool:
    """Whether an image lies anywhere below a folder."""
    return any(
        Path(name).suffix.lower() in IMAGES and not name.startswith(".")
        for parent, folders, names in os.walk(folder)
        for name in names
        if _RUBBISH not in parent
    )


def shown(file: Path, root: Path) -> str:
    """The path as people read it, from the root."""
    return os.path.relpath(file, root).encode("utf-8", "backslashreplace").decode()


def composed(name: str) -> str:
    """The name with its letters in one piece (NFC): a Mac writes é as two."""
    return unicodedata.normalize("NFC", name)
