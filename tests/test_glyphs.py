"""The embedded data: which glyphs there are, where they belong, and that they are the same bytes every time."""

import io
import unicodedata
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import yaml
from PIL import Image

from cl.data.glyphs import SIZE, TEST_FONTS, build, coverage, domains, name_of, render, write_glyphs


def pixels(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_sixteen_fonts_of_four_families_and_one_style_of_each_is_for_testing() -> None:
    fonts = coverage()
    assert len(fonts) == 16 and fonts.keys() >= TEST_FONTS
    assert Counter(font.split("-")[0].removesuffix("Bol") for font in TEST_FONTS) == dict.fromkeys(
        ("DejaVuSans", "DejaVuSansMono", "DejaVuSerif", "STIXGeneral"), 1
    )
    assert len({code for codes in fonts.values() for code in codes}) == pytest.approx(7400, abs=10)
    assert sum(map(len, fonts.values())) == pytest.approx(54_100, rel=0.02)


def test_one_font_twice_is_the_same_bytes_with_its_unicode_names() -> None:
    one, two = build(["STIXGeneralBol"]), build(["STIXGeneralBol"])
    assert one.keys() == {"test"} and one["test"].digest() == two["test"].digest()
    rows = one["test"]
    assert all(captions == [label] and label == label.lower() for captions, label in zip(rows.captions, rows.labels, strict=True))
    assert unicodedata.lookup("latin small letter e with acute") == "é" and "latin small letter e with acute" in rows.labels


def test_every_glyph_has_ink_keeps_off_the_edge_and_is_of_one_size() -> None:
    for code in list(coverage()["DejaVuSans-Oblique"])[::40]:
        data = render(code, "DejaVuSans-Oblique")
        if not data:
            assert unicodedata.category(chr(code)) in ("Zs", "Zl", "Zp", "Cf", "Mn") or "blank" in name_of(code)
            continue
        image = pixels(data)
        assert image.shape == (SIZE, SIZE) and image.min() < 128


def test_what_the_layout_engine_refuses_elsewhere_is_drawn_too() -> None:
    drawn = [code for code in coverage()["DejaVuSans"] if 0x0600 <= code < 0x0700]
    assert drawn and all(render(code, "DejaVuSans") for code in drawn[10:30])


def test_two_characters_that_look_alike_are_two_classes_with_the_same_picture() -> None:
    latin, greek = render(ord("A"), "DejaVuSans"), render(ord("Α"), "DejaVuSans")
    assert np.array_equal(pixels(latin), pixels(greek)) and name_of(ord("A")) != name_of(ord("Α"))


def test_domains_are_what_their_names_say() -> None:
    where = domains()
    count = Counter(where.values())
    assert count["latin"] == 875 and count["armenian"] == 91 and count["latin diacritics"] == 110
    assert all(0x370 <= code < 0x400 for code, domain in where.items() if domain == "greek")
    assert all(name_of(code).startswith("latin") for code, domain in where.items() if domain.startswith("latin"))
    assert {where[ord(sign)] for sign in "→∑■Ж"} == {"arrows", "operators", "shapes", "cyrillic"}


def test_a_held_out_combination_has_its_letter_and_its_diacritic_elsewhere_in_the_base() -> None:
    where = domains()
    known = [name_of(code) for code, domain in where.items() if domain == "latin"]
    for name in (name_of(code) for code, domain in where.items() if domain == "latin diacritics"):
        letter, diacritic = name.split(" with ", 1)
        assert name not in known
        assert sum(other.startswith(f"{letter} with ") for other in known) >= 3
        assert sum(other.endswith(f" with {diacritic}") for other in known) >= 3


@pytest.mark.slow
def test_all_of_it_is_what_data_dvc_pins(tmp_path: Path) -> None:
    from dvc.repo import Repo

    write_glyphs(tmp_path / "data" / "glyphs")
    repo = Repo.init(str(tmp_path), no_scm=True)
    md5 = repo.add(str(tmp_path / "data"))[0].outs[0].hash_info.value
    pinned = yaml.safe_load((Path(__file__).parents[1] / "data.dvc").read_text())
    assert md5 == pinned["outs"][0]["md5"]
