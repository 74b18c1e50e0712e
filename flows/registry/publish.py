"""What a finished stream leaves behind: a run in MLflow with report and model version, and two artifacts in Prefect."""

import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import yaml
from prefect import runtime, task

from cl.reports.card import headline
from cl.reports.items import whole
from cl.reports.markdown import markdown
from cl.reports.panels import version_of
from cl.reports.report import Report
from cl.run import bundle
from flows.learn.job import Job, planned, title, turns
from flows.learn.run_page import open_with
from flows.learn.session import RETRIED, report_of, tracker_of
from flows.registry.champion import stands
from flows.registry.package import register
from flows.registry.question import ANSWER, GATE, QUESTION
from flows.tracking.reap import reap_runs
from flows.tracking.runs import COMMAND, MODEL, SESSIONS, STATE, locked, slug
from flows.watch import log


@contextmanager
def tracked(job: Job) -> Iterator[str]:
    """The stream's run in MLflow, for one process at a time; it ends as what happens inside ends."""

    def waiting() -> None:
        log(f"{title(job)}: another process is learning this; waiting for it")

    with locked(job.place, f"{turns(job)[-1].key}.lock", waiting):
        tracker = tracker_of(job)
        with tracker.answering():
            run = open_run(job)
            with tracker.ending(run):
                yield run


@task(task_run_name="open the run", **RETRIED)
def open_run(job: Job) -> str:
    """The id of the stream's run in MLflow: found by its content key, or made with its settings and its data."""
    tracker = tracker_of(job)
    reap_runs(job.place, tracker.client)
    tags = job.tags() | {SESSIONS: str(turns(job)[-1].index), COMMAND: own_command()}
    run, new = tracker.open(turns(job)[-1].key, "stream", title(job), tags, job.settings)
    if new:
        tracker.use_data(run, job.folder, job.data, {"pinned": str(job.pinned), **({"rev": job.rev} if job.rev else {})})
    return run


def own_command() -> str:
    """What to type for this flow run."""
    return command(runtime.flow_run.flow_name, runtime.flow_run.parameters)


def command(flow: str | None, parameters: dict[str, Any]) -> str:
    """What to type for the same flow run; nothing where its settings were not in a file.

    >>> command("learn-stream", {"config": "glyphs", "overrides": ["seed=1"], "data_root": None})
    'evergreen run glyphs --set seed=1'
    """
    config = parameters.get("config")
    if not isinstance(config, str):
        return ""
    options = [("--set", setting) for setting in parameters.get("overrides") or []]
    options += [(f"--{name.replace('_', '-')}", parameters[name]) for name in ("data_root", "data_rev") if parameters.get(name)]
    return shlex.join(["evergreen", "update" if flow == "update" else "run", config, *(word for option in options for word in option)])


@task(task_run_name="publish", **RETRIED)
def publish(job: Job, run_id: str, steps: list[dict[str, Any]]) -> None:
    """Everything about the whole stream: matrix, tables, figures, report, settings, and the model as a new version."""
    tracker, last = tracker_of(job), len(steps) - 1

    def registered() -> None:
        tags = job.tags() | {STATE: planned(job).states[last]}
        register(tracker, run_id, job.settings["name"], bundle(planned(job), last, job.place.steps), last, tags)

    if tracker.logged(run_id):
        tags = tracker.client.get_run(run_id).data.tags
        if not stands(tracker.client, tags.get(MODEL)):  # it was deleted in MLflow since, and what was said was said of that one
            for said in {GATE, QUESTION, ANSWER} & tags.keys():
                tracker.client.delete_tag(run_id, said)
            registered()
        return
    tracker.write(run_id, whole(report_of(job, steps)))
    tracker.client.log_text(run_id, yaml.safe_dump(job.settings, sort_keys=False), "config.yaml")
    registered()
    tracker.mark(run_id)


@task(task_run_name="show", **RETRIED)
def show(job: Job, noted: dict[str, Any]) -> None:
    """The report as the Markdown page that the page of the Prefect run opens with, and what came of it beside the run's name."""
    report = Report.from_json(noted)
    told = version_of(report)["text"] if report.version else title(job)
    tags = [str(report.gate.get("word", "")), report.version, headline(report).partition(":")[0]]
    open_with(f"{slug(title(job))}-report", markdown([report]), f"{headline(report)}; {told}", tags)
