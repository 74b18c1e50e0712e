"""New data: look at it, set the bad aside with reasons, add the rest to a collection, version it, tell Prefect once."""

import itertools
import os
import re
import stat
import tempfile
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from cl.data import collection
from cl.data.archive import TABLES
from cl.data.collection import Entry
from cl.data.faults import Problem
from cl.data.formats import look
from cl.data.screen import fresh, parted, resembling, screen, teachable
from cl.data.table import ImageTable, Supervision
from cl.data.told import Told, unused
from cl.disk.durable import beside
from cl.errors import DataError, StoreError
from cl.streams.doubts import cut, doubts
from flows.addresses import hushed, shown
from flows.data.pinned import check_whole, mend
from flows.data.shelf import shelf_locked
from flows.data.versions import commit, committable, pin, push
from flows.intake.quarantine import told, write_report
from flows.intake.readers import cannot_use, unread
from flows.servers.secret import CLIENT
from flows.servers.servers import find_server
from flows.settings import Place

EVENT = "evergreen.session.ingested"
RESOURCE = "evergreen.collection"  # and a dot, and the collection's name
_READ = ", ".join((*TABLES, ".zip"))
_IDS = uuid.uuid5(uuid.NAMESPACE_URL, EVENT)


@dataclass(frozen=True)
class Source:
    """What to take in, and how it is to be understood; a column that is not named is found by its name."""

    path: Path
    session: str
    into: str = "inbox"
    labels: str | None = None
    captions: str | None = None
    unlabelled: bool = False
    test_share: float = 0.2

    @property
    def supervision(self) -> Supervision | None:
        """What was said about it; None: as the data shows."""
        if self.unlabelled:
            return "none"
        return "both" if self.labels and self.captions else "labels" if self.labels else "captions" if self.captions else None


@dataclass(frozen=True)
class Outcome:
    """What came of it: the session, whether it is new, what was set aside and told, its new classes and known ones they resemble."""

    entry: Entry
    new: bool
    problems: Sequence[Problem]
    classes: Sequence[str]
    alike: dict[str, str]
    report: Path | None
    notes: Sequence[str]
    told: Sequence[Told] = ()


def ingest(
    source: Source,
    data: Path,
    place: Place,
    *,
    git: bool = False,
    dry: bool = False,
    tell: Callable[[int, int], None] = lambda done, total: None,
) -> Outcome:
    """Take in one session, whole or not at all; the same again is found, and only what an earlier try did not get to is done.

    Args:
        source: what to take in.
        data: the folder with the data sets.
        place: the project; the report goes to its `mlruns/ingest/`.
        git: commit the .dvc file.
        dry: look at everything, and write nothing: neither the session nor a report.
        tell: hears how many images are looked at, of how many.

    Raises:
        DataError: it cannot be read, nothing usable is left, a session of that name holds something else, or DVC or git refuses.
    """
    _check(source, data, git)
    if not dry:
        with shelf_locked(place):  # or another that replaces a data set has done so, and not pinned it yet
            check_whole(data)
    report = place.runs / "ingest" / f"{source.into}-{source.session}"
    problems: list[Problem] = []
    with tempfile.TemporaryDirectory(prefix="evergreen-") as folder, _listed(problems, None if dry else report):
        kept, supervision, told_of = _looked_at(source, Path(folder), problems, tell)
        into = data / source.into
        if dry:
            (entry, new, known), notes, version = _append(source, kept, supervision, into, problems, dry), ["nothing is written"], None
        else:  # one at a time, so that every pin holds whole sessions and commits follow their numbers
            with shelf_locked(place):
                entry, new, known = _append(source, kept, supervision, into, problems)
                _, version = pin(data)
                committed = git and commit(data, f"data: session {entry.folder} of {source.into}")
            notes = [f"{data.name}.dvc is committed"] if committed else []
        classes = [name for name in _classes(kept) if name not in known]
    notes += [*cannot_use(place, source.into, supervision), *unread(place, source.into)]
    where = None
    if not dry:
        where = write_report(report, "report", problems, {"session": entry.model_dump(), "new_classes": classes})
        notes += [*_sent(data, version), announce(source.into, entry, version, report / "told", place)]
    return Outcome(entry, new, problems, classes, resembling(classes, known), where, notes, told_of)


@contextmanager
def _listed(problems: Sequence[Problem], report: Path | None) -> Iterator[None]:
    """A refusal says what was set aside by then, and where that is listed; None: nothing is written."""
    try:
        yield
    except DataError as error:
        where = write_report(report, "refused", problems, {"refused": str(error)}) if problems and report else None
        listed = (f"; set aside: {told(problems)}" + (f", see {where}" if where else "")) if problems else ""
        raise DataError(f"{error}{listed}") from error


def _looked_at(
    source: Source, scratch: Path, problems: list[Problem], tell: Callable[[int, int], None]
) -> tuple[dict[str, ImageTable], Supervision, list[Told]]:
    """What can be learned from, how, and what is to be told of it; what cannot work is refused before anything is made."""
    columns = {"label": source.labels, "captions": source.captions}
    read = look(source.path, columns, links=False, scratch=scratch, problems=problems)
    kept = screen(read.splits, problems, tell)
    remarks = [*read.told, *doubts(kept), *cut(text for rows in kept.values() for texts in rows.captions for text in texts)]
    with _of(source, unused(read.told)):
        kept, supervision = teachable(kept, source.supervision, problems)
        parted(kept, supervision, source.test_share)
    return kept, supervision, remarks


def announce(into: str, entry: Entry, version: str | None, mark: Path, place: Place) -> str:
    """Tell the Prefect server that runs, if it was not told; says in one line what happened.

    The event's id is made of the session's digest, so that it is one event however often it is sent; `mark` notes that it was.
    """
    event = str(uuid.uuid5(_IDS, f"{into}/{entry.digest}"))
    if mark.exists() and mark.read_text() == event:
        return "Prefect knows it already"
    try:
        server = find_server(place)
    except StoreError as error:
        return f"{error}; `evergreen update` learns it"
    if server is None:
        return "no Prefect server runs: `evergreen update` learns it"
    payload = {"collection": into, "session": entry.name, "number": entry.number, "digest": entry.digest, "version": version}
    resource = {"prefect.resource.id": f"{RESOURCE}.{into}", "prefect.resource.name": into}
    fault = _post(
        server, {"id": event, "occurred": datetime.now(UTC).isoformat(), "event": EVENT, "resource": resource, "payload": payload}
    )
    if fault:
        return (
            f"the Prefect server at {shown(server)} was not told ({fault}): the same command again tells it, `evergreen update` learns it"
        )
    mark.parent.mkdir(parents=True, exist_ok=True)
    with beside(mark) as part:
        part.write_text(event)
    return "told Prefect"


def _post(server: str, event: dict[str, object]) -> str | None:
    """Why the server did not take it; None if it did. Prefect's own `emit_event` loses what a server does not take."""
    import httpx  # this and the next bring Prefect: seconds, where no server runs
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_KEY

    secret = os.environ.get(CLIENT) or PREFECT_API_AUTH_STRING.value()  # Prefect may have been imported before the server was found
    try:
        with SyncPrefectClient(server, auth_string=secret, api_key=PREFECT_API_KEY.value()) as client:
            client.request("POST", "/events", json=[event]).raise_for_status()
    except (httpx.HTTPError, RuntimeError) as error:  # RuntimeError: of another version, or not reached
        return " ".join(hushed(str(error)).split()) or type(error).__name__
    return None


def _check(source: Source, data: Path, git: bool) -> None:
    for what, name in (("session", source.session), ("collection", source.into)):
        if not re.fullmatch(collection.NAME, name):
            raise DataError(f"{name!r}: a {what}'s name is made of up to 100 letters, digits, dots, dashes and underscores")
    try:
        mode = source.path.stat().st_mode
    except (OSError, ValueError) as error:
        raise DataError(f"{source.path}: does not exist or cannot be read; give a folder or one of {_READ}") from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode)):
        raise DataError(f"{source.path}: neither a folder nor a regular file; give a folder or one of {_READ}")
    if stat.S_ISREG(mode) and source.path.suffix.lower() not in (*TABLES, ".zip", ".json"):
        raise DataError(f"{source.path}: unknown kind of file; expected a folder or one of {_READ}")
    collection.sessions(data / source.into)
    if git:
        committable(data)


def _append(
    source: Source, kept: dict[str, ImageTable], supervision: Supervision, folder: Path, problems: list[Problem], dry: bool = False
) -> tuple[Entry, bool, list[str]]:
    """The session, whether it is new, and the classes known before it."""
    with nullcontext() if dry else collection.locked(folder):
        entries = collection.sessions(folder)
        # of a session that is there, only what it was checked against then
        before = list(itertools.takewhile(lambda entry: entry.name != source.session, entries))
        seen = collection.seen(folder, before)
        with _of(source):
            parts = parted(fresh(kept, seen, problems), supervision, source.test_share)
        named, count = Path(os.path.abspath(source.path)).name, len(problems)  # of "." too
        entry = (collection.described if dry else collection.add)(
            folder, source.session, parts, supervision, source=named, quarantined=count
        )
    return entry, len(before) == len(entries), sorted({image.label for image in seen.values() if image.label})


@contextmanager
def _of(source: Source, more: str = "") -> Iterator[None]:
    """An error about samples says where they come from, and what else is to be said of them."""
    try:
        yield
    except DataError as error:
        raise DataError(f"{source.path}: {error}{more}") from error


def _classes(splits: dict[str, ImageTable]) -> list[str]:
    return sorted({name for data in splits.values() for name in data.classes()})


def _sent(data: Path, version: str | None) -> list[str]:
    if version is None and (why := mend(data)):
        return [f"{data.name}.dvc stays as it is: {why}"]
    if version is None:
        return ["not versioned: there is no DVC project around the data"]
    try:
        address = push(data)
    except DataError as error:
        return [str(error)]
    return [f"{data.name}.dvc pins {version}" + (f", sent to {address}" if address else "; there is no DVC remote to send it to")]
