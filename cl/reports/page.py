"""Reports as one HTML page that needs nothing but itself: pictures, then images, then tables behind folds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np

from cl.evaluation.matrix import Matrix, average, mean
from cl.reports.figures import PANELS, curves, front, losses, panels_of
from cl.reports.gallery import Comparison
from cl.reports.heat import css, heat
from cl.reports.kinds import SHOWN, split
from cl.reports.panels import gallery, gate, verdict_of, version_of
from cl.reports.pictures import svg
from cl.reports.report import Report
from cl.reports.sections import sections
from cl.reports.tables import DEFINITIONS, REFERENCES, columns, grouped, overview
from cl.reports.verdict import verdicts
from cl.text import plural

_NAMED = 12  # sessions and sets that are listed by name
_DRAWN = 9  # methods whose loss is drawn
SHOTS = 240  # images of each direction on a page, all methods together: with thumbnails of 3,000 bytes, 2 MB

_FRONT = (
    "Up and to the left is better; the line joins the methods that none beats on both. Matrix products and convolutions, forward and "
    "backward, teachers included."
)
_LOSSES = (
    "The loss of training, step by step; upright rules part the sessions. Methods minimise different sums, so that only the shape of one "
    "line tells something."
)


def render(reports: Sequence[Report], seen: Mapping[str, Comparison] | None = None) -> str:
    """The page. Names are escaped, pictures are inline, and no script runs.

    `seen`, by method: what became of single images.
    """
    groups = grouped(reports)
    means = {method: mean([member.matrix for member in members]) for method, members in groups.items()}
    longest = max(reports, key=lambda report: len(report.sessions))
    galleries = _galleries(groups, seen or {})
    parts = {"front": _front(groups), "losses": _losses(groups), "gates": [gate(report) for report in reports if report.gate]}
    return (
        environment()
        .get_template("report.html.j2")
        .render(
            kicker="Evergreen report",
            title=reports[0].stream,
            shades=css(),
            lead=_lead(longest),
            versions=[version_of(report) for report in reports if report.version],
            contents=_contents(parts | {"galleries": galleries}),
            verdicts=[verdict_of(each, len(groups) == 1) for each in verdicts(groups)],
            curves=svg(curves(means, longest.sessions), "Score of every evaluation set after each session, one line per method", "curves"),
            curves_note=_curves_note(means),
            methods=[
                {"name": name, "seeds": len(members), "heat": heat(means[name], members[0].sessions)} for name, members in groups.items()
            ],
            front_note=_FRONT,
            losses_note=_LOSSES,
            galleries=galleries,
            columns=columns(groups),
            overview=overview(groups),
            sections=sections(groups),
            references=REFERENCES,
            definitions=DEFINITIONS,
            headline=_some([f"{name} {SHOWN.get(metric, metric)}" for name, metric in reports[0].headline.items()]),
            reports=reports,
            **parts,
        )
    )


def environment() -> jinja2.Environment:
    """The templates of pages, which escape whatever they are given."""
    loader = jinja2.FileSystemLoader(Path(__file__).parents[1] / "assets")
    made = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True, loader=loader, undefined=jinja2.StrictUndefined)
    made.globals["percent"] = lambda share: f"{100 * share:.0f}"
    return made


def _contents(parts: Mapping[str, Any]) -> list[tuple[str, str]]:
    there = parts["galleries"]
    listed = [
        ("glance", "Gained against lost", True),
        ("curves", "After each session", True),
        ("matrices", "Matrices", True),
        ("cost", "Cost", parts["front"]),
        ("broke", "Images that broke", there),
        ("mended", "Images that came right", there),
        ("classes", "Class by class", there),
        ("gate", "The gate", parts["gates"]),
        ("loss", "Loss", parts["losses"]),
        ("tables", "Tables", True),
        ("provenance", "Provenance", True),
    ]
    return [(anchor, name) for anchor, name, wanted in listed if wanted]


def _lead(report: Report) -> str:
    return f"{plural(len(report.sessions), 'session')}: {_some(report.sessions)}. Scores in percent."


def _some(names: Sequence[str]) -> str:
    shown = ", ".join(names[:_NAMED])
    return f"{shown} and {len(names) - _NAMED} more" if len(names) > _NAMED else shown


def _curves_note(means: Mapping[str, Matrix]) -> str:
    first = max(means.values(), key=lambda matrix: matrix.sessions)
    note = "The upright rule marks the session that teaches the set. A level line is a method that learned all sessions at once."
    return note if len(first.sets) <= PANELS else f"{note} Drawn are {len(panels_of(first))} of {len(first.sets)} sets, evenly spread."


def _galleries(groups: Mapping[str, Sequence[Report]], seen: Mapping[str, Comparison]) -> list[dict[str, Any]]:
    shown = [method for method in groups if method in seen and seen[method].sets]
    each = SHOTS // max(1, len(shown))
    made = [gallery(method, seen[method], each) for method in shown]
    first = next((one for one in made if one["name"] not in REFERENCES and one["broke"]), made[0] if made else None)
    return [one | {"open": one is first} for one in made]


def _front(groups: Mapping[str, Sequence[Report]]) -> str | None:
    parts = split(groups)
    kind = parts[0][1]
    points = {
        method: (
            float(np.mean([sum(cost.flops for cost in member.costs) for member in members])) / 1e12,
            average(mean([member.matrix for member in members])),
        )
        for method, metric, members in parts
        if metric == kind
    }
    told = f"Average {SHOWN.get(kind, kind)} of each method against the floating point operations of its learning"
    return svg(front(points), told, "front") if len(points) > 1 else None


def _losses(groups: Mapping[str, Sequence[Report]]) -> str | None:
    by_method = {method: [each[1:] for each in members[0].losses] for method, members in groups.items() if members[0].losses}
    some = dict(list(by_method.items())[:_DRAWN])
    return svg(losses(some), "Loss of training over the steps of all sessions, one panel per method", "losses") if some else None
