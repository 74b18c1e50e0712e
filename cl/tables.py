"""Reports side by side as rows of text: one row a method, seeds as mean ± standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from cl.matrix import Matrix, average, backward_transfer, forgetting, last, learned, zero_shot_drop

if TYPE_CHECKING:
    from cl.report import Report

REFERENCES = ("zero_shot", "finetune", "joint")  # what every method is read against, always first


def percent(value: float) -> str:
    """One decimal, or a dash for what was not measured.

    >>> percent(0.5), percent(float("nan"))
    ('50.0', '–')
    """
    return "–" if np.isnan(value) else f"{100 * value:.1f}"


def spread(values: Sequence[float]) -> str:
    """Mean ± sample standard deviation in percent.

    >>> spread([0.5]), spread([0.4, 0.6])
    ('50.0', '50.0 ± 14.1')
    """
    mean = percent(float(np.mean(values)))
    return mean if len(values) < 2 or mean == "–" else f"{mean} ± {100 * np.std(values, ddof=1):.1f}"


def _metric(metric: Callable[[Matrix], float]) -> Callable[[Sequence[Report]], str]:
    return lambda members: spread([metric(member.matrix) for member in members])


COLUMNS: tuple[tuple[str, Callable[[Sequence[Report]], str]], ...] = (
    ("method", lambda members: members[0].method),
    ("seeds", lambda members: str(len(members))),
    ("last", _metric(last)),
    ("average", _metric(average)),
    ("learned", _metric(learned)),
    ("forgetting", _metric(forgetting)),
    ("BWT", _metric(backward_transfer)),
    ("zero-shot drop", _metric(zero_shot_drop)),
    ("trainable", lambda members: f"{max((cost.trainable for cost in members[0].costs), default=0):,}"),
    ("stored MB", lambda members: f"{max((cost.stored_bytes for cost in members[0].costs), default=0) / 1e6:.1f}"),
    ("seconds", lambda members: f"{np.mean([sum(cost.seconds for cost in member.costs) for member in members]):.0f}"),
)


def grouped(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports by method: the references first, then the others as given."""
    groups: dict[str, list[Report]] = {}
    for report in sorted(reports, key=lambda r: REFERENCES.index(r.method) if r.method in REFERENCES else len(REFERENCES)):
        groups.setdefault(report.method, []).append(report)
    return groups


def overview(groups: dict[str, list[Report]]) -> list[list[str]]:
    """One row of cells per method, in the order of COLUMNS."""
    return [[cell(members) for _, cell in COLUMNS] for members in groups.values()]


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(plain, cells))} |"


def plain(text: str) -> str:
    """Text that ends no table cell and starts no markup."""
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")
