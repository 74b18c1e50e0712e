"""Scores of two kinds are never averaged: top-1 over the sets that classify, R@10 over those that are for retrieval."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np

from cl.evaluation.matrix import Matrix, summary
from cl.reports.report import Report

SHOWN = {"top1": "top-1", "recall@10": "R@10"}  # as people read them
_KINDS = {"top1": "classify", "recall@10": "retrieve"}


def by_metric(report: Report) -> dict[str, Matrix]:
    """The matrix of the sets of each headline metric; that of most sets that sessions teach comes first."""
    columns: dict[str, list[int]] = {}
    for place, name in enumerate(report.matrix.sets):
        columns.setdefault(report.headline[name], []).append(place)
    if len(columns) < 2:
        return dict.fromkeys(columns, report.matrix)
    matrices = {metric: _part(report.matrix, own) for metric, own in columns.items()}
    return dict(sorted(matrices.items(), key=lambda each: -sum(session > 0 for session in each[1].taught)))


def split(groups: Mapping[str, Sequence[Report]]) -> list[tuple[str, str, list[Report]]]:
    """Method, metric, and its reports with the sets of that metric alone; the methods in their order, one or two entries for each."""
    alike = []
    for method, members in groups.items():
        parts = [by_metric(member) for member in members]
        for metric in parts[0]:
            alike.append((method, metric, [replace(each, matrix=part[metric]) for each, part in zip(members, parts, strict=True)]))
    return alike


def mixed(groups: Mapping[str, Sequence[Report]]) -> bool:
    """Whether some sets classify and others are for retrieval."""
    return any(len(by_metric(member)) > 1 for members in groups.values() for member in members)


def summaries(report: Report, session: int | None = None) -> dict[str, float]:
    """All metrics of `matrix`, after a session or the last; with sets of both kinds twice: `classify/last` and `retrieve/last`."""
    parts = {metric: matrix if session is None else matrix.upto(session) for metric, matrix in by_metric(report).items()}
    if len(parts) == 1:
        return summary(next(iter(parts.values())))
    return {f"{_KINDS.get(metric, metric)}/{name}": value for metric, part in parts.items() for name, value in summary(part).items()}


def worst(report: Report, name: str) -> float:
    """The largest value of a metric that counts losses, over both kinds; nan where neither defines it."""
    values = [value for key, value in summaries(report).items() if key.rsplit("/", 1)[-1] == name and not np.isnan(value)]
    return max(values, default=float("nan"))


def _part(matrix: Matrix, columns: Sequence[int]) -> Matrix:
    return Matrix(matrix.rows[:, columns], tuple(matrix.sets[j] for j in columns), tuple(matrix.taught[j] for j in columns))
