"""How it stands with a model that `update` learns, in a line: by its history, its run in MLflow and what its data hold."""

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import NamedTuple

from mlflow.entities import Run

from cl.data.collection import sessions as sessions_of
from cl.errors import DataError, StoreError
from cl.release import made_with
from cl.text import some
from flows.history.conclude import conclude
from flows.history.entries import Opened, fact, history_of
from flows.history.line import release_of
from flows.history.standing import Standing, Word
from flows.learn.far import half
from flows.removal.prune import versions_in
from flows.settings import Place
from flows.tracking.params import paths_of
from flows.tracking.runs import KEY

PREFIX = "history-"  # of the key of a model's run: the id of its history's first entry follows


class Told(NamedTuple):
    """The sessions by what became of them, the champion's version, what is to be said, and the sessions that wait."""

    sessions: str
    version: str
    notes: list[str]
    late: list[str]


def told(place: Place, run: Run) -> Told | None:
    """What a model's run and its history say; None where the run is no model's."""
    key, tags = run.data.tags[KEY], run.data.tags
    if not key.startswith(PREFIX):
        return None
    try:
        entries = history_of(place, tags.get("evergreen.stream", "")).read()
        standing = conclude(entries)
    except StoreError as error:  # damaged, or of a later release: the other streams are told all the same
        return Told("?", "", [str(error)], [])
    if not entries or f"{PREFIX}{entries[0].id}" != key:
        return Told("?", "", [f"its history is not here; share the folder {place.runs} of the machine that learns it"], [])
    late = waiting(standing, listed(run))
    return Told(counted(standing, late), _champion(standing), _notes(place, standing, late), late)


class TakenOver(NamedTuple):
    """When a model's history was taken over from what runs had learned, and the versions that it speaks of."""

    when: datetime
    versions: frozenset[str]


def taken_over(place: Place) -> dict[str, TakenOver]:
    """Of the models whose history was taken over, by name; not of one whose history cannot be read."""
    models = {}
    for file in (place.runs / "history").glob("*.jsonl"):
        try:
            entries = history_of(place, file.stem).read()
            opened = fact(entries[0]) if entries else None
            if isinstance(opened, Opened) and opened.taken_over:
                models[file.stem] = TakenOver(datetime.fromisoformat(entries[0].when), frozenset(versions_in(entries)))
        except StoreError:  # which the model's own row says
            continue
    return models


def counted(standing: Standing, late: Sequence[str]) -> str:
    """How many sessions are learned, wait, and are not in the line.

    >>> from flows.history.conclude import conclude
    >>> counted(conclude([]), ["a", "b"])
    'learned 0, waiting 2'
    """
    words = [each.word for name, each in standing.sessions.items() if name not in late]
    learned = [each.session for each in standing.line if each.session not in standing.tombstones]
    counts = {"learned": len(learned), "waiting": len(late)}
    for word in (Word.ASKED, Word.ASIDE, Word.SKIPPED, Word.BACK, Word.WITHDRAWN):
        counts[str(word)] = words.count(word)
    return ", ".join(f"{word} {count}" for word, count in counts.items() if count or word == "learned")


def waiting(standing: Standing, there: Sequence[str]) -> list[str]:
    """The sessions that the next update takes: those that nobody has spoken of, and those on the way."""
    on_the_way = (Word.AGAIN, Word.BEGUN, Word.UNJUDGED)
    known = [name for name, each in standing.sessions.items() if each.word in on_the_way]
    return known + [name for name in there if name not in standing.sessions]


def listed(run: Run, after: int = 0) -> list[str]:
    """The sessions that a run's collection has by now, by name; none where the stream does not grow, or its data are gone."""
    params, tags = run.data.params, run.data.tags
    paths = paths_of(params)
    if params.get("stream.kind") != "collection" or "evergreen.data_rev" in tags or len(paths) != 1 or not run.inputs.dataset_inputs:
        return []
    root, until = json.loads(run.inputs.dataset_inputs[0].dataset.source)["uri"], json.loads(params.get("stream.until", "null"))
    try:
        entries = sessions_of(Path(root) / paths[0])
    except DataError:  # what is wrong with it is told by who learns from it
        return []
    return [entry.name for entry in entries[after:until]]


def _champion(standing: Standing) -> str:
    return f"{standing.champion.version}, champion" if standing.champion else ""


def _notes(place: Place, standing: Standing, late: Sequence[str]) -> list[str]:
    notes = []
    if standing.open and (far := half(place.steps, standing.open.state)):
        notes.append(f"{standing.open.session}: {far}")
    if late:
        notes.append(f"{some(late)} to learn")
    if standing.waiting:
        notes.append(f"{standing.waiting.session}: {standing.waiting.reason}")
    if standing.unfinished:
        notes.append("a withdrawal or a pruning was cut short: start it again")
    here, last = made_with()["evergreen-clip"], release_of(standing.line[-1]) if standing.line else None
    if last and last != here:
        notes.append(f"learned by Evergreen {last}, this is {here}")
    return notes
