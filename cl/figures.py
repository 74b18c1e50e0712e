"""The two pictures of a report: the matrix as a heat map, and what each set scored after each session."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from cl.matrix import Matrix
from cl.names import in_figure

# Okabe and Ito's palette: told apart by readers with any kind of colour vision
PALETTE = ("#7f7f7f", "#D55E00", "#000000", "#0072B2", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
DASHES = ("--", "-", ":", "-", "-", "-", "-", "-")


def heat_map(matrix: Matrix, sessions: Sequence[str], title: str) -> Figure:
    """Rows are sessions, columns sets; the cell measured right after its set was taught is framed, probes stand apart."""
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
    axes.set_yticks(range(rows), ["start", *map(in_figure, sessions)])
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
    axes.grid(axis="y", color="0.92")
    axes.spines[["top", "right"]].set_visible(False)
    return figure


def curves(matrices: Mapping[str, Matrix], sessions: Sequence[str]) -> Figure:
    """One small panel per set, one line per method; a rule marks the session that teaches the set.

    A method that learned everything in one session is drawn as a level line at where it ended.
    """
    first = max(matrices.values(), key=lambda matrix: matrix.sessions)
    across = min(4, len(first.sets))
    down = -(-len(first.sets) // across)
    figure = Figure(figsize=(2.7 * across + 0.4, 2.05 * down + 0.7), layout="constrained")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for panel, (column, name) in zip(panels, enumerate(first.sets), strict=False):
        for turn, (method, matrix) in enumerate(matrices.items()):
            style = {"color": PALETTE[turn % len(PALETTE)], "linestyle": DASHES[turn % len(DASHES)], "linewidth": 1.6}
            style["label"] = in_figure(method)
            if matrix.sessions == first.sessions:
                panel.plot(100 * matrix.rows[:, column], marker="o", markersize=2.6, **style)
            else:
                panel.axhline(100 * matrix.rows[-1, column], **style)
        if first.taught[column]:
            panel.axvline(first.taught[column], color="0.75", linewidth=1, zorder=0)
        panel.set_title(in_figure(name) if first.taught[column] else f"{in_figure(name)} (probe)", fontsize=9.5, loc="left")
        panel.set_ylim(0, 100)
        panel.set_xticks(range(first.sessions + 1))
        panel.grid(axis="y", color="0.92")
        panel.spines[["top", "right"]].set_visible(False)
    for panel in panels[len(first.sets) :]:
        panel.set_visible(False)
    figure.supxlabel("sessions learned", fontsize=9.5)
    figure.supylabel("score, percent", fontsize=9.5)
    figure.legend(
        *panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=min(6, len(matrices)), frameon=False, fontsize=9
    )
    return figure
