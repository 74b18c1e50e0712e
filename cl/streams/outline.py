"""All of a stream but its images, kept on disk: a stream that was cut before is planned without opening an image."""

import functools
import hashlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import TypeAdapter, ValidationError

from cl.data.classes import ClassName
from cl.data.collection import listed
from cl.data.schema import EXTRAS, SCHEMA, joined
from cl.data.table import ImageTable
from cl.data.told import Told, Topic
from cl.disk.durable import beside
from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, sha256, unsealed
from cl.disk.unchanged import Stamp, stamp
from cl.errors import DataError, StoreError
from cl.release import code_version
from cl.streams.arrived import collection_of
from cl.streams.build import build_stream
from cl.streams.config import CollectionStream, FewShotStream, StreamConfig
from cl.streams.grown import Parts, again, grown, parts_of
from cl.streams.stream import Candidates, EvalSet, Kind, Session, Stream, joint

_PRINT = pa.field("print", pa.binary())  # of a collection's images, to compare those with that come in
_INDEX = {field.name: field for field in (*SCHEMA, *EXTRAS, _PRINT) if field.name != "image"}
_BROKEN = (StoreError, OSError, pa.ArrowException, ValidationError, KeyError, ValueError)


@dataclass(frozen=True)
class _Set:
    name: str
    kind: Kind
    classes: tuple[ClassName, ...]
    rows: int
    content: str


@dataclass(frozen=True)
class _Session:
    name: str
    classes: tuple[int, ...]
    known: int  # how many classes, by then
    tests: tuple[_Set, ...]
    rows: int
    content: str


@dataclass(frozen=True)
class _Outline:
    """Rows lie in a file of their own, those of a session before those of its tests, those of probes last."""

    name: str
    candidates: Candidates
    vocabulary: tuple[ClassName, ...]
    sessions: tuple[_Session, ...]
    probes: tuple[_Set, ...]
    withheld: Mapping[str, str]
    told: tuple[tuple[str, tuple[str, ...], int], ...]  # the name of each topic, as its sentence may be put otherwise
    parts: Parts | None = None  # of a collection, which can have grown since


class _Kept(NamedTuple):
    """What an outline holds: the stamp of all files it was made from, the same part by part, and the stream."""

    stamp: str
    parts: Parts | None
    stream: Stream


_PLAIN = TypeAdapter(_Outline)


def stream_of(config: StreamConfig, root: Path, outlines: Path | None = None) -> Stream:
    """The stream of `cl.streams.build.build_stream`.

    Args:
        config: what it is made of.
        root: where the data lie.
        outlines: a folder that remembers streams. One whose files have not changed since (`cl.disk.unchanged`), cut by the same code
            under the same settings, opens its images once they are needed, and then they have to be what they were. Of a collection that
            has grown since, only the sessions that came in are read.

    Raises:
        DataError: as `build_stream`.
    """
    seen = files_of(config, root) if outlines else None
    if outlines is None or seen is None:
        return build_stream(config, root)
    file = _file(config, root, outlines)
    kept = _read(file, config, root)
    if kept and kept.stamp == seen.digest:
        return kept.stream
    stream = (grown(config, root, kept.stream, kept.parts) if kept else None) or build_stream(config, root)
    elsewhere, parts = any(each.topic is Topic.LINKED for each in stream.told), parts_of(config, root)
    if seen.lasting and not elsewhere and seen == files_of(config, root):  # elsewhere images may change and no file here shows it
        with suppress(OSError):  # what is not kept is read again
            _write(stream, seen, parts, file)
    return stream


def joint_of(stream: Stream, config: StreamConfig, root: Path, outlines: Path | None = None) -> Stream:
    """`cl.streams.stream.joint` of the stream of `stream_of`, which opens no image if it was made before."""
    if outlines is None:
        return joint(stream)
    file, content = _file(config, root, outlines).with_suffix(".joint.json"), None
    with suppress(StoreError, KeyError):
        kept = unsealed(read_json(file), str(file), ())
        content = str(kept["content"]) if kept["stream"] == stream.digest else None
    made = joint(stream, content)
    if content is None:
        with suppress(OSError):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(sealed({"stream": stream.digest, "content": made.sessions[0].data.content()}), file)
    return made


def _file(config: StreamConfig, root: Path, outlines: Path) -> Path:
    whose = f"{config.model_dump_json()}\0{root.absolute()}"
    return outlines / f"{hashlib.sha256(whose.encode()).hexdigest()[:24]}.json"


def files_of(config: StreamConfig, root: Path) -> Stamp | None:
    """What is noted of the files that a stream is cut from, and of the code that cuts; None where one is missing."""
    paths = [root / Path(source.path).expanduser() for source in config.sources.values()]
    if isinstance(config, FewShotStream) and config.lists:
        paths.append(root / config.lists)
    if config.counted_in is not None:
        paths.append(root / Path(config.counted_in).expanduser())
    try:
        made = stamp(paths)
    except OSError:
        return None
    return made._replace(digest=f"{made.digest} {code_version()}")


def _tables(stream: Stream) -> Iterator[ImageTable]:
    for session in stream.sessions:
        yield session.data
        yield from (test.data for test in session.tests)
    yield from (probe.data for probe in stream.probes)


def _write(stream: Stream, seen: Stamp, parts: Parts | None, file: Path) -> None:
    def of(test: EvalSet) -> _Set:
        return _Set(test.name, test.kind, test.classes, len(test.data), test.data.content())

    sessions = tuple(
        _Session(each.name, each.classes, len(each.vocabulary), tuple(map(of, each.tests)), len(each.data), each.data.content())
        for each in stream.sessions
    )
    outline = _Outline(
        stream.name,
        stream.candidates,
        stream.sessions[-1].vocabulary,
        sessions,
        tuple(map(of, stream.probes)),
        stream.withheld,
        tuple((each.topic.name, each.names, each.count) for each in stream.told),
        parts,
    )
    probes = [probe.data for probe in stream.probes]  # which nothing is compared with
    rows = file.with_suffix(".parquet")
    rows.parent.mkdir(parents=True, exist_ok=True)
    with beside(rows) as part:
        indices = joined([table.index for table in _tables(stream)])
        prints = [each for table in _tables(stream) for each in (table.prints if parts and table not in probes else [None] * len(table))]
        pq.write_table(indices.append_column(_PRINT, pa.array(prints, pa.binary())), part, compression="zstd")
    write_json(sealed({"stamp": seen.digest, "rows": sha256(rows), "stream": _PLAIN.dump_python(outline, mode="json")}), file, indent=None)


def _read(file: Path, config: StreamConfig, root: Path) -> _Kept | None:
    """What was written; None if there is nothing, or nothing whole."""
    try:
        kept = unsealed(read_json(file), str(file), ())
        if kept["rows"] != sha256(file.with_suffix(".parquet")):
            return None
        outline = _PLAIN.validate_python(kept["stream"])
        rows = pq.read_table(file.with_suffix(".parquet"))
        rows = rows.cast(pa.schema([_INDEX[name] for name in rows.column_names]))
        return _Kept(str(kept["stamp"]), outline.parts, _opened(outline, rows, config, root))
    except _BROKEN:
        return None


def _opened(outline: _Outline, rows: pa.Table, config: StreamConfig, root: Path) -> Stream:
    tables = iter(list(_outlined(outline, rows, config, root)))

    def of(test: _Set) -> EvalSet:
        return EvalSet(test.name, test.kind, next(tables), test.classes)

    sessions = tuple(
        Session(index, each.name, next(tables), tuple(map(of, each.tests)), each.classes, outline.vocabulary[: each.known])
        for index, each in enumerate(outline.sessions, start=1)
    )
    told = tuple(Told(Topic[topic], names, count) for topic, names, count in outline.told)
    return Stream(outline.name, sessions, tuple(map(of, outline.probes)), outline.candidates, outline.withheld, told)


def _outlined(outline: _Outline, rows: pa.Table, config: StreamConfig, root: Path) -> Iterator[ImageTable]:
    """Every table of a stream in the order of `_tables`, each with what reads its images once they are needed."""
    whole = functools.cache(lambda: list(_tables(build_stream(config, root))))
    start = 0
    for place, (part, alone) in enumerate(_parts(outline, config, root)):
        prints = rows[_PRINT.name].slice(start, part.rows)
        table = rows.drop_columns(_PRINT.name).slice(start, part.rows)
        made = ImageTable.outlined(table, functools.partial(_again, alone, whole, place, part))
        yield made.known_as(part.content, None if prints.null_count else prints.to_pylist())
        start += part.rows


def _parts(outline: _Outline, config: StreamConfig, root: Path) -> Iterator[tuple[_Session | _Set, Callable[[], ImageTable | None]]]:
    """The part that each table is of, and what reads it from its own files; that gives None where it has none."""
    entries = functools.cache(lambda: listed(collection_of(config, root), config.until) if isinstance(config, CollectionStream) else [])

    def alone(index: int, known: tuple[ClassName, ...], teaches: bool) -> ImageTable | None:
        if not isinstance(config, CollectionStream) or index > len(entries()):
            return None
        return again(config, root, entries()[index - 1], index, known, teaches)

    known: tuple[ClassName, ...] = ()
    for index, session in enumerate(outline.sessions, start=1):
        yield session, functools.partial(alone, index, known, True)
        yield from ((test, functools.partial(alone, index, known, False)) for test in session.tests)
        known = outline.vocabulary[: session.known]
    yield from ((probe, lambda: None) for probe in outline.probes)


def _again(alone: Callable[[], ImageTable | None], whole: Callable[[], list[ImageTable]], place: int, part: _Session | _Set) -> ImageTable:
    """The rows of a part with their images: from its own files where it has some, else with all that the stream is made of."""
    table = alone()
    if table is None:
        tables = whole()
        table = tables[place] if place < len(tables) else None
    if table is None or table.content() != part.content:
        raise DataError(f"{part.name!r}: its images or labels have changed since this run was planned; run it again to learn what is there")
    return table
