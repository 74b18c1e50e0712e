"""No image, small as its file may be, makes anything that opens it take more memory than is meant for it."""

import base64
import resource
import struct
import sys
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from mlflow.exceptions import MlflowException
from PIL import Image

import cl.data.images
from cl.data.faults import ImageError, Problem, Reason
from cl.data.images import MAX_ASPECT, MAX_PIXELS, Budget, decode, opened
from cl.data.screen import screen
from cl.data.table import ImageTable
from cl.errors import DataError
from flows.registry.model import image_of
from flows.registry.predict import Served, rank
from tests.make import png, table, tiny
from tests.test_bundle import bundle


def line(width: int, height: int, mode: str = "1") -> bytes:
    """A PNG of one colour, row by row: no image of that size is made for it."""
    bits = {"1": 1, "L": 8, "RGB": 24}[mode]
    header = struct.pack(">IIBBBBB", width, height, 1 if bits == 1 else 8, 2 if mode == "RGB" else 0, 0, 0, 0)
    row = bytes(1 + (width * bits + 7) // 8)
    packer, body = zlib.compressobj(9), b""
    for _ in range(height):
        body += packer.compress(row)
    chunks = [(b"IHDR", header), (b"IDAT", body + packer.flush()), (b"IEND", b"")]
    packed = (struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks)
    return b"\x89PNG\r\n\x1a\n" + b"".join(packed)


def tiled(side: int) -> bytes:
    """A TIFF of 2 x 2 pixels, kept in one tile of `side` x `side`."""
    entries = {256: 2, 257: 2, 258: 8, 259: 8, 262: 1, 277: 1, 322: side, 323: side, 324: 0, 325: 0}
    packer, data = zlib.compressobj(9), b""
    for _ in range(side):
        data += packer.compress(bytes(side))
    data += packer.flush()
    entries[324], entries[325] = 8 + 2 + 12 * len(entries) + 4, len(data)
    rows = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in sorted(entries.items()))
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + rows + struct.pack("<I", 0) + data


BOMBS = {
    "30,000,000 x 2": line(30_000_000, 2),
    "2 x 1,000,000": line(2, 1_000_000),
    "101 times as long as wide": line(2 * MAX_ASPECT + 1, 2),
    "81 million pixels": line(9000, 9000),
    "a tile of 81 million pixels": tiled(9000),
}


@pytest.mark.parametrize("what", BOMBS)
def test_it_is_refused_by_its_header_wherever_images_are_opened(what: str, tmp_path: Path) -> None:
    data = BOMBS[what]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ImageError, match="pixels") as caught:
        opened(data, "x")
    assert caught.value.reason == Reason.TOO_LARGE
    problems: list[Problem] = []
    kept = screen({"train": ImageTable.of(["good", "bad"], [png(0, 1), data], ["red", "red"])}, problems)
    assert kept["train"].ids == ["good"] and [(each.where, each.reason) for each in problems] == [("bad", Reason.TOO_LARGE)]
    with pytest.raises(MlflowException, match="row 0: image is not one that can be read"):
        image_of(base64.b64encode(data).decode(), 0)
    (tmp_path / "x.png").write_bytes(data)
    with pytest.raises(DataError, match=r"x\.png: .* pixels"):
        rank(Served("colours", "1", bundle("finetune")), [tmp_path / "x.png"], "red")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 300_000  # kB


def test_the_longest_image_that_is_read_is_small_once_it_is_resized() -> None:
    clip = tiny()
    side = clip.preprocess_cfg["size"]
    side = side if isinstance(side, int) else side[0]
    assert side * side * MAX_ASPECT * 3 < 10_000_000 and 224 * 224 * MAX_ASPECT * 3 < 16_000_000  # bytes
    assert clip.transform()(decode(line(2 * MAX_ASPECT, 2), "x")).shape == (3, side, side)


def test_threads_decode_no_more_pixels_at_once_than_one_image_may_have(monkeypatch: pytest.MonkeyPatch) -> None:
    now, most, guard = [0], [0], threading.Lock()
    real = cl.data.images.upright_rgb

    def slow(image: Image.Image) -> Image.Image:
        with guard:
            now[0] += image.width * image.height
            most[0] = max(most[0], now[0])
        time.sleep(0.01)
        with guard:
            now[0] -= image.width * image.height
        return real(image)

    monkeypatch.setattr(cl.data.images, "upright_rgb", slow)
    monkeypatch.setattr(cl.data.images, "_DECODING", Budget(1000))
    images = [png(0, seed, 20) for seed in range(12)]
    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(decode, images, map(str, range(12))))) == 12
    assert most[0] == 800  # two of 400 pixels, not eight


def test_a_budget_is_given_back_whatever_happens() -> None:
    budget = Budget(10)
    for _ in range(3):
        with pytest.raises(ValueError, match="within"), budget.take(10):
            raise ValueError("within")
    assert budget.left == 10
    before = cl.data.images._DECODING.left
    with pytest.raises(ImageError):
        decode(png(0, 1)[:-40], "x")
    assert cl.data.images._DECODING.left == before == MAX_PIXELS


def test_predict_holds_one_image_at_its_full_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = bundle("finetune")
    paths = [tmp_path / f"{i}.png" for i in range(5)]
    for i, path in enumerate(paths):
        path.write_bytes(png(i, i))
    alive: list[int] = []
    real, small = cl.data.images.decode, [0]

    def watched(data: bytes, name: str) -> Image.Image:
        alive.append(small[0])
        small[0] += 1
        return real(data, name)

    transform = held.method.clip.transform()

    def shrink(image: Image.Image) -> object:
        small[0] -= 1
        return transform(image)

    monkeypatch.setattr("flows.registry.predict.decode", watched)
    monkeypatch.setattr(type(held.method.clip), "transform", lambda self, augment=False: shrink)
    rank(Served("colours", "1", held), paths, "red")
    assert alive == [0] * 5  # when one is decoded, none before it still waits to become small


def test_a_file_without_an_end_is_not_read_to_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flows.registry.predict.LARGEST", 1000)
    with pytest.raises(DataError, match="/dev/zero: over 1,000 bytes"):
        rank(Served("colours", "1", bundle("finetune")), [Path("/dev/zero")], "red")


@pytest.mark.slow
def test_four_of_the_largest_images_in_four_threads_take_little_more_than_one() -> None:
    import subprocess

    asked = """
import resource, sys
from concurrent.futures import ThreadPoolExecutor
from tests.hostile.test_images import line
from cl.data.images import decode
data = line(8000, 8000, "RGB")
def size(name): return decode(data, name).size
def taken(): return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
start = taken(); size("one"); one = taken() - start
with ThreadPoolExecutor(4) as pool: assert set(pool.map(size, map(str, range(4)))) == {(8000, 8000)}
print(one, taken() - start)
"""
    done = subprocess.run([sys.executable, "-c", asked], capture_output=True, text=True, check=True, cwd=Path(__file__).parents[2])
    one, four = map(int, done.stdout.split())
    assert one < 600_000 and four < 1_000_000, (one, four)  # kB; one may still be held where the next begins


def test_a_set_of_ordinary_images_is_screened_as_before() -> None:
    problems: list[Problem] = []
    rows = table(range(4), 20)
    assert screen({"train": rows}, problems)["train"].ids == rows.ids and not problems
    assert np.asarray(rows.image(0)).shape == (16, 16, 3)
