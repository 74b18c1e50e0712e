"""The question that a person is asked about a candidate, and the answer: tags of its run in MLflow, which outlive whoever asks."""

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, NamedTuple
from uuid import UUID

from mlflow import MlflowClient
from mlflow.entities import Run

from cl.errors import StoreError
from flows.servers.secret import CLIENT
from flows.servers.servers import find_server
from flows.settings import Place
from flows.tracking.runs import MODEL

if TYPE_CHECKING:
    from prefect.client.orchestration import SyncPrefectClient
    from prefect.client.schemas.objects import State

GATE, BOUNDS, REASON, WAITING = "evergreen.gate", "evergreen.gate_bounds", "evergreen.gate_reason", "waiting"
QUESTION, ANSWER = "evergreen.question", "evergreen.answer"


class Answer(NamedTuple):
    """Whether the model may become champion, who said so, and the reason that was given."""

    approve: bool
    who: str
    why: str


class Question(NamedTuple):
    """Which Prefect flow run waits for a person's answer, the address of its page, and until when (ISO)."""

    run: str
    page: str
    until: str

    @property
    def over(self) -> bool:
        """Whether nobody answered in time."""
        return datetime.now(UTC) >= datetime.fromisoformat(self.until)

    @property
    def deadline(self) -> str:
        """Until when, as people read it."""
        return f"{datetime.fromisoformat(self.until).astimezone(UTC):%Y-%m-%d %H:%M} UTC"


def question_in(tags: Mapping[str, str]) -> Question | None:
    """The question about a candidate that still waits, by the tags of its run; None where it never was asked, or is settled."""
    return Question(**json.loads(tags[QUESTION])) if tags.get(GATE) == WAITING and QUESTION in tags else None


def answer_in(tags: Mapping[str, str]) -> Answer | None:
    """What a person said of a candidate, by the tags of its run."""
    return Answer(**json.loads(tags[ANSWER])) if ANSWER in tags else None


def note(client: MlflowClient, run_id: str, what: Question | Answer) -> None:
    """Keep it with the candidate's run."""
    client.set_tag(run_id, QUESTION if isinstance(what, Question) else ANSWER, json.dumps(what._asdict()))


def standing(place: Place, tags: Mapping[str, str]) -> str | None:
    """How it stands with the question about a candidate that waits; None where it has to be put: it never was, or who asked was stopped."""
    asked = question_in(tags)
    if asked is None:
        return None
    _, name, version = tags[MODEL].rsplit("/", 2)
    by_hand = f"evergreen promote {name} {version}"
    if asked.over:
        return f"nobody answered until {asked.deadline} whether version {version} may become champion: {by_hand}"
    waits = f"version {version} waits for a person until {asked.deadline}"
    with _prefect(place) as prefect:
        if prefect is None:
            return f"{waits}; its page opens with `evergreen up`, or: {by_hand}"
        state = _state(prefect, asked)
    return (
        None
        if state is None or state.is_final()
        else f"{waits}: click Resume at {asked.page} (sign in on the start page first), or: {by_hand}"
    )


def settle(place: Place, client: MlflowClient, name: str, version: str | None, who: str, why: str) -> list[str]:
    """Answer what waits for a person's word about a model, after somebody has made a version its champion by hand; returns those versions.

    The version that was chosen is agreed with, the others are declined: their bounds were held against another champion. None: somebody
    has chosen none, and all are declined. Where Prefect's server answers, whoever waits there goes on at once; where it does not, they
    find the answer when they do.
    """
    settled = []
    for run in _waiting(client, name):
        own = run.data.tags[MODEL].rsplit("/", 1)[1]
        chosen = own == version
        answer = Answer(chosen, who, why if chosen or version is None else f"version {version} was made champion ({why})")
        asked = question_in(run.data.tags)
        note(client, run.info.run_id, answer)
        client.set_tag(run.info.run_id, REASON, said(answer))
        client.set_tag(run.info.run_id, GATE, "promoted" if chosen else "refused")
        if asked and not asked.over:
            with _prefect(place) as prefect:
                if prefect and (state := _state(prefect, asked)) and state.is_paused():
                    prefect.resume_flow_run(UUID(asked.run), run_input=answer._asdict())
        settled.append(own)
    return settled


def said(answer: Answer) -> str:
    """An answer in words.

    >>> said(Answer(False, "Ann", "too many owls")), said(Answer(True, "Ann", ""))
    ('Ann said no: too many owls', 'Ann agreed')
    """
    return f"{answer.who} {'agreed' if answer.approve else 'said no'}" + (f": {answer.why}" if answer.why else "")


def _waiting(client: MlflowClient, name: str) -> list[Run]:
    experiments = [experiment.experiment_id for experiment in client.search_experiments()]
    return list(client.search_runs(experiments, f"tags.`{GATE}` = '{WAITING}' and tags.`{MODEL}` LIKE 'models:/{name}/%'"))


@contextmanager
def _prefect(place: Place) -> "Iterator[SyncPrefectClient | None]":
    """A client of the Prefect server that others work with too; None where none answers: one of our own would know of no question."""
    try:
        address = find_server(place)
    except StoreError:
        address = None
    from prefect.client.orchestration import get_client  # this and the next: seconds, for who only wants the names of tags
    from prefect.settings import PREFECT_API_AUTH_STRING, PREFECT_API_URL, temporary_settings

    address = address or PREFECT_API_URL.value()
    if address is None:
        yield None
        return
    secret = os.environ.get(CLIENT) or PREFECT_API_AUTH_STRING.value()  # `find_server` has put it there, maybe after Prefect was imported
    with temporary_settings({PREFECT_API_URL: address, PREFECT_API_AUTH_STRING: secret}), get_client(sync_client=True) as client:
        yield client


def _state(client: "SyncPrefectClient", asked: Question) -> "State[Any] | None":
    from prefect.exceptions import ObjectNotFound  # as above

    try:
        return client.read_flow_run(UUID(asked.run)).state
    except ObjectNotFound:  # of a database that is gone
        return None
