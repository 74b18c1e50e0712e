"""Reports as one Markdown page, short enough for who shows it: of long streams some sessions and sets are shown."""

from __future__ import annotations

from collections.abc import Sequence

from cl.evaluation.matrix import mean
from cl.names import in_markdown
from cl.reports.figures import LINES, thinned
from cl.reports.heat import called
from cl.reports.panels import version_of
from cl.reports.report import Report
from cl.reports.sections import sections
from cl.reports.tables import DEFINITIONS, columns, grouped, line, overview, percent
from cl.reports.verdict import verdicts


def markdown(reports: Sequence[Report]) -> str:
    """The reports as one Markdown page; several seeds of a method become mean ± standard deviation."""
    groups = grouped(reports)
    text = [f"# {in_markdown(reports[0].stream)}", ""]
    text += [f"**{in_markdown(version_of(report)['text'])}**\n" for report in reports if report.version]
    text += [f"- **{in_markdown(each.method)}**: {in_markdown(each.sentence)}" for each in verdicts(groups)]
    text += ["", DEFINITIONS, "", *_table(columns(groups), overview(groups))]
    for section in sections(groups):
        text += ["", f"## {section.title}", "", section.note, "", *_table(section.columns, section.rows)]
    for method, members in groups.items():
        text += ["", f"## {in_markdown(method)}", "", *_matrix(members)]
    text += ["", "## Provenance", "", line(["method", "seed", "data", "stream", "code", "base model", "started"]), line(["---"] * 7)]
    for report in reports:
        p = report.provenance
        text.append(line([report.method, str(p.seed), p.data, p.stream, p.code, p.base_model, p.started]))
    versions = ", ".join(f"{name} {version}" for name, version in reports[0].provenance.versions.items())
    return "\n".join([*text, "", f"Made with {versions}.", ""])


def _table(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    return [line(names), line(["---"] + ["---:"] * (len(names) - 1)), *map(line, rows)]


def _matrix(members: Sequence[Report]) -> list[str]:
    first, scores = members[0].matrix, mean([member.matrix for member in members]).rows
    after, sets = ("start", *members[0].sessions), first.sets
    down, over = thinned(len(after), LINES), thinned(len(sets), LINES)
    rows = [[after[t], *(percent(scores[t, j]) for j in over)] for t in down]
    cut = len(down) < len(after) or len(over) < len(sets)
    note = f"{len(down)} of {len(after)} rows and {len(over)} of {len(sets)} sets, evenly spread; report.json has them all."
    return [*_table(["after", *(called(first, j) for j in over)], rows), *(["", note] if cut else [])]
