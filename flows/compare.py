"""The flow that learns one stream with several methods and seeds, and says in one report how they compare."""

import hashlib
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_markdown_artifact

from flows.job import Job, jobs_of
from flows.session import RETRIED, tracker_of
from flows.settings import quiet
from flows.stream import Config, learn_stream, run_name


@flow(name="compare", flow_run_name=run_name)
def compare(
    config: Config = "glyphs", overrides: list[str] | None = None, data_root: str | None = None, data_rev: str | None = None
) -> dict[str, Any]:
    """Learn a stream with every method and seed of the config's `compare` section, one after the other.

    Args:
        config: a YAML file, the name of a shipped one, or the settings themselves.
        overrides: settings to change for all of them, such as "train.epochs=2".
        data_root: the folder that holds the data sets; by default the project's `data`.
        data_rev: a git revision whose version of the data to learn from.
    """
    quiet()
    jobs = jobs_of(config, overrides or [], data_root, data_rev)
    learned = [learn_stream(job.settings, [], data_root, data_rev) for job in jobs]
    return {"run": publish_comparison(jobs[0], learned), "reports": [stream["report"] for stream in learned]}


@task(task_run_name="publish", **RETRIED)
def publish_comparison(job: Job, learned: list[dict[str, Any]]) -> str:
    """One report over all streams: in MLflow as a run of its own that the streams' runs point to, and in Prefect."""
    from cl.report import Report, markdown, write
    from flows.tracking import COMPARISON, slug

    reports = [Report.from_json(stream["report"]) for stream in learned]
    tracker, name = tracker_of(job), job.settings["name"]
    key = hashlib.sha256(" ".join(stream["key"] for stream in learned).encode()).hexdigest()[:24]
    run, _ = tracker.open(key, "comparison", f"{name} comparison", {"evergreen.stream": name, "evergreen.data": job.data}, {})
    with tracker.ending(run):
        write(reports, job.place.reports / run)
        tracker.client.log_artifacts(run, str(job.place.reports / run), "report")
        for stream in learned:
            tracker.client.set_tag(stream["run"], COMPARISON, run)
    create_markdown_artifact(key=f"{slug(name)}-comparison", markdown=markdown(reports), description=f"{name}: all methods")
    return run
