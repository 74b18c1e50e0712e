"""Two models side by side, image by image: what broke, what was mended, what is taken for what; bounded, and small enough to send."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from pydantic import TypeAdapter

from cl.config import EvalConfig
from cl.data.table import ImageTable
from cl.evaluation.answers import Asker
from cl.evaluation.evaluate import spread
from cl.evaluation.flips import Answer, Change, ClassScore, Confusion, Hits, changes, class_scores, confusions, evenly, flipped, grouped
from cl.evaluation.matrix import bootstrap
from cl.methods.base import Method
from cl.reports.thumbnails import thumbnails
from cl.streams.stream import EvalSet

EACH, TOTAL = 500, 2000  # images that are asked again: of a set in each direction, and of all sets together
SETS = 40  # about which models are asked again
GROUPS, SHOTS = 12, 6  # what is shown of one direction: groups, and images of each
CONFUSIONS = 20  # pairs of classes that are listed of a set
_LONGEST = 120  # characters of a caption


@dataclass(frozen=True)
class Shot:
    """An image with its truth and both answers; `picture` is base64 of a WebP, empty where the image cannot be decoded."""

    picture: str
    name: str
    truth: str | None
    before: Answer
    after: Answer


@dataclass(frozen=True)
class Block:
    """Images of a set on which the answer `now` took the place of `was`: how many were found, and some of them."""

    set: str
    was: str
    now: str
    images: int
    shots: tuple[Shot, ...]


@dataclass(frozen=True)
class SetChange:
    """A set under both models: its images, the shares that are right (None: nobody knows), how many changed, and how many were asked."""

    name: str
    kind: str
    images: int
    before: float | None
    after: float | None
    broke: int
    mended: int
    differ: int | None  # of those that were asked both; None where not all were
    asked: int
    wrong: int  # that the second model gets wrong, and of those how many were asked what they are taken for
    wrong_asked: int
    low: float | None = None  # 95 % interval of the change, where somebody knows what is right
    high: float | None = None
    confusions: tuple[Confusion, ...] = ()
    classes: tuple[ClassScore, ...] = ()


@dataclass(frozen=True)
class Comparison:
    """What became of single images between two models, which are called as people know them; plain values throughout."""

    before: str
    after: str
    sets: tuple[SetChange, ...] = ()
    broke: tuple[Block, ...] = ()
    mended: tuple[Block, ...] = ()
    differ: tuple[Block, ...] = ()  # where nobody knows what is right
    groups: dict[str, int] = field(default_factory=dict)  # of each direction, also those that are not shown

    def to_json(self) -> dict[str, Any]:
        """Plain JSON values."""
        return dict(_PLAIN.dump_python(self, mode="json"))

    @classmethod
    def from_json(cls, value: Any) -> "Comparison":
        """What `to_json` gave."""
        return _PLAIN.validate_python(value)


_PLAIN = TypeAdapter(Comparison)


class Seen(NamedTuple):
    """A set with what both models were found to answer, by row of `data`; hits are None where nobody knows what is right."""

    examined: EvalSet | None  # None: images of which nothing is known
    name: str
    data: ImageTable
    hits: tuple[Hits, Hits] | None
    before: Mapping[int, Answer]
    after: Mapping[int, Answer]


def look(
    sets: Sequence[EvalSet], hits: Mapping[str, tuple[Hits, Hits]], before: Method, after: Method, config: EvalConfig
) -> Iterable[Seen]:
    """Ask both models about images that flipped, and the second about what it gets wrong: at most EACH of a set, TOTAL of all.

    Of more than SETS sets those are asked about in which most flipped. `hits`, by set: which samples the first model gets right and
    which the second, asked as `sets` ask now.
    """
    first, second = Asker(before, config), Asker(after, config)
    most = sorted(hits, key=lambda name: -int((hits[name][0] != hits[name][1]).sum()))[:SETS]
    for examined in sets:
        if examined.name not in hits:
            continue
        each = max(1, min(EACH, TOTAL // len(most))) if examined.name in most else 0
        classes = examined.classes if examined.kind == "classify" else None
        data, (then, now) = spread(examined.data, config.limit), hits[examined.name]
        flips = flipped(then, now)
        both = np.union1d(evenly(flips.broke, each), evenly(flips.mended, each))
        late = np.union1d(both, evenly(np.flatnonzero(~now), each)) if examined.kind == "classify" else both
        yield Seen(
            examined,
            examined.name,
            data,
            (then, now),
            first.answers(data, both.tolist(), classes),
            second.answers(data, late.tolist(), classes),
        )


def compare(names: tuple[str, str], seen: Iterable[Seen], groups: int = GROUPS, shots: int = SHOTS) -> Comparison:
    """All sets together; of each direction the largest groups are shown, each with the images of which the second model is surest."""
    sets: list[SetChange] = []
    blocks: dict[str, list[tuple[Seen, str, str, list[Change]]]] = {"broke": [], "mended": [], "differ": []}
    for each in seen:
        rows = _rows(each)
        sets.append(_summed(each, rows))
        for way, own in rows.items():
            blocks[way] += [(each, *group) for group in _groups(each, own)]

    def shown(way: str) -> tuple[Block, ...]:
        return tuple(_block(*block, shots) for block in sorted(blocks[way], key=lambda block: -len(block[3]))[:groups])

    counts = {way: len(own) for way, own in blocks.items()}
    return Comparison(*names, tuple(sets), shown("broke"), shown("mended"), shown("differ"), counts)


def _rows(seen: Seen) -> dict[str, list[Change]]:
    """The changes of which both answers are known, by direction."""
    both = sorted(seen.before.keys() & seen.after.keys())
    labels = _truths(seen)
    if seen.hits is None:
        sides = {"differ": both}
    else:
        then, now = seen.hits
        sides = {
            "broke": [row for row in both if then[row] and not now[row]],
            "mended": [row for row in both if now[row] and not then[row]],
        }
    return {
        way: changes(
            rows, [labels[row] for row in rows], [seen.before[row] for row in rows], [seen.after[row] for row in rows], _retrieves(seen)
        )
        for way, rows in sides.items()
    }


def _truths(seen: Seen) -> list[str | None]:
    if not _retrieves(seen):
        return seen.data.labels
    return [own[0] if own else None for own in seen.data.captions]


def _retrieves(seen: Seen) -> bool:
    return seen.examined is not None and seen.examined.kind == "retrieve"


def _groups(seen: Seen, flips: list[Change]) -> list[tuple[str, str, list[Change]]]:
    if _retrieves(seen):  # hardly two images share a caption
        return [("", "", sorted(flips, key=lambda each: -each.after.share))] if flips else []
    return [(group.was, group.now, group.changes) for group in grouped(flips)]


def _block(seen: Seen, was: str, now: str, flips: list[Change], shots: int) -> Block:
    chosen = flips[:shots]
    pictures, ids = thumbnails(seen.data, [each.row for each in chosen]), seen.data.table["id"]
    return Block(
        seen.name,
        was,
        now,
        len(flips),
        tuple(
            Shot(pictures.get(each.row, ""), _cut(ids[each.row].as_py()), _cut(each.truth), _short(each.before), _short(each.after))
            for each in chosen
        ),
    )


def _summed(seen: Seen, rows: Mapping[str, list[Change]]) -> SetChange:
    count, both = len(seen.data), len(seen.before.keys() & seen.after.keys())
    differ = sum(seen.before[row].name != seen.after[row].name for row in seen.before.keys() & seen.after.keys())
    kind = seen.examined.kind if seen.examined else "unlabelled"
    if seen.hits is None:
        return SetChange(seen.name, kind, count, None, None, 0, 0, differ, both, 0, 0)
    then, now = seen.hits
    flips, labels = flipped(then, now), _truths(seen)
    wrong = [row for row in seen.after if not now[row]] if kind == "classify" else []
    _, low, high = bootstrap([now], [then])
    taken = confusions([labels[row] for row in wrong], [seen.after[row].name for row in wrong])[:CONFUSIONS]
    return SetChange(
        name=seen.name,
        kind=kind,
        images=count,
        before=float(then.mean()),
        after=float(now.mean()),
        broke=len(flips.broke),
        mended=len(flips.mended),
        differ=differ if both == count else None,
        asked=both,
        wrong=int((~now).sum()),
        wrong_asked=len(wrong),
        low=low,
        high=high,
        confusions=tuple(taken),
        classes=tuple(class_scores(seen.data.labels, then, now)) if kind == "classify" else (),
    )


def _short(answer: Answer) -> Answer:
    return Answer(_cut(answer.name) or "", round(answer.share, 4))


def _cut(text: Any) -> Any:
    return f"{text[: _LONGEST - 1]}…" if isinstance(text, str) and len(text) > _LONGEST else text
