"""A collection grows by whole sessions: the stream as it was, and on top of it what came in since, which alone is read."""

from pathlib import Path
from typing import NamedTuple

from cl.data.classes import ClassName
from cl.data.collection import Entry, listed
from cl.data.table import ImageTable
from cl.disk.unchanged import stamp
from cl.errors import DataError
from cl.release import code_version
from cl.streams.arrived import arrived, collection_of, examined
from cl.streams.build import TOGETHER, drafted, in_line, of_line, tested
from cl.streams.config import CollectionStream, StreamConfig
from cl.streams.cut import source_of
from cl.streams.stream import Stream
from cl.streams.synonyms import spoken


class Parts(NamedTuple):
    """What is noted of the files of each session (`cl.disk.unchanged`), in order, and of all else that the stream is cut from."""

    sessions: tuple[str, ...]
    rest: str


def parts_of(config: StreamConfig, root: Path) -> Parts | None:
    """The parts of a collection's stream as they lie there; None of another stream, or where they cannot be looked at."""
    if not isinstance(config, CollectionStream):
        return None
    try:
        folder, own = collection_of(config, root), source_of(config.source, config.sources)
        others = [root / Path(source.path).expanduser() for name, source in config.sources.items() if name != own]
        others += [root / Path(config.counted_in).expanduser()] if config.counted_in is not None else []
        sessions = tuple(stamp([folder / entry.folder]).digest for entry in listed(folder, config.until))
        return Parts(sessions, f"{stamp(others).digest} {code_version()}")
    except (OSError, DataError):  # whoever reads it says why
        return None


def grown(config: StreamConfig, root: Path, before: Stream, then: Parts | None) -> Stream | None:
    """What `cl.streams.build.build_stream` makes of the data as they are, by the stream of what they were and its parts of `then`.

    None where more has changed than that sessions came in, or where one of these is examined with test images of those before it.

    Raises:
        DataError: a session that came in cannot be read, learned or examined.
    """
    now = parts_of(config, root)
    if then is None or now is None or not isinstance(config, CollectionStream) or now.rest != then.rest:
        return None
    known = len(then.sessions)
    if len(now.sessions) <= known or now.sessions[:known] != then.sessions:
        return None
    folder = collection_of(config, root)
    fresh = [arrived(config, folder, entry) for entry in listed(folder, config.until)[known:]]
    if any(draft.borrowed for draft in fresh):
        return None
    told = [each for each in before.told if each.topic not in TOGETHER]
    sessions, withheld = in_line(spoken(config, root), fresh, told, before.sessions)
    return of_line(config, sessions, before.probes, {**before.withheld, **withheld}, told)


def again(config: CollectionStream, root: Path, entry: Entry, index: int, known: tuple[ClassName, ...], teaches: bool) -> ImageTable | None:
    """The rows that a session teaches, or those that examine it, read from its files alone.

    Args:
        config: the stream's.
        root: where the data lie.
        entry: the session's.
        index: its place in the stream, from 1.
        known: the classes of the sessions before it.
        teaches: its training rows; else its test rows, of which not even the digest of the session is checked.

    Returns:
        None where it is examined with test images of other sessions.

    Raises:
        DataError: it is not there any more, or damaged.
    """
    draft = (arrived if teaches else examined)(config, collection_of(config, root), entry)
    if not teaches:
        return None if draft.borrowed else tested(draft, config)
    return drafted(index, draft, spoken(config, root), {each.name: each for each in known}, alone=True).data
