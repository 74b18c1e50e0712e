"""Cuts sources into the sessions a configuration asks for: as listed, by domain, by class, few-shot, by time, as they arrived."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from pathlib import Path, PurePosixPath

import pyarrow as pa
import pyarrow.compute as pc
import torch

from cl.data.table import ImageTable
from cl.data.told import Told
from cl.errors import DataError
from cl.names import LONGEST
from cl.seeds import generator
from cl.streams.config import (
    ClassStream,
    CollectionStream,
    DomainStream,
    FewShotStream,
    ListedStream,
    Order,
    Selection,
    SessionSpec,
    StreamConfig,
    TimeStream,
)
from cl.streams.doubts import left_out
from cl.text import did_you_mean, plural, some

Sources = Mapping[str, Mapping[str, ImageTable]]  # source name -> split -> rows


@dataclass(frozen=True)
class Draft:
    """A session before its classes have indices; `classes` in the order they arrive (None: as the rows say)."""

    name: str
    train: ImageTable
    test: ImageTable
    template: tuple[str, ...]
    spec: SessionSpec
    classes: tuple[str, ...] | None = None
    told: tuple[Told, ...] = ()  # what the cut leaves out
    borrowed: bool = False  # no test rows of its own: what was learned before examines it, and its classes are those known by then


def drafts(config: StreamConfig, sources: Sources, root: Path = Path()) -> Iterator[Draft]:
    """Sessions in order, with their training and test rows and all of their columns.

    Raises:
        DataError: a source, split, domain or class that does not exist, or too few classes, images or dates.
    """
    match config:
        case ListedStream():
            yield from (_selected(spec, config, sources) for spec in config.sessions)
        case DomainStream():
            yield from (_selected(spec, config, sources) for spec in config.sessions or _every_domain(sources))
        case ClassStream() | FewShotStream():
            yield from _by_class(config, sources, root)
        case TimeStream():
            yield from _by_time(config, sources)
        case CollectionStream():
            raise TypeError("a collection is read session by session: cl.streams.arrived")


def _every_domain(sources: Sources) -> Iterator[SessionSpec]:
    for source in sources:
        column = split_of(sources, source, "train").table["domain"]
        domains = [domain for domain in pc.unique(column).to_pylist() if domain is not None]
        if domains and column.null_count:
            raise DataError(
                f"source {source!r}: {column.null_count} of "
                f"{plural(len(column), 'training image has', 'training images have')} no domain; name it, or list the sessions"
            )
        for domain in domains:
            yield SessionSpec(name=domain if len(sources) == 1 else f"{source} {domain}", source=source, domains=(domain,))
        if not domains:
            yield SessionSpec(name=source, source=source)


def _called(parts: Sequence[str]) -> str:
    whole = ", ".join(parts)
    return whole if len(whole) <= LONGEST or len(parts) == 1 else f"{parts[0]} and {len(parts) - 1} more"


def _selected(spec: SessionSpec, config: StreamConfig, sources: Sources) -> Draft:
    source = source_of(spec.source, sources)
    name = spec.name or _called(spec.domains or spec.classes or (source,))
    train = _part(chosen(spec, "train", sources, f"session {name!r}"), spec.part, f"session {name!r}")
    test = chosen(spec, config.test_split, sources, f"session {name!r}")
    return Draft(name, train, test, config.sources[source].template or config.template, spec)


def _part(data: ImageTable, part: tuple[int, int] | None, where: str) -> ImageTable:
    if part is None:
        return data
    number, parts = part
    if not number <= parts <= len(data):
        raise DataError(
            f"{where}: part {number} of {parts} of {plural(len(data), 'training image')} does not exist; give [1, {parts}] "
            f"to [{parts}, {parts}]"
        )
    return data.take(range((number - 1) * len(data) // parts, number * len(data) // parts))


def _by_class(config: ClassStream | FewShotStream, sources: Sources, root: Path) -> Iterator[Draft]:
    source = source_of(config.source, sources)
    wanted = Selection(source=source, domains=config.domains)
    train, test = (chosen(wanted, split, sources, f"stream {config.name!r}") for split in ("train", config.test_split))
    counts = Counter(train.labels)
    names = _ordered([name for name in train.classes() if counts[name] >= config.at_least], config.order, config.seed, source)
    groups = _groups(config, names)
    told = left_out(train, test, {name for group in groups for name in group})
    start = 0
    for number, group in enumerate(groups):
        data = _labelled(train, group)
        if isinstance(config, FewShotStream) and number:
            data = _listed(data, root / config.lists, number + 1) if config.lists else _shots(data, group, config)
        template = config.sources[source].template or config.template
        name = f"classes {start + 1}-{start + len(group)}"
        yield Draft(name, data, _labelled(test, group), template, SessionSpec(), tuple(group), told if not number else ())
        start += len(group)


def _groups(config: ClassStream | FewShotStream, names: Sequence[str]) -> list[Sequence[str]]:
    if isinstance(config, ClassStream):
        base = config.base or config.increment
        return [names[:base], *(names[i : i + config.increment] for i in range(base, len(names), config.increment))]
    left = len(names) - config.base
    count = config.sessions or left // config.ways
    if left < config.ways * max(count, 1) or (config.sessions is None and left % config.ways):
        raise DataError(
            f"stream {config.name!r}: {plural(len(names), 'class', 'classes')} cannot be cut into a base of {config.base} "
            f"and {config.sessions or 'whole'} "
            f"sessions of {config.ways}; change base or ways, or say how many sessions"
        )
    starts = range(config.base, config.base + count * config.ways, config.ways)
    return [names[: config.base], *(names[i : i + config.ways] for i in starts)]


def _ordered(names: Sequence[str], order: Order, seed: int, source: str) -> list[str]:
    if not names:
        raise DataError(f"source {source!r}: no training image has a label; a stream by class needs them")
    if order == "shuffled":
        return [names[i] for i in torch.randperm(len(names), generator=generator(seed, "classes")).tolist()]
    if isinstance(order, tuple):
        _exist(order, names, f"source {source!r}: class")
        return list(order)
    return sorted(names) if order == "alphabetical" else list(names)


def _listed(data: ImageTable, folder: Path, number: int) -> ImageTable:
    """The images that the session lists of CEC and TOPIC name; folders and endings differ between copies, so file names decide."""
    file = folder / f"session_{number}.txt"
    try:
        wanted = {PurePosixPath(line.strip()).stem for line in file.read_text(encoding="utf-8").splitlines() if line.strip()}
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(
            f"{file}: cannot be read ({error.__class__.__name__}); lists names the folder of session_2.txt and so on"
        ) from error
    places = {PurePosixPath(row).stem: place for place, row in enumerate(data.ids)}
    if lost := sorted(wanted - set(places)):
        raise DataError(
            f"{file}: {len(lost)} of {plural(len(wanted), 'image is', 'images are')} not among the session's ({some(lost)}); "
            f"check data and class order"
        )
    return data.take(sorted(places[name] for name in wanted))


def _shots(data: ImageTable, group: Sequence[str], config: FewShotStream) -> ImageTable:
    labels = data.labels
    drawn: list[int] = []
    for name in group:
        rows = [row for row, label in enumerate(labels) if label == name]
        if len(rows) < config.shots:
            raise DataError(
                f"class {name!r}: {plural(len(rows), 'training image')}, but shots is {config.shots}; add images or ask for fewer"
            )
        order = torch.randperm(len(rows), generator=generator(config.seed, "shots", name)).tolist()
        drawn += sorted(rows[i] for i in order[: config.shots])
    return data.take(drawn)


def _by_time(config: TimeStream, sources: Sources) -> Iterator[Draft]:
    source = source_of(config.source, sources)
    train, test = split_of(sources, source, "train"), split_of(sources, source, config.test_split)
    for split, data in (("train", train), (config.test_split, test)):
        if undated := data.table["time"].null_count:
            raise DataError(
                f"source {source!r}: {undated} of {plural(len(data), f'{split} image has', f'{split} images have')} no time; "
                f"add a column time, or say which with time:"
            )
    cuts = list(config.cuts or _equal_parts(train, config.parts or 2, source))
    written = _writer(cuts)
    edges = [None, *cuts, None]
    for since, before in pairwise(edges):
        if since is None or before is None:
            name = f"before {written(before)}" if before else f"from {written(since)}"
        else:
            name = f"{written(since)} to {written(before)}"
        yield _selected(SessionSpec(name=name, source=source, since=since, before=before), config, sources)


def _equal_parts(data: ImageTable, parts: int, source: str) -> list[datetime]:
    times = sorted(data.table["time"].to_pylist())
    cuts = sorted({times[round(i * len(times) / parts)] for i in range(1, parts)} - {times[0]})
    if len(cuts) < parts - 1:
        raise DataError(
            f"source {source!r}: its {plural(len(set(times)), 'different time')} cannot be cut into {parts} parts; ask for "
            f"fewer, or give cuts"
        )
    return cuts


def _writer(cuts: Sequence[datetime]) -> Callable[[datetime | None], str]:
    days = all((c.hour, c.minute, c.second, c.microsecond) == (0, 0, 0, 0) for c in cuts)
    return lambda moment: "" if moment is None else moment.strftime("%Y-%m-%d" if days else "%Y-%m-%dT%H:%M:%S.%f")


def source_of(name: str | None, sources: Mapping[str, object]) -> str:
    """The named source, or the only one.

    Raises:
        DataError: it does not exist, or none is named where there are several.
    """
    if name is None and len(sources) > 1:
        raise DataError(f"which source? {did_you_mean('', list(sources))}; say which with source:")
    if name is not None and name not in sources:
        raise DataError(f"source {name!r} does not exist; {did_you_mean(name, list(sources))}")
    return name or next(iter(sources))


def split_of(sources: Sources, source: str, split: str) -> ImageTable:
    """The rows of one split of a source.

    Raises:
        DataError: the source has no such split.
    """
    if split not in sources[source]:
        others = [name for name in sources[source] if name not in ("train", split)]
        examine = f", or examine on others: stream.test_split: {' | '.join([*others, 'held_out'])}" if split != "train" else ""
        there, back = (
            did_you_mean(split, list(sources[source])),
            "if they were there before, `evergreen data status` says how they come back",
        )
        raise DataError(f"source {source!r}: no {split} split; {there}. Add {split} images{examine}; {back}")
    return sources[source][split]


def chosen(selection: Selection, split: str, sources: Sources, where: str) -> ImageTable:
    """The rows of a split that meet every condition of a selection.

    Raises:
        DataError: a domain or class that no split of the source has.
    """
    source = source_of(selection.source, sources)
    data = split_of(sources, source, split)
    keep = pa.chunked_array([pa.array([True] * len(data), pa.bool_())])
    for column, words in (("domain", selection.domains), ("label", selection.classes)):
        if words is not None:
            known = {
                word: None for rows in sources[source].values() for word in pc.unique(rows.table[column]).to_pylist() if word is not None
            }
            _exist(words, list(known), f"{where}, source {source!r}: {'domain' if column == 'domain' else 'class'}")
            keep = pc.and_(keep, pc.is_in(data.table[column], value_set=pa.array(words, pa.string())))
    for edge, compare in ((selection.since, pc.greater_equal), (selection.before, pc.less)):
        if edge is not None:
            keep = pc.and_(keep, compare(data.table["time"], pa.scalar(edge, data.table["time"].type)))
    return ImageTable(data.table.filter(keep))


def _labelled(data: ImageTable, names: Sequence[str]) -> ImageTable:
    return ImageTable(data.table.filter(pc.is_in(data.table["label"], value_set=pa.array(names, pa.string()))))


def _exist(words: Sequence[str], known: Sequence[str], what: str) -> None:
    missing = [word for word in words if word not in known]
    if missing:
        raise DataError(f"{what} {some([repr(word) for word in missing])} does not exist; {did_you_mean(missing[0], known)}")
