"""Why a sample or a file cannot be used, as a value: who finds it names it, who tells it words it, and nobody reads sentences."""

from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

from cl.errors import DataError


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
