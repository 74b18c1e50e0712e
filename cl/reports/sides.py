"""Two models held against each other on the same sets: scored where that is not known yet, then asked about what flipped."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from cl.config import EvalConfig
from cl.evaluation.evaluate import Progress, evaluate
from cl.evaluation.flips import Hits
from cl.methods import Method
from cl.reports.gallery import Comparison, compare, look
from cl.streams.stream import EvalSet


class Side(NamedTuple):
    """A model, what it is called, and which samples it is known to get right of which sets, asked as they are asked now."""

    name: str
    method: Method
    hits: Mapping[str, Hits] = {}


def side_by_side(
    before: Side, after: Side, sets: Sequence[EvalSet], config: EvalConfig, progress: tuple[Progress | None, Progress | None] = (None, None)
) -> Comparison:
    """What became of single images of the sets; a set whose known hits are of other samples on one side is asked anew on that side.

    `progress` hears of the sets that each side is scored on.
    """
    counts = {each.name: min(len(each.data), config.limit or len(each.data)) for each in sets}
    hits = []
    for side, tell in zip((before, after), progress, strict=True):
        known = {name: side.hits[name] for name, count in counts.items() if len(side.hits.get(name, ())) == count}
        new = [each for each in sets if each.name not in known]
        scores = evaluate(side.method, new, config, tell) if new else {}
        hits.append(known | {name: score.hits for name, score in scores.items()})
    both = {name: (hits[0][name], hits[1][name]) for name in counts}
    return compare((before.name, after.name), look(sets, both, before.method, after.method, config))
