"""The tables of a report below its overview, each as far as the reports have what it is about."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from cl.evaluation.matrix import DIALECTS, Matrix
from cl.reports.figures import thinned
from cl.reports.report import Report
from cl.reports.tables import Section, against_finetune, classes_seen, spread

Groups = Mapping[str, Sequence["Report"]]
_COLUMNS, _ROWS = 44, 200  # of a table
_RECALLS = tuple(f"{way}@{k}" for way in ("i2t", "t2i") for k in (1, 5, 10))
_GAINS = ("rich", "poor", "robin_hood", "gini", "worst_tenth", "seen", "unseen", "harmonic")

_COSTS = (  # what it is called, the field of a cost, its unit, its format
    ("seconds", "seconds", 1.0, ".1f"),
    ("TFLOPs", "flops", 1e12, ".2f"),
    ("stored MB", "stored_bytes", 1e6, ".1f"),
    ("trainable", "trainable", 1.0, ",.0f"),
)


def sections(groups: Groups) -> list[Section]:
    """All of them that have a row; equity and the words of other code bases where the config's `report` section asks for them."""
    made = [against_finetune(groups), classes_seen(groups), retrieval(groups)]
    made += [gains(groups)] if asked(groups, "equity") else []
    made += [strangers(groups), picks(groups), costs(groups)]
    made += [dialects(groups)] if asked(groups, "dialects") else []
    return [bounded(section) for section in made if section.rows]


def asked(groups: Groups, what: str) -> bool:
    """Whether the config of some report asks for a table that is shown to who wants it."""
    return any((member.provenance.config.get("report") or {}).get(what) for members in groups.values() for member in members)


def bounded(section: Section) -> Section:
    """A table of at most 200 rows and 44 columns; what is left out of a longer or wider one is told."""
    title, note, names, rows = section
    kept = [0, 1, *(2 + place for place in thinned(len(names) - 4, _COLUMNS - 4)), len(names) - 2, len(names) - 1]
    if len(names) > _COLUMNS:
        note += f" {_COLUMNS} of {len(names)} columns are shown, evenly spread."
        names, rows = [names[place] for place in kept], [[row[place] for place in kept] for row in rows]
    if len(rows) > _ROWS:
        note += f" {_ROWS} of {len(rows):,} rows are shown, evenly spread."
        rows = [rows[place] for place in thinned(len(rows), _ROWS)]
    return Section(title, note, names, rows)


def retrieval(groups: Groups) -> Section:
    """Recall at 1, 5 and 10 in both directions on every retrieval set after the last session, and what it was before the first."""
    rows = []
    for method, members in groups.items():
        details = [member.details for member in members]
        for name in members[0].matrix.sets:
            recalls = [[_at(each.get(metric), name, -1) for each in details] for metric in _RECALLS]
            if not np.isnan(recalls).all():
                moved = [_at(member.matrix, name, -1) - _at(member.matrix, name, 0) for member in members]
                rows.append([method, name, *map(spread, recalls), spread(moved)])
    ways = [f"{way} R@{k}" for way in ("image to text", "text to image") for k in (1, 5, 10)]
    note = "After the last session. Since the start: the mean of both directions' R@10 now, minus what the base model had."
    return Section("Retrieval", note, ["method", "set", *ways, "since the start"], rows)


def gains(groups: Groups) -> Section:
    """Who gained since the base model, weak classes or strong ones; and seen against unseen classes where a session labelled only some."""
    metrics = [name for name in _GAINS if any(f"equity/{name}" in member.details for members in groups.values() for member in members)]
    rows = []
    for method, members in groups.items():
        for name in members[0].matrix.sets:
            scores = [[_at(member.details.get(f"equity/{metric}"), name, -1) for member in members] for metric in metrics]
            if metrics and not np.isnan(scores).all():
                rows.append([method, name, *map(spread, scores)])
    note = (
        "After the last session against the base model. Rich, poor: mean change of classes above and below its mean; Robin Hood: poor "
        "minus rich, above zero by noise alone; Gini and worst tenth: of class accuracies now (arXiv:2306.01669). Seen, unseen, harmonic: "
        "classes that had labels, the others, and 2su/(s+u), all classes competing."
    )
    return Section("Weak and strong classes", note, ["method", "set", *(name.replace("_", " ") for name in metrics)], rows)


def strangers(groups: Groups) -> Section:
    """How well images of classes not learned were told from those that were, where it was asked: means over sessions and other sets."""
    scores = list(
        dict.fromkeys(name for members in groups.values() for each in members for name in each.details if name[:12] == "known/auroc_")
    )
    rows = []
    for method, members in groups.items():
        for name in scores:
            pairs = [(member.details.get(name), member.details.get(name.replace("auroc", "fpr95"))) for member in members]
            means = [[_over(one), _over(other)] for one, other in pairs]
            if not np.isnan(means).all():
                rows.append([method, name[12:].replace("_", " "), *(spread(list(each)) for each in zip(*means, strict=True))])
    note = (
        "After each session test images of classes learned so far against those of sets of other classes, means over sessions and sets. "
        "AUROC: how often a known image scores higher than an unknown one, 50 by chance. FPR95: unknown ones that pass where 95 % of known "
        "ones do. Scores: cosines with texts (mcm, energy, max cosine), distance to class means (mahalanobis, relative)."
    )
    return Section("Known or not yet learned", note, ["method", "score", "AUROC", "FPR95"], rows)


def picks(groups: Groups) -> Section:
    """What the pseudolabels of each round were: images a class, the least sure of them, those picked twice, the share that is right."""
    rows = []
    for method, members in groups.items():
        for place, session in enumerate(members[0].sessions):
            noted = [row for member in members for row in member.records[place] if "minimum" in row]
            for turn in sorted({row["round"] for row in noted}):
                own = [row for row in noted if row["round"] == turn]
                right = [row["accuracy"] for row in own if row["accuracy"] is not None]
                lowest = [row["minimum"] for row in own if row["minimum"] is not None]
                each = [f"{np.mean([row[name] for row in own]):.1f}" for name in ("picked", "shared")]
                rows.append([method, session, str(turn), each[0], f"{min(lowest):.3f}" if lowest else "–", each[1], spread([_mean(right)])])
    note = "Means over classes and seeds; the lowest probability is that of all classes. Right: by withheld labels, which no method sees."
    columns = ["method", "session", "round", "images a class", "lowest probability", "picked twice", "right"]
    return Section("Pseudolabels", note, columns, rows)


def costs(groups: Groups) -> Section:
    """What each session took, means over seeds."""
    longest = max((member.sessions for members in groups.values() for member in members), key=len, default=())
    rows = []
    for method, members in groups.items():
        if len(members[0].sessions) != len(longest):
            continue
        for what, field, unit, shown in _COSTS:
            spent = [[float(getattr(cost, field)) / unit for cost in member.costs] for member in members]
            rows.append([method, what, *(format(value, shown) for value in np.mean(spent, axis=0))])
    note = "Means over seeds. Stored: kept between sessions beside the frozen weights. FLOPs: of matrix products and convolutions."
    return Section("Cost of each session", note, ["method", "of", *longest], rows)


def dialects(groups: Groups) -> Section:
    """The same matrices in the words of other code bases; for streams whose sessions teach one set each."""
    rows, names = [], []
    for method, members in groups.items():
        squares = [matrix for member in members if (matrix := square(member)) is not None]
        if len(squares) == len(members):
            told = [{f"{code} {name}": value for code, read in DIALECTS.items() for name, value in read(each).items()} for each in squares]
            names = list(told[0])
            rows.append([method, *(spread([each[name] for each in told]) for name in names)])
    note = (
        "The overview is Evergreen's own dialect, defined above. Each column is what the code base it names would print for this matrix "
        "(sets of the sessions alone, rows after each): zscl's transfer, average and last are those of arXiv:2303.06628's tables."
    )
    return Section("In other code bases' words", note, ["method", *names], rows)


def square(report: Report) -> np.ndarray | None:
    """Scores after each session on the set of each, sessions in order; None where they are not one to one, or fewer than three."""
    matrix = report.matrix
    if len(set(report.headline.values())) > 1:
        return None
    order = sorted(matrix.known, key=lambda j: matrix.taught[j])
    if [matrix.taught[j] for j in order] != list(range(1, matrix.sessions + 1)) or len(order) < 3:
        return None
    square = matrix.rows[1:, order]
    return None if np.isnan(square).any() else square


def _at(matrix: Matrix | None, name: str, row: int) -> float:
    return float("nan") if matrix is None else float(matrix.rows[row, matrix.sets.index(name)])


def _over(matrix: Matrix | None) -> float:
    return float("nan") if matrix is None or np.isnan(matrix.rows).all() else float(np.nanmean(matrix.rows))


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")
