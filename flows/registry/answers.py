"""What a version said of images, as a file: one line per image and name, the likeliest first, or the images in their order for a query."""

import csv
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from cl.disk.durable import beside
from cl.errors import ConfigError, StoreError
from cl.names import in_cell
from flows.registry.predict import Served

KINDS = (".csv", ".jsonl")


def check(out: Path) -> None:
    """Raise before anything is asked where the answers could not be kept.

    Raises:
        ConfigError: the name says no kind that is written.
        StoreError: something is there already, or no folder for it.
    """
    if out.suffix.lower() not in KINDS:
        raise ConfigError(f"--out {out}: expected a name that ends in {' or '.join(KINDS)}")
    if out.exists() or out.is_symlink():
        raise StoreError(f"--out {out}: exists already; choose another name")
    if not out.absolute().parent.is_dir():
        raise StoreError(f"--out {out}: there is no folder {out.absolute().parent}; make it")


def classified(model: Served, images: Sequence[Path], answers: Sequence[Sequence[tuple[str, float]]]) -> Iterator[dict[str, Any]]:
    """The rows of `flows.registry.predict.classify`'s answers."""
    for image, answer in zip(images, answers, strict=True):
        for place, (name, share) in enumerate(answer, start=1):
            yield {"image": str(image), "model": f"{model.name}/{model.version}", "rank": place, "name": name, "share": share}


def ranked(model: Served, query: str, answers: Sequence[tuple[Path, float]]) -> Iterator[dict[str, Any]]:
    """The rows of `flows.registry.predict.rank`'s answers."""
    for place, (image, cosine) in enumerate(answers, start=1):
        yield {"image": str(image), "model": f"{model.name}/{model.version}", "rank": place, "query": query, "cosine": cosine}


def write(rows: Sequence[dict[str, Any]], out: Path) -> None:
    """Write them, whole or not at all.

    Raises:
        StoreError: the place cannot be written.
    """
    text = _csv(rows) if out.suffix.lower() == ".csv" else "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    try:
        with beside(out.absolute()) as part:
            part.write_text(text, encoding="utf-8", errors="backslashreplace", newline="")
    except OSError as error:
        raise StoreError(f"--out {out}: cannot be written ({error.strerror or error}); free space or choose another place") from error


def _csv(rows: Sequence[dict[str, Any]]) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, list(rows[0]) if rows else ["image", "model"])
    writer.writeheader()
    writer.writerows({name: in_cell(value) if isinstance(value, str) else value for name, value in row.items()} for row in rows)
    return text.getvalue()
