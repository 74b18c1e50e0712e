"""The stream of a version that `run` made, as it was then: its settings, and of a collection the sessions there were."""

from mlflow.entities.model_registry import ModelVersion

from cl.plain_yaml import parse
from flows.learn.job import Job, job_of
from flows.registry.lineage import report_of, text_of


def as_learned(version: ModelVersion, data_root: str | None = None, rev: str | None = None) -> Job:
    """The job that a version of `run` came of, over the data as they are now or at a git revision; one of `update` came of a history.

    Raises:
        StoreError: its run or what that left is gone.
        ConfigError, DataError: its settings are not valid any more, or there is no such data.
    """
    settings = parse(text_of(version, "config.yaml"), f"config.yaml of {version.name}/{version.version}")
    if settings["stream"]["kind"] == "collection":
        settings["stream"]["until"] = sum(session > 0 for session in report_of(version).matrix.taught)  # each session has one set
    return job_of(settings, (), data_root, rev or version.tags.get("evergreen.data_rev"))
