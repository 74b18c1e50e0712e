"""An image is what it shows, whatever depth it is kept in, and what cannot be shown is told."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image, features

from cl.data.faults import ImageError, Reason
from cl.data.images import FORMATS, decode, opened
from cl.errors import DataError


def png(colour: object = (1, 2, 3), size: tuple[int, int] = (4, 4), mode: str = "RGB") -> bytes:
    sink = io.BytesIO()
    Image.new(mode, size, colour).save(sink, "PNG")  # type: ignore[arg-type]
    return sink.getvalue()


def tiff(values: np.ndarray, **options: object) -> bytes:
    sink = io.BytesIO()
    Image.fromarray(values).save(sink, "TIFF", **options)  # type: ignore[arg-type]
    return sink.getvalue()


def raw_tiff(size: int, bits: int, data: bytes, *, white: int = 255, kind: int = 1) -> bytes:
    """A square grey TIFF of a depth that Pillow reads and does not write; `white` 0: white is zero; `kind` 2: signed, 3: float."""
    entries = {256: size, 257: size, 258: bits, 259: 1, 262: int(white != 0), 273: 0, 277: 1, 278: size, 279: len(data), 339: kind}
    entries[273] = 8 + 2 + 12 * len(entries) + 4
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", 0) + data


def grey(data: bytes) -> list[int]:
    """The grey values of the first row."""
    return [int(pixel[0]) for pixel in np.asarray(decode(data, "x"))[0]]


def test_transparency_is_laid_on_white():
    assert decode(png((255, 0, 0, 0), mode="RGBA"), "x").getpixel((0, 0)) == (255, 255, 255)
    palette = Image.new("P", (2, 2), 0)
    palette.putpalette([9, 9, 9])
    sink = io.BytesIO()
    palette.save(sink, "PNG", transparency=0)
    assert decode(sink.getvalue(), "x").getpixel((0, 0)) == (255, 255, 255)


def test_sixteen_bits_are_scaled_and_not_clipped():
    sink = io.BytesIO()
    Image.fromarray(np.array([[0, 32896, 65535]], np.uint16)).save(sink, "PNG")
    assert [pixel[0] for pixel in np.asarray(decode(sink.getvalue(), "x"))[0]] == [0, 128, 255]


def test_a_photo_held_sideways_is_turned_upright():
    image = Image.new("RGB", (4, 2), "red")
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees
    sink = io.BytesIO()
    image.save(sink, "JPEG", exif=exif)
    assert decode(sink.getvalue(), "x").size == (2, 4)


def test_what_is_not_an_image_is_told_with_its_name_and_first_bytes():
    with pytest.raises(DataError, match=r"a\.png: not a readable image \(5 bytes that start with 68656c6c"):
        decode(b"hello", "a.png")
    with pytest.raises(DataError, match="0 bytes that start with nothing"):
        decode(b"", "c.png")


def test_formats_that_start_helper_programs_are_not_tried():
    sink = io.BytesIO()
    Image.new("RGB", (4, 4)).save(sink, "EPS")
    with pytest.raises(DataError, match=r"evil\.eps: not a readable image .*read are PNG, JPEG"):
        opened(sink.getvalue(), "evil.eps")


def test_a_decompression_bomb_is_refused_by_its_header():
    bomb = bytearray(png(size=(1, 1)))
    bomb[16:24] = (9000).to_bytes(4, "big") * 2
    bomb[29:33] = zlib.crc32(bytes(bomb[12:29])).to_bytes(4, "big")
    with pytest.raises(DataError, match="9000 x 9000 pixels"):
        decode(bytes(bomb), "bomb.png")


RAMP = np.tile(np.array([0.0, 0.2, 0.8, 1.0], np.float32), (4, 1))


@pytest.mark.parametrize(
    ("data", "shown"),
    [
        (tiff(RAMP), [0, 51, 204, 255]),
        (tiff((RAMP * 1.01 - 0.004).astype(np.float32)), [0, 50, 205, 255]),  # scaled down, it went a little beyond
        (raw_tiff(4, 32, RAMP.tobytes(), kind=3, white=0), [255, 204, 51, 0]),
        (tiff((RAMP * 65535).astype(np.uint16)), [0, 51, 204, 255]),
        (raw_tiff(4, 16, (RAMP * 65535).astype("<u2").tobytes(), white=0), [255, 204, 51, 0]),
        (raw_tiff(4, 12, bytes.fromhex("0003 3cfc cfff".replace(" ", "")) * 4), [0, 51, 251, 255]),
        (b"P5 4 1 1023\n" + np.array([0, 205, 818, 1023], ">u2").tobytes(), [0, 51, 203, 255]),
        (b"Pf 4 1 -1.0\n" + RAMP[0].tobytes(), [0, 51, 204, 255]),
    ],
    ids=["float", "float a little beyond", "float, white is zero", "16", "16, white is zero", "12", "pgm of 10 bits", "pfm"],
)
def test_other_depths_are_scaled_from_their_black_to_their_white(data: bytes, shown: list[int]) -> None:
    assert grey(data) == shown


@pytest.mark.parametrize(
    ("data", "told"),
    [
        (tiff(np.arange(16, dtype=np.int32).reshape(4, 4)), "signed integers of 32 bits, of which none is known to be white"),
        (raw_tiff(4, 32, np.arange(16, dtype="<u4").tobytes()), "integers of 32 bits"),
        (raw_tiff(4, 16, np.arange(16, dtype="<i2").tobytes(), kind=2), "signed integers of 16 bits"),
        (tiff(RAMP * 255), "floats from 0 to 255, and those from 0 to 1 are read"),
        (tiff(RAMP - 0.5), "floats from -0.5 to 0.5"),
        (tiff(np.where(RAMP > 0.9, np.nan, RAMP).astype(np.float32)), "floats from nan to nan"),
    ],
)
def test_where_white_is_not_known_the_image_is_none_that_is_read(data: bytes, told: str) -> None:
    with pytest.raises(ImageError, match=told) as caught:
        decode(data, "x.tif")
    assert caught.value.reason == Reason.NOT_AN_IMAGE and "save it as RGB with 8 bits" in str(caught.value)


@pytest.mark.parametrize("kind", ["JPEG", "progressive", "PNG", "WEBP", "GIF", "BMP", "TIFF", "PPM", "AVIF"])
def test_what_is_cut_short_is_called_so(kind: str) -> None:
    if kind == "AVIF" and not features.check("avif"):
        pytest.skip("Pillow was built without AVIF")
    sink = io.BytesIO()
    noise = np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8)
    Image.fromarray(noise).save(sink, kind.replace("progressive", "JPEG"), progressive=kind == "progressive")
    assert decode(sink.getvalue(), "x").size == (64, 64)
    with pytest.raises(ImageError, match=r"x: the image is cut short: .* bytes are not all of it") as caught:
        decode(sink.getvalue()[:-60], "x")
    assert caught.value.reason == Reason.CUT_SHORT


@pytest.mark.skipif(not features.check("avif"), reason="Pillow was built without AVIF")
def test_avif_is_read_where_pillow_reads_it() -> None:
    sink = io.BytesIO()
    Image.new("RGB", (32, 32), (200, 30, 30)).save(sink, "AVIF")
    assert "AVIF" in FORMATS and np.abs(np.asarray(decode(sink.getvalue(), "x"), int) - (200, 30, 30)).max() < 8
