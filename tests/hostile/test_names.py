"""Names that do something where they are shown: to a terminal, MLflow, matplotlib, Markdown, a spreadsheet, a file system."""

import csv
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlflow.utils.validation import _validate_metric_name, _validate_param_name
from rich.markdown import Markdown as RenderedMarkdown
from typer.testing import CliRunner

from cl.config import override
from cl.data.faults import Problem, Reason
from cl.errors import ConfigError, DataError
from cl.evaluation.matrix import Matrix
from cl.names import LONGEST, as_key, in_cell, in_figure, in_markdown, usable, visible
from cl.reports.figures import curves, front, heat_map
from cl.reports.tables import line
from cl.run_config import parse_config
from flows.approval import question
from flows.cli.main import app
from flows.console import err, out, table
from flows.intake.quarantine import write_report
from flows.settings import Place
from flows.tracking.runs import COMMAND, Tracker
from tests import make

NAMES = {
    "an option": "--why",
    "another option": "--labels",
    "markup": "[/nonsense] [bold red]loud",
    "a link in the terminal": "[link=http://evil.test]here[/link]",
    "emoji code": ":warning:",
    "mathematics": r"$\frac{",
    "two dollars": "5$ and 6$",
    "an absolute path": "/etc/passwd",
    "slashes": "//",
    "upwards": "../../up",
    "dots": "..",
    "long": "x" * 300,
    "long in bytes": "é" * 200,
    "escape": "a\x1b[2J\x1b]0;title\x07b",
    "to the left": "photo\u202egpj.exe",
    "nothing to see": "a\u200bb\ufeff",
    "half a pair": "a\udc80b",
    "a new line": "a\n# heading",
    "a picture": "![x](http://evil.test/seen.png)",
    "a link": "[x](javascript:alert(1))",
    "a table": "a | b \\| c",
    "HTML": "<img src=x onerror=alert(1)>&lt;b>",
    "a formula": '=HYPERLINK("http://evil.test")',
    "a formula with a sign": "-2+3+cmd|' /C calc'!A0",
    "a formula after a space": " @SUM(1)",
    "a quote": "a' or '1'='1",
}
each_name = pytest.mark.parametrize("name", NAMES.values(), ids=NAMES)
UNSEEN = ("\x1b", "\x07", "\u202e", "\u200b", "\udc80")


@each_name
def test_a_terminal_shows_a_name_and_obeys_none(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "1000")
    out().print(table(name, [name, "n"], [[name, 1]]))
    out().print(f"go on with: {name}", soft_wrap=True)
    err().print(name, soft_wrap=True)
    said = capsys.readouterr()
    for text in (said.out, said.err):
        assert not any(letter in text for letter in UNSEEN)
        for part in visible(name, keep="\n").split("\n"):
            assert part.strip() in text
    assert f"go on with: {visible(name, keep=chr(10))}" in said.out


def test_status_tells_of_every_project_whatever_its_streams_are_called(stored: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tracker = Tracker(Place(stored), "colours")
    monkeypatch.setenv("COLUMNS", "2000")
    shown = [name for name in NAMES.values() if not any("\ud800" <= letter <= "\udfff" for letter in name)]  # no database takes those
    for number, name in enumerate(shown):
        tags = {"evergreen.stream": name, "evergreen.method": name, "evergreen.seed": str(number), COMMAND: f"evergreen run {name}"}
        run, _ = tracker.open(f"key{number}", "stream", name[:200], tags, {f"stream.sources.{name}.path": name})
        with pytest.raises(ValueError), tracker.ending(run):
            raise ValueError(f"session {name}: lost")
    told = CliRunner().invoke(app, ["status"])
    assert told.exit_code == 0, told.output
    assert not any(letter in told.output for letter in UNSEEN)
    for name in shown:
        assert visible(name.partition("\n")[0]).strip()[:150] in told.output


def test_a_reason_that_no_history_could_keep_is_refused(stored: Path) -> None:
    told = CliRunner().invoke(app, ["promote", "birds", "3", "--why", "x" * 1001])
    assert isinstance(told.exception, ConfigError) and "--why has 1001 characters; at most 1000" in str(told.exception)


@each_name
def test_mlflow_takes_every_name_as_a_key_of_its_own(name: str, tmp_path: Path) -> None:
    for key in (as_key(f"top1/{name}"), as_key(name)):
        _validate_metric_name(key)
        _validate_param_name(key)
        file = (tmp_path / "figures" / f"{key}.png").resolve()
        assert file.is_relative_to(tmp_path / "figures")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()  # no part of it is too long
    keys = [as_key(each) for each in (*NAMES.values(), "a$b", "a_b", "a b", "a_b-473f1b", "x" * 301, as_key("a$b"))]
    assert len({key.casefold() for key in keys}) == len(keys)


@pytest.mark.filterwarnings("ignore:Glyph")
def test_figures_draw_every_name() -> None:
    names = list(NAMES.values())
    matrix = Matrix(np.full((len(names) + 1, len(names)), 0.5), tuple(names), tuple(range(1, len(names) + 1)))
    buffer = io.BytesIO()
    for figure in (
        heat_map(matrix, names, names[5]),
        curves({name: matrix for name in names[4:8]}, names),
        front({name: (1.0 + turn, 0.5) for turn, name in enumerate(names)}),
    ):
        figure.savefig(buffer, format="png", dpi=20)
    assert len(in_figure("x" * 300)) == 40


@each_name
def test_markdown_shows_a_name_and_nothing_of_it_is_markup(name: str) -> None:
    """By a CommonMark parser: the name alone, in a table, and in the question that a page asks."""
    shown = " ".join(visible(name.replace("\n", " ")).split())
    for text in (in_markdown(name), question(name, name, [{"bound": name, "holds": "yes"}])):
        parsed = RenderedMarkdown(f"before {text} after").parsed
        leaves = [leaf for token in parsed for leaf in (token.children or [])]
        assert {leaf.type for leaf in leaves} <= {"text", "softbreak", "strong_open", "strong_close"}, leaves
        assert not [token for token in parsed if token.type in ("html_block", "fence", "code_block", "heading_open")]
        content = " ".join("".join(leaf.content for leaf in leaves if leaf.type == "text").split())
        assert shown in content or "|" in shown, (shown, content)
    row = line([name, name])  # of a report's table: two cells, whatever bars the name has
    assert len(row.replace("\\\\", "").replace("\\|", "").split("|")) == 4 and "\n" not in row


@each_name
def test_a_spreadsheet_takes_no_cell_for_a_formula(name: str, tmp_path: Path) -> None:
    file = write_report(tmp_path, "report", [Problem(name, Reason.UNREADABLE, name)], {})
    (row,) = list(csv.DictReader(io.StringIO(file.read_text(encoding="utf-8"))))
    for cell in (row["file"], row["detail"]):
        assert cell.lstrip()[:1] not in ("=", "+", "-", "@", "\t", "\r") and visible(name).lstrip() in cell
    assert in_cell("cat") == "cat"


UNUSABLE = ("long", "escape", "to the left", "nothing to see", "half a pair", "a new line", "a formula after a space")


@each_name
def test_one_rule_says_what_a_name_may_be(name: str) -> None:
    wrong = any(NAMES[which] == name for which in UNUSABLE)
    tree: dict[str, Any] = {
        "name": "n",
        "stream": {"kind": "domains", "sources": {"a": "a"}, "probes": [{"name": name, "source": "a"}]},
        "method": {"name": "finetune", "label": name},
    }
    group = make.session(1, (0, 1), (0, 1))
    if wrong:
        with pytest.raises(ValueError):
            usable(name)
        with pytest.raises(ConfigError, match="the name") as told:
            parse_config(tree, "config")
        assert not any(letter in str(told.value) for letter in UNSEEN)
        with pytest.raises(DataError, match=r"rename it in the data, or give the session a name"):
            _stream_of(group, name)
    else:
        assert usable(name) == name and parse_config(tree, "config").method.label == name
        _stream_of(group, name)
    with pytest.raises(ConfigError):  # the name of a model is stricter: it is one of an experiment, of locks, in queries
        parse_config(override(tree, ["method=finetune"]) | {"name": name, "stream": {"kind": "domains", "sources": {"a": "a"}}}, "config")


def _stream_of(session: Any, name: str) -> Any:
    from dataclasses import replace

    from cl.streams.stream import Stream

    return Stream("s", (replace(session, name=name),))


def test_a_session_of_many_classes_is_called_by_the_first() -> None:
    from cl.streams.cut import _called

    assert _called(["a", "b"]) == "a, b"
    assert _called([f"class {number}" for number in range(99)]) == "class 0 and 98 more"
    assert len(_called([f"class {number}" for number in range(99)])) <= LONGEST
