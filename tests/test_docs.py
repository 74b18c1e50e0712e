"""What the site says is so: its commands run in order as they stand, its pages are made of the code, and no link is dead."""

import contextlib
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml

import cl
from cl.methods import CONFIGS, PARTS
from cl.methods.terms.objective import Objective, ObjectiveConfig
from cl.run_config import parse_config
from docs.make import methods, notebooks, reference, results, site
from tests.browser import PROGRAM, Page, browser
from tests.serving import serving
from tests.test_readme import BLOCKS, blocks, hold_commands

ROOT = Path(__file__).parents[1]
PAGES = sorted((ROOT / "docs").rglob("*.md"))
ELSEWHERE = ("pip install", "git clone", "prefect ", "docker ", "ssh ")  # proven by other tests, or by a person: see the page
RUN = [path for path in PAGES if "guide" not in path.parts]  # guides show commands out of their order: held to the command line, not run
every_page = pytest.mark.parametrize("path", PAGES, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())


@every_page
def test_commands_and_their_options_exist(path: Path) -> None:
    hold_commands(path)


@every_page
def test_configs_are_valid(path: Path) -> None:
    written = re.findall(r"> (\S+\.yaml) <<'EOF'\n(.*?)^EOF", path.read_text(encoding="utf-8"), re.S | re.M)
    for name, text in written:
        if "stream:" in text:
            parse_config(yaml.safe_load(text), f"{path.name}: {name}")


def test_the_page_about_python_has_every_public_name_and_no_other() -> None:
    page = (ROOT / "docs" / "reference" / "python.md").read_text(encoding="utf-8")
    told = reference.API.findall(page)
    assert sorted(told) == sorted(cl.__all__)
    used = " ".join(text for path in PAGES for text in blocks(path, "python")) + (ROOT / "README.md").read_text()
    used += " ".join(cell.source for path in (ROOT / "docs" / "notebooks").glob("*.ipynb") for cell in notebooks.cells(path))
    assert [name for name in cl.__all__ if f"cl.{name}" not in used] == [], "shown and never used"
    shown = reference.api(page)
    assert "::: " not in shown and all(f"### `cl.{name}`" in shown for name in cl.__all__)
    assert "raises `LearningError`" in shown and "#### `Model.predict`" in shown


def test_every_method_and_part_has_a_page_with_its_settings_and_its_measured_rows() -> None:
    made = methods.pages()
    assert {f"presets/{name}.md" for name in CONFIGS} | {f"parts/{kind}.md" for kinds in PARTS.values() for kind in kinds} <= set(made)
    vr_lwf = made["presets/vr_lwf.md"]
    assert "[arXiv:2207.09248](https://arxiv.org/abs/2207.09248)" in vr_lwf and "| `alpha` | `1.0` |" in vr_lwf
    assert "kind: vocabulary" in vr_lwf  # as a recipe
    table = (ROOT / "RESULTS.md").read_text(encoding="utf-8")
    (row,) = re.findall(r"^\| `vr_lwf`, alpha 4 \| 13.*\|$", table, re.M)
    assert row in vr_lwf and vr_lwf.count("results.md#") >= 4
    assert "Measured as part of the preset [`ewc`](../presets/ewc.md).\n" in made["parts/hold.md"]
    assert "Not measured" not in made["presets/pseudolabel.md"]
    assert "[`zscl`](../presets/zscl.md)" in made["parts/ensemble.md"], "as a part where the tables' configs have it, though not by default"
    assert "In recipes of [g. " in made["parts/names.md"] and "`replay of names + projections`" in made["parts/names.md"]
    assert " methods of [g. " in made["presets/recipe.md"]
    bare = {kind for kinds in PARTS.values() for kind in kinds if "Not measured" in made[f"parts/{kind}.md"]}
    assert bare == {"stored", "regress", "anchor", "proto_triplet", "counterfactual", "alip", "clusters"}
    assert "| replay + l2 |" in made["parts/l2.md"] and "| replay + ties |" in made["presets/replay.md"]
    waiting = [name for name in CONFIGS if "Not measured" in made[f"presets/{name}.md"]]
    assert waiting == []


def test_what_is_said_of_labels_holds_for_every_objective() -> None:
    objectives = [config for config in PARTS["terms"].values() if issubclass(config, ObjectiveConfig)]
    (said,) = {config.model_fields["labels"].description or "" for config in objectives}
    leave = [config.called() for config in objectives if getattr(config.makes(), "classify") is Objective.classify]  # noqa: B009
    assert f"({' and '.join(leave)} leave them to other terms)" in said
    assert [config.called() for config in objectives if "labels" in config().wants()] == ["clip"] and "all but clip want captioned" in said


def test_every_system_of_the_field_has_its_line_and_every_part_its_system() -> None:
    page = (ROOT / "docs" / "reference" / "systems.md").read_text(encoding="utf-8")
    named = re.findall(r"\[`(\w+)`\]\(\.\./(presets|parts)/(\w+)\.md\)", page)
    parts = {kind: config for kinds in PARTS.values() for kind, config in kinds.items()}
    pages = [*(("presets", name) for name in CONFIGS), *(("parts", kind) for kind in parts)]
    assert {(folder, leads) for _, folder, leads in named} == {*pages}
    assert all(word == leads for word, _, leads in named)
    rows = [results.cells(line) for line in page.splitlines() if line.startswith("| ") and not line.startswith("| system ")]
    for row in rows:
        assert len(row) == 4 and all(row) and row[1] in ("built", "in part", "dropped", "open"), row
        assert row[1] in ("built", "in part") or "](../p" not in row[2], row
        assert row[3].split(",")[0] in ("measured", "tried", "read"), row
    for name, config in [*CONFIGS.items(), *parts.items()]:
        for paper in re.findall(r"arXiv:\d{4}\.\d{5}", config.__doc__ or ""):
            assert any(paper in row[0] for row in rows), (name, paper)


def test_what_the_table_of_systems_calls_measured_stands_in_that_section_of_the_results() -> None:
    page = (ROOT / "docs" / "reference" / "systems.md").read_text(encoding="utf-8")
    sections = {text[0]: text for text in (ROOT / "RESULTS.md").read_text(encoding="utf-8").split("\n## ")[1:]}
    told = [row for row in map(results.cells, page.splitlines()) if row[-1].startswith("measured, ")]
    asked = [(row, letter) for row in told for letter in row[3].split() if len(letter) == 1]
    assert len(asked) > 20
    for row, letter in asked:
        words = [*re.findall(r"`(\w+)`", row[2]), *row[0].split()[0].rstrip(",").split()]
        assert any(re.search(rf"\b{word}\b", sections[letter]) for word in words), (row, letter)


def test_rows_of_results_are_read_with_their_heading_variant_and_half() -> None:
    text = "## a. One: two\n| m | x |\n|---|---:|\n| `a` | 1 |\n| – without | 2 |\n\n"
    text += "### b\n| o | n | o | n |\n|---|---|---|---|\n| `c` | 3 | `d` | 4 |\n"
    measured = list(results.rows(text))
    assert [each.cells for each in measured] == [("`a`", "1"), ("`a` – without", "2"), ("`c`", "3"), ("`d`", "4")]
    assert {each.anchor for each in measured} == {"a-one-two", "b"} and measured[2].heading == "a. One: two: b"


def test_the_settings_are_those_of_the_models() -> None:
    page = reference.settings()
    for told in ("| `batch_size` | whole number | `64` |", "## `train`", "## `stream (classes)`", "## `gate`", "| `increment` |"):
        assert told in page, told


def test_commands_configs_published_figures_and_refusals_have_their_pages() -> None:
    told = reference.commands()
    assert "## `evergreen data add`" in told and "`--data-rev`" in told
    assert "### `papers/xtail_order_1`" in reference.shipped()
    assert "| ZSCL | 68.1 | 75.4 | 83.6 | [arXiv:2604.18075]" in reference.published()
    assert "| one term twice |" in reference.together()


def test_every_page_is_in_the_navigation_once() -> None:
    def leaves(tree: Any) -> Iterator[str]:
        if isinstance(tree, str):
            yield tree
        for each in tree.values() if isinstance(tree, dict) else tree if isinstance(tree, list) else ():
            yield from leaves(each)

    assert sorted(leaves(site.NAV)) == sorted(site.sources(run=False))


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder that is home too, with `evergreen`, `dvc` and `python` of this environment on the path."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    for name in ("GIT_AUTHOR_NAME", "GIT_AUTHOR_EMAIL", "GIT_COMMITTER_NAME", "GIT_COMMITTER_EMAIL"):
        monkeypatch.setenv(name, "a@b.invalid")
    return tmp_path


def script(kind: str, text: str) -> list[str]:
    if kind == "python":
        return [sys.executable, "-c", text]
    return ["bash", "-euo", "pipefail", "-c", text]


@pytest.mark.slow
@pytest.mark.parametrize("path", RUN, ids=lambda path: path.relative_to(ROOT / "docs").as_posix())
def test_every_block_of_a_page_runs_in_order_as_it_stands(path: Path, shell: Path) -> None:
    with contextlib.ExitStack() as servers:
        for kind, text in BLOCKS.findall(path.read_text(encoding="utf-8")):
            if kind not in ("sh", "python"):
                continue
            lines = [line for line in text.splitlines() if not line.startswith(ELSEWHERE)]
            for line in [line for line in lines if re.match(r"evergreen up( |$)", line)]:  # and not `evergreen update`
                servers.enter_context(serving("evergreen", shell))
                lines.remove(line)
            done = subprocess.run(script(kind, "\n".join(lines)), cwd=shell, capture_output=True, text=True, timeout=3600)
            assert done.returncode == 0, f"{text}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    if path.name == "production.md":
        _the_refusal_reads_as_the_page_quotes_it(path, shell)


def _the_refusal_reads_as_the_page_quotes_it(path: Path, project: Path) -> None:
    entries = [json.loads(line) for line in (project / "mlruns" / "history" / "birds.jsonl").read_text().splitlines()[1:]]
    (reason,) = {entry["fields"]["reason"] for entry in entries if entry.get("fields", {}).get("word") == "refused"}
    (told,) = re.findall(r"refuses version 3: \*(.*?)\*", path.read_text(encoding="utf-8"))
    number = r"[+-]\d\.\d{3}"
    assert re.sub(number, "#", told) == re.sub(number, "#", reason)
    pairs = zip(re.findall(number, told), re.findall(number, reason), strict=True)
    assert all(abs(float(quoted) - float(measured)) < 0.02 for quoted, measured in pairs), reason  # a few answers differ between machines


@pytest.mark.slow
@pytest.mark.parametrize("path", sorted((ROOT / "docs" / "notebooks").glob("*.ipynb")), ids=lambda path: path.stem)
def test_notebooks_run_and_their_pages_show_what_they_drew(path: Path, shell: Path) -> None:
    page = notebooks.page(path)
    assert '<svg role="img"' in page and "```text" in page
    assert "var(--ink)" in page and "fill: #ffffff" not in page, "what is drawn takes the page's colours, in the dark too"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the site, built strictly; notebooks have no outputs."""
    pytest.importorskip("zensical")
    folder = tmp_path_factory.mktemp("site")
    assert site.build(folder, run=False) == 0
    return folder / "site"


@pytest.mark.slow
def test_the_site_builds_strictly_and_fetches_nothing(built: Path) -> None:
    pages = list(built.rglob("*.html"))
    assert len(pages) > 60
    for page in pages:
        text = page.read_text(encoding="utf-8")
        assert re.findall(r"<(?:script|img|iframe|link)[^>]*?(?:src|href)=\"((?:https?:)?//[^\"]+)", text) == [], page
        for target, anchor in re.findall(r"href=\"(?!https?:|mailto:|data:)([^\"#?]*)(#[^\"]*)?\"", text):
            there = (page.parent / unquote(target)).resolve() if target else page
            assert there.exists(), (page, target)
            if anchor and len(anchor) > 1 and there.suffix == ".html":
                assert f'id="{unquote(anchor[1:])}"' in there.read_text(encoding="utf-8"), (page, target + anchor)


@pytest.fixture
def page(tmp_path: Path) -> Iterator[Page]:
    if PROGRAM is None:
        pytest.skip("no Chromium on this machine; apt-get install chromium")
    with browser(tmp_path / "profile") as tab:
        yield tab


@pytest.mark.slow
@pytest.mark.parametrize("start", ["index.html", "guide/recipes.html"])
def test_the_search_works_where_pages_are_opened_as_files(built: Path, page: Page, start: str) -> None:
    page.open((built / start).as_uri())
    page.ask("document.querySelector('.md-search__button').click()")
    inside = "[...document.querySelectorAll('*')].flatMap(each => each.shadowRoot ? [each.shadowRoot] : [])"
    links = f"{inside}.flatMap(each => [...each.querySelectorAll('a')])"
    page.until(f"{inside}.some(each => each.activeElement && each.activeElement.tagName === 'INPUT')")
    page.call("Input.insertText", text="counterfactual")
    page.until(f"{links}.length > 3")
    hits = [Path(unquote(urlsplit(address).path)) for address in page.ask(f"{links}.map(each => each.href)")]
    assert built / "parts" / "counterfactual.html" in hits and all(hit.is_file() for hit in hits)
    assert all(address.startswith("file:") for address in page.ask("performance.getEntriesByType('resource').map(each => each.name)"))
    page.ask(f"{links}[0].click()")
    page.until("location.pathname.endsWith('/parts/counterfactual.html') && document.readyState === 'complete'")
    assert "counterfactual" in page.ask("document.title")


@pytest.mark.slow
def test_no_page_is_wider_than_a_phone(built: Path, page: Page) -> None:
    page.looks(390, 844, dark=False)
    for path in sorted(built.rglob("*.html")):
        page.open(path.as_uri())
        assert page.ask("document.documentElement.scrollWidth - innerWidth") <= 0, path.relative_to(built)


@pytest.mark.slow
def test_pages_follow_the_system_into_the_dark_and_back(built: Path, page: Page) -> None:
    background, shades = "getComputedStyle(document.body).backgroundColor", []
    for dark in (False, True, False):
        page.looks(1280, 900, dark)
        page.open((built / "index.html").as_uri())
        shades.append(sum(map(int, re.findall(r"\d+", page.ask(background))[:3])))
    assert shades[1] < 200 and shades[0] == shades[2] > 600


@pytest.mark.slow
def test_a_link_that_leads_nowhere_ends_the_build(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("zensical")
    monkeypatch.setattr(site, "sources", lambda run: {"index.md": "# A\n\n[b](b.md)\n"})
    monkeypatch.setattr(site, "NAV", ["index.md"])
    assert site.build(tmp_path) != 0
