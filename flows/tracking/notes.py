"""What is said of experiments, runs, models and versions where MLflow shows a description: Markdown, written anew as things change.

What a person wrote there instead is left alone: ours ends in a line that says so.
"""

from mlflow import MlflowClient

from cl.names import in_markdown
from cl.reports.card import cut
from flows.tracking.views import NOTE

OURS = "*Evergreen writes this anew as things change; without this line it leaves the text alone.*"


def renewed(old: str | None, new: str) -> str | None:
    """The new text, None where the old one is the same or a person's."""
    text = f"{cut(new.splitlines())}\n{OURS}"
    return text if (not old or not old.strip() or old.rstrip().endswith(OURS)) and old != text else None


def describe_run(client: MlflowClient, run_id: str, text: str) -> None:
    """Let a run's page open with a text."""
    if told := renewed(client.get_run(run_id).data.tags.get(NOTE), text):
        client.set_tag(run_id, NOTE, told)


def reopen(client: MlflowClient, run_id: str, opening: str) -> None:
    """Let a run's page open with another line, and go on as it did."""
    _, _, rest = client.get_run(run_id).data.tags.get(NOTE, "").removesuffix(OURS).partition("\n")
    describe_run(client, run_id, f"{opening}\n{rest}")


def describe_experiment(client: MlflowClient, experiment: str, text: str) -> None:
    """Let the page of an experiment's runs open with a text, of which it shows the first line."""
    if told := renewed(client.get_experiment(experiment).tags.get(NOTE), text):
        client.set_experiment_tag(experiment, NOTE, told)


def describe_version(client: MlflowClient, name: str, version: str, text: str) -> None:
    """Let a version's page open with a text, whose first words stand in the list of versions too."""
    if told := renewed(client.get_model_version(name, version).description, text):
        client.update_model_version(name, version, told)


def describe_model(client: MlflowClient, name: str, text: str) -> None:
    """Let a model's page open with a text."""
    if told := renewed(client.get_registered_model(name).description, text):
        client.update_registered_model(name, told)


def first_line(text: str | None) -> str:
    """How a description begins, as Markdown that fits into a table; nothing where there is none."""
    told = (text or "").strip()
    begins = told.partition("\n")[0]
    return begins if told.endswith(OURS) else in_markdown(begins)
