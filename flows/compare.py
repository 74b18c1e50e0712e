"""The flow that learns one stream with several methods and seeds, and says in one report how they compare."""

import gc
import hashlib
import os
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from prefect import flow, task
from prefect.cache_policies import NO_CACHE
from prefect.futures import PrefectFuture, as_completed
from prefect.task_runners import ProcessPoolTaskRunner, TaskRunner

from cl.errors import ConfigError
from cl.reports.card import compared_card, headline
from cl.reports.items import compared
from cl.reports.markdown import markdown
from cl.reports.report import Report
from cl.reports.write import write
from cl.run_config import CompareConfig, parse_method
from flows.learn.configs import settings
from flows.learn.job import Job, check_methods, jobs_of, label, planned, title
from flows.learn.pulse import followed
from flows.learn.run_page import open_with, run_name
from flows.learn.session import RETRIED, tracker_of
from flows.registry.cards import tell_experiment
from flows.registry.pages import shown
from flows.servers.children import begin_worker
from flows.settings import Place, quiet
from flows.stream import Config, learn_stream
from flows.tracking.notes import describe_run
from flows.tracking.reap import alive
from flows.tracking.runs import COMPARISON, locked, slug
from flows.tracking.views import run_page
from flows.watch import watch


@flow(name="compare", flow_run_name=run_name)
def compare(
    config: Config = "glyphs", overrides: list[str] | None = None, data_root: str | None = None, data_rev: str | None = None
) -> dict[str, Any]:
    """Learn a stream with every method and seed of the config's `compare` section, `parallel` of them at once.

    Args:
        config: a YAML file, the name of a shipped one, or the settings themselves.
        overrides: settings to change for all of them, such as "train.epochs=2".
        data_root: the folder that holds the data sets; by default the project's `data`.
        data_rev: a git revision whose version of the data to learn from.
    """
    quiet()
    with alive(Place.find()):
        jobs = jobs_of(config, overrides or [], data_root, data_rev)
        lengths = check_methods(jobs)
        for remark in planned(jobs[0]).remarks():
            watch().tell(f"{jobs[0].settings['name']}: {remark}")
        wanted = settings(config, overrides or [], Place.find()).compare
        if wanted is None:
            watch().tell(alone(jobs[0]))
        first = sorted(range(len(jobs)), key=lambda at: -lengths[label(jobs[at])])  # or the longest could be left to the end, alone
        learned = learn_all(jobs, wanted, data_root, data_rev, first)
        return {"run": publish_comparison(jobs[0], learned), "reports": [stream["report"] for stream in learned]}


def alone(job: Job) -> str:
    """What is told of a config that compares nothing."""
    name, method = job.settings["name"], job.settings["method"]["name"]
    bare = parse_method({"name": method}, "config").model_dump(mode="json") == job.settings["method"]
    own = method if bare else f"<{method} as it is set here>"  # by its name alone it would be another
    beside = ", ".join(dict.fromkeys(("zero_shot", "finetune", own, "joint")))
    return f"{name}: without a compare section {method} stands alone; compare: {{methods: [{beside}]}} puts it beside what it has to beat"


def learn_all(
    jobs: list[Job], wanted: CompareConfig | None, data_root: str | None, data_rev: str | None, first: Sequence[int]
) -> list[dict[str, Any]]:
    """What each job learned; on one machine they together use no more threads than cores, unless the config says how many.

    Args:
        jobs: the streams.
        wanted: how many at once, and where.
        data_root: the folder that holds the data sets.
        data_rev: a git revision of the data.
        first: places of the jobs in the order in which they begin.
    """
    workers = min(wanted.parallel, len(jobs)) if wanted else 1
    if wanted is None or (workers == 1 and wanted.runner == "processes"):
        return [learn_stream(job.settings, [], data_root, data_rev, promote=False) for job in jobs]
    share = max(1, (os.cpu_count() or 1) // workers)  # more threads than cores slow each other down
    with runner(wanted.runner, workers, wanted.cluster) as running, followed(jobs[0].place, [title(job) for job in jobs], watch()):
        common = {"data_root": data_root, "data_rev": data_rev, "threads": share}
        waiting, under_way, learned = deque(first), dict[PrefectFuture[Any], int](), dict[int, dict[str, Any]]()
        while waiting or under_way:
            # a pool of processes begins what it is given at once in any order: it has never more than one that cannot begin yet
            while waiting and (len(under_way) <= workers or wanted.runner != "processes"):
                place = waiting.popleft()
                under_way[running.submit(learn_one, {"job": jobs[place], **common})] = place
            watch().progress(len(learned), len(jobs), f"streams learned, {workers} at once")
            done = next(as_completed(list(under_way)))
            place = under_way.pop(done)
            learned[place] = done.result()
            watch().tell(f"{title(jobs[place])}: learned")
        return [learned[place] for place in range(len(jobs))]


def runner(kind: str, workers: int, cluster: str | None) -> TaskRunner[Any]:
    """Who runs tasks side by side: processes of this machine, or a cluster, which has to see the project folder too.

    Raises:
        ConfigError: the library of that kind of cluster is not installed.
    """
    try:
        if kind == "dask":
            from prefect_dask import DaskTaskRunner  # an extra of the package

            local = {"n_workers": workers, "threads_per_worker": 1}
            return DaskTaskRunner(address=cluster) if cluster else DaskTaskRunner(cluster_kwargs=local)
        if kind == "ray":
            from prefect_ray import RayTaskRunner  # an extra of the package

            return RayTaskRunner(address=cluster) if cluster else RayTaskRunner(init_kwargs={"num_cpus": workers})
    except ImportError as error:
        raise ConfigError(f"compare.runner: {kind} needs a package that is not installed; pip install 'evergreen-clip[{kind}]'") from error
    return ProcessPoolTaskRunner(max_workers=workers, initializer=begin_worker, initargs=(os.getpid(),))


@task(name="learn-one", task_run_name="{job.settings[name]}", cache_policy=NO_CACHE)
def learn_one(job: Job, data_root: str | None, data_rev: str | None, threads: int) -> dict[str, Any]:
    """One stream, in a process of its own."""
    gc.enable()  # all is imported
    torch.set_num_threads(threads)
    return learn_stream(job.settings, [], data_root, data_rev, promote=False)


@task(task_run_name="publish", **RETRIED)
def publish_comparison(job: Job, learned: list[dict[str, Any]]) -> str:
    """One report over all streams: in MLflow as a run that the streams' runs point to, with each method's mean, and in Prefect."""
    reports = [Report.from_json(stream["report"]) for stream in learned]
    tracker, name = tracker_of(job), job.settings["name"]
    key = hashlib.sha256(" ".join(stream["key"] for stream in learned).encode()).hexdigest()[:24]
    with locked(job.place, f"{key}.lock"):
        run, _ = tracker.open(key, "comparison", f"{name} comparison", {"evergreen.stream": name, "evergreen.data": job.data}, {})
        with tracker.ending(run):
            seen = {method: compared for stream in reversed(learned) for method, compared in shown(job.place, stream["run"]).items()}
            write(reports, job.place.reports / run, seen)  # images of the first seed of each method
            tracker.client.log_artifacts(run, str(job.place.reports / run), "report")
            # dated by what was learned, so that the same comparison again writes the same points
            tracker.write(run, compared(reports), max(report.provenance.started for report in reports))
            for stream in learned:
                tracker.client.set_tag(stream["run"], COMPARISON, run)
            pages = [run_page(tracker.experiment, stream["run"]) for stream in learned]
            describe_run(tracker.client, run, compared_card(reports, pages))
            tell_experiment(tracker, slug(name))
    heads = [headline(report) for report in reports]
    open_with(f"{slug(name)}-comparison", markdown(reports), f"{name}: {'; '.join(heads)}", heads)
    return run
