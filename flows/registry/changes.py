"""Changes of aliases as tags of a registered model: what there is of a model's past where no history of it is kept."""

import json
from dataclasses import asdict, dataclass
from typing import Any, Literal

from mlflow import MlflowClient

HISTORY = "mlflow.evergreen.history."  # MLflow's pages show no tag of a model whose name begins with its own
_SHOWN = "evergreen.history."  # as they began before: still read, and put out of sight by the next change


@dataclass(frozen=True)
class Change:
    """One change of an alias; `intended` only between its note and its confirmation, or after a crash between them."""

    when: str
    who: str
    alias: str
    before: str | None
    after: str
    why: str
    state: Literal["intended", "done", "abandoned"]
    number: int = 0  # what happened first has the lower one, whatever the clock said; 0: from before there were numbers


def noted(client: MlflowClient, name: str) -> list[tuple[str, Change]]:
    """Every change of a model that was noted, with the tag's name, oldest first; one that stands under both names counts once."""
    tags: dict[str, Any] = client.get_registered_model(name).tags
    hidden = {key.removeprefix(HISTORY) for key in tags if key.startswith(HISTORY)}
    kept = [key for key in tags if key.startswith(HISTORY) or (key.startswith(_SHOWN) and key.removeprefix(_SHOWN) not in hidden)]
    return sorted(((key, Change(**json.loads(tags[key]))) for key in kept), key=lambda entry: (entry[1].number, entry[1].when))


def note(client: MlflowClient, name: str, key: str, made: Change) -> None:
    """Keep a change under the name of a tag."""
    client.set_registered_model_tag(name, key, json.dumps(asdict(made)))


def hide(client: MlflowClient, name: str) -> None:
    """Put out of sight what earlier releases noted in sight; killed between the two, the same change is there twice."""
    for key, value in client.get_registered_model(name).tags.items():
        if key.startswith(_SHOWN):
            client.set_registered_model_tag(name, f"{HISTORY}{key.removeprefix(_SHOWN)}", value)
            client.delete_registered_model_tag(name, key)
