"""What MLflow's pages show of an experiment before anybody has chosen columns there: a view saved with it, and the line above its runs.

MLflow keeps saved views as tags of the experiment (read in the pages of MLflow 3.17; its API names them nowhere). Which columns a page
shows without one is kept by each browser alone. Where another MLflow reads the tag otherwise, its pages are as they come.
"""

import json
from collections.abc import Sequence
from typing import Any

from mlflow import MlflowClient

from cl.names import as_key

VIEW = "evergreen"  # the view's id in addresses
NOTE = "mlflow.note.content"  # Markdown that MLflow shows as the description of an experiment or a run
_TAG, _NAME = f"mlflow.sharedViewState.{VIEW}", "Evergreen: method, score, version"
_SHOWN = ("last", "average", "forgetting", "zero_shot_drop")
_KINDS = ("", "classify/", "retrieve/")
# what MLflow's sidebar shows is kept by the browser, GenAI where nothing was chosen there, and an address overrules it: whatever an
# experiment is of, it says nothing itself (mlflow/mlflow#24498)
_CLASSICAL = "workflowType=machine_learning"
_CURVES = ("cl", "cl/classify", "cl/retrieve", "top1", "recall_at_10")  # sections of charts, the first to be seen first


def view(metrics: Sequence[str]) -> dict[str, Any]:
    """Columns that say method, scores and version, the newest run first, and charts that begin with the curves over sessions.

    `metrics`: the keys of those that the experiment's runs have.
    """
    wanted = [as_key(f"cl/{kind}{name}") for kind in _KINDS for name in _SHOWN]
    tags = ("evergreen.method", "evergreen.gate")
    sections = [{"uuid": f"{VIEW}-{name}", "name": name, "display": True, "isReordered": False} for name in _CURVES]
    return {
        "selectedColumns": [
            "attributes.`Models`",
            *(f"metrics.`{name}`" for name in wanted if name in metrics),
            *(f"tags.`{name}`" for name in tags),
        ],
        "compareRunCharts": [],  # each metric gets its own, in the section that it names
        "compareRunSections": sections,
        "isAccordionReordered": True,  # else the sections are put in the order of the alphabet
    }


def save_view(client: MlflowClient, experiment: str, metrics: Sequence[str]) -> None:
    """Save the view with an experiment, unless it is there as it would be."""
    own = client.get_experiment(experiment)
    moment = int(own.creation_time or 0)
    state = json.dumps(view(metrics))
    told = json.dumps({"name": _NAME, "createdAt": moment, "updatedAt": moment, "state": state})
    if own.tags.get(_TAG) != told:
        client.set_experiment_tag(experiment, _TAG, told)


def listed(client: MlflowClient, most: int = 3) -> list[tuple[str, str]]:
    """The experiments that have the view, the last changed first: name, and address behind the UI's own."""
    experiments = client.search_experiments(order_by=["last_update_time DESC"])
    return [(str(each.name), next(iter(pages(str(each.experiment_id)).values()))) for each in experiments if _TAG in each.tags][:most]


def run_page(experiment: str, run: str, artifact: str = "") -> str:
    """The address of a run's page, or of one of its artifacts, behind the UI's own."""
    return f"#/experiments/{experiment}/runs/{run}{artifact and f'/artifacts/{artifact}'}?{_CLASSICAL}"


def version_page(model: str, version: str) -> str:
    """The address of a version's page, behind the UI's own."""
    return f"#/models/{model}/versions/{version}?{_CLASSICAL}"


def pages(experiment: str) -> dict[str, str]:
    """The addresses of an experiment's runs as a table and as curves, behind the UI's own address."""
    runs = f"#/experiments/{experiment}/runs?{_CLASSICAL}&viewStateShareKey={VIEW}"
    return {"methods, scores, versions": runs, "curves": f"{runs}&compareRunsMode=CHART"}
