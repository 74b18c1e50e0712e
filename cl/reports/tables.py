"""Reports side by side as rows of text: one row a method, seeds as mean ± standard deviation."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cl.evaluation.evaluate import unpack
from cl.evaluation.matrix import (
    Matrix,
    average,
    backward_transfer,
    bootstrap,
    forgetting,
    last,
    learned,
    performance_drop,
    seen_accuracy,
    zero_shot_drop,
)
from cl.names import in_markdown
from cl.reports.kinds import SHOWN, mixed, split
from cl.reports.report import Report

DEFINITIONS = (
    "Scores in percent: top-1 accuracy, or the mean of both directions' R@10 where a set is for retrieval. "
    "Last: mean over taught sets at the end. Average: mean over sessions of the mean over sets taught so far (macro). "
    "Learned: score right after being taught. Forgetting: best score since being taught minus last (Chaudhry et al. 2018). "
    "BWT: last minus right after being taught. Zero-shot drop: loss on probes, which no session teaches."
)

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
    ("TFLOPs", lambda members: f"{np.mean([sum(cost.flops for cost in member.costs) for member in members]) / 1e12:.2f}"),
    ("seconds", lambda members: f"{np.mean([sum(cost.seconds for cost in member.costs) for member in members]):.0f}"),
)


def grouped(reports: Sequence[Report]) -> dict[str, list[Report]]:
    """Reports by method: the references first, then the others as given."""
    groups: dict[str, list[Report]] = {}
    for report in sorted(reports, key=lambda r: REFERENCES.index(r.method) if r.method in REFERENCES else len(REFERENCES)):
        groups.setdefault(report.method, []).append(report)
    return groups


def columns(groups: Mapping[str, Sequence[Report]]) -> list[str]:
    """What `overview` has: COLUMNS, and which score it is of where sets of two kinds are told apart."""
    names = [name for name, _ in COLUMNS]
    return [names[0], "score", *names[1:]] if mixed(groups) else names


def overview(groups: Mapping[str, Sequence[Report]]) -> list[list[str]]:
    """One row of cells per method, in the order of `columns`; one for each kind of set where some classify and others retrieve."""
    rows, both = [], mixed(groups)
    for method, metric, members in split(groups):
        rows.append([method, *([SHOWN.get(metric, metric)] if both else []), *(cell(members) for _, cell in COLUMNS[1:])])
    return rows


class Section(NamedTuple):
    """A table with its heading and what has to be known to read it."""

    title: str
    note: str
    columns: list[str]
    rows: list[list[str]]


def against_finetune(groups: Mapping[str, Sequence[Report]]) -> Section:
    """Differences to fine-tuning, sample by sample, each sample's hits averaged over seeds first."""
    rows, both = [], mixed(groups)
    theirs = {metric: members for _, metric, members in split({"finetune": groups["finetune"]})} if "finetune" in groups else {}
    for method, metric, members in split(groups):
        if method != "finetune" and metric in theirs:
            cells = [_difference(members, theirs[metric], probes=probes) for probes in (False, True)]
            rows.append([method, *([SHOWN.get(metric, metric)] if both else []), *cells])
    note = (
        "Points above or below fine-tuning after the last session, with 95 % intervals of a paired bootstrap over test samples "
        "(2,000 redraws within each set; seeds averaged first). By top-1, or by image-to-text R@10 where a set is for retrieval."
    )
    return Section("Against fine-tuning", note, ["method", *(["score"] if both else []), "taught sets", "probes"], rows)


def _difference(mine: Sequence[Report], theirs: Sequence[Report], *, probes: bool) -> str:
    matrix = mine[0].matrix
    sets = [matrix.sets[j] for j in (matrix.probes if probes else matrix.known)]
    if not sets or any(name not in report.hits for name in sets for report in (*mine, *theirs)):
        return "–"
    ours, others = ([np.mean([unpack(report.hits[name]) for report in reports], axis=0) for name in sets] for reports in (mine, theirs))
    mean, low, high = bootstrap(ours, others)
    return f"{100 * mean:+.1f} [{100 * low:+.1f}, {100 * high:+.1f}]"


def classes_seen(groups: Mapping[str, Sequence[Report]]) -> Section:
    """The table of few-shot class-incremental papers: accuracy over all classes seen, after each session."""
    references = [report for members in groups.values() for report in members if incremental(report)]
    longest = max((len(report.sessions) for report in references), default=0)
    rows = []
    for method, members in groups.items():
        runs = [accuracies(report) for report in members if incremental(report) and len(report.sessions) == longest]
        if runs:
            average, drop = [float(np.mean(run)) for run in runs], [performance_drop(run) for run in runs]
            rows.append([method, *(spread(column) for column in zip(*runs, strict=True)), spread(average), spread(drop)])
    note = (
        "Top-1 over the test images of all classes seen so far (micro), all of them candidates; Avg: mean over sessions; "
        "PD: first minus last. The code of CPE-CLIP averages over images and sessions at once instead."
    )
    return Section("All classes seen", note, ["method", *(str(t) for t in range(longest)), "Avg", "PD"], rows)


def incremental(report: Report) -> bool:
    """Whether every set is asked among all classes seen so far, so that its sets add up to one exam."""
    stream = report.provenance.config.get("stream", {})
    taught = [report.matrix.sets[j] for j in report.matrix.known]
    asked = all(report.headline.get(name) == "top1" and name in report.hits for name in taught)
    return stream.get("candidates") == "seen" and stream.get("kind") in ("classes", "fewshot") and asked


def accuracies(report: Report) -> list[float]:
    """A_t after each session."""
    sizes = [len(unpack(report.hits[name])) if name in report.hits else 0 for name in report.matrix.sets]
    return seen_accuracy(report.matrix, sizes)


def line(cells: Sequence[str]) -> str:
    """A row of a Markdown table."""
    return f"| {' | '.join(map(in_markdown, cells))} |"
