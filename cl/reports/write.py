"""Reports as files: a page that needs nothing but itself, the same as Markdown, and all of it as JSON."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from cl.disk.durable import beside
from cl.errors import StoreError
from cl.reports.gallery import Comparison
from cl.reports.markdown import markdown
from cl.reports.page import render
from cl.reports.report import Report


def html(reports: Sequence[Report], seen: Mapping[str, Comparison] | None = None) -> str:
    """The reports as one self-contained page: no script, nothing fetched. `seen`, by method: what became of single images."""
    return render(reports, seen)


def write(reports: Sequence[Report], folder: Path, seen: Mapping[str, Comparison] | None = None) -> None:
    """Write report.md, report.html and report.json, and images.json where there is something `seen`; each whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    pages = {"report.md": markdown(reports), "report.html": html(reports, seen)}
    pages["report.json"] = json.dumps([report.to_json() for report in reports])
    if seen and len(reports) == 1:  # a comparison shows what its streams keep
        pages["images.json"] = json.dumps({method: compared.to_json() for method, compared in seen.items()})
    save(pages, folder)


def save(pages: Mapping[str, str], folder: Path) -> None:
    """Texts by file name into a folder, each whole or not at all.

    Raises:
        StoreError: the folder cannot be written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, content in pages.items():
            with beside(folder / name) as part:
                part.write_text(content, encoding="utf-8", errors="backslashreplace")
    except OSError as error:
        raise StoreError(f"{folder}: the report cannot be written ({error.strerror}); free space or choose another folder") from error
