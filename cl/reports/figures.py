"""The pictures of a report: scores after each session, the matrix as a heat map, cost against score, loss; bounded however long it is."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cl.evaluation.matrix import Matrix
from cl.names import in_figure

# Okabe and Ito's palette: told apart by readers with any kind of colour vision
PALETTE = ("#7f7f7f", "#D55E00", "#000000", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("--", "-", ":", "-", "-", "-", "-", "-")
_ALONE = 3  # the place in both of a method that is drawn alone
_LINE = 8  # points from which on a line of losses needs no dots
PANELS, POINTS, LINES = 12, 60, 40  # sets that are drawn, points of a line, rows and columns of a heat map
ASIDE = " (left out)"  # behind the name of a set whose session is not among those learned: set aside, skipped, rolled back


def heat_map(matrix: Matrix, sessions: Sequence[str], title: str) -> Figure:
    """Rows are sessions, columns sets; the cell measured right after its set was taught is framed, probes stand apart.

    Of a long stream 40 rows and 40 columns are drawn, evenly spread.
    """
    down, over = thinned(len(matrix.rows), LINES), thinned(len(matrix.sets), LINES)
    sessions = [("start", *sessions)[row] for row in down]
    place = {row: index for index, row in enumerate(down)}
    matrix = Matrix(
        matrix.rows[np.ix_(down, over)],
        tuple(matrix.sets[j] for j in over),
        tuple(place.get(matrix.taught[j], -1) if matrix.taught[j] else 0 for j in over),
    )
    rows, columns = matrix.rows.shape
    figure = Figure(figsize=(1.6 + 0.72 * columns, 1.5 + 0.42 * rows), layout="constrained")
    axes = figure.subplots()
    axes.imshow(matrix.rows, vmin=0, vmax=1, cmap="cividis", aspect="auto")
    for t, j in np.ndindex(rows, columns):
        value = matrix.rows[t, j]
        if not np.isnan(value):
            axes.text(j, t, f"{100 * value:.0f}", ha="center", va="center", fontsize=9, color="black" if value > 0.55 else "white")
        if matrix.taught[j] == t > 0:
            axes.add_patch(Rectangle((j - 0.5, t - 0.5), 1, 1, fill=False, edgecolor="#D55E00", linewidth=2.2))
    axes.set_xticks(range(columns), [*map(in_figure, matrix.sets)], rotation=35, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(rows), [*map(in_figure, sessions)])
    axes.axhline(0.5, color="white", linewidth=3)
    if matrix.probes and len(matrix.probes) < columns:
        axes.axvline(min(matrix.probes) - 0.5, color="white", linewidth=3)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(in_figure(title), loc="left", fontsize=11, fontweight="bold")
    axes.set_ylabel("after")
    return figure


def front(points: Mapping[str, tuple[float, float]]) -> Figure:
    """Methods by cost (TFLOPs) and average score (0..1); a line joins those that none beats on both."""
    figure = Figure(figsize=(6.4, 3.6), layout="constrained")
    axes = figure.subplots()
    best, steps = -1.0, []
    for cost, score in sorted(points.values(), key=lambda point: (point[0], -point[1])):
        if score > best:
            best = score
            steps.append((cost, 100 * score))
    axes.step(*zip(*steps, strict=True), where="post", color="0.75", linewidth=1, zorder=0)
    for turn, (method, (cost, score)) in enumerate(points.items()):
        axes.plot(cost, 100 * score, "o", color=PALETTE[turn % len(PALETTE)], markersize=5)
        axes.annotate(in_figure(method), (cost, 100 * score), xytext=(5, 4), textcoords="offset points", fontsize=8.5)
    axes.set_xlabel("cost of learning, TFLOPs", fontsize=9.5)
    axes.set_ylabel("average score, percent", fontsize=9.5)
    axes.margins(x=0.15, y=0.12)
    _plain(axes)
    return figure


def curves(matrices: Mapping[str, Matrix], sessions: Sequence[str]) -> Figure:
    """One small panel per set, one line per method; a rule marks the session that teaches the set.

    A method that learned everything in one session is drawn as a level line at where it ended. Of more than 12 sets 12 are drawn.
    """
    first = max(matrices.values(), key=lambda matrix: matrix.sessions)
    drawn = panels_of(first)
    across = min(4, len(drawn))
    down = -(-len(drawn) // across)
    figure = Figure(figsize=(2.7 * across + 0.4, 2.05 * down + 0.7), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    steps = thinned(first.sessions + 1, POINTS)
    for panel, column in zip(panels, drawn, strict=False):
        name, taught = in_figure(first.sets[column]), first.taught[column]
        for turn, (method, matrix) in enumerate(matrices.items()):
            style = _style(turn if len(matrices) > 1 else _ALONE) | {"label": in_figure(method)}
            if matrix.sessions == first.sessions:
                marks = {"marker": "o", "markersize": 2.6} if len(steps) <= 12 else {}
                panel.plot(steps, 100 * matrix.rows[steps, column], **marks, **style)
            else:
                panel.axhline(100 * matrix.rows[-1, column], **style)
        if taught > 0:
            panel.axvline(taught, color="0.75", linewidth=1, zorder=0)
        panel.set_title(f"{name}{ASIDE}" if taught < 0 else name if taught else f"{name} (probe)", fontsize=9.5, loc="left")
        panel.set_ylim(0, 100)
        panel.set_xticks(thinned(first.sessions + 1, 8))
        _plain(panel)
    _finished(figure, panels[len(drawn) :], "sessions learned", "score, percent")
    if len(matrices) > 1:
        _legend(figure, panels[0], len(matrices))
    return figure


def losses(by_method: Mapping[str, Sequence[tuple[Sequence[int], Sequence[float]]]]) -> Figure:
    """The loss over the steps of all sessions, one line per method; a gap where a session ends. Methods share one axis, not one scale."""
    across = min(3, len(by_method))
    down = -(-len(by_method) // across)
    figure = Figure(figsize=(max(6.4, 3.4 * across + 0.3), 2.1 * down + 0.3), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False).flatten()
    for turn, (panel, (method, sessions)) in enumerate(zip(panels, by_method.items(), strict=False)):
        start = 0
        for steps, values in sessions:
            colour = PALETTE[(turn if len(by_method) > 1 else _ALONE) % len(PALETTE)]
            dots = {"marker": "o", "markersize": 3} if len(steps) < _LINE else {}  # of one point there is no line
            panel.plot([start + step for step in steps], values, color=colour, linewidth=1.2, **dots)
            start += max(steps, default=0) + 1
            panel.axvline(start - 0.5, color="0.75", linewidth=0.6, zorder=0)
        panel.set_title(in_figure(method), fontsize=9.5, loc="left")
        panel.set_ylim(bottom=0)
        _plain(panel)
    _finished(figure, panels[len(by_method) :], "steps, session after session", "loss")
    return figure


def thinned(count: int, limit: int) -> list[int]:
    """At most so many of the numbers below `count`, evenly spread, the first and the last among them.

    >>> thinned(3, 5), thinned(1001, 5)
    ([0, 1, 2], [0, 250, 500, 750, 1000])
    """
    return list(range(count)) if count <= limit else [int(place) for place in np.linspace(0, count - 1, limit).round()]


def panels_of(matrix: Matrix) -> list[int]:
    """The sets that are drawn: all of at most 12, else four probes at most and the others of those that are taught, evenly spread."""
    if len(matrix.sets) <= PANELS:
        return list(range(len(matrix.sets)))
    taught, probes = [j for j, session in enumerate(matrix.taught) if session], matrix.probes
    some = [probes[place] for place in thinned(len(probes), 4)]
    return [taught[place] for place in thinned(len(taught), PANELS - len(some))] + some


def _style(turn: int) -> dict[str, Any]:
    return {"color": PALETTE[turn % len(PALETTE)], "linestyle": DASHES[turn % len(DASHES)], "linewidth": 1.6}


def _plain(axes: Any) -> None:
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)


def _finished(figure: Figure, unused: Iterable[Any], across: str, up: str) -> None:
    for panel in unused:
        panel.set_visible(False)
    figure.supxlabel(across, fontsize=9.5)
    figure.supylabel(up, fontsize=9.5)


def _legend(figure: Figure, panel: Any, methods: int) -> None:
    columns = min(6, math.ceil(methods / math.ceil(methods / 6)))
    figure.legend(*panel.get_legend_handles_labels(), loc="outside upper center", ncols=columns, frameon=False, fontsize=9)
