"""What a process that was killed left behind: runs that say they are running, in MLflow and Prefect, and half-written folders."""

import fcntl
import os
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from uuid import UUID

from mlflow import MlflowClient
from prefect import runtime
from prefect.client.orchestration import SyncPrefectClient, get_client
from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterId, TaskRunFilter, TaskRunFilterState, TaskRunFilterStateType
from prefect.client.schemas.objects import State, StateType
from prefect.exceptions import ObjectNotFound
from prefect.states import Crashed

from cl.disk import beneath
from flows.project import LOCK
from flows.servers.children import end_with
from flows.settings import Place
from flows.tracking.runs import locked, owner

SERVED = "EVERGREEN_SERVED"  # the process of `evergreen serve`, set where a flow run is a child of it
_STALE = 3600.0  # seconds; nobody writes one state or row for so long
_FLOW = "flow-"
_WHY = "the process was killed"


@contextmanager
def alive(place: Place) -> Iterator[None]:
    """This flow run is alive while inside: it holds a lock that the kernel frees when the process dies. First, the dead are put to rest."""
    if os.environ.get(SERVED) and threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of a terminal: it is for `serve`, which then asks us
        if os.environ[SERVED] == str(os.getppid()):
            end_with(os.getppid())  # one that `serve` left behind would learn beside those of the next
    with ExitStack() as stack:
        with locked(place, "reap.lock"):  # a lock that is made and not yet held would look like a dead one's
            stack.enter_context(locked(place, f"{_FLOW}{runtime.flow_run.id}"))
        reap_flows(place)
        reap_parts(place)
        yield


def reap_flows(place: Place) -> list[UUID]:
    """Crash each Prefect flow run of this project that has not ended and whose process is gone; returns their ids."""
    reaped = []
    with locked(place, "reap.lock"), get_client(sync_client=True) as client:
        for path in sorted((place.runs / "locks").glob(f"{_FLOW}*")):
            with _free(path) as free:
                if free:
                    run_id = UUID(path.name.removeprefix(_FLOW))
                    reaped += [run_id] if _crash(client, run_id) else []
                    path.unlink()
    return reaped


def reap_runs(place: Place, client: MlflowClient) -> list[str]:
    """End as KILLED each MLflow run of this project that says RUNNING and whose process is gone; returns their ids."""
    mine, reaped = owner(place), []
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    for run in client.search_runs(experiments, f"attributes.status = 'RUNNING' and tags.`{LOCK}` LIKE '{mine}/%'"):
        key = run.data.tags[LOCK].removeprefix(f"{mine}/")
        with _free(place.runs / "locks" / f"{key}.lock") as free:
            # asked again: it may have ended, and its lock been freed, since
            if free and client.get_run(run.info.run_id).info.status == "RUNNING":
                client.set_terminated(run.info.run_id, "KILLED")
                reaped.append(run.info.run_id)
    return reaped


def reap_parts(place: Place) -> None:
    """Drop half-written folders."""
    for part in parts(place):
        if part.is_relative_to(place.steps) and part.is_dir():
            shutil.rmtree(part, ignore_errors=True)


def parts(place: Place) -> list[Path]:
    """What was half-written when its writer was killed, and nobody has written to for an hour; no link."""
    places = (place.steps.glob("*/.*.part"), place.steps.glob("*/*/.*.part"), place.versions.glob(".*.part"), place.runs.glob(".fetched-*"))
    leftovers = sorted(part for each in places for part in each if not part.is_symlink())
    return [part for part in leftovers if time.time() - part.stat().st_mtime > _STALE]


def alive_flows(place: Place) -> bool:
    """Whether a flow of this project is under way on this machine."""
    locks = sorted((place.runs / "locks").glob(f"{_FLOW}*"))
    return any(_held(path) for path in locks)


def _held(path: Path) -> bool:
    with _free(path) as free:
        return not free


def held(place: Place, key: str) -> bool:
    """Whether a process has a stream open: its lock is taken."""
    with _free(place.runs / "locks" / f"{key}.lock") as free:
        return not free


@contextmanager
def _free(path: Path) -> Iterator[bool]:
    """Whether nobody holds a lock; where it is free, nobody can take it while inside."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with beneath.lock(path) as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
        else:
            yield True


def _crash(client: SyncPrefectClient, run_id: UUID) -> bool:
    """Whether a flow run had not ended; it has now, and its tasks with it."""
    try:
        run = client.read_flow_run(run_id)
    except ObjectNotFound:  # of a database that is gone
        return False
    if run.state is None or run.state.is_final() or _rests(run.state):
        return False
    own = FlowRunFilter(id=FlowRunFilterId(any_=[run_id]))
    going = TaskRunFilterState(type=TaskRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING, StateType.SCHEDULED]))
    for task in client.read_task_runs(flow_run_filter=own, task_run_filter=TaskRunFilter(state=going)):
        client.set_task_run_state(task.id, Crashed(message=_WHY), force=True)
    client.set_flow_run_state(run_id, Crashed(message=_WHY), force=True)
    return True


def _rests(state: State) -> bool:
    """Whether no process has to be there: the run is to start, or is suspended until a person answers."""
    return state.is_scheduled() or (state.is_paused() and bool(state.state_details.pause_reschedule))
