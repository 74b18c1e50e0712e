"""The embedded stream's data: the glyphs of the fonts that matplotlib bundles, each with its Unicode name."""

import functools
import hashlib
import io
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable
from pathlib import Path

import matplotlib
from fontTools.ttLib import TTFont
from PIL import Image, ImageDraw, ImageFont

from cl.data.table import ImageTable, write

SIZE = 32  # pixels, both ways
FAMILIES = ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral")
# one style of each family is never trained on: two weights, three slants, so that a test font is new but not strange
TEST_FONTS = frozenset({"DejaVuSans-Oblique", "DejaVuSansMono-Bold", "DejaVuSerif-Italic", "STIXGeneralBol"})
_EM, _BASELINE, _MARGIN = 22, 23, 1
_BLOCKS = {
    "greek": (0x0370, 0x03FF),
    "cyrillic": (0x0400, 0x04FF),
    "marks": (0x2000, 0x206F),
    "arrows": (0x2190, 0x21FF),
    "operators": (0x2200, 0x22FF),
    "shapes": (0x2500, 0x25FF),  # box drawing, block elements, geometric shapes
}
_SCRIPTS = ("latin", "greek", "cyrillic", "armenian", "georgian", "hebrew", "arabic", "canadian", "braille")
_HELD_OUT = 5  # one in so many letter + diacritic combinations

Progress = Callable[[int, int, str], None]


def build(fonts: Iterable[str] | None = None, progress: Progress | None = None) -> dict[str, ImageTable]:
    """Train and test tables, one row per (character, font), the same bytes on every call.

    Label and caption are the Unicode name in lower case; the domain is a script or block (see `domains`); the test split is the
    fonts in TEST_FONTS. Characters without a Unicode name and glyphs without ink are left out.
    """
    covers = coverage()
    where = domains()
    chosen = sorted(covers) if fonts is None else sorted(fonts)
    total, done = sum(len(covers[font]) for font in chosen), 0
    columns: dict[str, list[tuple[str, bytes, str, str]]] = {"train": [], "test": []}
    for font in chosen:
        rows = columns["test" if font in TEST_FONTS else "train"]
        for code in covers[font]:
            data = render(code, font)
            if data:
                rows.append((f"U+{code:04X} {font}", data, name_of(code), where[code]))
        done += len(covers[font])
        if progress:
            progress(done, total, font)
    return {split: _table(rows) for split, rows in columns.items() if rows}


def write_glyphs(folder: Path, progress: Progress | None = None) -> None:
    """Draw the embedded data set, 54,000 glyphs with their Unicode names, and write `train.parquet` and `test.parquet`.

    Raises:
        DataError: the folder cannot be written.
    """
    write(build(progress=progress), folder)


def name_of(code: int) -> str:
    """The Unicode name in lower case, empty where there is none.

    >>> name_of(0xE9)
    'latin small letter e with acute'
    """
    return unicodedata.name(chr(code), "").lower()


@functools.cache
def coverage() -> dict[str, tuple[int, ...]]:
    """For each of the 16 fonts the named characters it has, in order."""
    return {
        path.stem: tuple(sorted(code for code in TTFont(path, lazy=True).getBestCmap() if name_of(code)))
        for family in FAMILIES
        for path in sorted(_folder().glob(f"{family}*.ttf"))
        if path.stem.removeprefix(family).lstrip("-") in ("", "Bold", "Oblique", "BoldOblique", "Italic", "BoldItalic", "Bol", "BolIta")
    }


@functools.cache
def domains() -> dict[int, str]:
    """The domain of every character.

    Scripts go by name, symbols by block. `latin diacritics` are letter + diacritic combinations held out of `latin`, whose letter
    and whose diacritic both stay in it with at least three other partners. What fewer than three training fonts or no test font
    has is `rare`.
    """
    trained, tested = Counter[int](), Counter[int]()
    for font, codes in coverage().items():
        (tested if font in TEST_FONTS else trained).update(codes)
    held = _held_out([code for code in trained if trained[code] >= 3 and tested[code]])
    return {code: _domain(code, held) if trained[code] >= 3 and tested[code] else "rare" for code in sorted(trained | tested)}


def _domain(code: int, held: frozenset[int]) -> str:
    if code in held:
        return "latin diacritics"
    for domain, (first, last) in _BLOCKS.items():
        if first <= code <= last:
            return domain
    script = name_of(code).split()[0]
    if script in _SCRIPTS:
        return f"{script} extended" if script in _BLOCKS else script
    return "marks" if code < 0x100 else "symbols"


def _held_out(codes: Iterable[int]) -> frozenset[int]:
    parts = {
        code: tuple(name_of(code).split(" with ", 1)) for code in codes if name_of(code).startswith("latin ") and " with " in name_of(code)
    }
    partners: dict[str, set[str]] = defaultdict(set)
    for letter, diacritic in parts.values():
        partners[letter].add(diacritic)
        partners[diacritic].add(letter)
    held = set()
    for code, (letter, diacritic) in sorted(parts.items()):
        lot = hashlib.sha256(name_of(code).encode()).digest()[0] % _HELD_OUT == 0
        if lot and len(partners[letter]) > 3 and len(partners[diacritic]) > 3:
            held.add(code)
            partners[letter].discard(diacritic)
            partners[diacritic].discard(letter)
    return frozenset(held)


def render(code: int, font: str) -> bytes:
    """A grey 32 x 32 PNG, black on white, on a fixed baseline, shrunk only where it would be clipped; empty where there is no ink."""
    character = chr(code)
    for em in range(_EM, 3, -1):
        # the BASIC layout: RAQM refuses some characters
        left, top, right, bottom = _font(font, em).getbbox(character, anchor="ls")
        if max(right - left, bottom - top) <= SIZE - 2 * _MARGIN:
            break
    image = Image.new("L", (SIZE, SIZE), 255)
    x = (SIZE - (left + right)) / 2
    y = min(max(_BASELINE, _MARGIN - top), SIZE - _MARGIN - bottom)
    ImageDraw.Draw(image).text((round(x), y), character, fill=0, font=_font(font, em), anchor="ls")
    if image.getextrema() == (255, 255):
        return b""
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=9)
    return buffer.getvalue()


@functools.lru_cache(maxsize=512)
def _font(name: str, em: int) -> ImageFont.FreeTypeFont:
    return ImageFont.truetype(_folder() / f"{name}.ttf", em, layout_engine=ImageFont.Layout.BASIC)


@functools.cache
def _folder() -> Path:
    return Path(matplotlib.get_data_path()) / "fonts" / "ttf"


def _table(rows: list[tuple[str, bytes, str, str]]) -> ImageTable:
    ids, images, names, where = zip(*rows, strict=True)
    return ImageTable.of(ids, images, labels=names, captions=[[name] for name in names], domains=where)
