"""Why a sample or a file cannot be used, as a value: who finds it names it, who tells it words it, and nobody reads sentences."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cl.errors import DataError
from cl.text import some


class Reason(StrEnum):
    """The kinds that are counted and told apart."""

    UNREADABLE = "unreadable"
    CUT_SHORT = "cut short"
    TOO_SMALL = "too small"
    TOO_LARGE = "too large"
    MISSING = "missing"
    NO_IMAGE = "no image"
    NOT_AN_IMAGE = "no kind of image that is read"
    DUPLICATE = "duplicate"
    CONFLICT = "label conflict"
    LINK = "link"
    OUTSIDE = "outside the folder"
    NOT_REGULAR = "not a regular file"
    NAME = "unusable name"
    ID = "unusable id"
    BOMB = "decompression bomb"
    LABEL = "unusable label"
    CAPTION = "unusable caption"
    LONG = "caption too long"
    NOT_UTF8 = "not UTF-8"
    VALUE = "unusable value"
    NO_LABEL = "no label"
    NO_CAPTION = "no caption"
    NEITHER = "no label and no caption"
    EMPTY_CLASS = "class without an image"
    UNTAUGHT = "class without a training image"
    NO_CLASS = "in no class folder"


Fault = tuple[Reason, str]  # and what exactly


@dataclass(frozen=True)
class Problem:
    """Why a sample is left out: where it stands, a reason to count by, what exactly, and the file or image to look at."""

    where: str
    reason: Reason
    detail: str = ""
    path: Path | None = None
    image: bytes | None = None


class ImageError(DataError):
    """Bytes that cannot be used as an image."""

    def __init__(self, name: str, reason: Reason, detail: str, remedy: str) -> None:
        super().__init__(f"{name}: {detail}; {remedy}")
        self.reason, self.detail = reason, detail


REMEDIES = {
    Reason.UNREADABLE: "replace or remove it",
    Reason.CUT_SHORT: "fetch it again or remove it",
    Reason.TOO_SMALL: "remove it",
    Reason.TOO_LARGE: "scale it down",
    Reason.MISSING: "add it or drop the row",
    Reason.NO_IMAGE: "every row needs a path or bytes",
    Reason.NOT_AN_IMAGE: "convert it to PNG or JPEG, or remove it",
    Reason.CONFLICT: "keep one of the two",
    Reason.LINK: "put the file itself there",
    Reason.OUTSIDE: "move the image into the folder",
    Reason.NAME: "rename it",
    Reason.ID: "every row needs an id of its own",
    Reason.LABEL: "write it again",
    Reason.CAPTION: "write it again or leave it out",
    Reason.NOT_UTF8: "save the table as UTF-8",
    Reason.VALUE: "repair the row",
    Reason.EMPTY_CLASS: "add images or remove the folder",
    Reason.NO_CLASS: "move it into the folder of its class",
}


def summary(problems: Sequence[Problem]) -> str:
    """How many for each reason, the first few with what exactly, and what to do.

    >>> summary([Problem("t.csv row 2", Reason.MISSING, "b.png"), Problem("t.csv row 3", Reason.MISSING, "c.png")])
    '2 missing (t.csv row 2: b.png, t.csv row 3: c.png): add it or drop the row'
    """
    told = []
    for reason, count in Counter(problem.reason for problem in problems).most_common():
        own = [f"{each.where}: {each.detail}" if each.detail else each.where for each in problems if each.reason == reason]
        remedy = f": {REMEDIES[reason]}" if reason in REMEDIES else ""
        told.append(f"{count:,} {reason} ({some(own)}){remedy}")
    return "; ".join(told)
