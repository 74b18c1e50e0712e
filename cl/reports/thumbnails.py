"""Images as they stand in a report: decoded under bounds, made small, and encoded anew, so that nothing of a file's own bytes gets out."""

import base64
import io
from collections.abc import Sequence

from PIL import Image

from cl.data.table import ImageTable
from cl.errors import DataError

SIDE = 96  # pixels
LARGEST = 3000  # bytes of one, so that a page of them stays small whatever they show
_QUALITIES = (70, 45, 20, 5)


def thumbnail(image: Image.Image) -> str:
    """An RGB image as the base64 of a WebP of at most 96 pixels a side and 3,000 bytes; without a profile, a comment or a date.

    >>> from PIL import Image
    >>> Image.open(io.BytesIO(base64.b64decode(thumbnail(Image.new("RGB", (400, 100)))))).size
    (96, 24)
    """
    small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    while True:
        for quality in _QUALITIES:
            file = io.BytesIO()
            small.save(file, "WEBP", quality=quality, method=4)
            if file.tell() <= LARGEST:
                return base64.b64encode(file.getvalue()).decode()
        small = small.resize((max(1, small.width // 2), max(1, small.height // 2)))


def thumbnails(data: ImageTable, rows: Sequence[int]) -> dict[int, str]:
    """The thumbnail of each row; an image that cannot be decoded has none."""
    made = {}
    for row in rows:
        try:
            made[row] = thumbnail(data.image(row))
        except DataError:
            continue
    return made
