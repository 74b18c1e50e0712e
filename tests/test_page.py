"""Pages as a reader meets them who cannot see, holds a phone, prints, or sits in the dark."""

import json
import os
import re
import subprocess
import tempfile
from collections import Counter
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest

from cl.reports.diff_page import diff_page
from cl.reports.gallery import compare
from cl.reports.report import Losses
from cl.reports.write import html
from tests.hostile.browser import CHROMIUM, OPTIONS, needs_chromium
from tests.test_flips import HARM, seen
from tests.test_report import make_report

AXE = os.environ.get("EVERGREEN_AXE", "")  # the file axe.min.js of the npm package axe-core
GATE = {
    "word": "refused",
    "reason": "negative flips: +0.131 [+0.114, +0.147], the bound +0.100",
    "champion": "2",
    "scores": {"greek": [0.5, 0.4], "arrows": [0.9, None]},
    "checks": [{"bound": "negative flips", "candidate": 0.131, "champion": "", "from": 0.114, "to": 0.147, "limit": 0.1, "holds": "NO"}],
}


def pages() -> dict[str, str]:
    """Every part of a page at least once."""
    losses = (Losses("greek", (0, 10), (3.0, 1.0)), Losses("arrows", (0, 10), (2.0, 0.5)))
    one = replace(make_report(), version="glyphs/3", gate=GATE, losses=losses)
    comparison = compare(("glyphs/2", "glyphs/3"), [seen(), seen("new")._replace(examined=None, hits=None)])
    many = [replace(make_report(name, shift=0.01 * turn), losses=losses) for turn, name in enumerate(("zero_shot", "finetune", "replay"))]
    return {
        "one": html([one], {"finetune": comparison}),
        "many": html(many, {"finetune": comparison, "replay": comparison}),
        "diff": diff_page(comparison),
    }


class Outline(HTMLParser):
    """What a screen reader builds on: headings, names of pictures, heads of tables, ids, links."""

    def __init__(self) -> None:
        super().__init__()
        self.levels: list[int] = []
        self.nameless: list[str] = []
        self.ids: Counter[str] = Counter()
        self.links: list[str] = []
        self.tags: Counter[str] = Counter()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        told = dict(attrs)
        self.tags[tag] += 1
        if re.fullmatch("h[1-6]", tag):
            self.levels.append(int(tag[1]))
        if tag == "img" and not told.get("alt"):
            self.nameless.append(str(attrs))
        if tag == "svg" and not (told.get("role") == "img" and told.get("aria-label")):
            self.nameless.append(str(attrs))
        if tag == "th" and told.get("scope") not in ("col", "row"):
            self.nameless.append(str(attrs))
        if told.get("tabindex") == "0" and tag == "div" and not told.get("aria-label"):
            self.nameless.append(str(attrs))
        self.ids.update([told["id"]] if told.get("id") else [])
        self.links += [told["href"]] if tag == "a" and told.get("href") else []


@pytest.mark.parametrize("name", ["one", "many", "diff"])
def test_a_page_can_be_read_aloud(name: str) -> None:
    page = pages()[name]
    outline = Outline()
    outline.feed(page)
    assert outline.levels[0] == 1 and outline.levels.count(1) == 1 and outline.nameless == []
    assert all(now <= before + 1 for before, now in zip(outline.levels, outline.levels[1:], strict=False)), "a level of heading is left out"
    assert {link.removeprefix("#") for link in outline.links} <= set(outline.ids) and max(outline.ids.values()) == 1
    assert outline.tags["main"] == outline.tags["nav"] == 1 and '<html lang="en">' in page and 'name="viewport"' in page
    assert "prefers-color-scheme: dark" in page and "@media print" in page and "@media (max-width" in page


def test_the_gate_stands_in_a_report_with_the_champion_beside_the_candidate() -> None:
    page = pages()["one"]
    assert "finetune, seed 0: glyphs/3 was refused: negative flips: +0.131 [+0.114, +0.147], the bound +0.100." in page
    assert re.search(r'<th scope="row">greek</th><td>40.0</td><td>50.0</td><td>\+10.0</td>', page)
    assert re.search(r'<th scope="row">arrows</th><td>–</td><td>90.0</td><td>–</td>', page)
    assert ">95 % from</th>" in page and ">95 % to</th>" in page, "of which interval the ends are"
    assert "2 of 4 test images broke" in page and "Judged against version 2" in page


def test_a_candidate_that_was_held_against_a_state_without_a_version_is_not_said_to_have_met_the_champion() -> None:
    against = {**GATE, "champion": None, "accepted": "april"}
    page = html([replace(make_report(), version="glyphs/3", gate=against)], {})
    assert "Judged against the model after april, which was accepted just before and has no version of its own." in page
    assert "champion then" not in page and "There was no champion" not in page
    assert re.search(r'<th scope="row">greek</th><td>40.0</td><td>50.0</td><td>\+10.0</td>', page), "its scores stand beside"
    said = [["april", "accepted", "", "every bound holds"], ["may", "refused", "2", f"worse {HARM}"], ["june", "promoted", "3", "fine"]]
    line = html([replace(make_report(), version="glyphs/3", gate={**against, "session": "june", "said": said})], {})
    assert ">glyphs/3 (session june)</h3>" in line and "What was said of every session" in line and "What was said of every" not in page
    assert re.search(r'<th scope="row">may</th><td>refused</td><td>2</td><td>worse ', line) and HARM not in line
    assert page.count(">after april</th>") == 2 and ">champion</th>" not in page


def test_a_diff_tells_both_kinds_of_images_and_shows_names_as_text() -> None:
    page = diff_page(compare((HARM, HARM), [seen(HARM), seen("new")._replace(examined=None, hits=None)]))
    assert "Of 4 labelled images 2 broke and 1 came right; the two differ on 3 of 4 images that nobody has labelled." in page
    assert HARM not in page and "<script" not in page and not re.search(r"(src|href)=\"(?!data:|#)", page)


@needs_chromium
@pytest.mark.slow
@pytest.mark.skipif(not AXE, reason="EVERGREEN_AXE names no axe.min.js (npm install axe-core)")
@pytest.mark.parametrize("dark", [False, True], ids=["light", "dark"])
@pytest.mark.parametrize("width", [1200, 375])
@pytest.mark.parametrize("name", ["one", "many", "diff"])
def test_axe_finds_nothing(name: str, width: int, dark: bool, tmp_path: Path) -> None:
    script = Path(AXE).read_text(encoding="utf-8")
    told = "document.body.dataset.wide = document.documentElement.scrollWidth > innerWidth;"
    told += "document.querySelectorAll('details').forEach((fold) => fold.open = true);"
    told += "axe.run(document, {resultTypes: ['violations']}).then((found) => document.body.dataset.axe = "
    told += "JSON.stringify(found.violations.map((each) => [each.id, each.nodes[0].html])));"
    file = tmp_path / "page.html"
    file.write_text(pages()[name].replace("</body>", f"<script>{script}</script><script>{told}</script></body>"), encoding="utf-8")
    with tempfile.TemporaryDirectory() as profile:
        scheme = ["--blink-settings=preferredColorScheme=0"] if dark else ["--blink-settings=preferredColorScheme=1"]
        options = [f"--window-size={width},900", f"--user-data-dir={profile}", "--virtual-time-budget=20000", "--dump-dom", *scheme]
        done = subprocess.run([str(CHROMIUM), *OPTIONS, *options, file.as_uri()], capture_output=True, text=True, timeout=120, check=True)
    (violations,) = re.findall(r'data-axe="([^"]*)"', done.stdout)
    assert json.loads(violations.replace("&quot;", '"').replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&")) == []
    assert 'data-wide="false"' in done.stdout, "the page is wider than its window"


def test_a_curve_of_one_method_is_drawn_as_one_and_long_ones_are_thinned() -> None:
    from cl.evaluation.matrix import Matrix
    from cl.reports.figures import POINTS, curves, panels_of

    sessions = 500
    matrix = Matrix(np.random.default_rng(0).random((sessions + 1, 30)), tuple(map(str, range(30))), (*range(1, 25), *[0] * 6))
    figure = curves({"a": matrix}, [str(t) for t in range(sessions)])
    drawn = [line for axes in figure.axes if axes.get_visible() for line in axes.lines if len(line.get_xdata()) > 2]
    assert len(drawn) == 12 and all(len(line.get_xdata()) == POINTS for line in drawn)
    assert panels_of(matrix)[-4:] == [24, 26, 27, 29] and not figure.legends
