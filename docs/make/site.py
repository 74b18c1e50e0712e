"""`python -m docs.make.site`: the pages as written, those that the code tells, and the site of both in build/site."""

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from cl.methods import CONFIGS, PARTS
from docs.make import methods, notebooks, reference

ROOT = Path(__file__).parents[2]
WRITTEN, BUILD = ROOT / "docs", ROOT / "build"
COPIED = {"RESULTS.md": "results.md", "SECURITY.md": "security.md", "CHANGELOG.md": "changelog.md", "cl/DECISIONS.md": "decisions.md"}
SHIM = "https://unpkg.com/iframe-worker/shim"  # what the plugin `offline` would have every page fetch: ours lies beside
MADE = {
    "reference/settings.md": reference.settings,
    "reference/commands.md": reference.commands,
    "reference/configs.md": reference.shipped,
    "reference/published.md": reference.published,
    "reference/refused.md": reference.together,
}
PRESETS = ["presets/index.md", *(f"presets/{name}.md" for name in CONFIGS)]
KINDS = ["parts/index.md", *(f"parts/{kind}.md" for kinds in PARTS.values() for kind in kinds)]


def _in(folder: str, *names: str) -> list[str]:
    return [f"{folder}/{name}.md" for name in names]


NAV: list[dict[str, Any]] = [
    {"Start": ["index.md", "faq.md", "security.md"]},
    {"Tutorials": [*_in("tutorials", "own_classes", "captions", "production", "few_labels", "comparing")]},
    {"Notebooks": _in("notebooks", "first_stream", "recipes", "what_broke")},
    {"Guide": _in("guide", "config", "recipes", "learning", "data", "updates", "models", "keeping")},
    {"Team": _in("team", "one_machine", "one_server", "many_workers")},
    {"Methods": [*PRESETS, {"Parts": KINDS}, "reference/refused.md"]},
    {"Reference": _in("reference", "python", "settings", "commands", "models", "configs")},
    {"Evidence": ["results.md", "reference/systems.md", "reference/published.md", "decisions.md", "changelog.md"]},
]


def sources(run: bool = True) -> dict[str, str]:
    """Every page in Markdown, by its path in the site; without `run` notebooks have no outputs."""
    pages = {path.relative_to(WRITTEN).as_posix(): path.read_text(encoding="utf-8") for path in WRITTEN.rglob("*.md")}
    pages["reference/python.md"] = reference.api(pages["reference/python.md"])
    pages |= {name: made() for name, made in MADE.items()} | methods.pages()
    for source, name in COPIED.items():
        pages[name] = _moved((ROOT / source).read_text(encoding="utf-8"))
    for path in sorted((WRITTEN / "notebooks").glob("*.ipynb")):
        _say(f"notebook {path.stem}{', which is run' if run else ''}")
        pages[f"notebooks/{path.stem}.md"] = notebooks.page(path, run)
    return pages


def _say(what: str) -> None:
    """A line for each step: all of them take minutes."""
    print(f"docs: {what}", file=sys.stderr, flush=True)


def _moved(text: str) -> str:
    """A page of the repository: links to its files lead to their pages here, or are words where they have none."""
    names = {Path(source).name: page for source, page in COPIED.items()}

    def lead(match: re.Match[str]) -> str:
        target, _, anchor = match[2].partition("#")
        name = target.removeprefix("../docs/") if target.startswith("../docs/") else names.get(Path(target).name)
        return f"[{match[1]}]({name}{'#' + anchor if anchor else ''})" if name else match[1]

    return re.sub(r"(?<!!)\[([^\]]+)\]\((?!http|#)([^)]+)\)", lead, text)


def lay_out(folder: Path, run: bool = True) -> None:
    """All pages with their pictures, and the settings of the site above them."""
    shutil.rmtree(folder / "docs", ignore_errors=True)
    _say("pages that the code tells")
    for name, text in sources(run).items():
        path = folder / "docs" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    shutil.copytree(ROOT / ".github" / "assets", folder / "docs" / "assets")
    shutil.copytree(WRITTEN / "assets", folder / "docs" / "assets", dirs_exist_ok=True)
    settings = (WRITTEN / "zensical.toml").read_text(encoding="utf-8")
    (folder / "zensical.toml").write_text(settings.replace("[project]\n", f"[project]\nnav = {_toml(NAV)}\n", 1), encoding="utf-8")


def _toml(value: Any) -> str:
    if isinstance(value, dict):
        return f"{{ {', '.join(f'{json.dumps(key)} = {_toml(each)}' for key, each in value.items())} }}"
    return f"[{', '.join(map(_toml, value))}]" if isinstance(value, list) else json.dumps(value)


def build(folder: Path, run: bool = True) -> int:
    """Lay out the pages and build the site, strictly: a link that leads nowhere ends it. Returns the exit code."""
    lay_out(folder, run)
    _say("the site of all pages")
    program = Path(sys.executable).with_name("zensical")
    code = subprocess.run([program, "build", "--clean", "--strict"], cwd=folder, check=False).returncode
    (folder / "site" / "404.html").unlink(missing_ok=True)  # a server's: its links begin at a root that files do not have
    for page in (folder / "site").rglob("*.html") if code == 0 else ():
        above = "../" * (len(page.relative_to(folder / "site").parts) - 1)
        page.write_text(page.read_text(encoding="utf-8").replace(SHIM, f"{above}assets/iframe-worker.js"), encoding="utf-8")
    return code


def main(words: Iterable[str]) -> int:
    """`--without-outputs`: notebooks are not run."""
    return build(BUILD, run="--without-outputs" not in words)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
