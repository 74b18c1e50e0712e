"""Which versions hold a session: by the histories of models, and by the steps of runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from flows.history.entries import history_of
from flows.history.standing import Standing, chain
from flows.project import own_models
from flows.registry.champion import versions_of
from flows.removal.prune import versions_in
from flows.removal.spare import histories
from flows.settings import Place
from flows.tracking.runs import STATE

if TYPE_CHECKING:
    from mlflow import MlflowClient


def holding(place: Place, client: "MlflowClient", model: str, standing: Standing, session: str, ran: Mapping[str, set[str]]) -> set[str]:
    """The versions of a model whose states have learned a session, by its history and by the steps of runs."""
    held = versions_in(history_of(place, model).read())
    if model in own_models(place, client):
        held |= {str(each.version): each.tags[STATE] for each in versions_of(client, model) if STATE in each.tags}
    return {number for number, state in held.items() if session in taught(standing, state) | ran.get(state, set())}


def ran_sessions(place: Place) -> tuple[dict[str, set[str]], list[Path]]:
    """The sessions of each state that a run made, and the steps that cannot be read."""
    steps, unread = {}, []
    for file in (place.steps / "steps").glob("*/result.json"):
        try:
            said = json.loads(file.read_text(encoding="utf-8"))
            steps[said["key"]] = (said["state"], said["parent"], said["session"])
        except (OSError, ValueError, KeyError, TypeError):
            unread.append(file)
    sessions: dict[str, set[str]] = {}
    for key in steps:
        own, now = set(), key
        while now in steps:
            own.add(steps[now][2])
            now = steps[now][1] if steps[now][1] != now else ""
        sessions[steps[key][0]] = own
    return sessions, unread


def elsewhere(place: Place, client: "MlflowClient", session: str, ran: Mapping[str, set[str]]) -> list[str]:
    """The versions that hold a session, of models that have no history."""
    known = set(histories(place))
    names = [name for name in own_models(place, client) if name not in known]
    return [
        f"{name}/{each.version}" for name in names for each in versions_of(client, name) if session in ran.get(each.tags.get(STATE, ""), ())
    ]


def taught(standing: Standing, state: str | None, *more: str) -> set[str]:
    """The sessions that a state has learned, and `more`."""
    return {*more, *(learned.session for learned in chain(standing, state))}
