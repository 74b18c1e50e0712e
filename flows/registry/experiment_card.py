"""An experiment's card on MLflow's page of its runs."""

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException

from cl.names import in_markdown
from cl.reports.tables import line, percent
from flows.tracking.notes import describe_experiment, first_line
from flows.tracking.runs import KIND
from flows.tracking.views import NOTE, pages, run_page, save_view

_RUNS = 12  # that it lists


def describe_runs(client: MlflowClient, experiment: str, model: str, champion: ModelVersion | None) -> None:
    """Let the page of an experiment's runs open with its champion and what they came to; save the view with method, score, version."""
    runs = client.search_runs([experiment], f"tags.`{KIND}` != 'session'", max_results=50)
    save_view(client, experiment, sorted({name for run in runs for name in run.data.metrics}))
    says = _says(client, champion) if champion else ""
    opens = f"Champion {model}/{champion.version}{f': {says}' if says else ''}." if champion else "No champion yet."
    links = ", ".join(f"[{what}]({address})" for what, address in pages(experiment).items())
    rows = [
        f"| [{in_markdown(run.info.run_name)}]({run_page(experiment, run.info.run_id)})&emsp; | {told} |"
        for run in runs[:_RUNS]
        if (told := first_line(run.data.tags.get(NOTE)))
    ]
    table = ["", line(["run", "what came of it"]), line(["---", "---"]), *rows] if rows else []
    describe_experiment(client, experiment, "\n".join([f"{opens} Runs: {links}", *table]))


def describe_runs_of(client: MlflowClient, model: str, champion: ModelVersion) -> None:
    """The same of the experiment in which a new champion was learned; nothing where its run is gone."""
    try:
        experiment = client.get_run(str(champion.run_id)).info.experiment_id
    except MlflowException as error:
        if error.error_code in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            return
        raise
    describe_runs(client, experiment, model, champion)


def _says(client: MlflowClient, version: ModelVersion) -> str:
    """How a version's description begins; of one that has none, as earlier releases gave none, its method and its score."""
    if version.description or not version.run_id:
        return first_line(version.description)
    last = client.get_run(str(version.run_id)).data.metrics.get("cl/last")
    return in_markdown(f"{version.tags.get('evergreen.method', '')}{'' if last is None else f', {percent(last)} at the end'}")
