"""How learning stands: every stream that MLflow knows, or one config session by session, and what to type to go on."""

import json
import re
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from cl.collection import numbered
from cl.collection import sessions as sessions_of
from cl.columns import some
from cl.errors import DataError
from cl.interim import Interim
from flows.job import Job, outlined, turns
from flows.reap import held, reap_runs
from flows.settings import Place
from flows.tracking import COMMAND, ERROR, KEY, KIND, PARENT, SESSIONS, STATE

_WORDS = {"FINISHED": "learned", "FAILED": "failed", "KILLED": "interrupted"}


class Stream(NamedTuple):
    """One row: a stream under one method and seed; `note` says why it failed or how far its session is, `command` how to go on."""

    name: str
    method: str
    seed: str
    state: str
    sessions: str
    when: str
    note: str
    command: str


class Turned(NamedTuple):
    """One row: a session of a config's stream, and how far it is."""

    session: str
    state: str
    note: str


def streams(place: Place, client: MlflowClient) -> list[Stream]:
    """Every stream that was ever begun, the newest first; what a killed process left RUNNING is put to rest before.

    One that was learned from several versions of its data is told once, as it was last.
    """
    reap_runs(place, client)
    experiments = [found.experiment_id for found in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.`{KIND}` = 'stream'", order_by=["attributes.start_time DESC"])
    newest: dict[tuple[str, ...], Run] = {}
    for run in found:
        newest.setdefault(_same(run), run)
    return [_stream(place, client, run) for run in newest.values()]


def sessions(job: Job) -> list[Turned]:
    """Each session of a job, by what is on disk."""
    return list(_sessions(job))


def _sessions(job: Job) -> Iterator[Turned]:
    from cl.run import find, find_state

    plan, store = outlined(job), job.place.steps  # nothing of a model's folder is run or read to be told how it stands
    for turn in turns(job, learns=False):
        step = find(plan, turn.index, store)
        if step:
            yield Turned(turn.session, "learned", _moment(datetime.fromisoformat(step.finished)))
        elif find_state(plan, turn.index, store):
            yield Turned(turn.session, "learned", "not measured on every set yet")
        else:
            far = half(store, plan.states[turn.index])
            yield Turned(turn.session, "half-learned" if far else "waiting", far)


def half(store: Path, state: str) -> str:
    """How far a session is whose state is not learned, nothing if no checkpoint of it is there."""
    cursor = Interim(store / "interim" / state, 0).cursor()
    if cursor is None:
        return ""
    return f"{cursor.done} of {cursor.steps} steps" + (f" of round {cursor.turn + 1}" if cursor.turn else "")


def collections_in(data: Path) -> dict[str, int]:
    """How many sessions each collection of a data folder has, by name."""
    found = {path.name: len(numbered(path)) for path in sorted(data.glob("[!.]*"))}
    return {name: count for name, count in found.items() if count}


def _stream(place: Place, client: MlflowClient, run: Run) -> Stream:
    tags, status = run.data.tags, run.info.status
    children = client.search_runs([run.info.experiment_id], f"tags.`{PARENT}` = '{run.info.run_id}'")
    done = {child.data.tags[KEY] for child in children if child.info.status == "FINISHED" and child.info.run_name != "start"}
    open_ones = [child for child in children if child.info.status in ("RUNNING", "KILLED")]
    far = [f"{child.info.run_name}: {told}" for child in open_ones if (told := half(place.steps, child.data.tags.get(STATE, "")))]
    running = status == "RUNNING" or held(place, tags[KEY])
    late = [] if running else _waiting(run)
    notes = [*far, *([f"{some(late)} to learn"] if late else [])]
    if tags.get("evergreen.gate") == "refused":
        notes.append(f"refused by the gate: {tags.get('evergreen.gate_reason', '')[:100]}")
    command = tags.get(COMMAND, "")
    return Stream(
        name=tags.get("evergreen.stream", run.info.run_name),
        method=tags.get("evergreen.method", ""),
        seed=tags.get("evergreen.seed", ""),
        state="running" if running else "waiting" if late and status == "FINISHED" else _WORDS.get(status, status.lower()),
        sessions=f"{len(done)} of {int(tags[SESSIONS]) + len(late) if SESSIONS in tags else '?'}",
        when=_moment(datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)),
        note=tags.get(ERROR, "") if status == "FAILED" else "; ".join(notes),
        command=as_update(command) if late else "" if running or status == "FINISHED" else command,
    )


def as_update(command: str) -> str:
    """The command that learns what waits, if the policy says so, instead of one that learns a stream.

    >>> as_update("evergreen run birds.yaml --set seed=1")
    'evergreen update birds.yaml --set seed=1'
    """
    return command.replace("evergreen run ", "evergreen update ", 1)


def _same(run: Run) -> tuple[str, ...]:
    """What two runs of one stream share, whatever version of its data they learned from and whoever started them."""
    tags = run.data.tags
    names = [tags.get(f"evergreen.{name}", "") for name in ("stream", "method", "seed", "data_rev")]
    return (run.info.experiment_id, *names, as_update(tags.get(COMMAND, "")))


def _waiting(run: Run) -> list[str]:
    """The sessions that its collection has got since, by name; none where the stream does not grow, or its data are gone."""
    params, tags = run.data.params, run.data.tags
    paths = [value for name, value in params.items() if re.fullmatch(r"stream\.sources\..+\.path", name)]
    if params.get("stream.kind") != "collection" or "evergreen.data_rev" in tags or len(paths) != 1 or not run.inputs.dataset_inputs:
        return []
    root, until = json.loads(run.inputs.dataset_inputs[0].dataset.source)["uri"], json.loads(params.get("stream.until", "null"))
    try:
        entries = sessions_of(Path(root) / paths[0])
    except DataError:  # what is wrong with it is told by who learns from it
        return []
    return [entry.name for entry in entries[int(tags.get(SESSIONS, 0)) : until]]


def _moment(when: datetime) -> str:
    return when.astimezone(UTC).strftime("%Y-%m-%d %H:%M")
