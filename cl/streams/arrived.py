"""A collection's sessions as drafts, in order of arrival, each read alone."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from cl.data.collection import Entry, listed, read, read_test
from cl.data.table import ImageTable, Supervision, concat, hold_out
from cl.errors import DataError
from cl.streams.config import CollectionStream, ListedStream, SessionSpec, StreamConfig
from cl.streams.cut import Draft, source_of


def as_arrived(config: CollectionStream, root: Path) -> Iterator[Draft]:
    """Unlabelled sessions without labelled test images are examined with those of the sessions before, whose classes they show."""
    folder = collection_of(config, root)
    entries = listed(folder, config.until)
    if not entries:
        raise DataError(
            f"{folder}: a collection without a session; add one with `evergreen ingest PATH --session NAME --into {folder.name}`"
        )
    asked = concat([])
    for entry in entries:
        draft = arrived(config, folder, entry)
        if draft.borrowed:
            draft = replace(draft, test=asked)
        asked = (
            concat([asked, draft.test.where([label is not None for label in draft.test.labels])]) if entry.supervision != "none" else asked
        )
        yield draft


def collection_of(config: CollectionStream, root: Path) -> Path:
    """The folder of the collection that a stream grows with.

    Raises:
        DataError: it names no source of the stream.
    """
    return root / Path(config.sources[source_of(config.source, config.sources)].path).expanduser()


def taught_with(config: StreamConfig, root: Path) -> set[Supervision]:
    """What sessions of a stream teach with: of a collection those that are there, none where it is empty.

    Raises:
        DataError: a collection's notes cannot be read.
    """
    if isinstance(config, CollectionStream):
        return {entry.supervision for entry in listed(collection_of(config, root), config.until, gaps=True)}
    own = [spec.supervision for spec in config.sessions] if isinstance(config, ListedStream) else [None]
    return {each or config.supervision for each in own}


def arrived(config: CollectionStream, folder: Path, entry: Entry) -> Draft:
    """One session of a collection; its test rows are its own, of which an unlabelled one may have none.

    Raises:
        DataError: a file of it is missing, damaged or changed.
    """
    train, test = read(folder, entry)
    return _draft(config, entry, train, test)


def examined(config: CollectionStream, folder: Path, entry: Entry) -> Draft:
    """The same without training rows, which are not read if that can be helped; the test rows are not checked.

    Raises:
        DataError: the file is missing or damaged.
    """
    if config.test_split == "held_out":
        return arrived(config, folder, entry)
    return _draft(config, entry, concat([]), read_test(folder, entry))


def _draft(config: CollectionStream, entry: Entry, train: ImageTable, test: ImageTable) -> Draft:
    source = source_of(config.source, config.sources)
    train, test = (rows.under(f"{source}/{entry.folder}") for rows in (train, test))
    if config.test_split == "held_out":
        train, test = hold_out(train, 0.2, config.seed)
    template = config.sources[source].template or config.template
    borrowed = entry.supervision == "none" and not test.classes()
    return Draft(
        entry.name, train, concat([]) if borrowed else test, template, SessionSpec(supervision=entry.supervision), borrowed=borrowed
    )
