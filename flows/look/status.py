"""How learning stands: every stream that MLflow knows, what a person or the gate said of its model, and what to type to go on."""

import shlex
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

from mlflow import MlflowClient
from mlflow.entities import Run

from cl.data.collection import numbered
from cl.text import some
from flows.learn.failures import Failure, failures
from flows.learn.far import half, moment, where
from flows.look.model_status import PREFIX, TakenOver, listed, taken_over, told
from flows.project import own_experiments
from flows.registry.champion import CHALLENGER, CHAMPION, history, holder
from flows.registry.question import GATE, REASON, WAITING, answer_in, said, standing
from flows.settings import Place
from flows.tracking.reap import held, reap_runs
from flows.tracking.runs import AGAIN, COMMAND, ERROR, KEY, KIND, MODEL, PARENT, SESSION, SESSIONS, STATE, owner, slug

_WORDS = {"FINISHED": "learned", "FAILED": "failed", "KILLED": "interrupted"}


class Stream(NamedTuple):
    """One row: a stream under one method and seed.

    `version` is its model in the registry, and what that is there; `note` says why it failed, how far its session is, what the gate or
    a person said; `command` is how to go on, where the same can help, `model` whose champion belongs to it.
    """

    name: str
    method: str
    seed: str
    state: str
    sessions: str
    version: str
    when: str
    note: str
    command: str
    model: str


def streams(place: Place, client: MlflowClient) -> list[Stream]:
    """Every stream that was ever begun, the one that moved last first; what a killed process left RUNNING is put to rest before.

    One that was learned from several versions of its data, or by several of the code, is told once, as it was last; and so is one that
    failed where MLflow did not hear of it.
    """
    reap_runs(place, client)
    experiments = own_experiments(place, client, owner(place))
    alike: dict[tuple[str, ...], list[Run]] = {}
    for run in sorted(client.search_runs(experiments, f"tags.`{KIND}` = 'stream'"), key=_moved, reverse=True):
        alike.setdefault(_same(run), []).append(run)
    over = taken_over(place)
    mine = {key: runs for key, runs in alike.items() if not _taken(runs, over)}
    rows = [(_moved(runs[0]), _stream(place, client, runs), key[-1]) for key, runs in mine.items()]
    for failure in failures(place):
        command = as_update(failure.command)
        moved, row, _ = known = next((each for each in rows if each[-1] == command), (None, _unheard(failure), command))
        if moved is None or moved < failure.moment:
            told = row._replace(
                state="failed", note=failure.error, when=moment(failure.moment), command=failure.command if failure.again else ""
            )
            rows = [each for each in rows if each is not known] + [(failure.moment, told, command)]
    return [row for _, row, _ in sorted(rows, key=lambda each: each[0], reverse=True)]


def champion(place: Place, client: MlflowClient, name: str) -> str:
    """Which version of a model is champion, since when, by whom and why; nothing where none is."""
    now = holder(client, name, CHAMPION)
    if now is None:
        return ""
    made = [made for made in history(place, client, name) if made.alias == CHAMPION and made.after == str(now.version)]
    since = f" since {moment(datetime.fromisoformat(made[-1].when))}, by {made[-1].who}: {made[-1].why}" if made else ""
    return f"champion of {name}: version {now.version}{since}"


def collections_in(data: Path) -> dict[str, int]:
    """How many sessions each collection of a data folder has, by name."""
    counts = {path.name: len(numbered(path)) for path in sorted(data.glob("[!.]*"))}
    return {name: count for name, count in counts.items() if count}


def _stream(place: Place, client: MlflowClient, runs: Sequence[Run]) -> Stream:
    """A stream as it was last, by its runs: the one that moved last first."""
    run, tags = runs[0], runs[0].data.tags
    if tags[KEY].startswith(PREFIX):
        return _model_row(place, run)
    status, done, far = run.info.status, *_learned(place, client, run)
    running = status == "RUNNING" or held(place, tags[KEY])
    far = [pulse] if running and (pulse := where(place, tags[KEY])) else far
    late = [] if running else listed(run, int(tags.get(SESSIONS, 0)))
    notes = [tags.get(ERROR, "")] if status == "FAILED" else [*far, f"{some(late)} to learn" if late else "", _said(place, tags)]
    whole = next((each for each in runs if each.info.status == "FINISHED"), None)
    if whole and whole is not run and not running:  # of other code or fewer sessions, and learned all the same
        notes.append(f"learned before, on {moment(_moved(whole))}" + (f", as version {_number(whole)}" if MODEL in whole.data.tags else ""))
    command = "" if status == "FAILED" and tags.get(AGAIN) == "false" else tags.get(COMMAND, "")
    return Stream(
        name=tags.get("evergreen.stream", run.info.run_name),
        method=tags.get("evergreen.method", ""),
        seed=tags.get("evergreen.seed", ""),
        state="running" if running else "waiting" if late and status == "FINISHED" else _WORDS.get(status, status.lower()),
        sessions=f"{done} of {int(tags[SESSIONS]) + len(late) if SESSIONS in tags else '?'}",
        version=_version(client, run),
        when=moment(datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)),
        note="; ".join(filter(None, notes)),
        command=as_update(command) if late else "" if running or status == "FINISHED" else command,
        model=_model(whole or run),
    )


def _model_row(place: Place, run: Run) -> Stream:
    """A model that `update` learns, whatever its settings were at each session."""
    tags, row, status = run.data.tags, told(place, run), run.info.status
    assert row
    running = status == "RUNNING" or held(place, tags[KEY])
    late = [] if running else row.late
    command = "" if running or (status == "FAILED" and tags.get(AGAIN) == "false") else tags.get(COMMAND, "")
    error = [tags[ERROR]] if status == "FAILED" and ERROR in tags else []
    return Stream(
        name=tags.get("evergreen.stream", run.info.run_name),
        method=tags.get("evergreen.method", ""),
        seed=tags.get("evergreen.seed", ""),
        state="running" if running else "waiting" if late and status == "FINISHED" else _WORDS.get(status, status.lower()),
        sessions=row.sessions,
        version=row.version,
        when=moment(datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)),
        note="; ".join([*error, *([pulse] if running and (pulse := where(place, tags[KEY])) else []), *row.notes]),
        command=_once(command) if status == "FINISHED" and late else command if status != "FINISHED" else "",
        model=slug(tags.get("evergreen.stream", "")),
    )


def _learned(place: Place, client: MlflowClient, run: Run) -> tuple[int, list[str]]:
    """How many sessions of a run are learned, and how far those are that were cut short."""
    query = f"tags.`{PARENT}` = '{run.info.run_id}'"
    children = client.search_runs([run.info.experiment_id], query, order_by=["attributes.start_time ASC"])
    start = children[0].data.tags[KEY] if children else ""  # by its key: a session may be called start
    done = {child.data.tags[KEY] for child in children if child.info.status == "FINISHED"} - {start}
    cut = [child for child in children if child.info.status in ("RUNNING", "KILLED")]
    halves = [(child, half(place.steps, child.data.tags.get(STATE, ""))) for child in cut]
    return len(done), [f"{child.data.tags.get(SESSION, child.info.run_name)}: {told}" for child, told in halves if told]


def _said(place: Place, tags: dict[str, str]) -> str:
    """What the gate or a person said of a stream's model, where that is not simply yes."""
    if answer := answer_in(tags):
        return said(answer)
    if tags.get(GATE) == "refused":
        return f"refused by the gate: {shorten(tags.get(REASON, ''), 200, placeholder=' ... (all of it: evergreen lineage)')}"
    if tags.get(GATE) == WAITING:
        return standing(place, tags) or "a person has to agree: evergreen promote {1} {2}".format(*tags[MODEL].rsplit("/", 2))
    return ""


def _version(client: MlflowClient, run: Run) -> str:
    if MODEL not in run.data.tags:
        return ""
    held_by = [
        alias for alias in (CHAMPION, CHALLENGER) if (now := holder(client, _model(run), alias)) and str(now.version) == _number(run)
    ]
    return ", ".join([_number(run), *held_by])


def _model(run: Run) -> str:
    return run.data.tags[MODEL].rsplit("/", 2)[1] if MODEL in run.data.tags else ""


def _number(run: Run) -> str:
    return run.data.tags[MODEL].rsplit("/", 1)[1]


def _moved(run: Run) -> datetime:
    """When something last happened to a run: one that is found again keeps the time at which it first began."""
    if run.info.status == "RUNNING":
        return datetime.max.replace(tzinfo=UTC)
    return datetime.fromtimestamp((run.info.end_time or run.info.start_time) / 1000, UTC)


def _unheard(failure: Failure) -> Stream:
    return Stream(failure.stream, "", "", "failed", "", "", "", "", "", "")


def as_update(command: str) -> str:
    """The command that learns what waits, if the policy says so, instead of one that learns a stream.

    >>> as_update("evergreen run birds.yaml --set seed=1")
    'evergreen update birds.yaml --set seed=1'
    """
    return command.replace("evergreen run ", "evergreen update ", 1)


def _once(command: str) -> str:
    """A command without the settings that somebody gave it for one time.

    >>> _once("evergreen update birds.yaml --set gate.drop=1 --data-root data")
    'evergreen update birds.yaml --data-root data'
    """
    words = shlex.split(command)
    return shlex.join(word for before, word in zip(["", *words], words, strict=False) if "--set" not in (before, word))


def _taken(runs: Sequence[Run], over: Mapping[str, TakenOver]) -> bool:
    """Whether what the runs of a stream learned is a model's history by now, and none of them has moved since."""
    known = over.get(slug(runs[0].data.tags.get("evergreen.stream", "")))
    if known is None or runs[0].data.tags[KEY].startswith(PREFIX) or _moved(runs[0]) > known.when:
        return False
    return any(MODEL in run.data.tags and _number(run) in known.versions for run in runs)


def _same(run: Run) -> tuple[str, ...]:
    """What two runs of one stream share, whatever version of its data they learned from and whoever started them."""
    tags = run.data.tags
    if tags[KEY].startswith(PREFIX):
        return (run.info.experiment_id, tags[KEY], as_update(tags.get(COMMAND, "")))
    names = [tags.get(f"evergreen.{name}", "") for name in ("stream", "method", "seed", "data_rev")]
    return (run.info.experiment_id, *names, as_update(tags.get(COMMAND, "")))
