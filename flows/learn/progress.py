"""How far learning is, by what is on disk: the sessions of one config, and what is half-learned."""

from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from cl.run import find_state, measured
from flows.learn.far import half, moment
from flows.learn.job import Job, outlined, turns

if TYPE_CHECKING:
    from flows.history.standing import Standing


class Turned(NamedTuple):
    """One row: a session of a config's stream, by its number and name, and how far it is.

    The number is its place in the line, 0 for the model before any session; a dash stands for one that is not in it.
    """

    number: int | str
    session: str
    state: str
    note: str


def sessions(job: Job) -> list[Turned]:
    """Each session of a job, by what is on disk."""
    return list(_sessions(job))


def of_model(standing: "Standing", store: Path, waiting: Sequence[str]) -> list[Turned]:
    """Each session of a model that `update` learns: the line in its order, what is not in it, and what waits."""
    places = {learned.session: number for number, learned in enumerate(standing.line, start=1)}
    rows = []
    for name in (*places, *(name for name in standing.sessions if name not in places)):
        status = standing.sessions[name]
        since = moment(datetime.fromisoformat(status.when))
        far = half(store, status.state) if status.state and name not in places else ""
        told = (f"{status.why} ({since})" if status.why else since) if name not in places else since
        rows.append(Turned(places.get(name, "–"), name, str(status.word), far or told))
    return rows + [Turned("–", name, "waiting", "") for name in waiting if name not in standing.sessions]


def _sessions(job: Job) -> Iterator[Turned]:
    plan, store = outlined(job), job.place.steps  # nothing of a model's folder is run or read to be told how it stands
    for turn in turns(job, learns=False):
        step = measured(plan, turn.index, store)
        if step:
            yield Turned(turn.index, turn.session, "learned", moment(datetime.fromisoformat(step.finished)))
        elif find_state(plan, turn.index, store):
            yield Turned(turn.index, turn.session, "learned", "not measured on every set yet")
        else:
            far = half(store, plan.states[turn.index])
            yield Turned(turn.index, turn.session, "half-learned" if far else "waiting", far)
