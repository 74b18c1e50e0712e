"""Cards: what a stream's run, a version and an experiment say of themselves on MLflow's pages."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from cl.names import in_markdown
from cl.reports.card import card
from cl.reports.report import Report
from flows.registry.champion import CHAMPION, holder, versions_of
from flows.registry.experiment_card import describe_runs
from flows.registry.model_card import describe
from flows.tracking.notes import describe_run, describe_version
from flows.tracking.runs import Tracker
from flows.tracking.views import run_page, version_page


def tell(tracker: Tracker, run_id: str, report: Report, folder: Path, *, above: str | None = None) -> None:
    """Say on the pages of a run, its version, their model and their experiment what the run came to.

    Args:
        tracker: of the experiment.
        run_id: the run that holds the report.
        report: with its version and what the gate said of that.
        folder: where its files lie.
        above: a run that says it too, the model's where `run_id` is a session's.
    """
    text = run_card(tracker, run_id, report, folder)
    for run in (run_id, above) if above else (run_id,):
        describe_run(tracker.client, run, text)
    name, _, version = report.version.rpartition("/")
    if version:
        describe_version(tracker.client, name, version, version_card(report))
        describe(tracker.client, name, versions_of(tracker.client, name))
    tell_experiment(tracker, name)


def tell_experiment(tracker: Tracker, model: str) -> None:
    """Let the page of an experiment's runs open with its champion and what they came to; save the view with method, score, version."""
    describe_runs(tracker.client, tracker.experiment, model, holder(tracker.client, model, CHAMPION) if model else None)


def run_card(tracker: Tracker, run_id: str, report: Report, folder: Path) -> str:
    """A run's card, and where its version and its report are found."""
    links = [f"[report]({run_page(tracker.experiment, run_id, 'report/report.html')})"]
    if report.version:
        name, _, version = report.version.rpartition("/")
        links.insert(0, f"[version {version} of {name}]({version_page(name, version)})")
    return f"{card(report)}\n{', '.join(links)}; the report is also in {in_markdown(str(folder / 'report.html'))}\n"


def version_card(report: Report) -> str:
    """A version's card, how it is asked, where it comes from, and under which licence what it grew from stands."""
    name, _, version = report.version.rpartition("/")
    source = report.provenance
    asked = ["```sh", f"evergreen predict IMAGE --model {name}/{version}", f"evergreen lineage {name}/{version}", "```"]
    facts = f"Base model {source.base_model}; data {source.data}."
    return "\n".join([card(report), *asked, "", in_markdown(facts), "", in_markdown(licence(source.config.get("model", {})))])


def licence(model: Mapping[str, Any]) -> str:
    """What is known of the licence of a base model, which holds for what grew from it too.

    >>> licence({"name": "ViT-B-32", "pretrained": "openai"})
    'Licence of the base model: MIT, as OpenAI gave it.'
    """
    name, weights = str(model.get("name", "")), model.get("pretrained")
    if name in ("glyph_base", "tiny"):
        known = "Apache-2.0, as Evergreen's, which it comes with"
    elif weights == "openai":
        known = "MIT, as OpenAI gave it"
    elif name.startswith("hf-hub:"):
        known = f"what the page of {name.removeprefix('hf-hub:')} at huggingface.co says"
    else:
        known = f"not known here; it is what those say who gave {weights or name}"
    return f"Licence of the base model: {known}."
