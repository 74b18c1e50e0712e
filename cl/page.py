"""Reports as one HTML page that needs nothing but itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import jinja2
import numpy as np
from matplotlib.figure import Figure

from cl.figures import curves, front, heat_map
from cl.matrix import Matrix, average, mean
from cl.sections import sections
from cl.tables import COLUMNS, REFERENCES, grouped, overview, percent

if TYPE_CHECKING:
    from cl.report import Report


def render(reports: Sequence[Report]) -> str:
    """The page. Names are escaped, pictures are inline, and no script runs."""
    groups = grouped(reports)
    means = {method: mean([member.matrix for member in members]) for method, members in groups.items()}
    longest = max(reports, key=lambda report: len(report.sessions))
    template = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True).from_string(
        (Path(__file__).parent / "assets" / "report.html.j2").read_text(encoding="utf-8")
    )
    methods = []
    for method, members in groups.items():
        rows = list(zip(("start", *members[0].sessions), means[method].rows, strict=True))
        methods.append(
            {
                "name": method,
                "seeds": len(members),
                "picture": _picture(heat_map(means[method], members[0].sessions, method)),
                "sets": means[method].sets,
                "rows": [(after, [percent(value) for value in row]) for after, row in rows],
            }
        )
    return template.render(
        title=reports[0].stream,
        sessions=longest.sessions,
        columns=[name for name, _ in COLUMNS],
        overview=overview(groups),
        sections=sections(groups),
        front=_front(groups, means),
        references=REFERENCES,
        curves=_picture(curves(means, longest.sessions)),
        methods=methods,
        headline=reports[0].headline,
        reports=reports,
    )


def _front(groups: Mapping[str, Sequence[Report]], means: Mapping[str, Matrix]) -> str | None:
    costs = {method: float(np.mean([sum(cost.flops for cost in member.costs) for member in members])) for method, members in groups.items()}
    points = {method: (cost / 1e12, average(means[method])) for method, cost in costs.items()}
    return _picture(front(points)) if len(points) > 1 else None


def _picture(figure: Figure) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=160, facecolor="white")
    return base64.b64encode(buffer.getvalue()).decode()
