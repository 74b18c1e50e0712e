"""What a page says of a version, the gate, single images and classes, put into words and rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from cl.reports.gallery import Block, Comparison
from cl.reports.report import Report
from cl.reports.tables import REFERENCES, percent
from cl.reports.verdict import Verdict, points
from cl.text import plural

_ROWS = 200  # classes and confusions that are listed of a method
_WORDS = {"promoted": "became champion", "refused": "was refused", "waiting": "waits for a person's word"}


def verdict_of(verdict: Verdict, alone: bool = False) -> dict[str, Any]:
    """A verdict as its line and its bars; `alone`: of a report of one method, which is read against no other."""
    taught = ("lost on taught", "loss", -verdict.gained.by) if verdict.gained.by < 0 else ("gained", "gain", verdict.gained.by)
    each = [taught, ("forgotten", "fade", verdict.forgot), ("lost on probes", "loss", verdict.lost.by)]
    bars = [(name, kind, f"{min(100.0, max(0.0, 100 * value)):.1f}", points(value)) for name, kind, value in each if value == value]
    return {"method": verdict.method, "sentence": verdict.sentence, "bars": bars, "reference": verdict.method in REFERENCES and not alone}


def version_of(report: Report) -> dict[str, Any]:
    """Which version a report's model became, and what the gate said of it."""
    word, reason = report.gate.get("word", ""), report.gate.get("reason", "")
    broken = [check["bound"] for check in report.gate.get("checks", []) if check.get("holds") == "NO"]
    if len(broken) > 1:
        reason = f"{len(broken)} of {plural(len(report.gate['checks']), 'bound')} do not hold, {broken[0]} among them"
    told = f"{report.method}, seed {report.provenance.seed}: {report.version}"
    return {"no": word not in ("", "promoted"), "text": f"{told} {_WORDS[word]}: {reason}." if word in _WORDS else f"{told}."}


def gate(report: Report) -> dict[str, Any]:
    """The gate's verdict in words, set by set beside the champion, and bound by bound."""
    told, scores = report.gate, report.gate.get("scores", {})
    champion, accepted = told.get("champion"), told.get("accepted")
    if accepted:
        against = f"Judged against the model after {accepted}, which was accepted just before and has no version of its own."
    elif champion:
        against = f"Judged against version {champion}, the champion then."
    else:
        against = "There was no champion to judge it against."
    before = f"after {accepted}" if accepted else "champion"
    rows = [
        [name, percent(_number(before)), percent(_number(now)), signed(_number(now) - _number(before))]
        for name, (now, before) in scores.items()
    ]
    if not champion and not accepted:
        rows = []
    titles = {"champion": before, "from": "95 % from", "to": "95 % to"}  # of the paired bootstrap's interval
    checks = [{titles.get(name, name): str(cell) for name, cell in check.items()} for check in told.get("checks", [])]
    session = f" (session {told['session']})" if told.get("session") else ""
    return {
        "name": f"{report.version or report.method}{session}",
        "said": {"columns": ["session", "the gate", "version", "why"], "rows": told.get("said", [])[-_ROWS:]},
        "text": f"{_WORDS.get(told.get('word', ''), 'Judged').capitalize()}: {told.get('reason', '')}. {against}",
        "scores": {
            "title": f"The model after {accepted}" if accepted else "The champion",
            "columns": ["set", before, "candidate", "change"],
            "rows": rows[:_ROWS],
        },
        "checks": {"columns": list(checks[0]) if checks else [], "rows": [list(check.values()) for check in checks[:_ROWS]]},
    }


def gallery(name: str, compared: Comparison, shots: int) -> dict[str, Any]:
    """What became of single images, with at most `shots` of them in each direction, groups sharing them evenly."""
    images = sum(each.images for each in compared.sets if each.before is not None)
    broke, mended = sum(each.broke for each in compared.sets), sum(each.mended for each in compared.sets)
    asked = sum(each.asked for each in compared.sets)
    return {
        "name": name,
        "images": f"{images:,}",
        "broke": broke,
        "mended": mended,
        "asked": f"{asked:,} of them were looked at" if asked < broke + mended else "",
        "who": f"Before: {compared.before}. Now: {compared.after}.",
        "short": ("before", "now"),
        "shown": {"broke": _few(compared.broke, shots), "mended": _few(compared.mended, shots), "groups": compared.groups},
        "classes": classes(compared),
        "confusions": confused(compared),
    }


def classes(compared: Comparison) -> dict[str, Any]:
    """Every class under both models, those that lost most images first."""
    each = [(set_.name, score) for set_ in compared.sets for score in set_.classes]
    each.sort(key=lambda pair: _order(pair[1].images * (pair[1].after - pair[1].before)))
    rows = [
        [score.name, name, str(score.images), percent(score.before), percent(score.after), signed(score.after - score.before)]
        for name, score in each[:_ROWS]
    ]
    more = f" {_ROWS} of {len(each):,} classes are listed, those that lost most." if len(each) > _ROWS else ""
    return {
        "columns": ["class", "set", "test images", "before", "now", "change"],
        "rows": rows,
        "note": f"Top-1 in percent. A class of few test images moves by chance: one image of five is 20 points.{more}",
    }


def confused(compared: Comparison) -> dict[str, Any]:
    """What the second model takes for what, most frequent first."""
    pairs = sorted(((set_.name, each) for set_ in compared.sets for each in set_.confusions), key=lambda pair: -pair[1].images)
    wrong, asked = sum(each.wrong for each in compared.sets if each.kind == "classify"), sum(each.wrong_asked for each in compared.sets)
    note = f"Of {wrong:,} wrong answers {asked:,} were looked at." if asked < wrong else f"All {wrong:,} wrong answers were looked at."
    return {
        "columns": ["is", "taken for", "set", "images"],
        "rows": [[each.truth, each.answer, name, str(each.images)] for name, each in pairs[:40]],
        "note": f"{note} The most frequent pairs of each set.",
    }


def signed(value: float) -> str:
    """A change in points.

    >>> signed(0.125), signed(-0.5), signed(float("nan"))
    ('+12.5', '-50.0', '–')
    """
    return "–" if value != value else f"{100 * value:+.1f}"


def _few(blocks: Sequence[Block], shots: int) -> list[Block]:
    each, left, kept = max(1, shots // max(1, len(blocks))), shots, []
    for block in blocks:
        own = block.shots[: min(each, left)]
        if own:
            kept.append(replace(block, shots=own))
        left -= len(own)
    return kept


def _order(change: float) -> float:
    return change if change == change else float("inf")


def _number(value: float | None) -> float:
    return float("nan") if value is None else float(value)
