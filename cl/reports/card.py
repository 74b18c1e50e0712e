"""A report in one screen, as Markdown: what a run or a version is called by its scores, what became of it, and each set before and now."""

from __future__ import annotations

from collections.abc import Sequence

from cl.evaluation.matrix import Matrix, last
from cl.names import in_markdown
from cl.reports.figures import thinned
from cl.reports.heat import called
from cl.reports.kinds import SHOWN, by_metric
from cl.reports.panels import version_of
from cl.reports.report import Report
from cl.reports.tables import columns, grouped, line, overview, percent
from cl.reports.verdict import verdicts

MOST = 4900  # characters: MLflow keeps 5,000 of what describes a model
_ROOM = "&emsp;"
_SETS, _NAME, _WORD = 12, 60, 500  # rows of the table, characters of a name in it, of what the gate said


def headline(report: Report) -> str:
    """The scores at the end and whose they are, without markup: lists of models cut it off after a few words.

    Means over the sets taught, in percent.
    """
    scores = [f"{SHOWN.get(metric, metric)} {percent(last(matrix))}" for metric, matrix in by_metric(report).items()]
    count = len(report.sessions)
    return f"{', '.join(scores)} after {count} session{'' if count == 1 else 's'}: {report.method}, seed {report.provenance.seed}"


def card(report: Report) -> str:
    """The headline, the gate's word where there is one, gains and losses in a sentence, and each set: of many, 12 evenly spread."""
    text = [in_markdown(headline(report)), ""]
    if report.version:
        text += [f"**{in_markdown(_short(version_of(report)['text'], _WORD))}**", ""]
    text += [f"- {in_markdown(each.sentence)}" for each in verdicts(grouped([report]))]
    return cut([*text, "", *_sets(report.matrix, report.sessions)])


def compared_card(reports: Sequence[Report], pages: Sequence[str]) -> str:
    """A comparison in one screen: a sentence and a row for each method; `pages`: where each report's run is found."""
    groups = grouped(reports)
    text = [f"- **{in_markdown(each.method)}**: {in_markdown(each.sentence)}" for each in verdicts(groups)]
    table = rows_of(columns(groups), overview(groups))
    named = [f"{in_markdown(report.method)}, seed {report.provenance.seed}" for report in reports]
    links = [f"[{name}]({page})" for name, page in zip(named, pages, strict=True)]
    return cut([*text, "", *table, "", f"Runs: {', '.join(links)}"])


def cut(lines: Sequence[str]) -> str:
    """Whole lines of Markdown, as many as MLflow keeps."""
    kept, size = [], 0
    for each in lines:
        size += len(each) + 1
        if size > MOST:
            kept += ["", "…"]
            break
        kept.append(each)
    return "\n".join(kept).rstrip("\n") + "\n"


def rows_of(names: Sequence[str], rows: Sequence[Sequence[str]]) -> list[str]:
    """A table in Markdown for MLflow's pages, which leave no room between its columns."""
    spaced = [f"| {f'{_ROOM} | '.join(map(in_markdown, row))} |" for row in (names, *rows)]
    return [spaced[0], line(["---"] * len(names)), *spaced[1:]]


def _sets(matrix: Matrix, sessions: Sequence[str]) -> list[str]:
    shown = thinned(len(matrix.sets), _SETS)
    rows = []
    for j in shown:
        taught = matrix.taught[j]
        then = percent(float(matrix.rows[taught, j])) if 0 < taught < len(matrix.rows) else "–"
        session = sessions[taught - 1] if 0 < taught <= len(sessions) else "–"
        ends = [percent(float(matrix.rows[place, j])) for place in (0, -1)]
        rows.append([_short(called(matrix, j)), _short(session), ends[0], then, ends[1]])
    note = (
        [] if len(shown) == len(matrix.sets) else ["", f"{len(shown)} of {len(matrix.sets)} sets, evenly spread; the report has them all."]
    )
    return [*rows_of(["set", "taught by", "at the start", "right after", "now"], rows), *note]


def _short(name: str, most: int = _NAME) -> str:
    return name if len(name) <= most else f"{name[: most - 1]}…"
