"""A stream as it stands, session by session: what is there is listed, and each is read alone, once it is needed."""

import hashlib
from collections.abc import Collection, Mapping
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

from cl.data.classes import ClassName
from cl.data.collection import Entry, listed
from cl.data.table import ImageTable
from cl.data.told import Told, Topic
from cl.disk.files import read_json, write_json
from cl.disk.seal import sealed, unsealed
from cl.errors import DataError, StoreError
from cl.streams.arrived import arrived, collection_of, examined
from cl.streams.build import drafted, probed, read_sources, tested, withheld_of
from cl.streams.config import CollectionStream, StreamConfig
from cl.streams.cut import Draft, Sources, drafts
from cl.streams.outline import files_of
from cl.streams.stream import EvalSet, Session
from cl.streams.synonyms import spoken
from cl.text import plural, some


class Arrival(NamedTuple):
    """A session that is there: its name, which source it is of, how many training images, and a digest of all its rows."""

    name: str
    source: str
    images: int
    content: str


class Arrivals:
    """The sessions and probes that a stream's configuration finds in a data root.

    Of a collection only the notes of its sessions are read to list them. Other streams are cut whole, since only the cut says which
    sessions there are.
    """

    def __init__(self, config: StreamConfig, root: Path, listings: Path | None = None, version: str = "") -> None:
        """`listings`: a folder that remembers what a stream was cut into, by its settings and the `version` of its data."""
        self.config, self.root = spoken(config, root), root
        self.told: list[Told] = []
        self._listings, self._version = listings, version

    @cached_property
    def _entries(self) -> dict[str, Entry]:
        assert isinstance(self.config, CollectionStream)
        return {entry.name: entry for entry in listed(collection_of(self.config, self.root), self.config.until, gaps=True)}

    @cached_property
    def _sources(self) -> Sources:
        return read_sources(self.config, self.root, self.told)

    @cached_property
    def _drafts(self) -> dict[str, Draft]:
        by_name: dict[str, Draft] = {}
        for draft in drafts(self.config, self._sources, self.root):
            if draft.name in by_name:
                raise DataError(f"stream {self.config.name!r}: two sessions are called {draft.name!r}; give each its own name")
            by_name[draft.name] = draft
        return by_name

    @property
    def grows(self) -> bool:
        """Whether sessions come in by themselves."""
        return isinstance(self.config, CollectionStream)

    @property
    def gaps(self) -> list[int]:
        """Numbers of a collection's sessions that are gone."""
        there = {entry.number for entry in self._entries.values()} if self.grows else set()
        return sorted(set(range(1, max(there, default=0))) - there)

    def there(self) -> dict[str, Arrival]:
        """What there is, in order, by name.

        Raises:
            DataError: what cannot be read or cut.
        """
        return self._there

    @cached_property
    def _there(self) -> dict[str, Arrival]:
        if isinstance(self.config, CollectionStream):
            source = Path(self.config.sources[self.config.source or next(iter(self.config.sources))].path).name
            return {name: Arrival(name, source, entry.train, entry.digest) for name, entry in self._entries.items()}
        listing = self._listing()
        if listing is None or (known := _read(listing)) is None:
            whole = ", ".join(sorted(self.config.sources))
            known = [
                Arrival(name, draft.spec.source or whole, len(draft.train), f"{draft.train.content()}{draft.test.content()}")
                for name, draft in self._drafts.items()
            ]
            if listing and not any(
                each.topic is Topic.LINKED for each in self.told
            ):  # images elsewhere may change and nothing here shows it
                listing.parent.mkdir(parents=True, exist_ok=True)
                write_json(sealed({"sessions": known}), listing)
        return {arrival.name: arrival for arrival in known}

    def _listing(self) -> Path | None:
        """The version is that of the data root, and a source may lie beside it or be a link: its files are looked at themselves."""
        if not (self._listings and self._version):
            return None
        files = files_of(self.config, self.root)
        asked = f"{self.config.model_dump_json()}\0{self._version}\0{files.digest if files else ''}"
        return self._listings / f"{hashlib.sha256(asked.encode()).hexdigest()[:24]}.json"

    def entry(self, name: str) -> Entry:
        """What a collection notes of a session.

        Raises:
            KeyError: there is none of that name.
        """
        return self._entries[name]

    def draft(self, name: str) -> Draft:
        """One session before its classes have indices.

        Raises:
            KeyError: there is none of that name.
            DataError: it is damaged.
        """
        if isinstance(self.config, CollectionStream):
            return arrived(self.config, collection_of(self.config, self.root), self._entries[name])
        return self._drafts[name]

    def clashes(self, name: str, learned: Collection[str]) -> str | None:
        """What is wrong with learning a session beside others: its training rows are theirs, or examine something; None: nothing is."""
        if self.grows:  # the ids of its rows begin with its folder
            return None
        mine = set(self.draft(name).train.ids)
        for other in learned:
            if other in self.there() and (same := mine.intersection(self.draft(other).train.ids)):
                return (
                    f"{plural(len(same), 'of its training rows is one', 'of its training rows are those')} of session "
                    f"{other!r}, which is learned ({some(sorted(same))})"
                )
        tests = {other: self.test_rows(other) for other in (name, *learned) if other in self.there()}
        for where, rows in (*tests.items(), *((probe.name, probe.data) for probe in self.probes())):
            if leaked := mine.intersection(rows.ids):
                return (
                    f"{plural(len(leaked), 'of its training images examines', 'of its training images examine')} "
                    f"{where!r} ({some(sorted(leaked))}); keep each image (id) in one split"
                )
        return None

    def session(self, name: str, index: int, known: Mapping[str, ClassName]) -> tuple[Session, dict[str, str]]:
        """A session as the `index`-th of a line, on top of the classes known by then; and the labels that it withholds, by row.

        Raises:
            KeyError: there is none of that name.
            DataError: it cannot be learned.
        """
        draft = self.draft(name)
        self.told += draft.told
        session = drafted(index, draft, self.config, known, alone=True)
        return session, withheld_of(session, draft)

    def test_rows(self, name: str) -> ImageTable:
        """The rows that examine a session; of a collection's they are not checked, see `cl.evaluation.line.Exam.among`.

        Raises:
            KeyError: there is none of that name.
            DataError: it is damaged.
        """
        if isinstance(self.config, CollectionStream):
            return tested(examined(self.config, collection_of(self.config, self.root), self._entries[name]), self.config)
        return tested(self._drafts[name], self.config)

    def probes(self) -> tuple[EvalSet, ...]:
        """The sets that no session teaches.

        Raises:
            DataError: one cannot be read.
        """
        return tuple(probed(probe, self.config, self._sources) for probe in self.config.probes)


def _read(file: Path) -> list[Arrival] | None:
    try:
        return [Arrival(*each) for each in unsealed(read_json(file), str(file), ())["sessions"]]
    except (StoreError, TypeError, KeyError):
        return None
