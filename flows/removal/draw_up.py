"""What withdrawing data would do: which images go, where they lie, which versions hold them, and what each model can be without them."""

import hashlib
import json
import secrets
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from cl.data import collection
from cl.data.collection import Entry
from cl.data.leave_out import lessened, rows
from cl.data.tombs import tombstones
from cl.errors import DataError, StoreError
from cl.text import plural, some
from flows.data import objects
from flows.data.pinned import pin_file
from flows.data.versions import version
from flows.history.conclude import conclude
from flows.history.entries import Withdrawn, entry_of, history_of
from flows.history.standing import Standing
from flows.learn.job import Job
from flows.line.work import Work
from flows.removal.copies import damaged, watched_in
from flows.removal.holding import elsewhere, holding, ran_sessions, taught
from flows.removal.orders import Order, new_id, pending
from flows.removal.spare import histories
from flows.removal.without import Remedy, features_of, remedy
from flows.settings import Place
from flows.tracking.runs import connect

REBUILD = "evergreen update CONFIG --rebuild"


def draw_up(
    place: Place,
    data: Path,
    name: str,
    images: Sequence[str] | None,
    why: str,
    by: str,
    watched: Sequence[Path] = (),
) -> tuple[Order, list[str]]:
    """What withdrawing a session, or images of it, would do, and what is to be told of it; nothing is touched.

    Args:
        place: the project.
        data: its data root.
        name: SESSION, or COLLECTION/SESSION where several collections have one of that name.
        images: ids of rows, or SHA-256 of images in hex; None: all of the session.
        why: a reason, which the histories keep.
        by: who wants it.
        watched: folders that were watched, beside those that are known.

    Raises:
        DataError, StoreError: there is no such session or image, or a history is damaged.
    """
    folder, entry = _located(data, name)
    order = _order(place, data, folder, entry, images, watched)
    if images is not None:
        lessened(folder, entry, order.wanted)  # what cannot be done is told now
    client = connect(place)
    ran, unread = ran_sessions(place)
    told, models, derived = list[str](), dict[str, dict[str, object]](), list[str]()
    for model in histories(place):
        standing = conclude(history_of(place, model).read())
        if standing.opened is None or folder.name not in _collections(standing):
            continue
        at = worker(place, standing, data)
        way = remedy(at, standing, entry.name, order.wanted, order.whole, order.id)
        held = tuple(sorted(holding(place, client, model, standing, entry.name, ran), key=int))
        salted = None if order.whole else tuple(sorted(_salted(each) for each in order.prints))
        said = Withdrawn(phase="intent", session=entry.name, images=salted, versions=held, into=way.into, line=way.line, why=why, by=by)
        models[model] = entry_of(said)[1]
        derived += features_of(at, standing, entry.name)
        derived += [f"interim/{state}" for state in _learning(standing, entry.name)]
        champion = standing.champion.version if standing.champion else None
        told.append(_told_of(model, held, way, champion))
    others = elsewhere(place, client, entry.name, ran)
    told += [f"model {each} learned it in a run, and has no history: delete it in MLflow" for each in others]
    told += [f"{file}: cannot be read, so nobody can say which version of a run came of it" for file in unread]
    told += [f"{each}; nobody can say whether it holds some of it" for each in damaged(place)]
    return replace(order, models=models, derived=tuple(dict.fromkeys(derived))), [*told, *_in_git(data, order)]


def _order(place: Place, data: Path, folder: Path, entry: Entry, images: Sequence[str] | None, watched: Sequence[Path]) -> Order:
    """Which images go, and where they lie, before any model is asked."""
    fingerprints, ids = _chosen(folder, entry, images)
    order = Order(
        id=_unused(place),
        data=str(data),
        collection=folder.name,
        session=entry.name,
        folder=entry.folder,
        number=entry.number,
        whole=images is None,
        prints=tuple(sorted(fingerprints)),
        ids=tuple(ids),
        watched=tuple(map(str, dict.fromkeys([*watched, *watched_in(place)]))),
    )
    inside = objects.objects_of(data, f"{folder.name}/{entry.folder}") | objects.holding(data, order.wanted)
    return replace(order, objects=tuple(sorted(inside)))


def _in_git(data: Path, order: Order) -> list[str]:
    """Which git revisions still name what goes, in a sentence; nothing where none does."""
    revisions = objects.named_by(data, order.objects)
    if not revisions:
        return []
    return [
        f"git names it in {plural(len(revisions), 'revision')} of {pin_file(data).name} ({some(revisions, 5)}), which cannot be checked "
        "out whole any more; what other clones and remotes keep goes there with `dvc gc --workspace --cloud --remote NAME`"
    ]


def worker(place: Place, standing: Standing, data: Path) -> Work:
    """A model's work by the settings of its last session, where no config is at hand."""
    last = standing.line[-1] if standing.line else next(reversed([*standing.tree.values()]), None)
    if last is None:
        raise StoreError("its history has learned nothing, so nobody knows its settings")
    seen = version(data)
    return Work(Job(json.dumps(last.config, sort_keys=True), seen.folder, seen.digest, seen.pinned, None, str(place.root)))


def _located(data: Path, name: str) -> tuple[Path, Entry]:
    into, _, session = name.rpartition("/")
    folders = [place for place in sorted(data.glob("[!.]*")) if place.is_dir() and not place.is_symlink()]
    places = [place for place in folders if collection.numbered(place) or tombstones(place)]  # also where all of it is withdrawn
    named = [
        (place, entry) for place in places if into in ("", place.name) for entry in collection.sessions(place) if entry.name == session
    ]
    if len(named) == 1:
        return named[0]
    if named:
        raise DataError(
            f"session {name!r}: {len(named)} collections have one; say which: {', '.join(f'{p.name}/{e.name}' for p, e in named)}"
        )
    stones = [place.name for place in places for stone in tombstones(place) if stone.name == session]
    if stones:
        raise DataError(f"session {name!r}: it is withdrawn already, from {some(stones)}")
    raise DataError(f"session {name!r}: no collection in {data} has one of that name; `evergreen data status` lists what is there")


def _chosen(folder: Path, entry: Entry, images: Sequence[str] | None) -> tuple[set[str], list[str]]:
    """The fingerprints and ids of what goes."""
    every = [(row, each.hex()) for table in rows(folder, entry).values() for row, each in zip(table.ids, table.prints, strict=True)]
    if images is None:
        return {each for _, each in every}, [row for row, _ in every]
    unknown = [wanted for wanted in images if not any(wanted in pair for pair in every)]
    if unknown or not images:
        raise DataError(f"session {entry.name!r}: {_not_in(unknown, len(images))}{_already(entry)}")
    hashes = {each for row, each in every if {row, each} & set(images)}
    return hashes, [row for row, each in every if each in hashes]  # the same image may lie there twice


def _not_in(unknown: Sequence[str], asked: int) -> str:
    if not asked:
        return "no image of it is named; give ids of rows or SHA-256 of images, or leave --images out"
    return f"{len(unknown)} of {plural(asked, 'image is', 'images are')} not in it ({unknown[0]!r:.80})"


def _already(entry: Entry) -> str:
    """Which images are withdrawn already is kept nowhere, and that some are is."""
    return (
        f"; {plural(entry.withdrawn, 'image of it is', 'images of it are')} withdrawn already, and nothing is kept that says which: "
        "if what is missing was among them, it is gone; leave it out of the list"
        if entry.withdrawn
        else ""
    )


def _salted(image: str) -> str:
    """A name for an image that says nothing of it: the salt is kept nowhere."""
    return hashlib.sha256(secrets.token_bytes(32) + bytes.fromhex(image)).hexdigest()[:16]


def _unused(place: Place) -> str:
    if waiting := pending(place):
        raise StoreError(f"withdrawing {waiting[0].name} was begun and is not through; first: evergreen withdraw {waiting[0].session}")
    return new_id()


def _collections(standing: Standing) -> set[str]:
    assert standing.opened
    configs = [learned.config for learned in standing.tree.values()]
    sources = [source.get("path", "") for config in configs for source in config.get("stream", {}).get("sources", {}).values()]
    return {Path(path).name for path in (*standing.opened.stream.get("sources", ()), *sources)}


def _learning(standing: Standing, session: str) -> set[str]:
    """States of which half may lie there, and which have learned the session by then."""
    half = standing.open if standing.open and session in taught(standing, standing.open.parent, standing.open.session) else None
    return {state for state in standing.tree if session in taught(standing, state)} | ({half.state} if half else set())


def _told_of(model: str, held: Sequence[str], way: Remedy, champion: str | None) -> str:
    who = f"version {held[0]} holds" if len(held) == 1 else f"versions {', '.join(held)} hold"
    bars = f"{who} it and can no longer be served, promoted or gone back to" if held else "no version holds it"
    if champion in held and not way.into:
        bars += f". Version {champion} is the champion: from then on nobody is served, until another version is"
    if way.into:  # a new state gets its name from the order, which another asking draws anew
        state = "a new state" if way.line else f"state {way.into[:8]}"
        return f"{model}: {bars}; {way.how}: {state} takes the head's place"
    return f"{model}: {bars}; {way.how}" + (f"; what leaves it out: {REBUILD}" if held else "")
