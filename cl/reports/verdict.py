"""A method in one line: what it gained on what it was taught, what it lost of that since, and what it lost of what nobody taught."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from cl.evaluation.evaluate import unpack
from cl.evaluation.matrix import bootstrap, forgetting, last
from cl.reports.kinds import SHOWN, mixed, split
from cl.reports.report import Report
from cl.text import plural


class Moved(NamedTuple):
    """A difference of means of scores 0..1 with its 95 % interval; nan where there is none."""

    by: float
    low: float = float("nan")
    high: float = float("nan")

    def told(self) -> str:
        """In points.

        >>> Moved(0.1234, 0.1, 0.15).told(), Moved(0.5).told()
        ('12.3 [10.0, 15.0]', '50.0')
        """
        return points(self.by) + ("" if np.isnan(self.low) else f" [{points(self.low)}, {points(self.high)}]")

    def turned(self) -> "Moved":
        """The same as a loss."""
        return Moved(-self.by, -self.high, -self.low)


class Verdict(NamedTuple):
    """What one method came to on the sets of one metric, means over its seeds; nan where no set is of that sort.

    gained: on the taught sets since the start. forgot: best since being taught minus last. lost: on probes since the start.
    """

    method: str
    metric: str
    gained: Moved
    forgot: float
    lost: Moved
    now: float
    sentence: str


def verdicts(groups: Mapping[str, Sequence[Report]]) -> list[Verdict]:
    """One for each method; two where some sets classify and others are for retrieval."""
    both = mixed(groups)
    return [_verdict(method, SHOWN.get(metric, metric), members, both) for method, metric, members in split(groups)]


def points(value: float) -> str:
    """A share in points, and no zero with a sign.

    >>> points(0.1234), points(-0.0), points(-0.0001), points(-0.5)
    ('12.3', '0.0', '0.0', '-50.0')
    """
    return f"{100 * value:.1f}".replace("-0.0", "0.0") if abs(value) < 0.001 else f"{100 * value:.1f}"


def _verdict(method: str, metric: str, members: Sequence[Report], both: bool) -> Verdict:
    gained, lost = moved(members, members[0].matrix.known), moved(members, members[0].matrix.probes).turned()
    forgot, now = (_mean([read(member.matrix) for member in members]) for read in (forgetting, last))
    parts = []
    if gained.by == gained.by:
        word, shown = ("gained", gained) if gained.by >= 0 else ("lost", gained.turned())
        sets = plural(len(members[0].matrix.known), "taught set")
        parts.append(f"{word} {shown.told()} points on {sets} ({points(now - gained.by)} to {points(now)})")
    if forgot == forgot:
        parts.append(f"forgot {points(forgot)} of what it had learned" if forgot > 0 else "forgot nothing")
    if lost.by == lost.by:
        sets = plural(len(members[0].matrix.probes), "probe")
        parts.append(f"lost {lost.told()} on {sets}" if lost.by >= 0 else f"gained {lost.turned().told()} on {sets} that nobody taught")
    told = "; ".join(parts) or "nothing was measured"
    return Verdict(method, metric, gained, forgot, lost, now, f"{metric}: {told}." if both else f"{told[0].upper()}{told[1:]}.")


def moved(members: Sequence[Report], columns: Sequence[int]) -> Moved:
    """The mean change since the start on some sets; its interval by a paired bootstrap where every set's samples were the same then.

    The interval is of hits: for retrieval of image to text R@10, moved to where the score itself is.
    """
    if not columns:
        return Moved(float("nan"))
    by = _mean([float(np.mean(member.matrix.rows[-1, columns] - member.matrix.rows[0, columns])) for member in members])
    names = [members[0].matrix.sets[j] for j in columns]
    if by != by or any(name not in told for name in names for member in members for told in (member.firsts, member.hits)):
        return Moved(by)
    now, then = (
        [[unpack(told[name]) for told in each] for name in names] for each in ([m.hits for m in members], [m.firsts for m in members])
    )
    if any(len({len(hits) for hits in (*one, *other)}) > 1 for one, other in zip(now, then, strict=True)):
        return Moved(by)
    mean, low, high = bootstrap([np.mean(each, axis=0) for each in now], [np.mean(each, axis=0) for each in then])
    return Moved(by, by + low - mean, by + high - mean)


def _mean(values: Sequence[float]) -> float:
    scores = [value for value in values if value == value]
    return float(np.mean(scores)) if scores else float("nan")
