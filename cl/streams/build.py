"""Builds a stream from its YAML: reads the sources, cuts them into sessions, and checks that each can be learned and examined."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from types import MappingProxyType

import torch

from cl.data.classes import ClassName
from cl.data.formats import look
from cl.data.table import ImageTable, Supervision, concat, hold_out, openable
from cl.data.told import Told, Topic, merged
from cl.errors import DataError
from cl.models.zero_shot import prompts_of
from cl.seeds import generator
from cl.streams.arrived import as_arrived
from cl.streams.config import CollectionStream, Probe, StreamConfig
from cl.streams.cut import Draft, Sources, chosen, drafts, source_of
from cl.streams.doubts import alike, same_images, same_prompts
from cl.streams.stream import EvalSet, Kind, Session, Stream
from cl.streams.synonyms import spoken, unmet
from cl.text import plural, some

__all__ = ["StreamConfig", "build_stream", "class_names"]

TOGETHER = (Topic.SAME_PROMPT, Topic.ALIKE, Topic.CONFLICT, Topic.LEAK)  # what is said of all sessions together


def build_stream(config: StreamConfig, root: Path) -> Stream:
    """The stream that a configuration describes, over the data in `root`; the same for the same files and settings.

    Raises:
        DataError: data that cannot be read; a source, domain or class that does not exist; a session without training or
            test images, or whose classes lack some; an image that both teaches and examines.
    """
    told: list[Told] = []
    config = spoken(config, root)
    sources = read_sources(config, root, told)
    cut = as_arrived(config, root) if isinstance(config, CollectionStream) else drafts(config, sources, root)
    sessions, withheld = in_line(config, cut, told)
    return of_line(config, sessions, tuple(probed(probe, config, sources) for probe in config.probes), withheld, told)


def in_line(
    config: StreamConfig, cut: Iterable[Draft], told: list[Told], before: Sequence[Session] = ()
) -> tuple[tuple[Session, ...], dict[str, str]]:
    """The sessions of drafts, on top of those `before` them; and the labels that they withhold, by row. What is said goes to `told`.

    Raises:
        DataError: one cannot be learned or examined.
    """
    sessions, withheld = [*before], dict[str, str]()
    for index, draft in enumerate(cut, start=len(before) + 1):
        known = {each.name: each for each in sessions[-1].vocabulary} if sessions else {}
        session = drafted(index, draft, config, known)
        sessions.append(session)
        withheld |= withheld_of(session, draft)
        told += draft.told
    return tuple(sessions), withheld


def of_line(
    config: StreamConfig, sessions: Sequence[Session], probes: tuple[EvalSet, ...], withheld: Mapping[str, str], told: Sequence[Told]
) -> Stream:
    """The stream of sessions and probes, after a look at them together; `told`: what was said of each.

    Raises:
        DataError: an image both teaches and examines, the sessions make no stream, or synonyms are of no class of theirs.
    """
    every = (sessions[-1].vocabulary, *(probe.classes for probe in probes)) if sessions else ()
    unmet(config, [known.name for classes in every for known in classes])
    remarks = tuple(merged([*told, *_doubts(sessions, probes)]))
    stream = Stream(config.name, tuple(sessions), probes, config.candidates, withheld, remarks)
    _no_leak(stream)
    return stream


def read_sources(config: StreamConfig, root: Path, told: list[Told]) -> dict[str, dict[str, ImageTable]]:
    """Every source that is read whole, by name and split; a collection is read session by session. What is said of them goes to `told`.

    Raises:
        DataError: a source that cannot be read.
    """
    grown = source_of(config.source, config.sources) if isinstance(config, CollectionStream) else None
    return {name: _read(name, config, root, told) for name in config.sources if name != grown}


def _doubts(sessions: Sequence[Session], probes: Sequence[EvalSet]) -> list[Told]:
    """Classes that cannot be told apart, images under two labels, and test images that teach: the topics of TOGETHER."""
    asked = [session.vocabulary for session in sessions[-1:]] + [probe.classes for probe in probes]
    same = [" = ".join(map(repr, group)) for classes in asked for group in same_prompts(classes)]
    near = [" = ".join(map(repr, group)) for classes in asked for group in alike(each.name for each in classes)]
    tables = {"train": [session.data for session in sessions], "test": [test.data for session in sessions for test in session.tests]}
    images = [each for each in same_images(tables) if each.topic != Topic.SAME]
    made = [Told(Topic.SAME_PROMPT, tuple(same)), Told(Topic.ALIKE, tuple(name for name in near if name not in same)), *images]
    return [each for each in made if each.names]


def class_names(
    names: Sequence[str], template: Sequence[str], synonyms: Mapping[str, Sequence[str]] = MappingProxyType({})
) -> tuple[ClassName, ...]:
    """Classes with one prompt per template, by their first synonym where they have one; `_` in a name is read as a space.

    Raises:
        ConfigError: as `prompts_of`.

    >>> class_names(["polar_bear"], ["a photo of a {}."])
    (ClassName(name='polar_bear', prompts=('a photo of a polar bear.',)),)
    """
    return tuple(ClassName(name, prompts_of(synonyms.get(name, (name,))[0], template)) for name in names)


def _read(name: str, config: StreamConfig, root: Path, told: list[Told]) -> dict[str, ImageTable]:
    source = config.sources[name]
    path = root / Path(source.path).expanduser()
    if not path.exists():
        made = "`evergreen data glyphs` makes it" if path.name == "glyphs" else f"`evergreen data add {path.name} PATH` takes it in"
        raise DataError(f"source {name!r}: {path} does not exist; {made}, or say where it is: stream.sources.{name}.path, --data-root")
    # images are looked at once it is known which ones the stream uses
    looked = look(path, source.columns())
    splits = dict(looked.strictly())
    told += [each for each in looked.told if each.topic not in (Topic.LAYOUT, Topic.COLUMNS, Topic.UNUSED)]
    if config.test_split == "held_out":
        splits["train"], splits["held_out"] = hold_out(splits["train"], 0.2, config.seed)
    return {split: data.under(name) for split, data in splits.items()}


def drafted(index: int, draft: Draft, config: StreamConfig, known: Mapping[str, ClassName], alone: bool = False) -> Session:
    """A session from its draft, as the `index`-th to be learned; `known`: the classes of those before it, by name.

    `alone`: one whose test rows would be borrowed goes without; the sets of those before it examine it.

    Raises:
        DataError: no training image or no test image, rows without what they should teach, or classes that lack images.
    """
    where, spec = f"session {draft.name!r}", draft.spec
    supervision = spec.supervision or config.supervision
    for split, data in (("training", draft.train), ("test", draft.test)):
        if not len(data) and not (alone and split == "test" and draft.borrowed):
            raise DataError(f"{where}: no {split} image; add some, change what it selects, or leave it out")
    kind = spec.test or config.test or _kind(supervision, draft.train)
    # captions alone teach no class; one that is only asked about is still a candidate
    captioned = kind == "retrieve" and supervision == "captions"
    names = [] if captioned else list(known) if draft.borrowed else _arriving(draft, supervision, where)
    vocabulary = {**{fresh.name: fresh for fresh in class_names(names, draft.template, config.synonyms)}, **known}
    order = [*known, *(name for name in names if name not in known)]
    own = tuple(vocabulary[name] for name in names) if kind == "classify" else ()
    test = tested(draft, config)
    train = _thin(draft.train, spec.limit or config.limit, config.seed, draft.name)
    openable(concat([train, test]), where)
    blank = _blank(train, config, draft.name) if supervision in ("labels", "both") else frozenset()
    return Session(
        index=index,
        name=draft.name,
        data=_supervised(train, supervision, names, where).unlabelled(blank),
        tests=(EvalSet(draft.name, kind, test, own),) if len(test) else (),
        classes=tuple(order.index(name) for name in names),
        vocabulary=tuple(vocabulary[name] for name in order),
    )


def tested(draft: Draft, config: StreamConfig) -> ImageTable:
    """The test rows that a session is examined with."""
    return _thin(draft.test, draft.spec.test_limit or config.test_limit, config.seed, f"{draft.name} test")


def _kind(supervision: Supervision, train: ImageTable) -> Kind:
    captioned = supervision == "captions" or (supervision == "both" and not train.classes())
    return "retrieve" if captioned else "classify"


def _arriving(draft: Draft, supervision: Supervision, where: str) -> list[str]:
    """The session's classes in order of first appearance; without supervision the test rows may name them too."""
    taught, asked = list(draft.classes or draft.train.classes()), draft.test.classes()
    if supervision == "none":
        return list(dict.fromkeys(taught + asked))
    lacking = [name for name in asked if name not in taught]
    if lacking:
        raise DataError(
            f"{where}: {len(lacking)} of {plural(len(asked), 'tested class has', 'tested classes have')} no training image "
            f"({some(lacking)}); "
            "add images, drop those test rows, or list the classes of the session"
        )
    return taught


def _supervised(train: ImageTable, supervision: Supervision, names: Sequence[str], where: str) -> ImageTable:
    """The rows with only the columns that teach, after checking that these teach something."""
    labels, captions = train.classes(), any(train.captions)
    dropped = {"labels": ["captions"], "captions": ["label"], "both": [], "none": ["label", "captions"]}[supervision]
    if (supervision == "labels" and not labels) or (supervision == "both" and not (labels or captions)):
        raise DataError(
            f"{where}: supervision is {supervision}, but no training image has a label; add labels, or set supervision: captions or none"
        )
    if supervision == "captions" and not captions:
        raise DataError(
            f"{where}: supervision is captions, but no training image has one; add a caption column, or set supervision: labels or none"
        )
    lost = [name for name in names if name not in labels] if "label" not in dropped else []
    if lost:
        raise DataError(
            f"{where}: {len(lost)} of {plural(len(names), 'class has', 'classes have')} no training image ({some(lost)}); "
            f"add images, or raise limit"
        )
    return train.without(*dropped)


def withheld_of(session: Session, draft: Draft) -> dict[str, str]:
    """By id, the labels that the draft has and the session does not teach."""
    known = dict(zip(draft.train.ids, draft.train.labels, strict=True))
    rows = zip(session.data.ids, session.data.labels, strict=True)
    return {row: label for row, taught in rows if taught is None and (label := known[row]) is not None}


def _blank(train: ImageTable, config: StreamConfig, session: str) -> frozenset[int]:
    """The rows that lose their label, as `labelled` says."""
    if config.labelled is None:
        return frozenset()
    by_class = {name: [row for row, label in enumerate(train.labels) if label == name] for name in train.classes()}
    kept: list[int] = []
    if config.labelled.classes:
        order = torch.randperm(len(by_class), generator=generator(config.seed, "labelled", session)).tolist()
        count = min(max(1, int(config.labelled.classes * len(order))), len(order) - 1)
        names = list(by_class)
        kept = [row for i in order[:count] for row in by_class[names[i]]]
    else:
        for name, rows in by_class.items():
            order = torch.randperm(len(rows), generator=generator(config.seed, "labelled", session, name)).tolist()
            kept += [rows[i] for i in order[: config.labelled.shots]]
    return frozenset(range(len(train))) - frozenset(kept)


def _thin(data: ImageTable, limit: int | None, seed: int, what: str) -> ImageTable:
    """At most `limit` rows, drawn by the seed so that each class keeps its share."""
    if limit is None or limit >= len(data):
        return data
    labels = data.labels
    drawn = torch.randperm(len(data), generator=generator(seed, "limit", what)).tolist()
    drawn.sort(key=lambda row: labels[row] or "")
    return data.take(sorted(drawn[i * len(data) // limit] for i in range(limit)))


def probed(probe: Probe, config: StreamConfig, sources: Sources) -> EvalSet:
    """A probe as its settings choose it.

    Raises:
        DataError: no image is chosen, or one cannot be used.
    """
    where = f"probe {probe.name!r}"
    data = chosen(probe, probe.split, sources, where)
    if not len(data):
        raise DataError(f"{where}: no {probe.split} image; add some, change what it selects, or leave it out")
    kind: Kind = probe.test or ("classify" if data.classes() else "retrieve")
    template = config.sources[source_of(probe.source, sources)].template or config.template
    classes = class_names(data.classes(), template, config.synonyms) if kind == "classify" else ()
    data = _thin(data, probe.limit, config.seed, f"{probe.name} probe")
    openable(data, where)
    return EvalSet(probe.name, kind, data, classes)


def _no_leak(stream: Stream) -> None:
    teaches = {sample: session.name for session in stream.sessions for sample in session.data.ids}
    for test in stream.exam(0):
        leaked = [sample for sample in test.data.ids if sample in teaches]
        if leaked:
            raise DataError(
                f"evaluation set {test.name!r}: {len(leaked)} of "
                f"{plural(len(test.data), 'image also teaches', 'images also teach')} session {teaches[leaked[0]]!r} "
                f"({some(leaked)}); keep each image (id) in one split"
            )
