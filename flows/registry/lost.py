"""A model whose history is gone: what is left of it, and what to do."""

from mlflow import MlflowClient

from flows.history.entries import history_of
from flows.registry.champion import CHAMPION, holder
from flows.settings import Place
from flows.tracking.runs import KIND, STATE


def lost(place: Place, client: MlflowClient, name: str) -> str | None:
    """What to say of a model that has no history here and whose champion `update` made; None: nothing says that it ever had one."""
    held = holder(client, name, CHAMPION)
    if held is None or client.get_run(str(held.run_id)).data.tags.get(KIND) != "session":
        return None
    file, state = history_of(place, name).path, place.steps / "states" / held.tags.get(STATE, "-")
    told = f"model {name}: version {held.version} is its champion, which `evergreen update` made, and its history {file} is not here"
    if state.is_dir():
        return (
            f"{told}, though what it learned is: put a copy of that file back (the one file that cannot be made again), or give the config "
            "another name, which begins anew"
        )
    return f"{told}, nor is what it learned; share the folder {place.runs} of the machine that learned it, or give the config another name"
