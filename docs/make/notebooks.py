"""Notebooks as pages: run from their first cell to their last in an empty folder, and shown with what they printed and drew.

What runs them is this file and not a kernel, so that a test needs nothing but the package. Cells are plain Python, no magics.
"""

import ast
import base64
import contextlib
import io
import json
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from cl.reports.pictures import svg


class Cell(NamedTuple):
    """A cell: `markdown`, or `code` with what it printed, and what its last line came to."""

    kind: str
    source: str
    printed: str = ""
    value: Any = None


def cells(path: Path) -> list[Cell]:
    """The cells as they are written."""
    return [Cell(cell["cell_type"], "".join(cell["source"])) for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]]


def executed(path: Path) -> list[Cell]:
    """The cells with their outputs; whatever a cell raises is raised, with a note that says which it was."""
    names: dict[str, Any] = {"__name__": "__main__"}
    with tempfile.TemporaryDirectory() as folder, contextlib.chdir(folder):
        return [_run(cell, number, names) for number, cell in enumerate(cells(path), start=1)]


def _run(cell: Cell, number: int, names: dict[str, Any]) -> Cell:
    if cell.kind != "code":
        return cell
    tree, value, printed = ast.parse(cell.source), None, io.StringIO()
    final = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
    try:
        with contextlib.redirect_stdout(printed):
            exec(compile(tree, f"cell {number}", "exec"), names)
            if isinstance(final, ast.Expr):
                value = eval(compile(ast.Expression(final.value), f"cell {number}", "eval"), names)
    except Exception as error:
        error.add_note(f"in cell {number} of the notebook")
        raise
    return cell._replace(printed=printed.getvalue(), value=value)


def page(path: Path, run: bool = True) -> str:
    """A notebook as Markdown; without `run` it has no outputs."""
    told = [part for number, cell in enumerate(executed(path) if run else cells(path)) for part in _shown(cell, f"cell-{number}")]
    return "\n\n".join([*told, f"The notebook itself is `docs/notebooks/{path.name}` of the repository."]) + "\n"


def _shown(cell: Cell, name: str) -> Iterator[str]:
    if cell.kind != "code":
        yield cell.source
        return
    yield f"```python\n{cell.source}\n```"
    if cell.printed:
        yield f"```text\n{cell.printed.rstrip()}\n```"
    if hasattr(cell.value, "savefig"):  # a figure of matplotlib: as lines and text, in the colours of the page, light or dark
        yield f"<figure>\n{svg(cell.value, 'what the cell above drew', name)}</figure>"
    elif hasattr(cell.value, "_repr_png_"):
        yield f"![what the cell above drew](data:image/png;base64,{base64.b64encode(cell.value._repr_png_()).decode()})"
    elif cell.value is not None:
        yield f"```text\n{cell.value!r}\n```"
