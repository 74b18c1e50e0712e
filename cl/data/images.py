"""Encoded images, whatever they claim to be: opened under bounds, decoded to the last pixel, and never black where that is not so.

`flows/registry/model.py` has a copy of what says it does, since it is served where Evergreen is not installed.
"""

import io
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image, ImageOps, features

from cl.data.faults import ImageError, Reason

VERSION = 1  # see cl/store/units.py

# what Pillow may try: others start helper programs or are seldom images
FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "PPM", *(("AVIF",) if features.check("avif") else ()))
MAX_PIXELS = 64_000_000  # a decompression bomb is refused long before it fills the memory
LARGEST = 1 << 28  # bytes of one image file: it is read whole
MAX_ASPECT = 100  # times as long as wide: a model's view is cut out of the image once its short side is as long as the model's


def opened(data: bytes, name: str) -> Image.Image:
    """The image with its header read and its pixels not yet.

    Raises:
        ImageError: not an image of a known format, more than 64 million pixels, or over 100 times as long as wide.
    """
    try:
        image: Image.Image = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(name, Reason.TOO_LARGE, f"more than {MAX_PIXELS:,} pixels, which are not read", "scale it down") from error
    except Exception as error:  # Pillow raises many kinds on damaged files (OSError, SyntaxError, struct.error, ...)
        raise _broken(data, name, error) from error
    if fault := oversized(image):
        raise ImageError(name, Reason.TOO_LARGE, fault, "scale it down, or cut it")
    return image


def decode(data: bytes, name: str) -> Image.Image:
    """Encoded bytes as an upright RGB image; transparency is laid on white, other depths are scaled to 8 bits (`eight_bits`).

    However many threads ask, at most 64 million pixels are decoded at once.

    Raises:
        ImageError: as `opened`; damaged or cut short; or of a kind of which white is not known.
    """
    image = opened(data, name)
    with _DECODING.take(pixels(image)):
        try:
            image.load()
        except Exception as error:
            raise _broken(data, name, error) from error
        try:
            return upright_rgb(image)
        except ValueError as error:  # the pixels are there, and what they mean is not known
            raise ImageError(name, Reason.NOT_AN_IMAGE, str(error), "save it as RGB with 8 bits") from error
        except Exception as error:
            raise _broken(data, name, error) from error


def pixels(image: Image.Image) -> int:
    """How many are held to decode it: those of a tile too, which may be larger than the image."""
    tags = getattr(image, "tag_v2", {})  # TIFF's: 322 and 323 are a tile's sides
    return max(image.width * image.height, int(tags.get(322, 0)) * int(tags.get(323, 0)))


def oversized(image: Image.Image) -> str | None:
    """Why an image is not decoded, though its header can be read."""
    if pixels(image) > MAX_PIXELS:
        return f"{image.width} x {image.height} pixels or tiles of as many, and at most {MAX_PIXELS:,} are read"
    if max(image.size) > MAX_ASPECT * min(image.size):
        return f"{image.width} x {image.height} pixels, and at most {MAX_ASPECT} times as long as wide are read"
    return None


def upright_rgb(image: Image.Image) -> Image.Image:
    """The picture as people see it, in RGB, with white where it is transparent.

    Raises:
        ValueError: it is of a kind of which white is not known.
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = eight_bits(image)
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def eight_bits(image: Image.Image) -> Image.Image:
    """Grey values of other depths as 0 to 255: 12 and 16 bits from their black to their white, floats from 0 to 1.

    Pillow's own conversion cuts at 255: 16 bits come out white, and 0.9 black.

    Raises:
        ValueError: 32-bit or signed integers, of which no value is known to be white, or floats that leave 0 to 1.
    """
    if not image.mode.startswith(("I", "F")):
        return image
    tags, values = getattr(image, "tag_v2", {}), np.asarray(image)
    bits, kind = tags.get(258, (16,))[0], tags.get(339, (1,))[0]  # TIFF's: bits of a sample; 1: unsigned, 2: signed, 3: float
    if image.mode == "F":
        low, high = float(values.min()), float(values.max())
        if not -0.01 <= low <= high <= 1.01:  # a little beyond: scaling down overshoots
            raise ValueError(f"floats from {low:g} to {high:g}, and those from 0 to 1 are read")
        grey = np.rint(values.clip(0, 1) * 255)
    elif bits > 16 or kind != 1:
        raise ValueError(f"{'signed ' if kind == 2 else ''}integers of {bits} bits, of which none is known to be white")
    else:
        white = (1 << bits) - 1
        grey = values.clip(0, white) // (white // 255) if bits == 16 else values.clip(0, white).astype(np.int64) * 255 // white
    grey = grey.astype(np.uint8)
    return Image.fromarray(255 - grey if tags.get(262) == 0 else grey)  # TIFF's 0: white is zero


class Budget:
    """So many pixels at once; whoever wants more than are left waits."""

    def __init__(self, size: int) -> None:
        self.left, self.turn = size, threading.Condition()

    @contextmanager
    def take(self, count: int) -> Iterator[None]:
        """Have `count` of them, which must not be more than there are, for as long as the block lasts."""
        with self.turn:
            self.turn.wait_for(lambda: self.left >= count)
            self.left -= count
        try:
            yield
        finally:
            with self.turn:
                self.left += count
                self.turn.notify_all()


_DECODING = Budget(MAX_PIXELS)


def _anew() -> None:
    global _DECODING
    _DECODING = Budget(MAX_PIXELS)


os.register_at_fork(after_in_child=_anew)  # the threads that held some are not in the child


def _broken(data: bytes, name: str, error: Exception) -> ImageError:
    riff = data[:4] == b"RIFF" and int.from_bytes(data[4:8], "little") + 8 > len(data)  # WebP: Pillow does not say why
    if riff or "truncated" in str(error).lower():
        return ImageError(
            name, Reason.CUT_SHORT, f"the image is cut short: {len(data):,} bytes are not all of it", "fetch it again or remove it"
        )
    start = f"{len(data)} bytes that start with {data[:4].hex() or 'nothing'}"
    told = f"not a readable image ({start}; read are {', '.join(FORMATS)})"
    return ImageError(name, Reason.UNREADABLE, told, "replace or remove it")
