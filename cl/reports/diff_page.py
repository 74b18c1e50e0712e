"""Two models side by side as one page: how each set changed, the images that broke, came right, or are answered otherwise."""

from typing import Any

from cl.reports.gallery import Comparison, SetChange
from cl.reports.heat import css
from cl.reports.page import SHOTS, environment
from cl.reports.panels import gallery, signed
from cl.reports.tables import percent
from cl.text import plural

_LISTED = 60  # sets


def diff_page(compared: Comparison) -> str:
    """The page: it needs nothing but itself, runs no script, and shows names as text."""
    told = gallery(compared.after, compared, SHOTS)
    columns, rows = summary(compared)
    known, differ = [each for each in compared.sets if each.before is not None], [each for each in compared.sets if each.before is None]
    return (
        environment()
        .get_template("diff.html.j2")
        .render(
            kicker="Evergreen diff",
            title=f"{compared.before} → {compared.after}",
            shades=css(),
            names=(compared.before, compared.after),
            verdict=verdict(compared),
            known=[_set(each) for each in known[:_LISTED]],
            differ=[_set(each) for each in differ[:_LISTED]],
            left=max(0, len(known) - _LISTED),
            told=told,
            compared=compared,
            columns=columns,
            rows=rows,
        )
    )


COLUMNS = ["set", "images", "before", "now", "change", "95 % from", "95 % to", "broke", "came right", "differ"]


def summary(compared: Comparison) -> tuple[list[str], list[list[str]]]:
    """Columns and rows, a row for each set, without what nobody knows of any; the interval of the change is of 95 %."""
    rows = [
        [
            each.name,
            f"{each.images:,}",
            percent(_or_nan(each.before)),
            percent(_or_nan(each.after)),
            signed(_or_nan(each.after) - _or_nan(each.before)),
            signed(_or_nan(each.low)),
            signed(_or_nan(each.high)),
            "–" if each.before is None else str(each.broke),
            "–" if each.before is None else str(each.mended),
            "–" if each.differ is None else str(each.differ),
        ]
        for each in compared.sets
    ]
    kept = [place for place in range(len(COLUMNS)) if any(row[place] != "–" for row in rows)]
    return [COLUMNS[place] for place in kept], [[row[place] for place in kept] for row in rows]


def verdict(compared: Comparison) -> str:
    """In one line how many images broke and came right, or on how many the two models differ."""
    known = [each for each in compared.sets if each.before is not None]
    parts = []
    if known:
        images = sum(each.images for each in known)
        broke, mended = sum(each.broke for each in known), sum(each.mended for each in known)
        parts.append(f"of {plural(images, 'labelled image')} {broke:,} broke and {mended:,} came right")
    if others := [each for each in compared.sets if each.before is None]:
        images, differ = sum(each.images for each in others), sum(each.differ or 0 for each in others)
        parts.append(f"the two differ on {differ:,} of {plural(images, 'image')} that nobody has labelled")
    told = "; ".join(parts) or "nothing was asked"
    return f"{told[0].upper()}{told[1:]}."


def _set(each: SetChange) -> dict[str, Any]:
    if each.before is None or each.after is None:
        share = (each.differ or 0) / max(1, each.images)
        return {
            "name": each.name,
            "text": f"{each.differ or 0:,} of {plural(each.images, 'image')}",
            "bars": [_bar("differ", "fade", share)],
        }
    interval = "" if each.low is None else f" [{signed(_or_nan(each.low))}, {signed(_or_nan(each.high))}]"
    what = "image-to-text R@10" if each.kind == "retrieve" else "top-1"
    text = (
        f"{what} {percent(each.before)} to {percent(each.after)}: {signed(each.after - each.before)}{interval}, "
        f"{plural(each.images, 'image')}"
    )
    bars = [_bar("came right", "gain", each.mended / each.images), _bar("broke", "loss", each.broke / each.images)]
    return {"name": each.name, "text": text, "bars": bars}


def _bar(name: str, kind: str, share: float) -> tuple[str, str, str, str]:
    return name, kind, f"{100 * share:.1f}", f"{100 * share:.1f} %"


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
